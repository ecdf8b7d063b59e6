// Vectors of one size of integers as vectors of another: by way of an accumulator, as AIE2 packs 16 bits to 8 only.
#ifndef HETERO_VECTOR_HPP
#define HETERO_VECTOR_HPP

#include <aie_api/aie.hpp>

namespace hetero {

/// Each lane as To, under the saturation mode.
template <typename To, typename T, unsigned Elems>
aie::vector<To, Elems> converted(const aie::vector<T, Elems> &v) {
    return aie::accum<acc32, Elems>(v).template to_vector<To>();
}

}  // namespace hetero

#endif
