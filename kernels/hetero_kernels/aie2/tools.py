"""What `hetero kernels` does with the AIE2 kernels: the ladder of checks, and building."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import hetero_kernels
from hetero.errors import CompileError, OptionError, Unavailable, WrongAnswer
from hetero.kernel_manifest import Layout
from hetero.kernel_tools import KernelEntry, Rung, Size, State
from hetero_kernels.aie2 import catalogue, checks, toolchain
from hetero_kernels.aie2.array_design import ArrayDesign
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.host import COMPILERS

# What cores answer at a time (tiles, blocks of 64 x 64) that the second rung compares, at least.
_BLOCKS = 200
# Of a design that the third rung runs as it is: they take some seconds.
_CALLS = 5000


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
        """All kernels of `hetero_kernels`, with what there is of each; of a family, one entry under its pattern."""
        found = []
        for name in hetero_kernels.names():
            design = catalogue.design(name) if name in catalogue.designs() else None
            found.append(_entry(name, hetero_kernels.get(name).title, design, _compiled(name, folders)))
        for family in hetero_kernels.families():
            usual = tuple(family.name(**sizes) for sizes in family.usual)
            design = catalogue.design(usual[0]) if family in catalogue.families() else None
            entry = _entry(family.pattern, family.title, design, None)
            found.append(replace(entry, usual=usual))
            for folder in folders:
                # Those of its sizes that somebody built have a line of their own.
                for built in sorted(
                    path.parent for path in folder.glob("*/kernel.toml") if entry.covers(path.parent.name)
                ):
                    found.append(replace(entry, name=built.name, compiled=built))
        return sorted(found, key=lambda entry: entry.name)

    def verify(self, name: str, rungs: Sequence[int], compiler: str, size: Size) -> Iterator[Rung]:
        """Check one kernel, rung by rung."""
        known = dict(self.rungs)
        for number in rungs:
            if number not in known:
                raise OptionError(f"there is no rung {number}", fix=f"there are {min(known)} to {max(known)}")
        if compiler not in self.compilers:
            raise OptionError(f"there is no compiler {compiler!r}", fix=f"take one of {', '.join(self.compilers)}")
        design = _sized(catalogue.design(name), size)
        alone = design if size.full else design.small()
        launched = alone if design.calls > _CALLS else design
        steps: dict[int, Callable[[], str]] = {
            1: lambda: _fitted(design),
            2: lambda: _equal(alone, design, compiler),
            3: lambda: _ran(launched, design, compiler),
            4: lambda: f"{len(toolchain.generate(design).splitlines()):,} lines of MLIR, verified",
            5: lambda: _lowered(design),
            6: lambda: _built(design),
        }
        for number in rungs:
            yield _rung(number, known[number], steps[number])

    def build(self, name: str, folder: Path, size: Size) -> list[Path]:
        """Build one kernel for the NPU, after the first rung."""
        design = _sized(catalogue.design(name), size)
        checks.fits(design)
        return toolchain.build(design, folder)


def _entry(name: str, title: str, design: ArrayDesign | None, compiled: Path | None) -> KernelEntry:
    return KernelEntry(
        name,
        title,
        source=design is not None and design.source.is_file(),
        design=design is not None,
        compiled=compiled,
        limits=design.limits if design else "runs by its reference only",
    )


def _compiled(name: str, folders: Sequence[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name / "kernel.toml").is_file()), None)


def _sized(design: ArrayDesign, size: Size) -> ArrayDesign:
    usual = design.geometry
    if size.layout not in (None, "packed", "separate"):
        raise OptionError(f"there is no layout {size.layout!r}", fix="take packed or separate")
    geometry = Geometry(
        columns=usual.columns if size.columns is None else size.columns,
        rows=usual.rows if size.rows is None else size.rows,
        tiles_per_core=usual.tiles_per_core if size.tiles_per_core is None else size.tiles_per_core,
        layout=usual.layout if size.layout is None else cast(Layout, size.layout),
        stack=usual.stack if size.stack is None else size.stack,
    )
    return design.at(geometry)


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


def _fitted(design: ArrayDesign) -> str:
    uses = [use for use in checks.fits(design) if use.what != "cores"]
    tightest = sorted(uses, key=lambda use: use.used / use.limit, reverse=True)[:3]
    return "tightest: " + ", ".join(map(str, tightest))


def _equal(checked: ArrayDesign, design: ArrayDesign, compiler: str) -> str:
    compared = checks.equals_reference(checked, compiler, _BLOCKS)
    return f"{compared:,} values with {compiler}, all equal{_instead(checked, design)}"


def _ran(checked: ArrayDesign, design: ArrayDesign, compiler: str) -> str:
    outcome = checks.design_runs(checked, compiler)
    geometry = checked.geometry
    return (
        f"{outcome.calls:,} calls on {geometry.columns} x {geometry.rows} cores, {outcome.cycles:,.0f} modelled cycles"
        f"{_instead(checked, design)}"
    )


def _instead(checked: ArrayDesign, design: ArrayDesign) -> str:
    return "" if checked.name == design.name else f"; of {checked.name}"


def _lowered(design: ArrayDesign) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return f"{toolchain.lower(design, Path(folder)).stat().st_size:,} bytes of instructions"


def _built(design: ArrayDesign) -> str:
    with tempfile.TemporaryDirectory() as folder:
        xclbin = toolchain.build(design, Path(folder) / design.name)[0]
        return f"an xclbin of {xclbin.stat().st_size:,} bytes; nothing was run on an NPU"
