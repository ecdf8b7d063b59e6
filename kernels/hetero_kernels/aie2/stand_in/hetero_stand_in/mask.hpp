// `aie::mask`: one bit a lane.
#ifndef HETERO_STAND_IN_MASK_HPP
#define HETERO_STAND_IN_MASK_HPP

#include "state.hpp"

namespace aie {

template <unsigned Elems>
class mask {
  public:
    mask() = default;
    explicit mask(bool value) {
        for (unsigned i = 0; i < Elems; ++i) bits_[i] = value;
    }

    static mask from_uint32(std::uint32_t low) {
        static_assert(Elems <= 32, "from_uint32 fills masks of up to 32 lanes");
        return from_uint64(low);
    }
    static mask from_uint64(std::uint64_t low) {
        static_assert(Elems <= 64, "from_uint64 fills masks of up to 64 lanes");
        mask made(false);
        for (unsigned i = 0; i < Elems; ++i) made.bits_[i] = (low >> i & 1) != 0;
        return made;
    }

    static constexpr unsigned size() { return Elems; }
    bool test(unsigned i) const {
        hetero_stand_in::check(i < Elems, "a mask's lane out of range");
        return bits_[i % Elems];
    }
    void set(unsigned i) { change(i, true); }
    void clear(unsigned i) { change(i, false); }
    unsigned count() const {
        unsigned n = 0;
        for (bool bit : bits_) n += bit ? 1 : 0;
        return n;
    }
    bool empty() const { return count() == 0; }
    bool full() const { return count() == Elems; }

    std::uint32_t to_uint32(unsigned word) const { return static_cast<std::uint32_t>(word_of(word, 32)); }
    std::uint64_t to_uint64(unsigned word) const { return word_of(word, 64); }

    template <unsigned Out>
    mask<Out> extract(unsigned index) const {
        mask<Out> part(false);
        hetero_stand_in::check((index + 1) * Out <= Elems, "a mask's part out of range");
        for (unsigned i = 0; i < Out; ++i)
            if (bits_[(index * Out + i) % Elems]) part.set(i);
        return part;
    }

    mask operator~() const {
        mask made(false);
        for (unsigned i = 0; i < Elems; ++i) made.bits_[i] = !bits_[i];
        return made;
    }
    mask operator&(const mask &other) const { return combined(other, [](bool a, bool b) { return a && b; }); }
    mask operator|(const mask &other) const { return combined(other, [](bool a, bool b) { return a || b; }); }
    mask operator^(const mask &other) const { return combined(other, [](bool a, bool b) { return a != b; }); }
    bool operator==(const mask &other) const { return (*this ^ other).empty(); }
    bool operator!=(const mask &other) const { return !(*this == other); }

  private:
    void change(unsigned i, bool value) {
        hetero_stand_in::check(i < Elems, "a mask's lane out of range");
        bits_[i % Elems] = value;
    }
    std::uint64_t word_of(unsigned word, unsigned width) const {
        std::uint64_t made = 0;
        for (unsigned i = 0; i < width && word * width + i < Elems; ++i)
            made |= std::uint64_t(bits_[word * width + i]) << i;
        return made;
    }
    template <typename F>
    mask combined(const mask &other, F f) const {
        mask made(false);
        for (unsigned i = 0; i < Elems; ++i) made.bits_[i] = f(bits_[i], other.bits_[i]);
        return made;
    }

    bool bits_[Elems] = {};
};

}  // namespace aie

#endif
