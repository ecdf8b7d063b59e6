// A stand-in for AMD's `aie_api/aie.hpp`, so that a kernel for AIE2 compiles unmodified for the host.
//
// It models what decides a kernel's bits, after the public headers (Xilinx/aie_api, AIE2 paths): rounding modes,
// saturation (the default is none: values wrap), accumulators modulo 2^32 and 2^64, the layout of `mmul`'s blocks. It
// has integers only and just the names that kernels here use; where it is stricter than the real one (a scalar must
// have the vector's type, a load must be aligned, an index in range) the kernel is told, see `state.hpp`. It says
// nothing about speed. C++17, g++ and clang.
#ifndef HETERO_STAND_IN_AIE_HPP
#define HETERO_STAND_IN_AIE_HPP

#include "../hetero_stand_in/state.hpp"
#include "../hetero_stand_in/mask.hpp"
#include "../hetero_stand_in/vector.hpp"
#include "../hetero_stand_in/accum.hpp"
#include "../hetero_stand_in/arithmetic.hpp"
#include "../hetero_stand_in/reshape.hpp"
#include "../hetero_stand_in/mmul.hpp"
#include "../hetero_stand_in/lookup.hpp"

/// Trace markers of a core; nothing here.
inline void event0() {}
inline void event1() {}

#endif
