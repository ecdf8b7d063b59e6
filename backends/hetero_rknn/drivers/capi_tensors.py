"""How the arrays of a model meet the runtime's buffers: shared with the NPU, or copied by the runtime.

Shared memory is used where its layout is plain: rows without padding, in the graph's order or as NHWC. What the NPU
keeps in cells of channels (NC1HWC2) or in padded rows goes through the runtime's own conversion, which is slower and
known to be right.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref
from typing import Any

import numpy as np

from hetero.backend import Array, Unsupported
from hetero_rknn.drivers import capi_types as c
from hetero_rknn.drivers.errors import error_of
from hetero_rknn.model_file import ModelTensor

_NHWC_OF_NCHW = (0, 2, 3, 1)
_NCHW_OF_NHWC = (0, 3, 1, 2)


def check(tensors: Sequence[ModelTensor], attributes: Sequence[c.TensorAttr], kind: str) -> None:
    """Hold what the file declares against what the runtime says.

    Raises:
        Unsupported: They differ, or the tensor is of a type that the runtime does not take.
    """
    if len(tensors) != len(attributes):
        raise Unsupported(
            f"the file declares {len(tensors)} {kind}s, the runtime sees {len(attributes)}",
            fix="convert the model again",
        )
    for tensor, attribute in zip(tensors, attributes, strict=True):
        if tensor.dtype not in c.TYPES:
            raise Unsupported(
                f"{kind} {tensor.name} is {tensor.dtype}, which Rockchip's runtime does not take",
                fix=f"export the model with one of {', '.join(map(str, c.TYPES))}",
            )
        if buffer_shape(tensor, attribute) is None:
            raise Unsupported(
                f"{kind} {tensor.name} is {list(tensor.shape)} in the file, {list(attribute.shape())} in the runtime",
                fix="convert the model again, with fixed shapes",
            )


def buffer_shape(tensor: ModelTensor, attribute: c.TensorAttr) -> tuple[int, ...] | None:
    """The shape of a buffer as the attribute has it, padding aside; None when the tensor cannot lie there plainly."""
    shape, seen = tensor.shape, attribute.shape()
    if is_nhwc(tensor, attribute):
        return seen
    if attribute.fmt == c.NC1HWC2 or attribute.n_elems != int(np.prod(shape, dtype=np.int64)):
        return None
    # The runtime may add or drop dimensions of one; four-dimensional ones have an order that has to be known.
    return shape if len(shape) != 4 or seen == shape else None


def is_nhwc(tensor: ModelTensor, attribute: c.TensorAttr) -> bool:
    """Whether the buffer is NHWC where the original graph is NCHW."""
    shape = tensor.shape
    if len(shape) != 4 or attribute.fmt != c.NHWC:
        return False
    return attribute.shape() == tuple(shape[axis] for axis in _NHWC_OF_NCHW)


def _shareable(tensor: ModelTensor, attribute: c.TensorAttr) -> bool:
    padded = is_nhwc(tensor, attribute) and attribute.w_stride not in (0, attribute.dims[2])
    return buffer_shape(tensor, attribute) is not None and not padded


def shareable_input(tensor: ModelTensor, attribute: c.TensorAttr) -> bool:
    """Whether an input can be written straight to where the NPU reads it."""
    native = c.DTYPES.get(attribute.type)
    if native is None or attribute.qnt_type != c.QNT_NONE or not _shareable(tensor, attribute):
        return False
    return native == tensor.dtype or (native.kind == "f" and tensor.dtype.kind == "f")


def output_type(tensor: ModelTensor, attribute: c.TensorAttr) -> int:
    """The type that the runtime shall deliver: it makes floats of whatever it computes in, all else stays as it is."""
    if tensor.dtype.kind != "f" or (tensor.dtype == np.float16 and attribute.type == c.FLOAT16):
        return int(attribute.type)
    return c.FLOAT32


def shareable_output(tensor: ModelTensor, attribute: c.TensorAttr) -> bool:
    """Whether an output can be read straight from where the runtime puts it."""
    return output_type(tensor, attribute) in c.DTYPES and _shareable(tensor, attribute)


class SharedMemory:
    """Memory for one input or output, bound to a context, and an array over it in the order of the original graph.

    Args:
        runtime: The library.
        handle: The context; has to live longer.
        tensor: What lies there.
        attribute: How it lies there.
        type_: Of the elements there, the vendor's number.

    Raises:
        HeteroError: The runtime has no memory or refuses the binding; nothing is left behind.
    """

    def __init__(
        self, runtime: c.Runtime, handle: Any, tensor: ModelTensor, attribute: c.TensorAttr, type_: int
    ) -> None:
        shape = buffer_shape(tensor, attribute)
        assert shape is not None
        dtype = c.DTYPES[type_]
        needed = max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, attribute.size_with_stride, 1)
        self._runtime, self._handle = runtime, handle
        self._memory = runtime.functions.rknn_create_mem(handle, needed)
        if not self._memory:
            raise error_of(-4, "rknn_create_mem", f"{needed} bytes for {tensor.name}")
        content = self._memory.contents
        wanted = c.TensorAttr.from_buffer_copy(attribute)
        wanted.type = type_
        code = runtime.functions.rknn_set_io_mem(handle, self._memory, byref(wanted))
        if code < 0 or not content.virt_addr:
            self.close()
            raise error_of(min(code, -1), "rknn_set_io_mem", tensor.name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raw: Any = (ctypes.c_uint8 * size).from_address(content.virt_addr)
        plain: Array = np.frombuffer(raw, dtype).reshape(shape)
        self.array: Array = plain.transpose(_NCHW_OF_NHWC) if is_nhwc(tensor, attribute) else plain

    def sync(self, direction: int) -> None:
        """Make the NPU see what was written here, or see what it wrote."""
        code = self._runtime.functions.rknn_mem_sync(self._handle, self._memory, direction)
        if code < 0:
            raise error_of(code, "rknn_mem_sync")

    def close(self) -> None:
        """Give the memory back. `array` must not be used any more."""
        if self._memory:
            self._runtime.functions.rknn_destroy_mem(self._handle, self._memory)
            self._memory = None


class CopiedInputs:
    """Inputs that the runtime copies and converts.

    An image goes in as NHWC where the runtime asks for that: quantised models refuse NCHW.
    """

    def __init__(self, tensors: Sequence[ModelTensor], attributes: Sequence[c.TensorAttr]) -> None:
        self.structures = (c.Input * len(tensors))()
        self._staged: list[Array | None] = []
        for index, (tensor, attribute) in enumerate(zip(tensors, attributes, strict=True)):
            nhwc = is_nhwc(tensor, attribute)
            self._staged.append(np.empty(attribute.shape(), tensor.dtype) if nhwc else None)
            structure = self.structures[index]
            structure.index = index
            structure.size = int(np.prod(tensor.shape, dtype=np.int64)) * tensor.dtype.itemsize
            structure.type = c.TYPES[tensor.dtype]
            structure.fmt = attribute.fmt

    def fill(self, inputs: Sequence[Array]) -> None:
        """Point at arrays, which have to stay until the runtime has copied them."""
        for array, staged, structure in zip(inputs, self._staged, self.structures, strict=True):
            if staged is not None:
                np.copyto(staged, array.transpose(_NHWC_OF_NCHW))
                array = staged
            structure.buf = array.__array_interface__["data"][0]


class CopiedOutputs:
    """Outputs that the runtime copies and converts, each time into new arrays."""

    def __init__(self, tensors: Sequence[ModelTensor], attributes: Sequence[c.TensorAttr]) -> None:
        self.structures = (c.Output * len(tensors))()
        self._plans: list[tuple[tuple[int, ...], np.dtype[Any], np.dtype[Any], bool]] = []
        for index, (tensor, attribute) in enumerate(zip(tensors, attributes, strict=True)):
            type_ = output_type(tensor, attribute)
            if type_ not in c.DTYPES:
                raise Unsupported(f"output {tensor.name} is of the vendor's type {type_}, which numpy has not")
            shape = buffer_shape(tensor, attribute)
            assert shape is not None
            self._plans.append((shape, c.DTYPES[type_], tensor.dtype, is_nhwc(tensor, attribute)))
            structure = self.structures[index]
            structure.index, structure.is_prealloc = index, 1
            structure.want_float = type_ == c.FLOAT32

    def allocate(self) -> list[Array]:
        """New arrays for the runtime to write to."""
        made = []
        for (shape, dtype, _, _), structure in zip(self._plans, self.structures, strict=True):
            array = np.empty(shape, dtype)
            structure.buf, structure.size = array.__array_interface__["data"][0], array.nbytes
            made.append(array)
        return made

    def finished(self, arrays: Sequence[Array]) -> list[Array]:
        """The arrays, in the dtype and the order of the original graph."""
        return [
            np.ascontiguousarray(array.transpose(_NCHW_OF_NHWC) if nhwc else array, dtype)
            for array, (_, _, dtype, nhwc) in zip(arrays, self._plans, strict=True)
        ]
