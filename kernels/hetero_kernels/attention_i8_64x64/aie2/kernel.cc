// attention_i8_64x64 on one AIE2 core: one tile a call, bit for bit as reference.py has it.
//
// Q, K, V and O arrive and leave in blocks: [row of blocks][column of blocks][8 rows][8 columns], which the memory
// tile's DMA arranges. Work goes in strips of 8 queries.
//
// The table exp(-i) >> 10 is 0 from i = 7 on, and what is looked up in it is a whole number: so a row holds at most 7
// different weights. They are divided once a row, by long division, eight rows and seven levels at a time; and instead
// of 4,096 lookups a tile, 64 scores are compared with a level in one instruction.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace {

constexpr unsigned SIDE = 8;           // blocks in a row of a tile
constexpr unsigned BLOCK = 64;         // elements of a block of 8 x 8
constexpr unsigned STRIP = SIDE * BLOCK;
constexpr unsigned HALF = BLOCK / 2;   // 32 lanes of int32: four rows of a block
constexpr unsigned LEVELS = 7;

using Product = aie::mmul<8, 8, 8, int8_t, int8_t>;
using Count = aie::mmul<8, 8, 8, uint8_t, uint8_t>;
using Words = aie::vector<int32_t, HALF>;
using Bytes = aie::vector<int8_t, BLOCK>;

// exp(-i) in units of 2^-20, >> 10, as 8 * EXP_HIGH + EXP_LOW.
constexpr uint8_t EXP_HIGH[LEVELS] = {128, 47, 17, 6, 2, 0, 0};
constexpr uint8_t EXP_LOW[LEVELS] = {0, 0, 2, 2, 2, 6, 2};

// 127 * (8 * EXP_HIGH + EXP_LOW) in lane i of each row of 8, for four rows.
struct Dividends {
    alignas(aie::vector_decl_align) int32_t lanes[HALF];
    constexpr Dividends() : lanes() {
        for (unsigned i = 0; i < HALF; ++i)
            lanes[i] = i % SIDE < LEVELS ? 127 * (8 * EXP_HIGH[i % SIDE] + EXP_LOW[i % SIDE]) : 0;
    }
};
constexpr Dividends DIVIDENDS;

// Matrix i has ones in row i: a product with it copies column i of a block to all columns.
struct Spreads {
    alignas(aie::vector_decl_align) int8_t matrices[LEVELS][BLOCK];
    constexpr Spreads() : matrices() {
        for (unsigned i = 0; i < LEVELS; ++i)
            for (unsigned column = 0; column < SIDE; ++column) matrices[i][i * SIDE + column] = 1;
    }
};
constexpr Spreads SPREADS;

// The largest of each row of 8, in all of its lanes; four rows at a time.
Words row_maximum(const Words &values) {
    const Words columns = aie::transpose(values, 4, 8);
    auto most = aie::max(columns.extract<16>(0), columns.extract<16>(1));
    most = aie::max(most, aie::shuffle_down_rotate(most, 8));
    most = aie::max(most, aie::shuffle_down_rotate(most, 4));
    return aie::transpose(aie::concat(most, most), 8, 4);
}

// floor(dividend / divisor) where that is below 128: seven bits, the highest first.
Words divided(Words rest, const Words &divisor) {
    Words quotient = aie::zeros<int32_t, HALF>();
    for (int bit = 6; bit >= 0; --bit) {
        const Words part = aie::upshift(divisor, unsigned(bit));
        const auto fits = aie::ge(rest, part);
        rest = aie::select(rest, aie::sub(rest, part), fits);
        quotient = aie::select(quotient, aie::add(quotient, int32_t(1) << bit), fits);
    }
    return quotient;
}

// How far each score of the strip lies below its row's largest: min(127, ceil(difference / 256)).
void strip_levels(const int8_t *__restrict q, const int8_t *__restrict k, int8_t *__restrict levels) {
    alignas(aie::vector_decl_align) int32_t scores[STRIP];
    Words most[2] = {aie::broadcast<int32_t, HALF>(INT32_MIN), aie::broadcast<int32_t, HALF>(INT32_MIN)};
    HETERO_LOOP_KEEP
    for (unsigned key = 0; key < SIDE; ++key) {
        Product sum;
        HETERO_LOOP_UNROLL(8)
        for (unsigned feature = 0; feature < SIDE; ++feature) {
            const Bytes keys = aie::load_v<BLOCK>(k + (key * SIDE + feature) * BLOCK);
            sum.mac(aie::load_v<BLOCK>(q + feature * BLOCK), aie::transpose(keys, 8, 8));
        }
        const auto block = sum.to_vector<int32_t>();
        for (unsigned half = 0; half < 2; ++half) {
            // On the vector: from 32 bits to 32 an accumulator does not shift.
            const Words rows = aie::downshift(block.extract<HALF>(half), 3);
            most[half] = aie::max(most[half], rows);
            aie::store_v(scores + key * BLOCK + half * HALF, rows);
        }
    }
    // With 255 more, the shift that rounds down rounds up.
    for (unsigned half = 0; half < 2; ++half) most[half] = aie::add(row_maximum(most[half]), int32_t(255));
    HETERO_LOOP_KEEP
    for (unsigned key = 0; key < SIDE; ++key)
        for (unsigned half = 0; half < 2; ++half) {
            const unsigned at = key * BLOCK + half * HALF;
            const Words below = aie::sub(most[half], aie::load_v<HALF>(scores + at));
            aie::store_v(levels + at, aie::accum<acc32, HALF>(below).to_vector<int8_t>(8));
        }
}

