"""The first three rungs: budgets, the C++ on this machine, the design on the stand-in. Each raises when it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hetero.errors import CompileError, WrongAnswer
from hetero.tensors import Array
from hetero_kernels.aie2 import budgets, examples, host
from hetero_kernels.aie2.budgets import Need, Use
from hetero_kernels.aie2.column_map import ColumnMap, Geometry
from hetero_kernels.aie2.pattern import places
from hetero_kernels.aie2.simulate import Outcome, run, stand_in


def fits(design: ColumnMap, geometry: Geometry) -> list[Use]:
    """Rung 1: the design fits the array.

    Returns:
        How much of each limit it uses.

    Raises:
        CompileError: It does not fit.
    """
    program = design.program(stand_in(), geometry).resolve_program()
    return budgets.check(program, {design.name: Need(design.frame, design.data)})


def equals_reference(
    design: ColumnMap, compiler: str, tiles: int = 200, cache: Path | None = None, seed: int = 0
) -> int:
    """Rung 2: the C++, compiled for this machine, gives the reference's bits.

    Args:
        design: Whose.
        compiler: `g++` or `clang`.
        tiles: How many, random and extreme.
        cache: Where compiled kernels are kept.
        seed: Of the random ones.

    Returns:
        How many values were compared.

    Raises:
        Unavailable: The compiler is not here.
        CompileError: It refuses the source, or the frame is larger than the design states.
        WrongAnswer: A bit differs, or the function did what a core does not forgive.
    """
    kernel = host.build(design.function, compiler, cache)
    if kernel.frame is not None and kernel.frame > design.frame:
        raise CompileError(
            f"{design.name}: {compiler} reports a frame of {kernel.frame:,} bytes, "
            f"and the design states {design.frame:,}",
            fix=f"state frame={-(-kernel.frame // 256) * 256} in its design.py",
        )
    single = Geometry(1, 1, tiles)
    inputs = examples.inputs(design, tiles, seed)
    sent, answers = design.pack(inputs, single)
    ins = _ordered(sent.reshape(tiles, -1), design.in_pattern)
    outs = np.zeros((tiles, design.out_size), np.int8)
    for place in range(tiles):
        kernel(ins[place].view(np.int8), outs[place])
    answers[:] = _ordered(outs.view(np.uint8), design.out_pattern).reshape(-1)
    return _same(design, design.unpack([sent, answers], single), inputs)


def design_runs(
    design: ColumnMap, geometry: Geometry, compiler: str = "g++", cache: Path | None = None, seed: int = 0
) -> Outcome:
    """Rung 3: the design, on the stand-in for `aie.iron`, gives the reference's bits, all columns at the same time.

    Raises:
        Unavailable: The compiler is not here.
        CompileError: It refuses the source.
        WrongAnswer: The design comes to a stop, breaks a rule, answers wrongly, or its columns take turns.
    """
    kernel = host.build(design.function, compiler, cache)
    program = design.program(stand_in(), geometry).resolve_program()
    inputs = examples.inputs(design, geometry.tiles, seed)
    buffers = design.pack(inputs, geometry)

    def on_core(*elements: Any) -> None:
        kernel(*(element.view(np.int8) for element in elements), fresh=False)

    outcome = run(
        program,
        buffers,
        {design.name: on_core},
        {design.name: tuple(buffer.role for buffer in design.function.buffers)},
        design.cycles,
        [argument.role for argument in design.arguments(geometry)],
    )
    _same(design, design.unpack(buffers, geometry), inputs)
    if outcome.one_after_the_other:
        raise WrongAnswer(
            f"{design.name}: the columns work one after the other, in {outcome.cycles:,.0f} modelled cycles",
            fix="start all columns' transfers before the first wait",
        )
    return outcome


def _ordered(tiles: Array, pattern: Any) -> Array:
    if not pattern:
        return np.ascontiguousarray(tiles)
    order = places(pattern)
    # A pattern of one tensor is that of each of them, as a memory tile applies it.
    return np.ascontiguousarray(tiles[:, order])


def _same(design: ColumnMap, given: dict[str, Array], inputs: dict[str, Array]) -> int:
    compared = 0
    for name, wanted in design.kernel.reference(**inputs).items():
        wrong = np.argwhere(given[name] != wanted)
        compared += wanted.size
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            raise WrongAnswer(
                f"{design.name}: {len(wrong):,} of {wanted.size:,} values of {name!r} differ from the reference; "
                f"the first at {list(place)}: got {given[name][place]}, expected {wanted[place]}",
                fix="compare kernel.cc with reference.py, and the design's patterns with what kernel.cc expects",
            )
    return compared
