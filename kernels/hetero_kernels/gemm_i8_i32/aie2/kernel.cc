// gemm_i8_i32 on one AIE2 core: the sum of 64 x 64 blocks along K, bit for bit as reference.py has it.

#include <aie_api/aie.hpp>

#include "hetero_gemm.hpp"

// Before the first block along K.
HETERO_KERNEL void gemm_i8_i32_begin(int32_t *__restrict c) { hetero::gemm_clear(c); }

// c += a w.
HETERO_KERNEL void gemm_i8_i32_block(const int8_t *__restrict a, const int8_t *__restrict w, int32_t *__restrict c) {
    hetero::gemm_block(a, w, c);
}