// The weights of the strip's levels: level i of row r in lane i of row r.
Bytes level_weights(const int8_t *__restrict levels) {
    const auto ones = aie::broadcast<uint8_t, BLOCK>(1);
    Count high, low;
    HETERO_LOOP_KEEP
    for (unsigned key = 0; key < SIDE; ++key) {
        const Bytes level = aie::load_v<BLOCK>(levels + key * BLOCK);
        auto high_part = aie::zeros<uint8_t, BLOCK>();
        auto low_part = aie::zeros<uint8_t, BLOCK>();
        HETERO_LOOP_UNROLL(7)
        for (int i = LEVELS - 1; i >= 0; --i) {
            const auto reached = aie::le(level, int8_t(i));
            high_part = aie::select(high_part, EXP_HIGH[i], reached);
            low_part = aie::select(low_part, EXP_LOW[i], reached);
        }
        high.mac(high_part, ones);
        low.mac(low_part, ones);
    }
    const auto highs = high.to_vector<int32_t>();
    const auto lows = low.to_vector<int32_t>();
    const Words dividends = aie::load_v<HALF>(DIVIDENDS.lanes);
    aie::vector<int8_t, BLOCK> weights;
    for (unsigned half = 0; half < 2; ++half) {
        // A row's largest score has level 0, so that no sum is below 1,024.
        const Words total = aie::add(aie::upshift(highs.extract<HALF>(half), 3), lows.extract<HALF>(half));
        weights.insert(half, aie::accum<acc32, HALF>(divided(dividends, total)).to_vector<int8_t>());
    }
    return weights;
}

// Each level of the strip becomes its row's weight, in place.
void weigh(int8_t *__restrict levels) {
    const Bytes weights = level_weights(levels);
    Bytes of_level[LEVELS];
    for (unsigned i = 0; i < LEVELS; ++i) {
        Product spread;
        spread.mul(weights, aie::load_v<BLOCK>(SPREADS.matrices[i]));
        of_level[i] = spread.to_vector<int8_t>();
    }
    HETERO_LOOP_KEEP
    for (unsigned key = 0; key < SIDE; ++key) {
        const Bytes level = aie::load_v<BLOCK>(levels + key * BLOCK);
        Bytes weight = aie::zeros<int8_t, BLOCK>();
        HETERO_LOOP_UNROLL(7)
        for (int i = LEVELS - 1; i >= 0; --i) weight = aie::select(weight, of_level[i], aie::le(level, int8_t(i)));
        aie::store_v(levels + key * BLOCK, weight);
    }
}

// The strip's weights times V, rounded: (w + 64 or w - 64) >> 7, saturated.
void strip_output(const int8_t *__restrict weights, const int8_t *__restrict v, int8_t *__restrict o) {
    HETERO_LOOP_KEEP
    for (unsigned feature = 0; feature < SIDE; ++feature) {
        Product sum;
        HETERO_LOOP_UNROLL(8)
        for (unsigned key = 0; key < SIDE; ++key)
            sum.mac(aie::load_v<BLOCK>(weights + key * BLOCK), aie::load_v<BLOCK>(v + (key * SIDE + feature) * BLOCK));
        const auto block = sum.to_vector<int32_t>();
        for (unsigned half = 0; half < 2; ++half) {
            const Words w = block.extract<HALF>(half);
            const Words step = aie::select(aie::broadcast<int32_t, HALF>(64), int32_t(-64), aie::lt(w, int32_t(0)));
            const auto rounded = aie::accum<acc32, HALF>(aie::add(w, step)).to_vector<int8_t>(7);
            aie::store_v(o + feature * BLOCK + half * HALF, rounded);
        }
    }
}

}  // namespace

// in: Q, K and V, 4,096 bytes each, in blocks; out: O, in blocks.
HETERO_KERNEL void attention_i8_64x64(const int8_t *__restrict in, int8_t *__restrict out) {
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int8_t *q = in;
    const int8_t *k = in + SIDE * STRIP;
    const int8_t *v = in + 2 * SIDE * STRIP;
    alignas(aie::vector_decl_align) int8_t levels[STRIP];
    HETERO_LOOP_KEEP
    for (unsigned strip = 0; strip < SIDE; ++strip) {
        strip_levels(q + strip * STRIP, k, levels);
        weigh(levels);
        strip_output(levels, v, out + strip * STRIP);
    }
}
