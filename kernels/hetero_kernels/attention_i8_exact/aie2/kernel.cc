// attention_i8_exact on one AIE2 core: 64 queries against one block of 64 keys a call, bit for bit as reference.py.
//
// A query packet is Q in blocks of 8 x 8 (4,096 bytes), 64 temperatures and the number of valid keys (int32), which come
// as 8 rows of 64 bytes more and are cut into blocks as well; a key packet is K and V in blocks. The state lies in the
// core from the first block of keys to the last: the 64 sums of each query, row by row, each query's total and scale,
// and the number of the block.

#include <aie_api/aie.hpp>

#include "hetero_softmax.hpp"

namespace {

using namespace hetero;

constexpr unsigned TILE = SIDE * STRIP;
constexpr int SUM_SHIFT = 4;
constexpr int OUTPUT_BITS = 8;
constexpr int32_t LOWEST = -(1 << 20);  // below every scale; what is shifted from there is 0

// Offsets in the state, in int32.
constexpr unsigned SUMS = 0;
constexpr unsigned TOTALS = SUMS + TILE;
constexpr unsigned SCALES = TOTALS + BLOCK;
constexpr unsigned NUMBER = SCALES + BLOCK;

using Row = aie::vector<int32_t, 16>;

// Where the memory tile puts word `at` of 8 rows of 64 bytes: into its block of 8 x 8 bytes.
constexpr unsigned placed(unsigned at) {
    constexpr unsigned EIGHT_BYTES = 2, ROW = SIDE * EIGHT_BYTES, WHOLE_BLOCK = SIDE * EIGHT_BYTES;
    return at % ROW / EIGHT_BYTES * WHOLE_BLOCK + at / ROW * EIGHT_BYTES + at % EIGHT_BYTES;
}

// What a query has summed so far gives way to a larger scale.
void lower(int32_t *__restrict sums, int32_t *__restrict total, int32_t rise) {
    const int shift = rise < 31 ? int(rise) : 31;
    *total = shift_round(*total, shift);
    for (unsigned i = 0; i < BLOCK; i += Row::size())
        aie::store_v(sums + i, aie::accum<acc64, 16>(aie::load_v<16>(sums + i)).to_vector<int32_t>(shift));
}

void add_strip(const int16_t *__restrict weights, const int8_t *__restrict v, int32_t *__restrict sums) {
    HETERO_LOOP_KEEP
    for (unsigned feature = 0; feature < SIDE; ++feature)
        for (unsigned pair = 0; pair < SIDE / 2; ++pair) {
            // 32 bits leave an accumulator of 32 as they are: the shift takes one of 64.
            const Row whole = weigh(weights, v, pair, feature).to_vector<int32_t>();
            const Row parts = aie::accum<acc64, 16>(whole).to_vector<int32_t>(SUM_SHIFT);
            for (unsigned i = 0; i < 2; ++i) {
                int32_t *place = sums + (2 * pair + i) * BLOCK + feature * SIDE;
                aie::store_v(place, aie::add(aie::load_v<SIDE>(place), parts.extract<SIDE>(i)));
            }
        }
}

}  // namespace

// Before the first block of keys of a query packet.
HETERO_KERNEL void attention_i8_exact_begin(int32_t *__restrict state) {
    const Row zeros = aie::zeros<int32_t, 16>();
    for (unsigned i = 0; i < TILE + BLOCK; i += Row::size()) aie::store_v(state + i, zeros);
    const Row lowest = aie::broadcast<int32_t, 16>(LOWEST);
    for (unsigned i = 0; i < BLOCK; i += Row::size()) aie::store_v(state + SCALES + i, lowest);
    state[NUMBER] = 0;
}

// Each block of keys in turn; one that holds no valid key changes nothing.
HETERO_KERNEL void attention_i8_exact_block(const int8_t *__restrict queries, const int8_t *__restrict keys,
                                            int32_t *__restrict state) {
    softmax_modes();
    const int32_t *words = reinterpret_cast<const int32_t *>(queries + TILE);
    const int32_t valid = words[placed(BLOCK)] - int32_t(BLOCK) * state[NUMBER];
    state[NUMBER] += 1;
    if (valid <= 0) return;
    const unsigned counted = valid < int32_t(BLOCK) ? unsigned(valid) : BLOCK;
    alignas(aie::vector_decl_align) int32_t scores[STRIP];
    alignas(aie::vector_decl_align) int16_t weights[STRIP];
    HETERO_LOOP_KEEP
    for (unsigned strip = 0; strip < SIDE; ++strip) {
        strip_scores(queries + strip * STRIP, keys, scores);
        HETERO_LOOP_KEEP
        for (unsigned row = 0; row < SIDE; ++row) {
            const unsigned query = strip * SIDE + row;
            int32_t *exponents = scores + row * BLOCK;
            const int32_t scale = scale_of(row_exponents(exponents, words[placed(query)], counted));
            const int32_t rise = scale - state[SCALES + query];
            if (rise > 0) {
                lower(state + SUMS + query * BLOCK, state + TOTALS + query, rise);
                state[SCALES + query] = scale;
            }
            state[TOTALS + query] += row_weights(exponents, state[SCALES + query], weights + row * SIDE);
        }
        add_strip(weights, keys + TILE, state + SUMS + strip * SIDE * BLOCK);
    }
}

// After the last block of keys: 64 x 64 int16, row by row.
HETERO_KERNEL void attention_i8_exact_end(const int32_t *__restrict state, int16_t *__restrict out) {
    softmax_modes();
    for (unsigned query = 0; query < BLOCK; ++query) {
        const int32_t total = state[TOTALS + query];
        const Reciprocal share = total > 0 ? reciprocal(total) : Reciprocal{0, 0};
        for (unsigned i = 0; i < BLOCK; i += Row::size()) {
            const Row sums = aie::load_v<16>(state + SUMS + query * BLOCK + i);
            const auto product = aie::mul<acc64>(sums, share.mantissa);
            aie::store_v(out + query * BLOCK + i,
                         product.to_vector<int16_t>(29 - OUTPUT_BITS - SUM_SHIFT + share.shift));
        }
    }
}
