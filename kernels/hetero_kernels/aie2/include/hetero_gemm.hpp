// A block of a matrix product on one AIE2 core: 64 x 64 int8 by 64 x 64 int8, added to int32.
//
// All three lie in blocks of 8 x 8 ([row of blocks][column of blocks][8][8]).
#ifndef HETERO_GEMM_HPP
#define HETERO_GEMM_HPP

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace hetero {

constexpr unsigned GEMM_SIDE = 8;
constexpr unsigned GEMM_BLOCK = 64;
constexpr unsigned GEMM_TILE = GEMM_SIDE * GEMM_SIDE * GEMM_BLOCK;

// C += A W. Two blocks of C beside each other share what is loaded of A.
inline void gemm_block(const int8_t *__restrict a, const int8_t *__restrict w, int32_t *__restrict c) {
    using Product = aie::mmul<8, 8, 8, int8_t, int8_t>;
    for (unsigned row = 0; row < GEMM_SIDE; ++row)
        HETERO_LOOP_KEEP
        for (unsigned column = 0; column < GEMM_SIDE; column += 2) {
            int32_t *place = c + (row * GEMM_SIDE + column) * GEMM_BLOCK;
            Product left(aie::load_v<GEMM_BLOCK>(place));
            Product right(aie::load_v<GEMM_BLOCK>(place + GEMM_BLOCK));
            HETERO_LOOP_UNROLL(8)
            for (unsigned k = 0; k < GEMM_SIDE; ++k) {
                const auto part = aie::load_v<GEMM_BLOCK>(a + (row * GEMM_SIDE + k) * GEMM_BLOCK);
                const int8_t *weights = w + (k * GEMM_SIDE + column) * GEMM_BLOCK;
                left.mac(part, aie::load_v<GEMM_BLOCK>(weights));
                right.mac(part, aie::load_v<GEMM_BLOCK>(weights + GEMM_BLOCK));
            }
            aie::store_v(place, left.to_vector<int32_t>());
            aie::store_v(place + GEMM_BLOCK, right.to_vector<int32_t>());
        }
}

inline void gemm_clear(int32_t *__restrict c) {
    const auto zeros = aie::zeros<int32_t, 16>();
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < GEMM_TILE; i += 16) aie::store_v(c + i, zeros);
}

}  // namespace hetero

#endif
