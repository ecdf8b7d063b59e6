"""What `hetero kernels` does with the AIE2 kernels: the ladder of checks, and building."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import hetero_kernels
from hetero.errors import CompileError, OptionError, Unavailable, WrongAnswer
from hetero.kernel_tools import KernelEntry, Rung, Size, State
from hetero_kernels.aie2 import catalogue, checks, toolchain
from hetero_kernels.aie2.column_map import ColumnMap, Geometry, Layout
from hetero_kernels.aie2.host import COMPILERS

_TILES = 200


class Aie2Tools:
    """The kernels for AMD's AIE2 cores. See `hetero.kernel_tools.KernelTools`."""

    target = "npu1"
    compilers: Sequence[str] = COMPILERS
    rungs: Sequence[tuple[int, str]] = (
        (1, "fits the array"),
        (2, "C++ equals the reference"),
        (3, "design runs on the stand-in"),
        (4, "aie.iron generates it"),
        (5, "aiecc lowers it"),
        (6, "xclbin is built"),
    )

    def kernels(self, folders: Sequence[Path]) -> list[KernelEntry]:
        """All kernels of `hetero_kernels`, with what there is of each."""
        found = []
        for name in hetero_kernels.names():
            has = name in catalogue.designs()
            design = catalogue.design(name) if has else None
            compiled = next((folder / name for folder in folders if (folder / name / "kernel.toml").is_file()), None)
            found.append(
                KernelEntry(
                    name,
                    hetero_kernels.get(name).title,
                    source=design is not None and design.source.is_file(),
                    design=has,
                    compiled=compiled,
                    limits=design.limits if design else "runs by its reference only",
                )
            )
        return found

    def verify(self, name: str, rungs: Sequence[int], compiler: str, size: Size) -> Iterator[Rung]:
        """Check one kernel, rung by rung."""
        known = dict(self.rungs)
        for number in rungs:
            if number not in known:
                raise OptionError(f"there is no rung {number}", fix=f"there are {min(known)} to {max(known)}")
        if compiler not in self.compilers:
            raise OptionError(f"there is no compiler {compiler!r}", fix=f"take one of {', '.join(self.compilers)}")
        design = catalogue.design(name)
        geometry = _geometry(design, size)
        steps: dict[int, Callable[[], str]] = {
            1: lambda: _fitted(design, geometry),
            2: lambda: f"{checks.equals_reference(design, compiler, _TILES):,} values with {compiler}, all equal",
            3: lambda: _ran(design, geometry, compiler),
            4: lambda: f"{len(toolchain.generate(design, geometry).splitlines()):,} lines of MLIR, verified",
            5: lambda: _lowered(design, geometry),
            6: lambda: _built(design, geometry),
        }
        for number in rungs:
            yield _rung(number, known[number], steps[number])

    def build(self, name: str, folder: Path, size: Size) -> list[Path]:
        """Build one kernel for the NPU, after the first rung."""
        design = catalogue.design(name)
        geometry = _geometry(design, size)
        checks.fits(design, geometry)
        return toolchain.build(design, geometry, folder)


def _geometry(design: ColumnMap, size: Size) -> Geometry:
    usual = design.geometry
    if size.layout not in (None, "packed", "separate"):
        raise OptionError(f"there is no layout {size.layout!r}", fix="take packed or separate")
    return replace(
        usual,
        columns=usual.columns if size.columns is None else size.columns,
        rows=usual.rows if size.rows is None else size.rows,
        tiles_per_core=usual.tiles_per_core if size.tiles_per_core is None else size.tiles_per_core,
        layout=usual.layout if size.layout is None else cast(Layout, size.layout),
        stack=usual.stack if size.stack is None else size.stack,
    )


def _rung(number: int, title: str, step: Callable[[], str]) -> Rung:
    state: State = "passed"
    fix = ""
    try:
        detail = step()
    except Unavailable as missing:
        state, detail, fix = "not here", missing.problem, missing.fix
    except (CompileError, WrongAnswer) as wrong:
        state, detail, fix = "failed", wrong.problem, wrong.fix
    return Rung(number, title, state, detail, fix)


def _fitted(design: ColumnMap, geometry: Geometry) -> str:
    uses = [use for use in checks.fits(design, geometry) if use.what != "cores"]
    tightest = sorted(uses, key=lambda use: use.used / use.limit, reverse=True)[:3]
    return "tightest: " + ", ".join(map(str, tightest))


def _ran(design: ColumnMap, geometry: Geometry, compiler: str) -> str:
    outcome = checks.design_runs(design, geometry, compiler)
    return f"{outcome.calls} calls on {geometry.columns} x {geometry.rows} cores, {outcome.cycles:,.0f} modelled cycles"


def _lowered(design: ColumnMap, geometry: Geometry) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return f"{toolchain.lower(design, geometry, Path(folder)).stat().st_size:,} bytes of instructions"


def _built(design: ColumnMap, geometry: Geometry) -> str:
    with tempfile.TemporaryDirectory() as folder:
        xclbin = toolchain.build(design, geometry, Path(folder) / design.name)[0]
        return f"an xclbin of {xclbin.stat().st_size:,} bytes; nothing was run on an NPU"
