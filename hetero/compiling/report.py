"""What a backend is asked to compile, and what it tells about the result. A plugin author needs this and `backend`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hetero.program import Program
from hetero.tensors import Array

#: Told about a stage (`quantise`, `check`) and how much of it is done, from 0 to 1.
Progress = Callable[[str, float], None]

#: Inputs of one call by name.
Sample = Mapping[str, Array]

MIN_COSINE = 0.99
"""Below it, a compiled program is refused unless the user wants it all the same."""


@dataclass(frozen=True)
class CompileRequest:
    """One program, for one target, in one set of shapes.

    Attributes:
        program: With an `onnx` artifact: `program.artifact("onnx")`.
        target: One of the backend's `targets`.
        shapes: The shape of every input, all sizes fixed, in the program's order.
        int8: Quantise weights and activations to 8 bits; else the target's own floating point.
        calibration: Typical inputs, at least one where `int8` is set; dtypes and shapes are the request's.
        checks: Inputs to compare the compiled program with ONNX Runtime on; at least one.
        min_cosine: What the comparison has to reach; below it the report names the layers that lose most, where the
            compiler can tell.
        options: A value for every one of the backend's `compile_options`, checked.
    """

    program: Program
    target: str
    shapes: Mapping[str, tuple[int, ...]]
    int8: bool
    calibration: Sequence[Sample]
    checks: Sequence[Sample]
    min_cosine: float
    options: Mapping[str, Any]


@dataclass(frozen=True)
class OutputError:
    """How far one output is from ONNX Runtime's, over all samples.

    Attributes:
        name: Of the output.
        cosine: Of the angle between the two as vectors, the least of all samples: 1 when they agree; NaN when the
            compiled program gave NaN or infinity where ONNX Runtime did not.
        max_abs_error: The greatest difference of two numbers; NaN as above.
        largest: The greatest absolute value that ONNX Runtime gave.
    """

    name: str
    cosine: float
    max_abs_error: float
    largest: float


@dataclass(frozen=True)
class LayerLoss:
    """How far one layer's output is from full precision.

    Attributes:
        layer: As the compiler calls it: `[Conv] encoder_3_mm`.
        own: The cosine when the layer's inputs are exact: what this layer loses.
        so_far: The cosine when its inputs are those that the compiled program computed.
    """

    layer: str
    own: float
    so_far: float


@dataclass(frozen=True)
class CompileReport:
    """What was compiled and how far its answers are from ONNX Runtime's.

    Attributes:
        target: What it was compiled for.
        kind: Of the artifact: `rknn`.
        file: The artifact's name in the folder that `Backend.compile` was given.
        compiler: Name and version: `rknn-toolkit2 2.5.0`.
        precision: `fp16`, `int8`: what it computes in.
        shapes: Of the inputs.
        outputs: The comparison, in the program's order.
        samples: How many inputs were compared.
        sampled: What they were: `random inputs`, `calibration data`, `check data`.
        layers: Those that lose most, the worst first; empty where the comparison is good enough or nobody can tell.
        notes: Remarks for people.
        seconds: That compiling and checking took.
    """

    target: str
    kind: str
    file: str
    compiler: str
    precision: str
    shapes: Mapping[str, tuple[int, ...]]
    outputs: tuple[OutputError, ...]
    samples: int
    sampled: str = ""
    layers: tuple[LayerLoss, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = field(default=0.0, compare=False)

    @property
    def cosine(self) -> float:
        """The worst output's; NaN when any is."""
        cosines = [output.cosine for output in self.outputs]
        return math.nan if any(map(math.isnan, cosines)) else min(cosines, default=math.nan)

    def reaches(self, cosine: float) -> bool:
        """Whether every output comes that close to ONNX Runtime's."""
        return self.cosine >= cosine

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, but for NaN, which `json` writes and reads all the same."""
        return {**dataclasses.asdict(self), "shapes": {name: list(shape) for name, shape in self.shapes.items()}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CompileReport:
        """The report that `to_dict` was made of.

        Raises:
            TypeError, KeyError, AttributeError: It was not.
        """
        told = dict(content)
        told["shapes"] = {name: tuple(shape) for name, shape in told["shapes"].items()}
        told["outputs"] = tuple(OutputError(**entry) for entry in told["outputs"])
        told["layers"] = tuple(LayerLoss(**entry) for entry in told["layers"])
        told["notes"] = tuple(told["notes"])
        return cls(**told)


def output_error(name: str, got: Array, expected: Array) -> OutputError:
    """Compare one output of one sample.

    Args:
        name: Of the output.
        got: What the compiled program gave.
        expected: What ONNX Runtime gave, of the same shape.
    """
    a, b = got.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    finite = np.isfinite(b)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    if not np.array_equal(np.isfinite(a), finite):
        return OutputError(name, math.nan, math.nan, largest)
    a, b = a[finite], b[finite]
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = min(1.0, float(a @ b) / lengths) if lengths else float(not a.any() and not b.any())
    return OutputError(name, cosine, float(np.abs(a - b).max(initial=0.0)), largest)


def worst_of(errors: Iterable[OutputError]) -> OutputError:
    """One output's errors over several samples as one. NaN is worse than any number."""
    every = list(errors)
    unusable = any(math.isnan(error.cosine) for error in every)
    return OutputError(
        every[0].name,
        math.nan if unusable else min(error.cosine for error in every),
        math.nan if unusable else max(error.max_abs_error for error in every),
        max(error.largest for error in every),
    )
