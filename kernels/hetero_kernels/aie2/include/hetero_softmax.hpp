// Softmax weights of 15 bits for a strip of 8 queries and a block of 64 keys, bit for bit as hetero_kernels/softmax.py.
//
// Q and K arrive in blocks of 8 x 8 ([row of blocks][column of blocks][8][8]); weights leave as [block of 8 keys][8
// queries][8 keys], the left operand of a product with V. Rounding is `positive_inf` and saturation on, as
// `softmax_modes` sets them; what has to round down says so.
#ifndef HETERO_SOFTMAX_HPP
#define HETERO_SOFTMAX_HPP

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"
#include "hetero_vector.hpp"

namespace hetero {

constexpr unsigned SIDE = 8;         // rows and columns of a block, and blocks in a row of a tile
constexpr unsigned BLOCK = 64;       // elements of a block; keys in a block of keys
constexpr unsigned STRIP = SIDE * BLOCK;
constexpr unsigned LANES = 32;       // of int32, half a row of keys
constexpr unsigned HALVES = BLOCK / LANES;

constexpr int FRACTION_BITS = 12;
constexpr int TEMPERATURE_BITS = 34;
constexpr int WEIGHT_BITS = 15;
constexpr int32_t MASKED = -(1 << 30);
constexpr int32_t NOTHING = 16 << FRACTION_BITS;
constexpr int16_t EXP2[4] = {32767, -22648, 7541, -1277};

using Words = aie::vector<int32_t, LANES>;
using Shorts = aie::vector<int16_t, LANES>;

// Eight rows of 64 bytes become the eight blocks of 8 x 8 beside each other: a transposition of parts of 8 bytes, which
// three perfect shuffles make.
inline void block_strip(const int8_t *__restrict rows, int8_t *__restrict blocks) {
    aie::vector<int8_t, BLOCK> now[SIDE], next[SIDE];
    for (unsigned i = 0; i < SIDE; ++i) now[i] = aie::load_v<BLOCK>(rows + i * BLOCK);
    HETERO_LOOP_UNROLL(3)
    for (unsigned round = 0; round < 3; ++round) {
        for (unsigned i = 0; i < SIDE / 2; ++i) {
            const auto zipped = aie::interleave_zip(now[i], now[i + SIDE / 2], SIDE);
            next[2 * i] = zipped.first;
            next[2 * i + 1] = zipped.second;
        }
        for (unsigned i = 0; i < SIDE; ++i) now[i] = next[i];
    }
    for (unsigned i = 0; i < SIDE; ++i) aie::store_v(blocks + i * BLOCK, now[i]);
}

inline void softmax_modes() {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
}

inline int bits_of(uint32_t value) { return value ? 32 - __builtin_clz(value) : 0; }

// round(value / 2^shift), halves up.
inline int32_t shift_round(int32_t value, int shift) {
    return shift ? int32_t((int64_t(value) + (int64_t(1) << (shift - 1))) >> shift) : value;
}

struct Reciprocal {
    int16_t mantissa;  // 1 / total is mantissa / 2^(29 + shift)
    int shift;
};

// Newton's iteration; products stay below 2^31.
inline Reciprocal reciprocal(int32_t total) {
    const int shift = bits_of(uint32_t(total)) - WEIGHT_BITS;
    const int32_t x = total >> shift;
    int32_t estimate = 46261 - ((30840 * x) >> 15);
    HETERO_LOOP_UNROLL(3)
    for (unsigned step = 0; step < 3; ++step)
        estimate = (estimate * ((1 << 15) - ((x * estimate) >> 15))) >> 14;
    return {int16_t(estimate < 32767 ? estimate : 32767), shift};
}

// Scores of 8 queries and 64 keys, row by row.
inline void strip_scores(const int8_t *__restrict q, const int8_t *__restrict k, int32_t *__restrict scores) {
    HETERO_LOOP_KEEP
    for (unsigned key = 0; key < SIDE; ++key) {
        aie::mmul<8, 8, 8, int8_t, int8_t> sum;
        HETERO_LOOP_UNROLL(8)
        for (unsigned feature = 0; feature < SIDE; ++feature) {
            const auto keys = aie::load_v<BLOCK>(k + (key * SIDE + feature) * BLOCK);
            sum.mac(aie::load_v<BLOCK>(q + feature * BLOCK), aie::transpose(keys, 8, 8));
        }
        const auto block = sum.to_vector<int32_t>();
        HETERO_LOOP_UNROLL(8)
        for (unsigned row = 0; row < SIDE; ++row)
            aie::store_v(scores + row * BLOCK + key * SIDE, block.extract<SIDE>(row));
    }
}

// Scores of one query become exponents in steps of 2^-12, in place; the first `valid` keys count.
// Returns the largest.
inline int32_t row_exponents(int32_t *__restrict row, int32_t temperature, unsigned valid) {
    const int32_t positive = temperature > 0 ? temperature : 0;
    const int bits = bits_of(uint32_t(positive));
    const int surplus = bits > WEIGHT_BITS ? bits - WEIGHT_BITS : 0;
    const auto factor = int16_t(positive >> surplus);
    int32_t largest = MASKED;
    for (unsigned half = 0; half < HALVES; ++half) {
        const Words scores = aie::load_v<LANES>(row + half * LANES);
        Words exponents = aie::mul<acc64>(scores, factor).to_vector<int32_t>(TEMPERATURE_BITS - FRACTION_BITS - surplus);
        const unsigned begin = half * LANES;
        if (valid < begin + LANES) {
            const uint32_t counts = valid > begin ? (uint32_t(1) << (valid - begin)) - 1 : 0;
            exponents = aie::select(MASKED, exponents, aie::mask<LANES>::from_uint32(counts));
        }
        const int32_t most = aie::reduce_max(exponents);
        largest = most > largest ? most : largest;
        aie::store_v(row + begin, exponents);
    }
    return largest;
}

// The whole exponent at or above one.
inline int32_t scale_of(int32_t largest) { return -(-largest >> FRACTION_BITS); }

// 2^15 * 2^-x of fractions, by a cubic.
inline Shorts exp2_fraction(const Words &below) {
    const Words fraction = aie::bit_and(below, int32_t((1 << FRACTION_BITS) - 1));
    const Shorts x = converted<int16_t>(aie::upshift(fraction, WEIGHT_BITS - FRACTION_BITS));
    Shorts value = aie::broadcast<int16_t, LANES>(EXP2[3]);
    HETERO_LOOP_UNROLL(3)
    for (int i = 2; i >= 0; --i) value = aie::add(aie::mul<acc32>(value, x).to_vector<int16_t>(15), EXP2[i]);
    return value;
}

// Exponents of one query become weights: 2^15 * 2^(exponent - scale), rounded. `weights` is that query's place in the
// first of 8 blocks of [8 queries][8 keys]. Returns their sum.
inline int32_t row_weights(const int32_t *__restrict row, int32_t scale, int16_t *__restrict weights) {
    int32_t total = 0;
    for (unsigned half = 0; half < HALVES; ++half) {
        const Words exponents = aie::load_v<LANES>(row + half * LANES);
        // A key that does not count is far below all others, and ends up with no weight.
        const Words below = aie::min(aie::sub(scale << FRACTION_BITS, exponents), NOTHING);
        Words value = aie::upshift(converted<int32_t>(exp2_fraction(below)), 1);
        // Twice the value over 2^whole, rounded down; then half of it, rounded up from the middle.
        const auto before = aie::swap_rounding(aie::rounding_mode::floor);
        HETERO_LOOP_UNROLL(5)
        for (unsigned bit = 0; bit < 5; ++bit) {
            const auto set = aie::neq(aie::bit_and(below, int32_t(1) << (FRACTION_BITS + bit)), int32_t(0));
            value = aie::select(value, aie::downshift(value, 1u << bit), set);
        }
        value = aie::downshift(aie::add(value, int32_t(1)), 1);
        aie::set_rounding(before);
        total += aie::reduce_add(value);
        const Shorts packed = converted<int16_t>(value);
        for (unsigned key = 0; key < LANES / SIDE; ++key)
            aie::store_v(weights + (half * LANES / SIDE + key) * BLOCK, packed.extract<SIDE>(key));
    }
    return total;
}

// Two queries' weights times V, for 8 features.
inline aie::accum<acc32, 16> weigh(const int16_t *__restrict weights, const int8_t *__restrict v, unsigned pair,
                                   unsigned feature) {
    aie::mmul<2, 8, 8, int16_t, int8_t> sum;
    HETERO_LOOP_UNROLL(8)
    for (unsigned key = 0; key < SIDE; ++key)
        sum.mac(aie::load_v<16>(weights + key * BLOCK + pair * 16),
                aie::load_v<BLOCK>(v + (key * SIDE + feature) * BLOCK));
    return sum.to_accum();
}

}  // namespace hetero

#endif
