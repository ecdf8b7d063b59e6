// Lane by lane: sums, products, comparisons, bits, shifts; and reductions over the lanes.
#ifndef HETERO_STAND_IN_ARITHMETIC_HPP
#define HETERO_STAND_IN_ARITHMETIC_HPP

#include "accum.hpp"
#include "mask.hpp"

namespace hetero_stand_in {

template <typename T>
T at(const T &value, unsigned) { return value; }
template <typename T, unsigned Elems>
T at(const aie::vector<T, Elems> &v, unsigned i) { return v.get(i); }

template <typename T>
struct traits {
    using type = T;
    static constexpr unsigned lanes = 0;
};
template <typename T, unsigned Elems>
struct traits<aie::vector<T, Elems>> {
    using type = T;
    static constexpr unsigned lanes = Elems;
};

template <typename A>
constexpr bool is_vector_v = traits<A>::lanes != 0;

/// Two operands of one element type, at least one of them a vector: what most operations take.
template <typename A, typename B>
struct pair_of {
    static constexpr unsigned lanes = is_vector_v<A> ? traits<A>::lanes : traits<B>::lanes;
    static_assert(std::is_same<typename traits<A>::type, typename traits<B>::type>::value,
                  "both operands need one element type: cast the scalar to the vector's");
    static_assert(!is_vector_v<A> || !is_vector_v<B> || traits<A>::lanes == traits<B>::lanes,
                  "both vectors need the same number of lanes");
    using element = typename traits<A>::type;
    using vector = aie::vector<element, lanes>;
};

template <typename A, typename B>
using if_pair_t = std::enable_if_t<(is_vector_v<A> || is_vector_v<B>) && is_element_v<typename traits<A>::type> &&
                                   is_element_v<typename traits<B>::type>>;

template <typename A, typename B, typename F>
typename pair_of<A, B>::vector each(const A &a, const B &b, F f) {
    using element = typename pair_of<A, B>::element;
    typename pair_of<A, B>::vector made;
    for (unsigned i = 0; i < pair_of<A, B>::lanes; ++i) made.set(wrapped<element>(f(wide(at(a, i)), wide(at(b, i)))), i);
    return made;
}

template <typename A, typename B, typename F>
aie::mask<pair_of<A, B>::lanes> compared(const A &a, const B &b, F f) {
    aie::mask<pair_of<A, B>::lanes> made(false);
    for (unsigned i = 0; i < pair_of<A, B>::lanes; ++i)
        if (f(at(a, i), at(b, i))) made.set(i);
    return made;
}

}  // namespace hetero_stand_in

namespace aie {

#define HETERO_STAND_IN_BINARY(name, expression)                                                    \
    template <typename A, typename B, typename = hetero_stand_in::if_pair_t<A, B>>                  \
    auto name(const A &a, const B &b) {                                                             \
        using hetero_stand_in::wide;                                                                \
        return hetero_stand_in::each(a, b, [](wide x, wide y) -> wide { return expression; });      \
    }
#define HETERO_STAND_IN_COMPARE(name, op)                                                           \
    template <typename A, typename B, typename = hetero_stand_in::if_pair_t<A, B>>                  \
    auto name(const A &a, const B &b) {                                                             \
        return hetero_stand_in::compared(a, b, [](auto x, auto y) { return x op y; });              \
    }

// These wrap, whatever the saturation mode; `saturating_add` and `saturating_sub` follow it.
HETERO_STAND_IN_BINARY(add, x + y)
HETERO_STAND_IN_BINARY(sub, x - y)
HETERO_STAND_IN_BINARY(max, x > y ? x : y)
HETERO_STAND_IN_BINARY(min, x < y ? x : y)
HETERO_STAND_IN_BINARY(bit_and, x &y)
HETERO_STAND_IN_BINARY(bit_or, x | y)
HETERO_STAND_IN_BINARY(bit_xor, x ^ y)
HETERO_STAND_IN_COMPARE(lt, <)
HETERO_STAND_IN_COMPARE(le, <=)
HETERO_STAND_IN_COMPARE(gt, >)
HETERO_STAND_IN_COMPARE(ge, >=)
HETERO_STAND_IN_COMPARE(eq, ==)
HETERO_STAND_IN_COMPARE(neq, !=)

#undef HETERO_STAND_IN_BINARY
#undef HETERO_STAND_IN_COMPARE

template <typename T, unsigned Elems>
vector<T, Elems> saturating_add(const vector<T, Elems> &a, const vector<T, Elems> &b) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i)
        made.set(hetero_stand_in::left_accumulator<T>(hetero_stand_in::wide(a.get(i)) + b.get(i), 0), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> saturating_sub(const vector<T, Elems> &a, const vector<T, Elems> &b) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i)
        made.set(hetero_stand_in::left_accumulator<T>(hetero_stand_in::wide(a.get(i)) - b.get(i), 0), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> neg(const vector<T, Elems> &v) { return sub(T(0), v); }
template <typename T, unsigned Elems>
vector<T, Elems> abs(const vector<T, Elems> &v) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) {
        const hetero_stand_in::wide x = v.get(i);
        made.set(hetero_stand_in::wrapped<T>(x < 0 ? -x : x), i);
    }
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> bit_not(const vector<T, Elems> &v) { return bit_xor(v, T(~T(0))); }
template <typename T, unsigned Elems>
vector<T, Elems> clamp(const vector<T, Elems> &v, T low, T high) { return min(max(v, low), high); }

