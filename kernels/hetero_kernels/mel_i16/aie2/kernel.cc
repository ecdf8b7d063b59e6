// mel_i16 on one AIE2 core: the log-mel spectrum of 8 windows, bit for bit as reference.py has it.
//
// Three functions, as the transform's matrices do not fit a core's memory: they pass through it in slices of 8 bins.
//
//   begin   windows -> even and odd parts: [2][50][4 samples][8 windows], the right operand of a product
//   slice   8 bins of both matrices times the parts: the spectrum, [2][200 bins][8 windows] int32
//   end     spectrum -> power -> bands -> logarithm
//
// A slice holds, for the cosine and then the sine, [2 groups of 4 bins][50][4 bins][4 samples]. BANDS comes from the
// design, the tables from `tables`: for each band the first bin, the number of bins and the offset of its logarithm,
// int32 each; then the logarithm's 257 + 3 entries, int32; then the filters' weights, band by band, int16.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"
#include "hetero_vector.hpp"

namespace {

constexpr unsigned WINDOWS = 8;
constexpr unsigned WINDOW = 400;
constexpr unsigned HALF = 200;
constexpr unsigned BINS = 200;  // 199 and one of zeros
constexpr unsigned STEPS = HALF / 4;
constexpr unsigned PART = HALF * WINDOWS;
constexpr unsigned LOG_ENTRIES = 260;

constexpr int SAMPLE_BITS = 14;
constexpr int SPECTRUM_SHIFT = 8;
constexpr int SPECTRUM_BITS = 30;
constexpr int MANTISSA_BITS = 15;
constexpr int LOG_BITS = 15;
constexpr int OUTPUT_BITS = 9;
constexpr int FRACTION_BITS = 6;
constexpr int32_t FLOOR = -17008;

using Lanes = aie::vector<int32_t, WINDOWS>;

int bits_of(uint32_t value) { return value ? 32 - __builtin_clz(value) : 0; }

int32_t shift_round(int32_t value, int shift) { return (value + ((int32_t(1) << shift) >> 1)) >> shift; }

int16_t narrow(int32_t value) { return int16_t(value < -32768 ? -32768 : value > 32767 ? 32767 : value); }

// The shift to the left that brings a window's largest sample to 14 bits; less than 0 is one to the right.
int scale_of(const int16_t *__restrict x) {
    auto most = aie::load_v<16>(x), least = most;
    HETERO_LOOP_KEEP
    for (unsigned i = 16; i < WINDOW; i += 16) {
        most = aie::max(most, aie::load_v<16>(x + i));
        least = aie::min(least, aie::load_v<16>(x + i));
    }
    const int32_t high = aie::reduce_max(most), low = -int32_t(aie::reduce_min(least));
    return SAMPLE_BITS - bits_of(uint32_t(high > low ? high : low));
}

int32_t scaled(int16_t x, int up) { return up >= 0 ? int32_t(x) << up : shift_round(x, -up); }

// The logarithm of base 2 of a number above 0, in steps of 2^-15.
int32_t log2_of(int64_t value, const int32_t *__restrict table) {
    const int bits = 64 - __builtin_clzll(uint64_t(value));
    const auto mantissa = int32_t(bits > MANTISSA_BITS ? value >> (bits - MANTISSA_BITS) : value << (MANTISSA_BITS - bits));
    const int32_t within = mantissa - (1 << (MANTISSA_BITS - 1));
    const int32_t section = within >> FRACTION_BITS, rest = within & ((1 << FRACTION_BITS) - 1);
    const int32_t line = shift_round((table[section + 1] - table[section]) * rest, FRACTION_BITS);
    return ((bits - 1) << LOG_BITS) + table[section] + line;
}

// x^2 / 2^15, rounded down, in 64 bits: x = h 2^15 + l.
aie::accum<acc64, WINDOWS> square(const Lanes &x) {
    const auto high = hetero::converted<int16_t>(aie::downshift(x, MANTISSA_BITS));
    const auto low = hetero::converted<int16_t>(aie::bit_and(x, int32_t((1 << MANTISSA_BITS) - 1)));
    const Lanes part = aie::mul<acc64>(x, low).to_vector<int32_t>(MANTISSA_BITS);
    return aie::mac(aie::accum<acc64, WINDOWS>(part), x, high);
}

}  // namespace

