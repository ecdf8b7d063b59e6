// A core's control register (rounding, saturation), and what a kernel did that the real core would not forgive.
#ifndef HETERO_STAND_IN_STATE_HPP
#define HETERO_STAND_IN_STATE_HPP

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

using int8 = std::int8_t;
using uint8 = std::uint8_t;
using int16 = std::int16_t;
using uint16 = std::uint16_t;
using int32 = std::int32_t;
using uint32 = std::uint32_t;

namespace aie {

/// What a shift to the right does with the bits that fall off. The numbers are arbitrary here.
enum class rounding_mode : unsigned {
    floor,            ///< towards minus infinity; the default
    ceil,             ///< towards plus infinity
    symmetric_floor,  ///< towards zero
    symmetric_ceil,   ///< away from zero
    positive_inf,     ///< to nearest, halves up
    negative_inf,     ///< to nearest, halves down
    symmetric_inf,    ///< to nearest, halves away from zero
    symmetric_zero,   ///< to nearest, halves towards zero
    conv_even,        ///< to nearest, halves to even
    conv_odd,         ///< to nearest, halves to odd
};

/// What becomes of a value that does not fit.
enum class saturation_mode : unsigned {
    none = 0,       ///< it wraps; the default
    saturate = 1,   ///< the type's smallest or largest
    symmetric = 3,  ///< likewise, and the smallest of a signed type is minus the largest
};

}  // namespace aie

namespace hetero_stand_in {

#if defined(__SIZEOF_INT128__)
__extension__ typedef __int128 wide;
#else
#error "the stand-in for aie_api needs a compiler with 128-bit integers: g++ or clang on a 64-bit machine"
#endif

struct State {
    aie::rounding_mode rounding = aie::rounding_mode::floor;
    aie::saturation_mode saturation = aie::saturation_mode::none;
    const char *fault = nullptr;
};

inline State &state() {
    static thread_local State one;
    return one;
}

/// Note what was wrong; the first is kept. The call goes on, so that the host can read it afterwards.
inline void fault(const char *what) {
    if (state().fault == nullptr) state().fault = what;
}

inline void check(bool right, const char *what) {
    if (!right) fault(what);
}

/// value / 2^shift under a rounding mode; a negative shift multiplies.
inline wide shifted(wide value, int shift, aie::rounding_mode mode) {
    if (shift <= 0) return value * (wide(1) << -shift);
    if (shift > 63) {
        fault("a shift by more than 63 bits");
        return 0;
    }
    const wide floor = value >> shift;
    const wide rest = value - floor * (wide(1) << shift);
    const wide half = wide(1) << (shift - 1);
    const bool odd = (floor & 1) != 0;
    bool up = false;
    switch (mode) {
        case aie::rounding_mode::floor: up = false; break;
        case aie::rounding_mode::ceil: up = rest != 0; break;
        case aie::rounding_mode::symmetric_floor: up = value < 0 && rest != 0; break;
        case aie::rounding_mode::symmetric_ceil: up = value > 0 && rest != 0; break;
        case aie::rounding_mode::positive_inf: up = rest >= half; break;
        case aie::rounding_mode::negative_inf: up = rest > half; break;
        case aie::rounding_mode::symmetric_inf: up = value < 0 ? rest > half : rest >= half; break;
        case aie::rounding_mode::symmetric_zero: up = value < 0 ? rest >= half : rest > half; break;
        case aie::rounding_mode::conv_even: up = rest > half || (rest == half && odd); break;
        case aie::rounding_mode::conv_odd: up = rest > half || (rest == half && !odd); break;
    }
    return floor + (up ? 1 : 0);
}

/// The value modulo 2^bits, as T.
template <typename T>
T wrapped(wide value) {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(value));
}

/// The value as T under a saturation mode.
template <typename T>
T narrowed(wide value, aie::saturation_mode mode) {
    if (mode == aie::saturation_mode::none) return wrapped<T>(value);
    const wide most = std::numeric_limits<T>::max();
    const wide least = mode == aie::saturation_mode::symmetric && std::is_signed<T>::value
                           ? -most
                           : wide(std::numeric_limits<T>::min());
    return static_cast<T>(value > most ? most : value < least ? least : value);
}

/// Shift, round and saturate by the core's modes: what leaves an accumulator.
template <typename T>
T left_accumulator(wide value, int shift) {
    return narrowed<T>(shifted(value, shift, state().rounding), state().saturation);
}

}  // namespace hetero_stand_in

namespace aie {

inline void set_rounding(rounding_mode mode) { hetero_stand_in::state().rounding = mode; }
inline rounding_mode get_rounding() { return hetero_stand_in::state().rounding; }
inline rounding_mode swap_rounding(rounding_mode mode) {
    const rounding_mode before = get_rounding();
    set_rounding(mode);
    return before;
}

inline void set_saturation(saturation_mode mode) { hetero_stand_in::state().saturation = mode; }
inline saturation_mode get_saturation() { return hetero_stand_in::state().saturation; }
inline saturation_mode swap_saturation(saturation_mode mode) {
    const saturation_mode before = get_saturation();
    set_saturation(mode);
    return before;
}

/// The older spelling: `aie::tile::current().set_rounding(...)`.
class tile {
  public:
    static tile current() { return tile(); }
    void set_rounding(rounding_mode mode) { aie::set_rounding(mode); }
    rounding_mode get_rounding() const { return aie::get_rounding(); }
    void set_saturation(saturation_mode mode) { aie::set_saturation(mode); }
    saturation_mode get_saturation() const { return aie::get_saturation(); }
};

}  // namespace aie

// For the host: modes as after a reset, and the first fault of this thread since then (null for none).
extern "C" {
__attribute__((used, weak, visibility("default"))) void hetero_stand_in_reset() {
    hetero_stand_in::state() = hetero_stand_in::State();
}
__attribute__((used, weak, visibility("default"))) const char *hetero_stand_in_fault() {
    const char *what = hetero_stand_in::state().fault;
    hetero_stand_in::state().fault = nullptr;
    return what;
}
}

#endif
