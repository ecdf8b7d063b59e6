"""Compute shaders for Vulkan: GLSL (`*.comp`) and the SPIR-V that was made of it (`*.spv`), which is what is used.

After a change of a source: `python -m hetero_kernels.vulkan.build`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from hetero.errors import ProgramNotFound


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """The names of all shaders, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".spv") for name in files if name.endswith(".spv")))


@lru_cache(maxsize=256)
def spirv(name: str) -> bytes:
    """The SPIR-V of a shader.

    Raises:
        ProgramNotFound: There is none of that name.
    """
    if name not in names():
        raise ProgramNotFound(f"there is no shader {name!r}", fix=f"there are: {', '.join(names())}")
    return resources.files(__name__).joinpath(f"{name}.spv").read_bytes()
