"""What a program's inputs and outputs look like, and the check that arrays fit.

A dimension is an `int` (fixed), a `str` (symbolic: any size, the same wherever the name stands in one call) or
`None` (any size).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import InputError, WrongAnswer
from hetero.memory.arrays import PooledArray

Array = NDArray[Any]
Dim = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output.

    Attributes:
        name: As the program calls it.
        dtype: Of the elements; `object` for strings.
        shape: Fixed, symbolic and free dimensions; `()` for a scalar, `None` for unknown rank.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{shape_text(self.shape)}"

    def refuses(self, array: Array) -> str | None:
        """Why `array` does not fit, symbolic dimensions aside; None when it does."""
        if array.dtype != self.dtype:
            return f"has dtype {array.dtype}, expected {self.dtype}"
        if self.shape is None:
            return None
        fits = array.ndim == len(self.shape) and all(
            size == dim for size, dim in zip(array.shape, self.shape, strict=True) if type(dim) is int
        )
        return None if fits else f"has shape {shape_text(array.shape)}, expected {shape_text(self.shape)}"


def shape_text(shape: Iterable[Dim] | None) -> str:
    """A shape as `[batch, 80, 3000]`; `?` for a free dimension, `[...]` for unknown rank."""
    if shape is None:
        return "[...]"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


class Signature:
    """The inputs of a program, compiled for checking one call after another.

    The last shapes that passed are kept, so that a stream of equal calls pays for a comparison and no more.
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._names = tuple(spec.name for spec in inputs)
        self._known = frozenset(self._names)
        self._dtypes = tuple(spec.dtype for spec in inputs)
        self._passed: tuple[tuple[int, ...], ...] | None = None
        self._answered: list[tuple[str, np.dtype[Any], tuple[int, ...] | None]] = [
            (spec.name, spec.dtype, None) for spec in outputs
        ]

    def feed(self, args: Sequence[Any]) -> dict[str, Array]:
        """The arrays of one call by input name, checked.

        Args:
            args: One value per input in the program's order, or a single mapping from input name to value. Values that
                are not arrays (numbers, lists) are converted to the input's dtype; arrays must have it already.

        Raises:
            InputError: A name, a number of inputs, a dtype or a shape that does not fit.
        """
        passed = self._passed
        if len(args) == 1 and passed is not None and len(passed) == 1:
            # One input like the last one: what most calls are, and a microsecond less.
            value = args[0]
            if (
                type(value) is np.ndarray
                and value.shape == passed[0]
                and value.dtype is self._dtypes[0]
                and value.flags.c_contiguous
            ):
                return {self._names[0]: value}
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = args[0]
            if named.keys() != self._known:
                raise self._names_differ(named)
            values: Sequence[Any] = [named[name] for name in self._names]
        elif len(args) == len(self._names):
            values = args
        else:
            raise InputError(f"got {len(args)} inputs, expected {len(self._names)}: {self._expected()}")
        arrays = [
            value
            if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous
            else _array(value, spec)
            for value, dtype, spec in zip(values, self._dtypes, self.inputs, strict=True)
        ]
        shapes = tuple([array.shape for array in arrays])
        if shapes != self._passed:
            self._check_shapes(arrays)
            self._passed = shapes
        return dict(zip(self._names, arrays, strict=True))

    def sizes(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """The size of each symbolic dimension that the inputs have."""
        return {
            dim: size
            for spec in self.inputs
            for dim, size in zip(spec.shape or (), inputs[spec.name].shape, strict=False)
            if isinstance(dim, str)
        }

    def check_outputs(self, outputs: Mapping[str, Array]) -> None:
        """Refuse an answer that is not of the form the program declares.

        Raises:
            WrongAnswer: A missing output, or one of a wrong type, dtype or fixed dimension.
        """
        # Outputs like the last ones, by one comparison each; the list is replaced whole, as other threads read it.
        for name, dtype, shape in self._answered:
            array = outputs.get(name)
            if type(array) is not np.ndarray or array.shape != shape or array.dtype is not dtype:
                break
        else:
            return
        answered: list[tuple[str, np.dtype[Any], tuple[int, ...] | None]] = []
        for spec in self.outputs:
            array = outputs.get(spec.name)
            if array is None:
                raise WrongAnswer(f"output {spec.name!r} is missing; got {sorted(outputs)}")
            if not isinstance(array, np.ndarray):
                raise WrongAnswer(f"output {spec.name!r} is a {type(array).__name__}, expected a numpy array")
            reason = spec.refuses(array)
            if reason:
                raise WrongAnswer(f"output {spec.name!r} {reason}")
            answered.append((spec.name, array.dtype, array.shape))
        self._answered = answered

    def _check_shapes(self, arrays: Sequence[Array]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for spec, array in zip(self.inputs, arrays, strict=True):
            reason = spec.refuses(array)
            if reason:
                raise InputError(f"input {spec.name!r} {reason}", fix=_shape_fix(spec, array))
            for dim, size in zip(spec.shape or (), array.shape, strict=False):
                if isinstance(dim, str):
                    first, where = sizes.setdefault(dim, (size, spec.name))
                    if first != size:
                        raise InputError(
                            f"input {spec.name!r} has {dim} = {size}, but {where!r} has {dim} = {first}; "
                            f"a dimension of one name has one size in a call"
                        )

    def _names_differ(self, named: Mapping[str, Any]) -> InputError:
        missing = [name for name in self._names if name not in named]
        surplus = [str(name) for name in named if name not in self._known]
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(surplus)}"] * bool(surplus)
        return InputError(f"inputs do not match: {'; '.join(parts)}. Expected {self._expected()}")

    def _expected(self) -> str:
        return ", ".join(map(str, self.inputs)) or "none"


def _array(value: Any, spec: TensorSpec) -> Array:
    """`value` as a C-contiguous array of the spec's dtype, or the reason why that would change its meaning."""
    if isinstance(value, PooledArray):
        value = value.array
    if not isinstance(value, np.ndarray | np.generic):
        try:
            return _converted(value, spec)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"input {spec.name!r}: a {type(value).__name__} that cannot become {spec.dtype} ({error})"
            ) from None
    array = np.asarray(value)
    if array.dtype.kind == "U" and spec.dtype == object:
        return array.astype(object)
    if array.dtype.newbyteorder("=") != spec.dtype:
        raise InputError(
            f"input {spec.name!r} has dtype {array.dtype}, expected {spec.dtype}",
            fix=f"convert it: array.astype(numpy.{spec.dtype})",
        )
    # ascontiguousarray would turn a scalar into one of rank 1.
    return np.require(array, dtype=spec.dtype, requirements="C")


def _converted(value: Any, spec: TensorSpec) -> Array:
    """Numbers, texts or nested lists of them as an array, when that loses nothing but a float's precision."""
    given = np.asarray(value)
    if spec.dtype == object:
        return given.astype(object)
    if given.dtype == object:
        raise TypeError("not numbers")
    array = given.astype(spec.dtype, casting="same_kind", order="C")
    if array.dtype.kind in "iu" and not np.array_equal(array, given):
        raise OverflowError("out of range")
    return array


def _shape_fix(spec: TensorSpec, array: Array) -> str:
    if spec.shape is None:
        return ""
    if array.ndim == len(spec.shape) - 1:
        return "add the leading dimension: array[numpy.newaxis]"
    surplus = array.ndim - len(spec.shape)
    ones = tuple(axis for axis, size in enumerate(array.shape) if size == 1)
    if 0 < surplus <= len(ones):
        return f"drop the dimensions of size 1 that are too many: array.squeeze({ones[:surplus]})"
    return ""
