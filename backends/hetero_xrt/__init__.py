"""AMD XDNA NPUs (Ryzen AI) through XRT.

| module | subject |
|---|---|
| `backend` | devices, options, loading |
| `system` | what the system tells about the NPU, without the vendor's library |
| `checks` | what `hetero doctor` tells beside the device |
| `power` | the NPU's power mode |
| `finding` | where the compiled kernel of a program is |
| `manifest` | `kernel.toml`: what a compiled kernel takes, and in which order |
| `xclbin` | the header of an xclbin, read without the vendor's library |
| `instructions` | whether a kernel's columns work at the same time |
| `layout` | tiles in a kernel's buffers |
| `flow` | the vendor's calls, from an xclbin to a run |
| `weights` | weights that stay in the NPU's memory |
| `flights` | launches in flight, kept alive until they have ended |
| `pool` | contexts of a kernel, and the launches in them |
| `executable` | requests of any number of tiles |
| `quantise` | float32 to int8 and back |
| `blocks` | the host's work on rows, shared among threads |
| `steps` | the steps of a graph: on the host, and on the NPU |
| `graph` | a graph as an executable: steps run, launches polled |
| `planning` | which nodes of a graph become launches |
| `onnx_program` | from an ONNX model to such a graph |
| `fidelity` | how near its layers come to float32; statistics of activations |
| `failures` | what the vendor's errors mean |
| `simulated` | the same on a simulated Phoenix |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetero.plugins import hookimpl

if TYPE_CHECKING:
    from hetero.backend import Backend


@hookimpl
def hetero_backend() -> type[Backend]:
    """The backend of this package."""
    from hetero_xrt.backend import XrtBackend

    return XrtBackend
