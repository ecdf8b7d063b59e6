// What every kernel here includes beside `aie_api/aie.hpp`: hints for loops, spelled for the compiler at hand.
//
// Kernels themselves hold no `#if`: the same text is compiled for a core (Peano, which defines __AIECC__) and for the
// host, where the hints mean nothing.
#ifndef HETERO_AIE_HPP
#define HETERO_AIE_HPP

#include <cstdint>

#define HETERO_TEXT(x) #x

#if defined(__AIECC__)
/// Before a `for`: it runs at least so many times.
#define HETERO_LOOP_AT_LEAST(n) _Pragma(HETERO_TEXT(clang loop min_iteration_count(n)))
/// Before a `for`: so many of its turns are written out.
#define HETERO_LOOP_UNROLL(n) _Pragma(HETERO_TEXT(clang loop unroll_count(n)))
/// Before a `for`: it stays a loop.
#define HETERO_LOOP_KEEP _Pragma("clang loop unroll(disable)")
#else
#define HETERO_LOOP_AT_LEAST(n)
#define HETERO_LOOP_UNROLL(n)
#define HETERO_LOOP_KEEP
#endif

/// What a kernel offers to the design.
#define HETERO_KERNEL extern "C" __attribute__((visibility("default")))

#endif
