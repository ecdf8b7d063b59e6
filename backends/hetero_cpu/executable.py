"""Running an ONNX Runtime session.

Four ways, the fastest per case as `benchmarks/cpu_binding.py` measures it:

- small tensors of fixed shapes: buffers bound once per lane (IO binding), inputs copied in and outputs copied out,
  which costs less than handing over each array anew;
- everything else: `session.run`, which reads the caller's arrays and gives new ones, both without a copy;
- large outputs that the caller has arrays for (`Call.outputs`): those are bound, which saves the copy, as
  `benchmarks/cpu_out.py` measures it;
- bfloat16, for which ONNX Runtime has no numpy type: raw memory, see `hetero_cpu.bfloat16`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hetero.backend import Array, Call, Executable, Unsupported
from hetero.errors import ClosedError
from hetero_cpu import bfloat16
from hetero_cpu.failures import run_failure

# Up to here copying a tensor is cheaper than handing it over: at 1 KiB half the time, at 16 KiB no longer.
_SMALL_BYTES = 8 * 1024

# From here on binding an output to the caller's array costs less than copying it there: at 64 KiB it is the other way.
_LARGE_BYTES = 256 * 1024

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OrtExecutable(Executable):
    """A program in an ONNX Runtime session.

    Args:
        ort: The onnxruntime module.
        session: Its InferenceSession, which all lanes share.
        lanes: Calls at once.
        details: For `explain()`.
        bind: Bind buffers where that is faster; only for sessions that read and write the CPU's memory.

    Raises:
        Unsupported: An input or output of a dtype that onnxruntime does not exchange with Python.
    """

    def __init__(self, ort: Any, session: Any, lanes: int, details: Mapping[str, Any], *, bind: bool) -> None:
        self.lanes = lanes
        self._ort = ort
        self._session: Any = session
        inputs, outputs = session.get_inputs(), session.get_outputs()
        self._names = [output.name for output in outputs]
        # Before 1.24 or so, an output that is an input by name is the caller's own array.
        self._passed_through = [name for name in self._names if name in {value.name for value in inputs}]
        self._raw = bfloat16.needed(ort, [*inputs, *outputs])
        for value in [*inputs, *outputs]:
            if value.type not in _DTYPES and value.type not in ("tensor(string)", bfloat16.TYPE):
                raise Unsupported(f"onnxruntime does not exchange {value.type} with numpy ({value.name!r})")
        fixed = bind and not self._passed_through and all(map(_is_small, [*inputs, *outputs]))
        self._bound = [_Bound(session, inputs, outputs) for _ in range(lanes)] if fixed else []
        self._binds_outputs = bind and not self._passed_through and _known_forms(inputs, outputs)
        self._running: list[Any] = [None] * lanes
        self.details = {**details, "binding": "buffers" if fixed else "raw" if self._raw else "direct"}

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """Run once; see `Executable.run`."""
        session = self._session
        if session is None:
            raise ClosedError("this executable is closed")
        try:
            if self._bound:
                outputs = self._bound[call.lane].run(inputs, call.outputs)
                if outputs is not None:
                    return outputs
            if self._raw:
                return bfloat16.run(self._ort, session, inputs, self._names)
            given = call.outputs
            if given is not None and self._are_bindable(given) and self._run_into(session, inputs, given):
                return dict(given)
            options = self._running[call.lane] = self._ort.RunOptions()
            outputs = dict(zip(self._names, session.run(self._names, inputs, options), strict=True))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise run_failure(error) from error
        finally:
            self._running[call.lane] = None
        for name in self._passed_through:
            outputs[name] = outputs[name].copy()
        return outputs

    def _are_bindable(self, arrays: Mapping[str, Array]) -> bool:
        """Whether there is an array for every output, and binding them costs less than copying."""
        if not self._binds_outputs or len(arrays) != len(self._names):
            return False
        return all(array.nbytes >= _LARGE_BYTES for array in arrays.values())

    def _run_into(self, session: Any, inputs: Mapping[str, Array], arrays: Mapping[str, Array]) -> bool:
        """Run with the outputs bound to the caller's arrays; False when ONNX Runtime does not take them.

        Without RunOptions, with which a bound run takes 30 us longer: a call that offers its arrays is not cancelled.
        """
        binding = session.io_binding()  # a new one: it keeps its inputs alive as long as it lives
        try:
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            for name, array in arrays.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            session.run_with_iobinding(binding)
        except Exception:
            # A model may declare shapes that its answers do not have. What fails for another reason fails again.
            self._binds_outputs = False
            return False
        return True

    def cancel(self, call: Call) -> bool:
        """End a running call: ONNX Runtime looks between nodes. Bound calls are over too soon to be worth it."""
        options = self._running[call.lane]
        if options is None:
            return False
        options.terminate = True
        return True

    def close(self) -> None:
        """Free the session and its buffers."""
        self._bound = []
        self._session = None


class _Bound:
    """One lane's buffers, bound to the session once."""

    def __init__(self, session: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs: list[tuple[str, Array, tuple[int, ...], np.dtype[Any]]] = []
        self._outputs: list[tuple[str, Array]] = []
        for value in inputs:
            buffer = np.empty(value.shape, _DTYPES[value.type])
            self._binding.bind_cpu_input(value.name, buffer)
            self._inputs.append((value.name, buffer, buffer.shape, buffer.dtype))
        for value in outputs:
            buffer = np.empty(value.shape, _DTYPES[value.type])
            self._binding.bind_output(value.name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
            self._outputs.append((value.name, buffer))

    def run(self, inputs: Mapping[str, Array], given: Mapping[str, Array] | None) -> dict[str, Array] | None:
        """The outputs, in the arrays that are `given` for them.

        None when an array does not fit its buffer, where a copy would broadcast or convert.
        """
        for name, buffer, shape, dtype in self._inputs:
            array = inputs[name]
            if array.shape != shape or array.dtype != dtype:
                return None
            buffer[...] = array
        self._session.run_with_iobinding(self._binding)
        if given is None:
            return {name: buffer.copy() for name, buffer in self._outputs}
        outputs: dict[str, Array] = {}
        for name, buffer in self._outputs:
            target = given.get(name)
            if target is None or target.shape != buffer.shape:
                target = buffer.copy()
            else:
                target[...] = buffer
            outputs[name] = target
        return outputs


def _known_forms(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Whether all are numbers, and the outputs' shapes are known when the inputs' are."""
    given = {dim for value in inputs for dim in value.shape if isinstance(dim, str)}
    return all(value.type in _DTYPES for value in [*inputs, *outputs]) and all(
        value.shape and all(type(dim) is int or dim in given for dim in value.shape) for value in outputs
    )


def _is_small(value: Any) -> bool:
    """Of a fixed shape and a few kilobytes. No shape at all means scalar or unknown, which look the same here."""
    dtype = _DTYPES.get(value.type)
    shape = value.shape
    if dtype is None or not shape or not all(type(size) is int and size > 0 for size in shape):
        return False
    size: int = math.prod(shape) * dtype.itemsize
    return size <= _SMALL_BYTES
