"""Small C++ functions around the stand-in `aie_api`, so that numpy can be held against each of its operations."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hetero_kernels.aie2.function import Buffer, CoreFunction
from hetero_kernels.aie2.host import HostKernel, build

ROUNDING = (
    "floor",
    "ceil",
    "symmetric_floor",
    "symmetric_ceil",
    "positive_inf",
    "negative_inf",
    "symmetric_inf",
    "symmetric_zero",
    "conv_even",
    "conv_odd",
)
SATURATION = ("none", "saturate", "symmetric")


def c_type(dtype: str) -> str:
    return f"{dtype}_t"


@cache
def probe(libraries: Path, compiler_name: str, name: str, body: str, *buffers: Buffer) -> HostKernel:
    """A function `name` of those buffers, whose statements are `body`; compiled once for a run."""
    source = libraries / "sources" / f"{name}.cc"
    source.parent.mkdir(parents=True, exist_ok=True)
    arguments = ", ".join(
        f"{'const ' if buffer.role == 'in' else ''}{c_type(buffer.dtype)} *{buffer.name}" for buffer in buffers
    )
    text = (
        '#include <aie_api/aie.hpp>\n#include "hetero_aie.hpp"\n'
        f"HETERO_KERNEL void {name}({arguments}) {{\n{body}\n}}\n"
    )
    if not source.is_file() or source.read_text() != text:
        # In one step, since other processes compile it at the same time.
        written = source.with_suffix(f".{compiler_name}.tmp")
        written.write_text(text)
        written.replace(source)
    return build(CoreFunction(name, source, buffers, 0), compiler_name, libraries)
