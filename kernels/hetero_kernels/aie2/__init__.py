"""Kernels for AMD's AIE2 cores (Phoenix): C++ for a core, an IRON design around it, and checks without AMD's tools.

AMD's compilers are on no package registry, so that most machines cannot build for the NPU. What such a machine can
still check is a ladder of rungs, each on the one below:

1. `budgets`: does the design fit a core, its memory, its DMA channels and descriptors, its stack?
2. `host`: the unmodified C++ compiled for this machine, against a stand-in for `aie_api`; equal to the reference?
3. `simulate`: the unmodified IRON design run by a stand-in for `aie.iron`; deadlocks, layouts, order of arguments?
4. `toolchain`: the real `aie.iron` generates and verifies MLIR. 5. `aiecc` lowers it. 6. Peano and an xclbin.
"""
