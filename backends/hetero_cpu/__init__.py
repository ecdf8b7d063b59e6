"""ONNX Runtime as backends of hetero: the CPU, and each other execution provider as a device of its own.

| module | subject |
|---|---|
| `backend` | the two Backend classes: what `probe` finds, what `load` does |
| `library` | the installed onnxruntime: its version without importing it, and importing it |
| `providers` | execution providers as devices |
| `sessions` | opening an ONNX Runtime session, and no other than the one that was asked for |
| `executable` | running one: bound buffers for small tensors, direct calls for the rest |
| `failures` | what ONNX Runtime raises, in hetero's errors |
| `graph_cache` | optimised graphs kept on disk |
| `threads` | how many CPUs this process may use |
| `processor` | the processor's name and features |
| `kernels` | kernels of `hetero_kernels`, by their numpy reference |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetero.plugins import hookimpl

if TYPE_CHECKING:
    from hetero.backend import Backend


@hookimpl
def hetero_backend() -> list[type[Backend]]:
    """The backends of this package."""
    from hetero_cpu.backend import CpuBackend, OrtProvidersBackend

    return [CpuBackend, OrtProvidersBackend]
