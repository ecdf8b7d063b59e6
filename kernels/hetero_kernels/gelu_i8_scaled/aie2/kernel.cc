// gelu_i8_scaled on one AIE2 core: 4,096 values a call, looked up 32 at a time, bit for bit as reference.py has it.
//
// The host's table comes with every tile, by the bits of x. A lookup reads four places at once: the table is laid out in
// memory four times here (in each of two arrays twice over, in turns of 128 bits, as 16 bits), in the order of x + 128.

#include <aie_api/aie.hpp>

#include "hetero_aie.hpp"

namespace {

constexpr unsigned VALUES = 4096;
constexpr unsigned LANES = 32;
constexpr unsigned ENTRIES = 256;
constexpr unsigned BANK = 8;  // entries of 16 bits in 128 bits
constexpr unsigned PART = 16;

using Table = aie::lut<4, int8_t>;

void copy(const int8_t *__restrict table, int16_t *__restrict first, int16_t *__restrict second) {
    HETERO_LOOP_KEEP
    for (unsigned i = 0; i < ENTRIES; i += PART) {
        // Negative values come second in the host's order and first in this one.
        const auto wide = aie::load_v<PART>(table + (i ^ (ENTRIES / 2))).unpack();
        for (unsigned half = 0; half < PART / BANK; ++half) {
            const auto bank = wide.extract<BANK>(half);
            const unsigned at = 2 * (i + half * BANK);
            aie::store_v(first + at, bank);
            aie::store_v(first + at + BANK, bank);
            aie::store_v(second + at, bank);
            aie::store_v(second + at + BANK, bank);
        }
    }
}

}  // namespace

// in: the values, then the table; out: theirs.
HETERO_KERNEL void gelu_i8_scaled(const int8_t *__restrict in, int8_t *__restrict out) {
    // A lookup shifts its indices, and is right only when that rounds down.
    aie::set_rounding(aie::rounding_mode::floor);
    aie::set_saturation(aie::saturation_mode::none);
    alignas(aie::vector_decl_align) int16_t first[2 * ENTRIES];
    alignas(aie::vector_decl_align) int16_t second[2 * ENTRIES];
    copy(in + VALUES, first, second);
    const Table table(ENTRIES, first, second);
    aie::parallel_lookup<int8_t, Table> lookup(table, 0, ENTRIES / 2);
    HETERO_LOOP_AT_LEAST(8)
    for (unsigned i = 0; i < VALUES; i += LANES) aie::store_v(out + i, lookup.fetch(aie::load_v<LANES>(in + i)));
}
