"""The caller's own arrays for an answer (`out=`): checked before anything runs, written with the final answer alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from hetero.errors import InputError
from hetero.memory.arrays import PooledArray
from hetero.telemetry.records import Attempt
from hetero.tensors import Array, Signature, TensorSpec


class Delivery:
    """Where one request's answer goes.

    Args:
        out: An array, for a program of one output; or arrays by output name, for some outputs or all.
        signature: What the program's inputs and outputs look like.
        inputs: The request's, checked.

    Attributes:
        arrays: The caller's, by output name.

    Raises:
        InputError: An array that the answer does not fit, or that the request reads.
    """

    def __init__(self, out: Any, signature: Signature, inputs: Mapping[str, Array]) -> None:
        self.arrays = _named(out, signature)
        self._lock = threading.Lock()
        self._withdrawn = False
        for spec in signature.outputs:
            if spec.name in self.arrays:
                _check(spec, self.arrays[spec.name], signature, inputs)
        _check_apart(self.arrays, inputs)

    def holds(self, outputs: Mapping[str, Array]) -> bool:
        """Whether the answer is in the caller's arrays already, since the executable wrote it there."""
        return all(outputs[name] is array for name, array in self.arrays.items())

    def write(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Write the answer, unless the caller has left.

        Returns:
            The outputs, the caller's own arrays among them.

        Raises:
            InputError: The answer has another shape than an array; nothing was written then.
        """
        for name, array in self.arrays.items():
            if outputs[name].shape != array.shape:
                raise InputError(
                    f"out[{name!r}] has shape {list(array.shape)}, the answer has {list(outputs[name].shape)}",
                    fix=f"give an array of the answer's shape: numpy.empty({outputs[name].shape}, numpy.{array.dtype})",
                )
        with self._lock:
            if not self._withdrawn:
                for name, array in self.arrays.items():
                    if outputs[name] is not array:
                        np.copyto(array, outputs[name])
        return {**outputs, **self.arrays}

    def withdraw(self) -> None:
        """The caller has left and has its arrays to itself: nothing is written from now on."""
        with self._lock:
            self._withdrawn = True


def with_copy(attempt: Attempt, seconds: float) -> Attempt:
    """The attempt that answered, with the time in which its answer was written to the caller's arrays.

    A new one: the requests of a batch share theirs.
    """
    return Attempt(
        attempt.device,
        attempt.stage,
        attempt.outcome,
        attempt.reason,
        attempt.seconds + seconds,
        attempt.simulated,
        attempt.started,
        attempt.lane,
        attempt.thread,
        attempt.verify_seconds,
        attempt.copy_seconds + seconds,
    )


def _named(out: Any, signature: Signature) -> dict[str, Array]:
    names = [spec.name for spec in signature.outputs]
    if isinstance(out, Mapping):
        unknown = [str(name) for name in out if name not in names]
        if unknown or not out:
            raise InputError(f"out has {', '.join(unknown) or 'no names'}, expected names of {', '.join(names)}")
        given = dict(out)
    elif len(names) != 1:
        raise InputError(
            f"out is one {type(out).__name__}, and the program has {len(names)} outputs",
            fix=f"give a mapping from output name to array: {', '.join(names)}",
        )
    else:
        given = {names[0]: out}
    return {name: value.array if isinstance(value, PooledArray) else value for name, value in given.items()}


def _check(spec: TensorSpec, array: Any, signature: Signature, inputs: Mapping[str, Array]) -> None:
    if type(array) is np.ndarray and array.dtype == spec.dtype and array.shape == spec.shape:
        flags = array.flags
        if flags.c_contiguous and flags.writeable:
            return
    what = f"out[{spec.name!r}]"
    if not isinstance(array, np.ndarray):
        raise InputError(f"{what} is a {type(array).__name__}, expected a numpy array of {spec.dtype}")
    if array.dtype != spec.dtype:
        raise InputError(
            f"{what} has dtype {array.dtype}, expected {spec.dtype}", fix=f"make it with dtype=numpy.{spec.dtype}"
        )
    if spec.shape is not None:
        sizes = signature.sizes(inputs)
        expected = tuple([sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in spec.shape])
        reason = TensorSpec(spec.name, spec.dtype, expected).refuses(array)
        if reason:
            raise InputError(f"{what} {reason}", fix="give an array of the shape that the answer will have")
    if not array.flags.writeable:
        raise InputError(f"{what} is read-only", fix="give an array that can be written to, a copy of it, say")
    if not array.flags.c_contiguous:
        raise InputError(
            f"{what} is not C-contiguous",
            fix="give an array of its own, and copy the answer from there where it belongs",
        )


def _check_apart(arrays: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    """All are contiguous, so the comparison of their bounds is exact."""
    for name, array in arrays.items():
        for other, read in inputs.items():
            if np.may_share_memory(array, read):
                raise _overlap(name, f"the input {other!r}, which a device that fails would leave spoilt to the next")
        for other, written in arrays.items():
            if other != name and np.may_share_memory(array, written):
                raise _overlap(name, f"out[{other!r}]")


def _overlap(name: str, what: str) -> InputError:
    return InputError(f"out[{name!r}] overlaps with {what}", fix="give an array with memory of its own")