// windows: [8][400]; parts: [2][50][4][8]; ups: the 8 windows' shifts.
HETERO_KERNEL void mel_i16_begin(const int16_t *__restrict windows, int16_t *__restrict parts, int32_t *__restrict ups) {
    for (unsigned window = 0; window < WINDOWS; ++window) {
        const int16_t *x = windows + window * WINDOW;
        const int up = scale_of(x);
        ups[window] = up;
        HETERO_LOOP_KEEP
        for (unsigned n = 1; n < HALF; ++n) {
            const int32_t first = scaled(x[n], up), last = scaled(x[WINDOW - n], up);
            parts[(n - 1) * WINDOWS + window] = narrow(first + last);
            parts[PART + (n - 1) * WINDOWS + window] = narrow(first - last);
        }
        parts[(HALF - 1) * WINDOWS + window] = narrow(scaled(x[HALF], up));
        parts[PART + (HALF - 1) * WINDOWS + window] = 0;
    }
}

// Slice `*number` of the matrices fills its 8 bins of the spectrum; the number goes up by one.
HETERO_KERNEL void mel_i16_slice(const int16_t *__restrict slice, const int16_t *__restrict parts,
                                 int32_t *__restrict spectrum, int32_t *__restrict number) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    for (unsigned part = 0; part < 2; ++part)
        for (unsigned group = 0; group < 2; ++group) {
            aie::mmul<4, 4, 8, int16_t, int16_t, acc64> sum;
            HETERO_LOOP_AT_LEAST(8)
            for (unsigned step = 0; step < STEPS; ++step)
                sum.mac(aie::load_v<16>(slice + ((part * 2 + group) * STEPS + step) * 16),
                        aie::load_v<32>(parts + part * PART + step * 32));
            const unsigned bin = unsigned(*number) * 8 + group * 4;
            aie::store_v(spectrum + (part * BINS + bin) * WINDOWS, sum.to_vector<int32_t>(SPECTRUM_SHIFT));
        }
    *number += 1;
}

// y: [8][BANDS]. The next windows begin with slice 0 again.
HETERO_KERNEL void mel_i16_end(int32_t *__restrict spectrum, const int32_t *__restrict ups, int32_t *__restrict number,
                               const int32_t *__restrict tables, int16_t *__restrict y) {
    *number = 0;
    aie::set_saturation(aie::saturation_mode::saturate);
    Lanes most = aie::zeros<int32_t, WINDOWS>();
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < 2 * BINS; ++i) most = aie::max(most, aie::abs(aie::load_v<WINDOWS>(spectrum + i * WINDOWS)));
    int32_t exponents[WINDOWS];
    alignas(aie::vector_decl_align) int32_t factors[WINDOWS];
    for (unsigned window = 0; window < WINDOWS; ++window) {
        const int left = SPECTRUM_BITS - bits_of(uint32_t(most[window]));
        // Silence stays 0 under any factor that fits.
        factors[window] = left < 31 ? int32_t(1) << left : 0;
        exponents[window] = SPECTRUM_SHIFT - left - ups[window];
    }
    const Lanes factor = aie::load_v<WINDOWS>(factors);
    HETERO_LOOP_KEEP
    for (unsigned bin = 0; bin < BINS; ++bin) {
        int32_t *place = spectrum + bin * WINDOWS;
        aie::set_rounding(aie::rounding_mode::floor);
        const Lanes real = aie::mul<acc64>(aie::load_v<WINDOWS>(place), factor).to_vector<int32_t>();
        const Lanes imaginary = aie::mul<acc64>(aie::load_v<WINDOWS>(place + BINS * WINDOWS), factor).to_vector<int32_t>();
        const auto power = aie::add(square(real), square(imaginary));
        aie::set_rounding(aie::rounding_mode::positive_inf);
        aie::store_v(place, power.to_vector<int32_t>(MANTISSA_BITS));
    }
    const int32_t *table = tables + 3 * BANDS;
    const int16_t *weights = reinterpret_cast<const int16_t *>(table + LOG_ENTRIES);
    for (unsigned band = 0; band < BANDS; ++band) {
        const int32_t *about = tables + 3 * band;
        auto energy = aie::zeros<acc64, WINDOWS>();
        for (int32_t i = 0; i < about[1]; ++i)
            energy = aie::mac(energy, aie::load_v<WINDOWS>(spectrum + (about[0] + i) * int32_t(WINDOWS)), *weights++);
        // Lanes of 64 bits leave as two words, of which one is what the other leaves over.
        const Lanes high = energy.to_vector<int32_t>(24);
        const Lanes rest = aie::sub(energy, aie::accum<acc64, WINDOWS>(high, 24)).to_vector<int32_t>();
        for (unsigned window = 0; window < WINDOWS; ++window) {
            const int64_t value = (int64_t(high[window]) << 24) + rest[window];
            int32_t level = FLOOR;
            if (value > 0) {
                const int32_t log = log2_of(value, table) + about[2] + (exponents[window] << (LOG_BITS + 1));
                level = shift_round(log, LOG_BITS - OUTPUT_BITS);
            }
            y[window * BANDS + band] = narrow(level > FLOOR ? level : FLOOR);
        }
    }
}
