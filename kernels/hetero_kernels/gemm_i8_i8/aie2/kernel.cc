// gemm_i8_i8 on one AIE2 core: the sum of 64 x 64 blocks along K, then bias and scale, bit for bit as reference.py.

#include <aie_api/aie.hpp>

#include "hetero_gemm.hpp"
#include "hetero_vector.hpp"

using namespace hetero;

// Before the first block along K.
HETERO_KERNEL void gemm_i8_i8_begin(int32_t *__restrict sums) { gemm_clear(sums); }

// sums += a w.
HETERO_KERNEL void gemm_i8_i8_block(const int8_t *__restrict a, const int8_t *__restrict w, int32_t *__restrict sums) {
    gemm_block(a, w, sums);
}

// After the last block. `channels` has the bias of 64 channels (int32), their multipliers (int16), the shift (32 bytes).
HETERO_KERNEL void gemm_i8_i8_end(const int32_t *__restrict sums, const int8_t *__restrict channels,
                                  int8_t *__restrict c) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int32_t *biases = reinterpret_cast<const int32_t *>(channels);
    const int16_t *multipliers = reinterpret_cast<const int16_t *>(channels + 4 * GEMM_BLOCK);
    const int given = channels[6 * GEMM_BLOCK];
    const int shift = given < 0 ? 0 : given > 47 ? 47 : given;
    for (unsigned column = 0; column < GEMM_SIDE; ++column) {
        const auto bias8 = aie::load_v<GEMM_SIDE>(biases + column * GEMM_SIDE);
        const auto multiplier8 = aie::load_v<GEMM_SIDE>(multipliers + column * GEMM_SIDE);
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
