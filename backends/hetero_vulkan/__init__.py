"""Vulkan as a backend of hetero: integrated and discrete GPUs, each a device of its own.

| module | subject |
|---|---|
| `backend` | the Backend class: what `probe` finds, what `load` does |
| `api` | libvulkan as raw functions, structs that hold what they point at, a count of what is alive |
| `instance` | the loader's door to the drivers |
| `physical` | what a driver tells of a device |
| `device` | a device, opened: what kernels are run with |
| `holder`, `selftest` | a device over the life of a backend: tested at first, opened again when lost |
| `onnx_program`, `executable` | ONNX models: what the device does of them; runs, and a new start when it was lost |
| `plan`, `weights` | a graph's memory and recorded work for one lane; constants |
| `nodes` | a graph's nodes as operators |
| `ops` | operators: what shaders compute |
| `allocator` | buffers of a Runtime in memory that a device works in |
| `memory`, `buffers` | blocks of memory, and buffers in them |
| `spirv` | what a shader says of itself |
| `pipelines`, `pipeline_cache` | compiled shaders, and those kept on disk |
| `commands`, `steps`, `hazards`, `signals` | recorded work, its steps, the barriers between them, and how it ends |
| `choosing`, `opening` | which devices are used; opening one |
| `failures` | what Vulkan answers, in hetero's errors |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetero.plugins import hookimpl

if TYPE_CHECKING:
    from hetero.backend import Backend


@hookimpl
def hetero_backend() -> type[Backend]:
    """The backend of this package."""
    from hetero_vulkan.backend import VulkanBackend

    return VulkanBackend
