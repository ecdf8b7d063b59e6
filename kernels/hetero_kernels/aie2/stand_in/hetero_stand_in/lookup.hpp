// `aie::lut` and `aie::parallel_lookup`: a table in memory, four reads at a time.
#ifndef HETERO_STAND_IN_LOOKUP_HPP
#define HETERO_STAND_IN_LOOKUP_HPP

#include "accum.hpp"

namespace aie {

/// What an index beyond the table does: the nearest entry, or the index modulo the table's size.
enum class lut_oor_policy { saturate, truncate };

/// A table of `entries`, which a core reads at four places at once. It lies in memory four times: in each of two arrays
/// twice over, in turns of 128 bits (a bank's width). Entries of 8 bits are kept as 16 bits.
template <unsigned ParallelAccesses, typename OffsetType, typename SlopeType = OffsetType>
struct lut {
    static_assert(ParallelAccesses == 4, "AIE2 has lookups of 4 parallel accesses only");
    using offset_type = OffsetType;
    using stored = std::conditional_t<sizeof(OffsetType) == 1,
                                      std::conditional_t<std::is_signed<OffsetType>::value, int16, uint16>, OffsetType>;

    lut(unsigned entries, const void *ab, const void *cd)
        : entries_(entries), ab_(static_cast<const stored *>(ab)), cd_(static_cast<const stored *>(cd)) {
        hetero_stand_in::check(ab != cd, "lut: the two arrays are one; four reads at once need two");
        for (const void *array : {ab, cd})
            hetero_stand_in::check(reinterpret_cast<std::uintptr_t>(array) % vector_decl_align == 0,
                                   "lut: an array is not aligned to aie::vector_decl_align");
        hetero_stand_in::check(entries % bank == 0, "lut: the entries do not fill whole banks of 128 bits");
    }

    /// An entry, which has to be the same in all four places.
    OffsetType entry(unsigned i) const {
        const unsigned first = i / bank * 2 * bank + i % bank;
        const stored value = ab_[first];
        hetero_stand_in::check(ab_[first + bank] == value && cd_[first] == value && cd_[first + bank] == value,
                               "lut: the four copies of an entry differ");
        hetero_stand_in::check(value == static_cast<stored>(static_cast<OffsetType>(value)),
                               "lut: an entry does not fit its type");
        return static_cast<OffsetType>(value);
    }
    unsigned entries() const { return entries_; }

  private:
    static constexpr unsigned bank = 16 / sizeof(stored);
    unsigned entries_;
    const stored *ab_;
    const stored *cd_;
};

/// Reads a table at the places that a vector holds: of its bits, those above `step_bits`, plus `bias`.
template <typename T, typename Lut, lut_oor_policy policy = lut_oor_policy::saturate>
class parallel_lookup {
  public:
    explicit parallel_lookup(const Lut &table, unsigned step_bits = 0, unsigned bias = 0)
        : table_(table), step_bits_(step_bits), bias_(bias) {
        hetero_stand_in::check(bias == 0 || hetero_stand_in::is_power_of_two(bias), "lookup: bias is no power of two");
        hetero_stand_in::check(bias == 0 || std::is_signed<T>::value, "lookup: only signed indices take a bias");
        hetero_stand_in::check(policy != lut_oor_policy::truncate || hetero_stand_in::is_power_of_two(table.entries()),
                               "lookup: indices are truncated to tables of a power of two entries only");
    }

    template <unsigned N>
    vector<typename Lut::offset_type, N> fetch(const vector<T, N> &index) const {
        static_assert(N == 16 || N == 32, "a lookup takes 16 or 32 indices");
        static_assert(sizeof(typename Lut::offset_type) * N <= 64, "a lookup gives up to 512 bits");
        vector<typename Lut::offset_type, N> made;
        for (unsigned i = 0; i < N; ++i) made.set(table_.entry(place(index.get(i))), i);
        return made;
    }

  private:
    unsigned place(T index) const {
        const auto step = static_cast<std::int64_t>(
            hetero_stand_in::shifted(index, static_cast<int>(step_bits_), hetero_stand_in::state().rounding));
        const std::int64_t at = step + bias_;
        const std::int64_t last = static_cast<std::int64_t>(table_.entries()) - 1;
        if (policy == lut_oor_policy::truncate) return static_cast<unsigned>(at & last);
        return static_cast<unsigned>(at < 0 ? 0 : at > last ? last : at);
    }

    Lut table_;
    unsigned step_bits_;
    unsigned bias_;
};

}  // namespace aie

#endif
