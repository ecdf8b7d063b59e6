"""The first three rungs: budgets, the C++ on this machine, the design on the stand-in. Each raises when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hetero.errors import CompileError, WrongAnswer
from hetero.tensors import Array
from hetero_kernels.aie2 import budgets, host
from hetero_kernels.aie2.array_design import ArrayDesign
from hetero_kernels.aie2.budgets import Need, Use
from hetero_kernels.aie2.geometry import Geometry
from hetero_kernels.aie2.packing import pack, unpack
from hetero_kernels.aie2.simulate import Outcome, run, stand_in

# What a core answers before other inputs are drawn; sooner where all of it shares one set of weights.
_TOGETHER, _TOGETHER_WITH_WEIGHTS = 200, 20


def fits(design: ArrayDesign) -> list[Use]:
    """Rung 1: the design fits the array.

    Returns:
        How much of each limit it uses.

    Raises:
        CompileError: It does not fit.
    """
    program = design.program(stand_in()).resolve_program()
    # A source's tables are there once, whichever of its functions reads them.
    needs = {
        function.name: Need(function.frame, 0 if place else design.data)
        for place, function in enumerate(design.functions)
    }
    return budgets.check(program, needs)


def equals_reference(
    design: ArrayDesign, compiler: str, blocks: int = 200, cache: Path | None = None, seed: int = 0
) -> int:
    """Rung 2: the C++, compiled for this machine, gives the reference's bits.

    Args:
        design: Whose. Of its geometry nothing is used: a core is alone.
        compiler: `g++` or `clang`.
        blocks: What a core answers at a time (a tile, 64 x 64 of a product): at least so many, random and extreme.
        cache: Where compiled kernels are kept.
        seed: Of the random ones.

    Returns:
        How many values were compared.

    Raises:
        Unavailable: The compiler is not here.
        CompileError: It refuses the source, or the frame is larger than the design states.
        WrongAnswer: A bit differs, or the function did what a core does not forgive.
    """
    functions: dict[str, Callable[..., None]] = {}
    for function in design.functions:
        kernel = host.build(function, compiler, cache)
        if kernel.frame is not None and kernel.frame > function.frame:
            raise CompileError(
                f"{design.name}: {compiler} reports a frame of {kernel.frame:,} bytes, "
                f"and the design states {function.frame:,}",
                fix=f"state frame={-(-kernel.frame // 256) * 256} in its design.py",
            )
        functions[function.name] = kernel
    each = design.at(Geometry(1, 1, 1)).blocks
    weighs = any(argument.role == "weight" for argument in design.arguments)
    launches = -(-blocks // (_TOGETHER_WITH_WEIGHTS if weighs else _TOGETHER))
    single = design.at(Geometry(1, 1, -(-blocks // (launches * each))))
    rng = np.random.default_rng(seed)
    compared = 0
    for _ in range(launches):
        inputs = single.examples(rng)
        buffers = pack(single, inputs)
        single.alone(functions, buffers)
        compared += same(single, unpack(single, buffers), inputs)
    return compared


def design_runs(design: ArrayDesign, compiler: str = "g++", cache: Path | None = None, seed: int = 0) -> Outcome:
    """Rung 3: the design, on the stand-in for `aie.iron`, gives the reference's bits, all columns at the same time.

    Raises:
        Unavailable: The compiler is not here.
        CompileError: It refuses the source.
        WrongAnswer: The design comes to a stop, breaks a rule, answers wrongly, or its columns take turns.
    """
    inputs = design.examples(np.random.default_rng(seed))
    buffers = pack(design, inputs)
    outcome = launched(design, buffers, compiler, cache)
    same(design, unpack(design, buffers), inputs)
    if outcome.one_after_the_other:
        raise WrongAnswer(
            f"{design.name}: the columns work one after the other, in {outcome.cycles:,.0f} modelled cycles",
            fix="start all columns' transfers before the first wait",
        )
    return outcome


def launched(design: ArrayDesign, buffers: list[Array], compiler: str = "g++", cache: Path | None = None) -> Outcome:
    """One launch on the stand-in for `aie.iron`, with the C++ compiled for this machine.

    Args:
        design: What to launch.
        buffers: One for each argument, of any dtype; outputs are written.
        compiler: `g++` or `clang`.
        cache: Where compiled kernels are kept.

    Raises:
        As for `design_runs`.
    """
    calls: dict[str, Callable[..., None]] = {}
    roles: Mapping[str, tuple[str, ...]] = {f.name: tuple(b.role for b in f.buffers) for f in design.functions}
    for function in design.functions:
        calls[function.name] = _on_core(host.build(function, compiler, cache))
    program = design.program(stand_in()).resolve_program()
    kinds = [argument.role for argument in design.arguments]
    return run(program, buffers, calls, roles, design.cycles, kinds)


def _on_core(kernel: host.HostKernel) -> Callable[..., None]:
    def call(*elements: Any) -> None:
        buffers = kernel.function.buffers
        kernel(*(e.view(buffer.dtype) for e, buffer in zip(elements, buffers, strict=True)), fresh=False)

    return call


def same(design: ArrayDesign, given: Mapping[str, Array], inputs: Mapping[str, Array]) -> int:
    """Hold outputs against the reference's.

    Returns:
        How many values were compared.

    Raises:
        WrongAnswer: A bit differs.
    """
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
