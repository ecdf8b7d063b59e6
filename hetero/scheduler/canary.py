"""A small request with a known answer: asked of an executable when it is loaded, and before it is trusted again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hetero.errors import WrongAnswer
from hetero.program import Program
from hetero.tensors import Array, TensorSpec

_log = logging.getLogger(__name__)

#: Allowed difference from the reference, as a share of the largest number in it. Accelerators compute in half precision
#: or int8 where the CPU has single precision; a wrong layout, a missing sync or a dead core is off by far more.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Canary:
    """Inputs, and the outputs that are right for them.

    Attributes:
        inputs: By name.
        expected: What the reference device answered; None when there is no reference, and only the form is checked.
        tolerance: As a share of the largest number in each output.
    """

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array] | None = None
    tolerance: float = TOLERANCE

    def check(self, outputs: Mapping[str, Array], min_cosine: float | None = None) -> None:
        """Compare an answer with the reference's.

        Args:
            outputs: The answer.
            min_cosine: As the executable has it.

        Raises:
            WrongAnswer: A shape or a number that differs, and by how much.
        """
        for name, expected in (self.expected or {}).items():
            compare(name, outputs[name], expected, self.tolerance, min_cosine)


class Answers(Protocol):
    """A device that is trusted with the reference's part."""

    def answer(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """One answer."""


def make_canary(program: Program, reference: Answers, rows: int = 1) -> Canary | None:
    """A canary with the reference's answer; None when inputs of the program's form make it fail.

    Args:
        program: What is asked.
        reference: Whose answer is right.
        rows: Of the leading dimension where that is free: as many as a launch takes, so that all of it is asked.
    """
    for inputs in _inputs_to_try(program, rows):
        try:
            return Canary(inputs, dict(reference.answer(inputs)), program.tolerance or TOLERANCE)
        except Exception as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            _log.info("%s: no canary of shapes %s, the reference fails on it: %s", program.name, shapes, error)
    return None


def compare(name: str, got: Array, expected: Array, tolerance: float, min_cosine: float | None = None) -> None:
    """Compare one output with the reference's: whole numbers and texts exactly, others within the tolerance.

    Args:
        name: Of the output.
        got: The answer.
        expected: The reference's.
        tolerance: As a share of the largest number.
        min_cosine: Compare the whole as a vector, in place of each number; see `Executable.min_cosine`.

    Raises:
        WrongAnswer: They differ.
    """
    if got.shape != expected.shape:
        raise WrongAnswer(f"output {name!r} has shape {got.shape}, the reference's has {expected.shape}")
    if expected.dtype.kind in "iub":
        # Quantised results may be rounded differently by one step.
        steps = int(np.abs(got.astype(np.int64) - expected.astype(np.int64)).max(initial=0))
        if steps > (0 if expected.dtype.kind == "b" else 1):
            raise WrongAnswer(f"output {name!r} differs from the reference by {steps} at most; 1 is allowed")
        return
    if expected.dtype == object:
        if not np.array_equal(got, expected):
            raise WrongAnswer(f"output {name!r} has other texts than the reference")
        return
    a, b = got.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        raise WrongAnswer(f"output {name!r} has NaN or infinity where the reference has none, or the reverse")
    finite = np.isfinite(b)
    if min_cosine is not None:
        cosine = _cosine(a[finite], b[finite])
        if cosine < min_cosine:
            raise WrongAnswer(
                f"output {name!r} has a cosine of {cosine:.4f} with the reference; {min_cosine:g} is the least allowed"
            )
        return
    off = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    allowed = tolerance * float(np.abs(b[finite]).max(initial=0.0)) + 1e-6
    if off > allowed:
        raise WrongAnswer(f"output {name!r} differs from the reference by {off:.3g} at most; {allowed:.3g} is allowed")


def _cosine(a: Array, b: Array) -> float:
    """Of the angle between two vectors; 1 where both are zero, 0 where one of them is."""
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if not lengths:
        return float(not a.any() and not b.any())
    return float(a @ b) / lengths


def canary_inputs(program: Program, rows: int = 1) -> dict[str, Array] | None:
    """Inputs of the program's form, the same each time; None when a rank is unknown.

    Free dimensions have their usual size or that of a compiled artifact, as there are devices that take no other; else
    the dimension that every output begins with has `rows`, and others have size 1.
    """
    return next(_inputs_to_try(program, rows), None)


def inputs_of(program: Program, shapes: Sequence[tuple[int, ...]]) -> dict[str, Array]:
    """Inputs of these shapes, in the program's order, the same each time."""
    rng = np.random.default_rng(0)
    return {spec.name: _values(spec, shape, rng) for spec, shape in zip(program.inputs, shapes, strict=True)}


def _inputs_to_try(program: Program, rows: int) -> Iterator[dict[str, Array]]:
    """Of `canary_inputs`, and then longer ones; see `Program.shapes_to_try`."""
    if any(spec.shape is None for spec in program.inputs):
        return
    compiled = next((artifact.shapes for artifact in program.artifacts if artifact.shapes), {})
    for usual in program.shapes_to_try(_leading(program, rows)):
        rng = np.random.default_rng(0)
        inputs: dict[str, Array] = {}
        for spec in program.inputs:
            shape = usual[spec.name] if program.sizes else compiled.get(spec.name, usual[spec.name])
            inputs[spec.name] = _values(spec, shape, rng)
        yield inputs


def _leading(program: Program, rows: int) -> dict[str, int]:
    """The free dimension that every output begins with, which launches are filled along, and its size."""
    first = {spec.shape[0] if spec.shape else None for spec in program.outputs}
    name = next(iter(first)) if len(first) == 1 else None
    return {name: rows} if isinstance(name, str) else {}


def _values(spec: TensorSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if spec.dtype == object:
        return np.full(shape, "a", dtype=object)
    if spec.dtype == np.int8:
        return rng.integers(-64, 64, shape, dtype=np.int8)
    if spec.dtype.kind in "iub":
        # Wider integers are indices and lengths as a rule: zero is inside any table.
        return np.zeros(shape, spec.dtype)
    return (rng.standard_normal(shape) * 0.5).astype(spec.dtype)
