"""The designs that there are: of each kernel whose folder has one, and of families of kernels by the sizes in a name.

A kernel's folder has `DESIGN` in its `aie2/design.py`; a family's has `design(*sizes)`, sizes in the name's order.
"""

from __future__ import annotations

import importlib
import importlib.util
import re

import hetero_kernels
from hetero.errors import ProgramNotFound
from hetero_kernels.aie2.array_design import ArrayDesign
from hetero_kernels.family import Family

_MODULE = "hetero_kernels.{}.aie2.design"


def designs() -> tuple[str, ...]:
    """The names of the kernels of one size that have a design for AIE2 cores, sorted."""
    return tuple(name for name in hetero_kernels.names() if _has_design(name))


def families() -> tuple[Family, ...]:
    """The families of kernels that have one, sorted by pattern."""
    return tuple(family for family in hetero_kernels.families() if _has_design(folder_of(family)))


def design(name: str) -> ArrayDesign:
    """The design of the kernel of that name, of its usual geometry.

    Args:
        name: `gelu_i8`, or with sizes: `gemm_i8_i32_384x1536`.

    Raises:
        ProgramNotFound: There is no such kernel, or no design of it.
    """
    hetero_kernels.get(name)
    if name in designs():
        found: ArrayDesign = importlib.import_module(_MODULE.format(name)).DESIGN
        return found
    for family in families():
        if family.find(name) is not None:
            sizes = [int(text) for text in re.findall(r"\d+", name[len(folder_of(family)) :])]
            of_size: ArrayDesign = importlib.import_module(_MODULE.format(folder_of(family))).design(*sizes)
            return of_size
    raise ProgramNotFound(
        f"the kernel {name!r} has no design for AIE2 cores; there are "
        f"{', '.join([*designs(), *(family.pattern for family in families())])}",
        fix="write hetero_kernels/NAME/aie2/design.py and kernel.cc (docs: kernels)",
    )


def folder_of(family: Family) -> str:
    """The package of a family: its pattern without sizes."""
    return family.pattern.partition("_{")[0]


def _has_design(folder: str) -> bool:
    package = f"hetero_kernels.{folder}"
    return (
        importlib.util.find_spec(package) is not None
        and importlib.util.find_spec(f"{package}.aie2") is not None
        and importlib.util.find_spec(f"{package}.aie2.design") is not None
    )
