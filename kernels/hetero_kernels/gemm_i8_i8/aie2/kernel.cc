// gemm_i8_i8 on one AIE2 core: the sum of 64 x 64 blocks along K, then bias and scale, bit for bit as reference.py.

#include <aie_api/aie.hpp>

#include "hetero_gemm.hpp"
#include "hetero_vector.hpp"

using namespace hetero;

namespace {

// Where the memory tile puts byte `at` of a matrix of rows of 64 bytes: into its block of 8 x 8.
constexpr unsigned placed(unsigned at) {
    const unsigned row = at / GEMM_BLOCK, column = at % GEMM_BLOCK / GEMM_SIDE;
    return (row / GEMM_SIDE * GEMM_SIDE + column) * GEMM_BLOCK + row % GEMM_SIDE * GEMM_SIDE + at % GEMM_SIDE;
}

constexpr unsigned MULTIPLIERS = sizeof(int32_t) * GEMM_BLOCK;
constexpr unsigned SHIFT = MULTIPLIERS + sizeof(int16_t) * GEMM_BLOCK;

}  // namespace

// Before the first block along K.
HETERO_KERNEL void gemm_i8_i8_begin(int32_t *__restrict sums) { gemm_clear(sums); }

// sums += a w.
HETERO_KERNEL void gemm_i8_i8_block(const int8_t *__restrict a, const int8_t *__restrict w, int32_t *__restrict sums) {
    gemm_block(a, w, sums);
}

// After the last block. `channels` came as another block of weights: 64 biases (int32), their multipliers (int16) and
// the shift (int8), one behind the other, and then cut into blocks of 8 x 8.
HETERO_KERNEL void gemm_i8_i8_end(const int32_t *__restrict sums, const int8_t *__restrict channels,
                                  int8_t *__restrict c) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int given = channels[placed(SHIFT)];
    const int shift = given < 0 ? 0 : given > 47 ? 47 : given;
    for (unsigned column = 0; column < GEMM_SIDE; ++column) {
        alignas(aie::vector_decl_align) int32_t biases[GEMM_SIDE];
        alignas(aie::vector_decl_align) int16_t multipliers[GEMM_SIDE];
        for (unsigned i = 0; i < GEMM_SIDE; ++i) {
            const unsigned channel = column * GEMM_SIDE + i;
            biases[i] = *reinterpret_cast<const int32_t *>(channels + placed(sizeof(int32_t) * channel));
            multipliers[i] =
                *reinterpret_cast<const int16_t *>(channels + placed(MULTIPLIERS + sizeof(int16_t) * channel));
        }
        const auto bias8 = aie::load_v<GEMM_SIDE>(biases);
        const auto multiplier8 = aie::load_v<GEMM_SIDE>(multipliers);
        const auto bias = aie::concat(bias8, bias8);
        const auto multiplier = aie::concat(multiplier8, multiplier8);
        HETERO_LOOP_KEEP
        for (unsigned row = 0; row < GEMM_SIDE; ++row) {
            const unsigned at = (row * GEMM_SIDE + column) * GEMM_BLOCK;
            for (unsigned pair = 0; pair < GEMM_BLOCK; pair += 16) {
                // The sum wraps, as the reference says.
                const auto sum = aie::add(aie::load_v<16>(sums + at + pair), bias);
                const auto scaled = aie::mul<acc64>(sum, multiplier).to_vector<int32_t>(shift);
                aie::store_v(c + at + pair, converted<int8_t>(scaled));
            }
        }
    }
}
