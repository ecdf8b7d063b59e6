// `aie::vector`, and loading and storing it.
#ifndef HETERO_STAND_IN_VECTOR_HPP
#define HETERO_STAND_IN_VECTOR_HPP

#include <cstring>
#include <utility>

#include "state.hpp"

namespace hetero_stand_in {

template <typename T>
constexpr bool is_element_v = std::is_same<T, int8>::value || std::is_same<T, uint8>::value ||
                              std::is_same<T, int16>::value || std::is_same<T, uint16>::value ||
                              std::is_same<T, int32>::value || std::is_same<T, uint32>::value;

template <unsigned Bytes, bool Signed>
struct integer_of;
template <> struct integer_of<1, true> { using type = int8; };
template <> struct integer_of<1, false> { using type = uint8; };
template <> struct integer_of<2, true> { using type = int16; };
template <> struct integer_of<2, false> { using type = uint16; };
template <> struct integer_of<4, true> { using type = int32; };
template <> struct integer_of<4, false> { using type = uint32; };

/// The integer of half or twice the size, of the same sign.
template <typename T>
using half_t = typename integer_of<(sizeof(T) > 1 ? sizeof(T) / 2 : 1), std::is_signed<T>::value>::type;
template <typename T>
using twice_t = typename integer_of<(sizeof(T) < 4 ? sizeof(T) * 2 : 4), std::is_signed<T>::value>::type;

constexpr bool is_power_of_two(unsigned n) { return n != 0 && (n & (n - 1)) == 0; }

}  // namespace hetero_stand_in

namespace aie {

/// What `alignas` of a table or a buffer needs for vector loads.
static constexpr unsigned vector_decl_align = 32;

/// Bytes that a load of such a vector has to be aligned to.
template <typename T, unsigned Elems>
static constexpr unsigned vector_ldst_align_v = sizeof(T) * Elems * 8 == 128 ? 16 : 32;

/// The lanes of a vector register of 512 bits.
template <typename T>
static constexpr unsigned native_vector_length_v = 64 / sizeof(T);

/// A vector of integers; fresh ones hold rubbish, as registers do.
template <typename T, unsigned Elems>
class vector {
    static_assert(hetero_stand_in::is_element_v<T>, "the stand-in has vectors of 8, 16 and 32 bit integers only");
    static_assert(hetero_stand_in::is_power_of_two(Elems), "a vector's lanes are a power of two");
    static_assert(sizeof(T) * Elems * 8 >= 128, "a vector has at least 128 bits");
    static_assert(sizeof(T) * Elems * 8 <= 4096, "a vector of more than 4096 bits would be kept in memory");

  public:
    using value_type = T;

    vector() { std::memset(data_, 0xA5, sizeof data_); }

    static constexpr unsigned size() { return Elems; }
    static constexpr unsigned type_bits() { return 8 * sizeof(T); }
    static constexpr unsigned bits() { return Elems * type_bits(); }
    static constexpr unsigned bytes() { return bits() / 8; }
    static constexpr bool is_signed() { return std::is_signed<T>::value; }

    T get(unsigned i) const { return data_[in_range(i)]; }
    void set(T value, unsigned i) { data_[in_range(i)] = value; }
    T operator[](unsigned i) const { return data_[in_range(i)]; }
    T &operator[](unsigned i) { return data_[in_range(i)]; }
    /// Everything moves up by one lane, and this comes first.
    vector &push(T value) {
        for (unsigned i = Elems - 1; i > 0; --i) data_[i] = data_[i - 1];
        data_[0] = value;
        return *this;
    }

    template <unsigned Out>
    vector<T, Out> extract(unsigned index) const {
        static_assert(Out <= Elems, "a part is no larger than the whole");
        hetero_stand_in::check((index + 1) * Out <= Elems, "vector.extract: the part is out of range");
        vector<T, Out> part;
        for (unsigned i = 0; i < Out; ++i) part.set(data_[(index * Out + i) % Elems], i);
        return part;
    }
    template <unsigned In>
    vector &insert(unsigned index, const vector<T, In> &part) {
        static_assert(In <= Elems, "a part is no larger than the whole");
        hetero_stand_in::check((index + 1) * In <= Elems, "vector.insert: the part is out of range");
        for (unsigned i = 0; i < In; ++i) data_[(index * In + i) % Elems] = part.get(i);
        return *this;
    }
    /// A larger vector with this one at the index; the other lanes hold rubbish.
    template <unsigned Out>
    vector<T, Out> grow(unsigned index = 0) const {
        vector<T, Out> whole;
        whole.insert(index, *this);
        return whole;
    }

