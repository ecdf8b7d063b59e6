// layernorm_i8 on one AIE2 core: ROWS rows of WIDTH values a call, bit for bit as reference.py has it.
//
// ROWS and WIDTH are given by the design, as are the bits of sqrt(WIDTH / 2): ROOT / 2^ROOT_BITS, of 15 bits.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace {

constexpr unsigned LANES = 32;
constexpr int ROW_BITS = 14;
constexpr int NORMAL_BITS = 9;
constexpr int GAMMA_BITS = 8;
constexpr int64_t LEAST_SQUARES = 64;

using Shorts = aie::vector<int16_t, LANES>;

int32_t floor_divided(int32_t value, int32_t divisor) {
    const int32_t quotient = value / divisor;
    return quotient - (value - quotient * divisor < 0 ? 1 : 0);
}

// A row's values times the power of two that brings the largest to 14 bits.
struct Scale {
    int up;
    Shorts of(const Shorts &x) const { return up >= 0 ? aie::upshift(x, unsigned(up)) : aie::downshift(x, unsigned(-up)); }
};

Scale scale_of(const int16_t *__restrict x) {
    Shorts most = aie::load_v<LANES>(x), least = most;
    HETERO_LOOP_KEEP
    for (unsigned i = LANES; i < WIDTH; i += LANES) {
        most = aie::max(most, aie::load_v<LANES>(x + i));
        least = aie::min(least, aie::load_v<LANES>(x + i));
    }
    const int32_t high = aie::reduce_max(most), low = -int32_t(aie::reduce_min(least));
    const auto magnitude = uint32_t(high > low ? high : low);
    return {ROW_BITS - (magnitude ? 32 - __builtin_clz(magnitude) : 0)};
}

int16_t mean_of(const int16_t *__restrict x, Scale scale) {
    aie::accum<acc32, LANES> sum = aie::zeros<acc32, LANES>();
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < WIDTH; i += LANES) sum = aie::mac(sum, scale.of(aie::load_v<LANES>(x + i)), int16_t(1));
    const int32_t total = aie::reduce_add(sum.to_vector<int32_t>());
    return int16_t(floor_divided(2 * total + int32_t(WIDTH), 2 * int32_t(WIDTH)));
}

// The exact sum of squares: lanes of 64 bits leave as two words, of which one is what the other leaves over.
int64_t squares_of(const int16_t *__restrict x, Scale scale, int16_t mean) {
    constexpr int SPLIT = 15;
    aie::accum<acc64, LANES> sum = aie::zeros<acc64, LANES>();
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Shorts centred = aie::sub(scale.of(aie::load_v<LANES>(x + i)), mean);
        sum = aie::mac(sum, centred, centred);
    }
    const auto high = sum.to_vector<int32_t>(SPLIT);
    const auto rest = aie::sub(sum, aie::accum<acc64, LANES>(high, SPLIT)).to_vector<int32_t>();
    return (int64_t(aie::reduce_add(high)) << SPLIT) + aie::reduce_add(rest);
}

struct Inverse {
    int16_t mantissa;  // 1 / deviation, in steps of 2^-9, is mantissa / 2^shift
    int shift;
};

// Newton's iteration for 1 / sqrt; products stay below 2^31.
Inverse inverse_of(int64_t squares) {
    const int64_t at_least = squares > LEAST_SQUARES ? squares : LEAST_SQUARES;
    const int halved = (64 - __builtin_clzll(uint64_t(at_least)) - 14) >> 1;
    const auto u = int32_t(halved > 0 ? at_least >> (2 * halved) : at_least << (-2 * halved));
    int32_t r = 36045 - ((21299 * u) >> 15);
    HETERO_LOOP_UNROLL(3)
    for (unsigned step = 0; step < 3; ++step) r = (r * (3 * (1 << 13) - ((u * ((r * r) >> 15)) >> 15))) >> 14;
    if (r > 32767) r = 32767;
    const int32_t scaled = (r * int32_t(ROOT) + (1 << 14)) >> 15;
    return {int16_t(scaled < 32767 ? scaled : 32767), halved + ROOT_BITS + 6 - NORMAL_BITS};
}

void row(const int16_t *__restrict x, const int16_t *__restrict gamma, const int16_t *__restrict beta,
         int8_t *__restrict y) {
    const Scale scale = scale_of(x);
    const int16_t mean = mean_of(x, scale);
    const Inverse inverse = inverse_of(squares_of(x, scale, mean));
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < WIDTH; i += LANES) {
        const Shorts centred = aie::sub(scale.of(aie::load_v<LANES>(x + i)), mean);
        const Shorts normal = aie::mul<acc32>(centred, inverse.mantissa).to_vector<int16_t>(inverse.shift);
        const aie::accum<acc32, LANES> offset(aie::load_v<LANES>(beta + i), NORMAL_BITS);
        const auto scaled = aie::mac(offset, normal, aie::load_v<LANES>(gamma + i));
        aie::store_v(y + i, scaled.to_vector<int8_t>(NORMAL_BITS + GAMMA_BITS));
    }
}

}  // namespace

// in: ROWS rows of int16, then gamma and beta, int16 each; out: ROWS rows of int8.
HETERO_KERNEL void FUNCTION(const int8_t *__restrict in, int8_t *__restrict out) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    const int16_t *x = reinterpret_cast<const int16_t *>(in);
    const int16_t *gamma = x + ROWS * WIDTH;
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < ROWS; ++i) row(x + i * WIDTH, gamma, gamma + WIDTH, out + i * WIDTH);
}
