// matmul_i8_64x64 on one AIE2 core: one pair of tiles a call, bit for bit as reference.py has it.
//
// A, B and C arrive and leave in blocks: [row of blocks][column of blocks][8 rows][8 columns], which the memory tile's
// DMA arranges. Two blocks of C are summed at a time, so that each block of A is loaded for two products.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace {

constexpr unsigned SIDE = 8;    // blocks in a row of a tile
constexpr unsigned BLOCK = 64;  // elements of a block of 8 x 8
constexpr unsigned TILE = SIDE * SIDE * BLOCK;

using Product = aie::mmul<8, 8, 8, int8_t, int8_t>;

}  // namespace

// in: A and B, 4,096 bytes each, in blocks; out: C, in blocks.
HETERO_KERNEL void matmul_i8_64x64(const int8_t *__restrict in, int8_t *__restrict out) {
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int8_t *a = in;
    const int8_t *b = in + TILE;
    HETERO_LOOP_KEEP
    for (unsigned row = 0; row < SIDE; ++row) {
        HETERO_LOOP_KEEP
        for (unsigned column = 0; column < SIDE; column += 2) {
            Product left, right;
            HETERO_LOOP_UNROLL(8)
            for (unsigned k = 0; k < SIDE; ++k) {
                const auto of_a = aie::load_v<BLOCK>(a + (row * SIDE + k) * BLOCK);
                const int8_t *of_b = b + (k * SIDE + column) * BLOCK;
                left.mac(of_a, aie::load_v<BLOCK>(of_b));
                right.mac(of_a, aie::load_v<BLOCK>(of_b + BLOCK));
            }
            int8_t *to = out + (row * SIDE + column) * BLOCK;
            aie::store_v(to, left.to_vector<int8_t>(7));
            aie::store_v(to + BLOCK, right.to_vector<int8_t>(7));
        }
    }
}
