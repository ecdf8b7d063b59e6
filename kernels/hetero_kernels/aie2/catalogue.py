"""The designs that there are: of each kernel whose folder has one."""

from __future__ import annotations

import importlib
import importlib.util

import hetero_kernels
from hetero.errors import ProgramNotFound
from hetero_kernels.aie2.column_map import ColumnMap


def designs() -> tuple[str, ...]:
    """The names of the kernels that have a design for AIE2 cores, sorted."""
    return tuple(name for name in hetero_kernels.names() if _has_design(name))


def design(name: str) -> ColumnMap:
    """The design of the kernel of that name.

    Raises:
        ProgramNotFound: There is no such kernel, or no design of it.
    """
    hetero_kernels.get(name)
    if not _has_design(name):
        raise ProgramNotFound(
            f"the kernel {name!r} has no design for AIE2 cores; there are {', '.join(designs())}",
            fix="write hetero_kernels/NAME/aie2/design.py and kernel.cc (docs: kernels)",
        )
    found: ColumnMap = importlib.import_module(f"hetero_kernels.{name}.aie2.design").DESIGN
    return found


def _has_design(name: str) -> bool:
    package = f"hetero_kernels.{name}"
    return (
        importlib.util.find_spec(package) is not None
        and importlib.util.find_spec(f"{package}.aie2") is not None
        and importlib.util.find_spec(f"{package}.aie2.design") is not None
    )