    /// The same bits as lanes of another type.
    template <typename To>
    vector<To, Elems * sizeof(T) / sizeof(To)> cast_to() const {
        vector<To, Elems * sizeof(T) / sizeof(To)> made;
        std::memcpy(made.data(), data_, sizeof data_);
        return made;
    }
    /// Each lane as the integer of twice the size: 8 bits to 16. From 16 to 32 go through an accumulator.
    template <typename To = hetero_stand_in::twice_t<T>>
    vector<To, Elems> unpack() const {
        static_assert(sizeof(T) == 1 && sizeof(To) == 2, "AIE2 unpacks 8 bits to 16: use an accumulator for others");
        vector<To, Elems> made;
        for (unsigned i = 0; i < Elems; ++i) made.set(static_cast<To>(data_[i]), i);
        return made;
    }
    /// Each lane as the integer of half the size, under the saturation mode: 16 bits to 8.
    template <typename To = hetero_stand_in::half_t<T>>
    vector<To, Elems> pack() const {
        static_assert(sizeof(T) == 2 && sizeof(To) == 1, "AIE2 packs 16 bits to 8: use an accumulator for others");
        vector<To, Elems> made;
        for (unsigned i = 0; i < Elems; ++i)
            made.set(hetero_stand_in::narrowed<To>(data_[i], hetero_stand_in::state().saturation), i);
        return made;
    }

    void load(const T *from) {
        hetero_stand_in::check(reinterpret_cast<std::uintptr_t>(from) % vector_ldst_align_v<T, Elems> == 0,
                               "a vector load from an address that is not aligned");
        std::memcpy(data_, from, sizeof data_);
    }
    void store(T *to) const {
        hetero_stand_in::check(reinterpret_cast<std::uintptr_t>(to) % vector_ldst_align_v<T, Elems> == 0,
                               "a vector store to an address that is not aligned");
        std::memcpy(to, data_, sizeof data_);
    }

    /// For the stand-in itself; the real one has no such thing.
    T *data() { return data_; }
    const T *data() const { return data_; }

  private:
    static unsigned in_range(unsigned i) {
        hetero_stand_in::check(i < Elems, "a vector's lane out of range");
        return i % Elems;
    }

    T data_[Elems];
};

template <unsigned Elems, typename T>
vector<T, Elems> load_v(const T *from) {
    vector<T, Elems> made;
    made.load(from);
    return made;
}
template <typename T>
vector<T, native_vector_length_v<T>> load_v(const T *from) {
    return load_v<native_vector_length_v<T>>(from);
}
template <unsigned Elems, typename T>
vector<T, Elems> load_unaligned_v(const T *from, unsigned aligned_elems = 1) {
    hetero_stand_in::check(reinterpret_cast<std::uintptr_t>(from) % (aligned_elems * sizeof(T)) == 0,
                           "an unaligned load that is less aligned than it says");
    vector<T, Elems> made;
    std::memcpy(made.data(), from, sizeof(T) * Elems);
    return made;
}
template <typename T, unsigned Elems>
T *store_v(T *to, const vector<T, Elems> &value) {
    value.store(to);
    return to;
}
template <typename T, unsigned Elems>
T *store_unaligned_v(T *to, const vector<T, Elems> &value, unsigned aligned_elems = 1) {
    hetero_stand_in::check(reinterpret_cast<std::uintptr_t>(to) % (aligned_elems * sizeof(T)) == 0,
                           "an unaligned store that is less aligned than it says");
    std::memcpy(to, value.data(), sizeof(T) * Elems);
    return to;
}

template <typename T, unsigned Elems>
vector<T, Elems> broadcast(T value) {
    vector<T, Elems> made;
    for (unsigned i = 0; i < Elems; ++i) made.set(value, i);
    return made;
}

/// Reads or writes a vector at a time along memory: `*it++`.
template <unsigned Elems, typename T>
class vector_iterator {
    using element = std::remove_const_t<T>;

  public:
    explicit vector_iterator(T *at) : at_(at) {}
    class place {
      public:
        explicit place(T *at) : at_(at) {}
        operator vector<element, Elems>() const { return load_v<Elems>(at_); }
        place &operator=(const vector<element, Elems> &value) {
            value.store(at_);
            return *this;
        }

      private:
        T *at_;
    };
    place operator*() const { return place(at_); }
    vector_iterator &operator++() {
        at_ += Elems;
        return *this;
    }
    vector_iterator operator++(int) {
        const vector_iterator before = *this;
        at_ += Elems;
        return before;
    }
    vector_iterator &operator+=(int n) {
        at_ += n * static_cast<int>(Elems);
        return *this;
    }

  private:
    T *at_;
};

template <unsigned Elems, typename T>
vector_iterator<Elems, T> begin_vector(T *at) { return vector_iterator<Elems, T>(at); }
template <unsigned Elems, typename T>
vector_iterator<Elems, const T> cbegin_vector(const T *at) { return vector_iterator<Elems, const T>(at); }
template <unsigned Elems, typename T>
vector_iterator<Elems, T> begin_restrict_vector(T *at) { return vector_iterator<Elems, T>(at); }
template <unsigned Elems, typename T>
vector_iterator<Elems, const T> cbegin_restrict_vector(const T *at) { return vector_iterator<Elems, const T>(at); }

}  // namespace aie

#endif