/// `v1` where the mask is 0, `v2` where it is 1; one of them, or both, may be a scalar.
template <typename A, typename B, unsigned Elems>
vector<typename hetero_stand_in::traits<A>::type, Elems> select(const A &v1, const B &v2, const mask<Elems> &m) {
    using T = typename hetero_stand_in::traits<A>::type;
    static_assert(std::is_same<T, typename hetero_stand_in::traits<B>::type>::value,
                  "both choices need one element type: cast the scalar to the vector's");
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i)
        made.set(m.test(i) ? hetero_stand_in::at(v2, i) : hetero_stand_in::at(v1, i), i);
    return made;
}

static constexpr int max_shift = 59;

namespace detail {
/// To an accumulator, up, and down again, as AIE2 shifts: both modes hold.
template <typename T, unsigned Elems>
vector<T, Elems> shift(const vector<T, Elems> &v, unsigned up, unsigned down) {
    using accumulator = std::conditional_t<sizeof(T) == 4, std::int64_t, std::int32_t>;
    hetero_stand_in::check(up <= max_shift && down <= max_shift, "a shift by more than aie::max_shift");
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) {
        const auto in = hetero_stand_in::wrapped<accumulator>(hetero_stand_in::wide(v.get(i)) *
                                                              (hetero_stand_in::wide(1) << up));
        made.set(hetero_stand_in::left_accumulator<T>(in, int(down)), i);
    }
    return made;
}
}  // namespace detail

/// Shifts obey the rounding and the saturation mode: with the defaults they round down and wrap.
template <typename T, unsigned Elems>
vector<T, Elems> upshift(const vector<T, Elems> &v, unsigned shift) { return detail::shift(v, shift, 0); }
template <typename T, unsigned Elems>
vector<T, Elems> downshift(const vector<T, Elems> &v, unsigned shift) { return detail::shift(v, 0, shift); }
template <typename T, unsigned Elems>
vector<T, Elems> logical_downshift(const vector<T, Elems> &v, unsigned shift) {
    using U = std::make_unsigned_t<T>;
    return detail::shift(v.template cast_to<U>(), 0, shift).template cast_to<T>();
}

/// The sum of all lanes, modulo the element's size.
template <typename T, unsigned Elems>
T reduce_add(const vector<T, Elems> &v) {
    hetero_stand_in::wide total = 0;
    for (unsigned i = 0; i < Elems; ++i) total += v.get(i);
    return hetero_stand_in::wrapped<T>(total);
}
template <typename T, unsigned Elems>
T reduce_max(const vector<T, Elems> &v) {
    T most = v.get(0);
    for (unsigned i = 1; i < Elems; ++i) most = v.get(i) > most ? v.get(i) : most;
    return most;
}
template <typename T, unsigned Elems>
T reduce_min(const vector<T, Elems> &v) {
    T least = v.get(0);
    for (unsigned i = 1; i < Elems; ++i) least = v.get(i) < least ? v.get(i) : least;
    return least;
}

