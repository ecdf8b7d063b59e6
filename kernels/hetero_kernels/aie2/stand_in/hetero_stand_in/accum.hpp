// `aie::accum`: 32 or 64 bits a lane, modulo 2^32 and 2^64.
#ifndef HETERO_STAND_IN_ACCUM_HPP
#define HETERO_STAND_IN_ACCUM_HPP

#include "vector.hpp"

/// The accumulators' tags. A core of AIE2 has 32 and 64 bits: 48 are kept in 64.
struct acc32 { using storage = std::int32_t; };
struct acc48 { using storage = std::int64_t; };
struct acc64 { using storage = std::int64_t; };
struct accauto {};

namespace hetero_stand_in {

/// What a product of these two is summed in unless the kernel says otherwise.
template <typename A, typename B>
using default_accum_t =
    std::conditional_t<(sizeof(A) <= 2 && sizeof(B) <= 2), acc32,
                       std::conditional_t<(sizeof(A) == 4 && sizeof(B) == 4), acc64, acc48>>;

template <typename Tag, typename A, typename B>
using accum_or_default_t = std::conditional_t<std::is_same<Tag, accauto>::value, default_accum_t<A, B>, Tag>;

}  // namespace hetero_stand_in

namespace aie {

template <typename Tag, unsigned Elems>
class accum {
    using S = typename Tag::storage;
    static_assert(hetero_stand_in::is_power_of_two(Elems), "an accumulator's lanes are a power of two");

  public:
    using value_type = Tag;

    accum() { std::memset(data_, 0xA5, sizeof data_); }
    template <typename T>
    explicit accum(const vector<T, Elems> &v, int shift = 0) { from_vector(v, shift); }

    static constexpr unsigned size() { return Elems; }

    /// Each lane shifted to the left by `shift`. AIE2 does not shift 32 bits into 32.
    template <typename T>
    void from_vector(const vector<T, Elems> &v, int shift = 0) {
        hetero_stand_in::check(shift == 0 || sizeof(T) < sizeof(S),
                               "accum.from_vector: AIE2 does not shift 32-bit lanes into a 32-bit accumulator");
        for (unsigned i = 0; i < Elems; ++i)
            data_[i] = hetero_stand_in::wrapped<S>(
                hetero_stand_in::shifted(v.get(i), -shift, hetero_stand_in::state().rounding));
    }
    /// Each lane shifted to the right by `shift`, under the rounding and the saturation mode. From 32 bits to 32 AIE2
    /// hands the bits on as they are and ignores the shift: use `downshift` on the vector.
    template <typename T>
    vector<T, Elems> to_vector(int shift = 0) const {
        hetero_stand_in::check(shift == 0 || sizeof(T) < sizeof(S),
                               "to_vector: AIE2 ignores a shift from a 32-bit accumulator to 32-bit lanes");
        vector<T, Elems> made;
        for (unsigned i = 0; i < Elems; ++i) made.set(hetero_stand_in::left_accumulator<T>(data_[i], shift), i);
        return made;
    }

    template <unsigned Out>
    accum<Tag, Out> extract(unsigned index) const {
        hetero_stand_in::check((index + 1) * Out <= Elems, "accum.extract: the part is out of range");
        accum<Tag, Out> part;
        for (unsigned i = 0; i < Out; ++i) part.lane(i) = data_[(index * Out + i) % Elems];
        return part;
    }
    template <unsigned In>
    accum &insert(unsigned index, const accum<Tag, In> &part) {
        hetero_stand_in::check((index + 1) * In <= Elems, "accum.insert: the part is out of range");
        for (unsigned i = 0; i < In; ++i) data_[(index * In + i) % Elems] = part.lane(i);
        return *this;
    }
    template <unsigned Out>
    accum<Tag, Out> grow(unsigned index = 0) const {
        accum<Tag, Out> whole;
        whole.insert(index, *this);
        return whole;
    }

    /// For the stand-in itself; the real one has no such thing.
    S &lane(unsigned i) { return data_[i]; }
    S lane(unsigned i) const { return data_[i]; }

  private:
    S data_[Elems];
};

/// A vector, or an accumulator, of zeros.
template <typename T, unsigned Elems>
std::enable_if_t<hetero_stand_in::is_element_v<T>, vector<T, Elems>> zeros() {
    return broadcast<T, Elems>(T(0));
}
template <typename Tag, unsigned Elems>
std::enable_if_t<!hetero_stand_in::is_element_v<Tag>, accum<Tag, Elems>> zeros() {
    accum<Tag, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.lane(i) = 0;
    return made;
}

}  // namespace aie

#endif
