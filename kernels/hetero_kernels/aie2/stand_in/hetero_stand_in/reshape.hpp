// Lanes that change places.
#ifndef HETERO_STAND_IN_RESHAPE_HPP
#define HETERO_STAND_IN_RESHAPE_HPP

#include "accum.hpp"

namespace aie {

/// The lanes as a row-major matrix of rows x columns, transposed.
template <typename T, unsigned Elems>
vector<T, Elems> transpose(const vector<T, Elems> &v, unsigned rows, unsigned columns) {
    static_assert(sizeof(T) * Elems * 8 <= 1024, "transpose takes vectors of up to 1024 bits");
    hetero_stand_in::check(rows * columns == Elems, "transpose: rows x columns is not the number of lanes");
    vector<T, Elems> made;
    for (unsigned r = 0; r < rows; ++r)
        for (unsigned c = 0; c < columns; ++c) made.set(v.get(r * columns + c), c * rows + r);
    return made;
}

/// All lanes of the parts, in order.
template <typename T, unsigned Elems, typename... Others>
vector<T, Elems *(1 + sizeof...(Others))> concat(const vector<T, Elems> &first, const Others &...others) {
    vector<T, Elems *(1 + sizeof...(Others))> made;
    unsigned index = 0;
    made.insert(index++, first);
    (made.insert(index++, others), ...);
    return made;
}
template <typename Tag, unsigned Elems, typename... Others>
accum<Tag, Elems *(1 + sizeof...(Others))> concat(const accum<Tag, Elems> &first, const Others &...others) {
    accum<Tag, Elems *(1 + sizeof...(Others))> made;
    unsigned index = 0;
    made.insert(index++, first);
    (made.insert(index++, others), ...);
    return made;
}

/// Chunks of the two in turn.
template <typename T, unsigned Elems>
std::pair<vector<T, Elems>, vector<T, Elems>> interleave_zip(const vector<T, Elems> &v, const vector<T, Elems> &w,
                                                             unsigned chunk) {
    hetero_stand_in::check(hetero_stand_in::is_power_of_two(chunk) && chunk <= Elems, "interleave_zip: wrong chunk");
    std::pair<vector<T, Elems>, vector<T, Elems>> made;
    for (unsigned i = 0; i < 2 * Elems; ++i) {
        const unsigned from = i / (2 * chunk) * chunk + i % chunk;
        const T value = i / chunk % 2 == 0 ? v.get(from) : w.get(from);
        (i < Elems ? made.first : made.second).set(value, i % Elems);
    }
    return made;
}
/// Undoes `interleave_zip`: the even chunks of both, and the odd ones.
template <typename T, unsigned Elems>
std::pair<vector<T, Elems>, vector<T, Elems>> interleave_unzip(const vector<T, Elems> &v, const vector<T, Elems> &w,
                                                               unsigned chunk) {
    hetero_stand_in::check(hetero_stand_in::is_power_of_two(chunk) && chunk <= Elems, "interleave_unzip: wrong chunk");
    std::pair<vector<T, Elems>, vector<T, Elems>> made;
    for (unsigned i = 0; i < 2 * Elems; ++i) {
        const unsigned to = i / (2 * chunk) * chunk + i % chunk;
        const T value = i < Elems ? v.get(i) : w.get(i - Elems);
        (i / chunk % 2 == 0 ? made.first : made.second).set(value, to);
    }
    return made;
}
/// Every other chunk, beginning with the first (even) or the second (odd).
template <typename T, unsigned Elems>
vector<T, Elems / 2> filter_even(const vector<T, Elems> &v, unsigned chunk = 1) {
    vector<T, Elems / 2> made;
    for (unsigned i = 0; i < Elems / 2; ++i) made.set(v.get(i / chunk * 2 * chunk + i % chunk), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems / 2> filter_odd(const vector<T, Elems> &v, unsigned chunk = 1) {
    vector<T, Elems / 2> made;
    for (unsigned i = 0; i < Elems / 2; ++i) made.set(v.get((i / chunk * 2 + 1) * chunk + i % chunk), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> reverse(const vector<T, Elems> &v) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(v.get(Elems - 1 - i), i);
    return made;
}
/// Lane i comes from lane i + n; the last n hold rubbish, the first n (rotate), or the fill's first n.
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_down(const vector<T, Elems> &v, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = 0; i + n < Elems; ++i) made.set(v.get(i + n), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_down_rotate(const vector<T, Elems> &v, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(v.get((i + n) % Elems), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_down_fill(const vector<T, Elems> &v, const vector<T, Elems> &fill, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(i + n < Elems ? v.get(i + n) : fill.get(i + n - Elems), i);
    return made;
}
/// Lane i comes from lane i - n; the first n hold rubbish, the last n (rotate), or the fill's last n.
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_up(const vector<T, Elems> &v, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = n; i < Elems; ++i) made.set(v.get(i - n), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_up_rotate(const vector<T, Elems> &v, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(v.get((i + Elems - n % Elems) % Elems), i);
    return made;
}
template <typename T, unsigned Elems>
vector<T, Elems> shuffle_up_fill(const vector<T, Elems> &v, const vector<T, Elems> &fill, unsigned n) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(i >= n ? v.get(i - n) : fill.get(Elems - n + i), i);
    return made;
}

}  // namespace aie

#endif
