"""Runs with bfloat16 inputs or outputs, which ONNX Runtime does not exchange with numpy: through their raw memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hetero.backend import Array, Unsupported

TYPE = "tensor(bfloat16)"
_ONNX_TYPE = 16  # onnx.TensorProto.BFLOAT16


def needed(ort: Any, values: Iterable[Any]) -> bool:
    """Whether one of a session's inputs or outputs is of this dtype.

    Raises:
        Unsupported: One is, and onnxruntime is too old (before 1.20) to exchange it.
    """
    if not any(value.type == TYPE for value in values):
        return False
    if not hasattr(ort.OrtValue, "ortvalue_from_numpy_with_onnx_type"):
        raise Unsupported(
            f"onnxruntime {ort.__version__} cannot exchange bfloat16", fix="pip install --upgrade onnxruntime"
        )
    return True


def run(ort: Any, session: Any, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Run a session once.

    Args:
        ort: The onnxruntime module.
        session: Its InferenceSession.
        inputs: Arrays by name; bfloat16 ones of the dtype of the ml_dtypes package.
        names: The session's outputs, all of them, in order.

    Returns:
        The outputs by name.
    """
    binding = session.io_binding()
    held = []  # an OrtValue that is gone takes the memory with it that the binding points to
    for name, array in inputs.items():
        if array.dtype.name == "bfloat16":
            bits = np.ascontiguousarray(array).view(np.uint16)
            value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_TYPE)
            binding.bind_ortvalue_input(name, value)
            held.append(value)
        else:
            binding.bind_cpu_input(name, array)
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    return {name: _array(value) for name, value in zip(names, binding.get_outputs(), strict=True)}


def _array(value: Any) -> Array:
    if value.data_type() != TYPE:
        return np.array(value.numpy())
    import ml_dtypes

    bits = np.empty(value.shape(), np.uint16)
    ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits.view(ml_dtypes.bfloat16)
