// attention_i8_64x64_v2 on one AIE2 core: one tile a call, bit for bit as reference.py has it.
//
// Q, K and V arrive row by row with the temperature behind them, and are put into blocks of 8 x 8 here: a DMA's pattern
// holds for a whole tile, whose length is not a multiple of blocks. O leaves in blocks ([row of blocks][column of
// blocks][8][8]), which the memory tile's DMA undoes. Work goes in strips of 8 queries.

#include <aie_api/aie.hpp>

#include "hetero_softmax.hpp"

namespace {

using namespace hetero;

constexpr unsigned TILE = SIDE * STRIP;

void strip_output(const int16_t *__restrict weights, const int8_t *__restrict v, const Reciprocal *shares,
                  int8_t *__restrict o) {
    HETERO_LOOP_KEEP
    for (unsigned feature = 0; feature < SIDE; ++feature)
        for (unsigned pair = 0; pair < SIDE / 2; ++pair) {
            const auto sums = weigh(weights, v, pair, feature).to_vector<int32_t>();
            aie::vector<int32_t, 16> scaled;
            for (unsigned i = 0; i < 2; ++i) {
                const Reciprocal &share = shares[2 * pair + i];
                const auto product = aie::mul<acc64>(sums.extract<SIDE>(i), share.mantissa);
                scaled.insert(i, product.to_vector<int32_t>(29 + share.shift));
            }
            aie::store_v(o + feature * BLOCK + pair * 16, converted<int8_t>(scaled));
        }
}

}  // namespace

// in: Q, K and V, 64 x 64 int8 each, and the temperature, an int32; out: O, in blocks.
HETERO_KERNEL void attention_i8_64x64_v2(const int8_t *__restrict in, int8_t *__restrict out) {
    softmax_modes();
    alignas(aie::vector_decl_align) int8_t k[TILE];
    alignas(aie::vector_decl_align) int8_t v[TILE];
    alignas(aie::vector_decl_align) int8_t q[STRIP];
    HETERO_LOOP_KEEP
    for (unsigned strip = 0; strip < SIDE; ++strip) {
        block_strip(in + TILE + strip * STRIP, k + strip * STRIP);
        block_strip(in + 2 * TILE + strip * STRIP, v + strip * STRIP);
    }
    const int32_t temperature = *reinterpret_cast<const int32_t *>(in + 3 * TILE);
    alignas(aie::vector_decl_align) int32_t scores[STRIP];
    alignas(aie::vector_decl_align) int16_t weights[STRIP];
    HETERO_LOOP_KEEP
    for (unsigned strip = 0; strip < SIDE; ++strip) {
        block_strip(in + strip * STRIP, q);
        strip_scores(q, k, scores);
        Reciprocal shares[SIDE];
        HETERO_LOOP_KEEP
        for (unsigned row = 0; row < SIDE; ++row) {
            int32_t *exponents = scores + row * BLOCK;
            const int32_t scale = scale_of(row_exponents(exponents, temperature, BLOCK));
            shares[row] = reciprocal(row_weights(exponents, scale, weights + row * SIDE));
        }
        strip_output(weights, v, shares, out + strip * STRIP);
    }
}
