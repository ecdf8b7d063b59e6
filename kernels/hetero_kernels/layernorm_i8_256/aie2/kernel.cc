// layernorm_i8_256 on one AIE2 core: 16 rows of 256 values a call, bit for bit as reference.py has it.
//
// Sums of a row are made 32 lanes at a time. The square root and the division are of one number a row: bit by bit, since
// a core has neither; that is some 25 steps beside the row's 256 values.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace {

constexpr unsigned ROWS = 16;
constexpr unsigned WIDTH = 256;
constexpr unsigned LANES = 32;

using Shorts = aie::vector<int16_t, LANES>;

Shorts wide(const int8_t *from) { return aie::load_v<LANES>(from).unpack(); }

// floor(sqrt(value)), of 1 to 2^18 - 1: the largest number whose square is not above it, the highest bit first.
int32_t square_root(int32_t value) {
    int32_t root = 0;
    HETERO_LOOP_KEEP
    for (int bit = 8; bit >= 0; --bit) {
        const int32_t more = root + (int32_t(1) << bit);
        if (more * more <= value) root = more;
    }
    return root;
}

// floor(32768 / divisor), of a divisor from 1 to 511.
int32_t reciprocal(int32_t divisor) {
    int32_t rest = 32768;
    int32_t quotient = 0;
    HETERO_LOOP_KEEP
    for (int bit = 15; bit >= 0; --bit) {
        const int32_t part = divisor << bit;
        if (rest >= part) {
            rest -= part;
            quotient += int32_t(1) << bit;
        }
    }
    return quotient;
}

// The mean of a row, rounded to zero.
int32_t mean_of(const int8_t *__restrict row) {
    auto sums = aie::zeros<acc32, LANES>();
    HETERO_LOOP_UNROLL(8)
    for (unsigned i = 0; i < WIDTH; i += LANES) sums = aie::mac(sums, wide(row + i), int16_t(1));
    const int32_t total = aie::reduce_add(sums.to_vector<int32_t>());
    return total < 0 ? -(-total >> 8) : total >> 8;
}

int32_t variance_of(const int8_t *__restrict row, int16_t mean) {
    auto sums = aie::zeros<acc32, LANES>();
    HETERO_LOOP_UNROLL(8)
    for (unsigned i = 0; i < WIDTH; i += LANES) sums = aie::mac_square(sums, aie::sub(wide(row + i), mean));
    return aie::reduce_add(sums.to_vector<int32_t>()) >> 8;
}

}  // namespace

// in: 16 rows, gamma, beta; out: 16 rows.
HETERO_KERNEL void layernorm_i8_256(const int8_t *__restrict in, int8_t *__restrict out) {
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int8_t *gamma = in + ROWS * WIDTH;
    const int8_t *beta = gamma + WIDTH;
    HETERO_LOOP_KEEP
    for (unsigned r = 0; r < ROWS; ++r) {
        const int8_t *row = in + r * WIDTH;
        const int16_t mean = int16_t(mean_of(row));
        // Up to 32,768, which int16 does not hold.
        const int32_t scale = reciprocal(square_root(variance_of(row, mean) + 1));
        HETERO_LOOP_AT_LEAST(8)
        for (unsigned i = 0; i < WIDTH; i += LANES) {
            const Shorts unit = aie::mul<acc64>(aie::sub(wide(row + i), mean), scale).to_vector<int16_t>(8);
            const Shorts scaled = aie::mul(unit, wide(gamma + i)).to_vector<int16_t>(7);
            const Shorts moved = aie::add(scaled, wide(beta + i));
            aie::store_v(out + r * WIDTH + i, aie::accum<acc32, LANES>(moved).to_vector<int8_t>());
        }
    }
}
