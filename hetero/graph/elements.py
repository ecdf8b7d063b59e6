"""ONNX's element types and tensors as numpy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import ProgramInvalid, Unsupported
from hetero.graph.node import Array, frozen

if TYPE_CHECKING:
    import onnx

_DTYPES = {
    "BOOL": "bool",
    "DOUBLE": "float64",
    "FLOAT": "float32",
    "FLOAT16": "float16",
    **{f"{sign}INT{bits}": f"{sign}int{bits}".lower() for sign in ("", "U") for bits in (8, 16, 32, 64)},
}


def dtype_of(element: int, where: str) -> np.dtype[Any]:
    """The numpy dtype of an ONNX element type.

    Raises:
        Unsupported: One that numpy does not have (bfloat16, float8, int4), strings, complex numbers.
    """
    import onnx

    known = element in onnx.TensorProto.DataType.values()
    name = onnx.TensorProto.DataType.Name(element) if known else str(element)
    if name not in _DTYPES:
        raise Unsupported(f"{where} is of the element type {name}", fix="export the model in float32 or float16")
    return np.dtype(_DTYPES[name])


def array_of(tensor: onnx.TensorProto, where: str) -> Array:
    """The array in an ONNX tensor.

    Raises:
        Unsupported: An element type that is not known.
        ProgramInvalid: Too few or too many elements.
    """
    import onnx

    dtype_of(tensor.data_type, where)
    try:
        return frozen(np.asarray(onnx.numpy_helper.to_array(tensor)))
    except (ValueError, TypeError) as error:
        raise ProgramInvalid(f"{where} cannot be read: {error}") from None
