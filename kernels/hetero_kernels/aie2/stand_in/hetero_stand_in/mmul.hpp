// `aie::mmul`: a product of small matrices, whose elements lie row by row in vectors.
#ifndef HETERO_STAND_IN_MMUL_HPP
#define HETERO_STAND_IN_MMUL_HPP

#include "accum.hpp"

namespace hetero_stand_in {

/// The shapes that AIE2 has for the element sizes, as in the public headers (detail/aie2/mmul_*.hpp). Where a core sums
/// in 64 bits although 32 were asked for (some shapes of int16 x int8), the stand-in sums in 32: keep sums below 2^31.
constexpr bool has_mmul(unsigned m, unsigned k, unsigned n, unsigned a, unsigned b, unsigned accumulator) {
    struct Shape { unsigned a, b, accumulator, m, k, n; };
    constexpr Shape shapes[] = {
        {8, 8, 32, 4, 8, 4}, {8, 8, 64, 4, 8, 4}, {8, 8, 32, 4, 16, 4}, {8, 8, 64, 4, 16, 4}, {8, 8, 32, 4, 8, 8},
        {8, 8, 32, 8, 8, 8}, {8, 8, 32, 8, 8, 4}, {8, 8, 64, 8, 8, 4}, {8, 8, 32, 2, 8, 8}, {8, 8, 32, 1, 16, 8},
        {8, 8, 32, 2, 16, 8}, {8, 8, 32, 4, 16, 8}, {8, 8, 32, 8, 16, 8}, {8, 8, 32, 4, 16, 16},
        {16, 8, 32, 4, 8, 4}, {16, 8, 32, 4, 4, 8}, {16, 8, 32, 8, 4, 4}, {16, 8, 32, 8, 4, 8}, {16, 8, 32, 4, 4, 4},
        {16, 8, 32, 2, 8, 8}, {16, 8, 32, 2, 16, 8}, {16, 8, 32, 4, 16, 8},
        {8, 16, 32, 4, 4, 8}, {8, 16, 32, 4, 4, 4},
        {16, 16, 32, 4, 2, 8}, {16, 16, 32, 8, 2, 8}, {16, 16, 32, 8, 1, 8}, {16, 16, 64, 2, 4, 8},
        {16, 16, 64, 4, 4, 8}, {16, 16, 64, 4, 4, 4}, {16, 16, 64, 2, 8, 8}, {16, 16, 64, 4, 8, 8},
        {16, 16, 64, 2, 8, 16},
        {32, 16, 64, 4, 2, 4}, {32, 16, 64, 4, 4, 4}, {32, 16, 64, 2, 4, 8}, {32, 16, 64, 4, 4, 8},
        {32, 16, 64, 4, 1, 8}, {16, 32, 64, 4, 4, 4}, {16, 32, 64, 2, 4, 8},
        {32, 32, 64, 4, 2, 4}, {32, 32, 64, 4, 4, 4}, {32, 32, 64, 8, 2, 4}, {32, 32, 64, 4, 1, 8},
    };
    for (const Shape &s : shapes)
        if (s.a == a && s.b == b && s.accumulator == accumulator && s.m == m && s.k == k && s.n == n) return true;
    return false;
}

}  // namespace hetero_stand_in

namespace aie {

template <unsigned M, unsigned K, unsigned N, typename TypeA, typename TypeB = TypeA, typename Tag = accauto>
class mmul {
    using tag = hetero_stand_in::accum_or_default_t<Tag, TypeA, TypeB>;
    using S = typename tag::storage;
    static_assert(hetero_stand_in::has_mmul(M, K, N, 8 * sizeof(TypeA), 8 * sizeof(TypeB), 8 * sizeof(S)),
                  "AIE2 has no mmul of this shape for these types and this accumulator");

  public:
    static constexpr unsigned M_value = M, K_value = K, N_value = N;
    static constexpr unsigned size_A = M * K, size_B = K * N, size_C = M * N;
    using accum_type = accum<tag, size_C>;

    /// Zero, as the first `mac` takes it.
    mmul() : data_(zeros<tag, size_C>()) {}
    mmul(const accum_type &start) : data_(start) {}
    template <typename T>
    mmul(const vector<T, size_C> &start, int shift = 0) : data_(start, shift) {}

    /// C = A B, of A [M][K] and B [K][N], row by row.
    void mul(const vector<TypeA, size_A> &a, const vector<TypeB, size_B> &b) {
        data_ = zeros<tag, size_C>();
        mac(a, b);
    }
    /// C += A B.
    void mac(const vector<TypeA, size_A> &a, const vector<TypeB, size_B> &b) {
        for (unsigned m = 0; m < M; ++m)
            for (unsigned n = 0; n < N; ++n) {
                std::int64_t sum = 0;
                for (unsigned k = 0; k < K; ++k)
                    sum += std::int64_t(a.data()[m * K + k]) * std::int64_t(b.data()[k * N + n]);
                S &lane = data_.lane(m * N + n);
                lane = hetero_stand_in::wrapped<S>(hetero_stand_in::wide(lane) + sum);
            }
    }

    template <typename T>
    vector<T, size_C> to_vector(int shift = 0) const { return data_.template to_vector<T>(shift); }
    accum_type to_accum() const { return data_; }
    operator accum_type() const { return data_; }

  private:
    accum_type data_;
};

}  // namespace aie

#endif