namespace detail {
template <typename Tag, unsigned Elems, typename A, typename B>
accum<Tag, Elems> multiply(const accum<Tag, Elems> &start, const A &a, const B &b, int sign) {
    using S = typename Tag::storage;
    accum<Tag, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) {
        const hetero_stand_in::wide product = hetero_stand_in::wide(hetero_stand_in::at(a, i)) * hetero_stand_in::at(b, i);
        made.lane(i) = hetero_stand_in::wrapped<S>(start.lane(i) + sign * product);
    }
    return made;
}
template <typename A, typename B>
constexpr unsigned lanes_v = hetero_stand_in::is_vector_v<A> ? hetero_stand_in::traits<A>::lanes
                                                             : hetero_stand_in::traits<B>::lanes;
template <typename Tag, typename A, typename B>
using product_t = accum<hetero_stand_in::accum_or_default_t<Tag, typename hetero_stand_in::traits<A>::type,
                                                            typename hetero_stand_in::traits<B>::type>,
                        lanes_v<A, B>>;
}  // namespace detail

/// Products in an accumulator; the element types may differ, and one operand may be a scalar.
template <typename Tag = accauto, typename A, typename B, typename = hetero_stand_in::if_pair_t<A, B>>
detail::product_t<Tag, A, B> mul(const A &a, const B &b) {
    using result = detail::product_t<Tag, A, B>;
    return detail::multiply(zeros<typename result::value_type, result::size()>(), a, b, 1);
}
template <typename Tag = accauto, typename A, typename B, typename = hetero_stand_in::if_pair_t<A, B>>
detail::product_t<Tag, A, B> negmul(const A &a, const B &b) {
    using result = detail::product_t<Tag, A, B>;
    return detail::multiply(zeros<typename result::value_type, result::size()>(), a, b, -1);
}
template <typename Tag, unsigned Elems, typename A, typename B>
accum<Tag, Elems> mac(const accum<Tag, Elems> &sum, const A &a, const B &b) { return detail::multiply(sum, a, b, 1); }
template <typename Tag, unsigned Elems, typename A, typename B>
accum<Tag, Elems> msc(const accum<Tag, Elems> &sum, const A &a, const B &b) { return detail::multiply(sum, a, b, -1); }
template <typename Tag = accauto, typename T, unsigned Elems>
auto mul_square(const vector<T, Elems> &v) { return mul<Tag>(v, v); }
template <typename Tag, typename T, unsigned Elems>
accum<Tag, Elems> mac_square(const accum<Tag, Elems> &sum, const vector<T, Elems> &v) { return mac(sum, v, v); }

/// Sums of accumulators, and of an accumulator and a vector.
template <typename Tag, unsigned Elems>
accum<Tag, Elems> add(const accum<Tag, Elems> &a, const accum<Tag, Elems> &b) {
    accum<Tag, Elems> made;
    for (unsigned i = 0; i < Elems; ++i)
        made.lane(i) = hetero_stand_in::wrapped<typename Tag::storage>(hetero_stand_in::wide(a.lane(i)) + b.lane(i));
    return made;
}
template <typename Tag, unsigned Elems>
accum<Tag, Elems> sub(const accum<Tag, Elems> &a, const accum<Tag, Elems> &b) {
    accum<Tag, Elems> made;
    for (unsigned i = 0; i < Elems; ++i)
        made.lane(i) = hetero_stand_in::wrapped<typename Tag::storage>(hetero_stand_in::wide(a.lane(i)) - b.lane(i));
    return made;
}
template <typename Tag, unsigned Elems, typename T>
accum<Tag, Elems> add(const accum<Tag, Elems> &a, const vector<T, Elems> &v) { return add(a, accum<Tag, Elems>(v)); }
template <typename Tag, unsigned Elems, typename T>
accum<Tag, Elems> sub(const accum<Tag, Elems> &a, const vector<T, Elems> &v) { return sub(a, accum<Tag, Elems>(v)); }

}  // namespace aie

#endif
