"""Writing an ONNX graph node by node; external weights go to their file as they come, which needs little memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hetero.tensors import Dim

if TYPE_CHECKING:
    import onnx

OPSET = 17
# The IR version that came with opset 17; readers refuse files of a newer one than they know.
_IR_VERSION = 8
# Runtimes map weights into memory where they start on a page.
_ALIGNMENT = 4096


class OnnxWriter:
    """One graph on its way to a file. A context manager; the file is complete when the block ends well.

    Args:
        path: The `.onnx` file to write.
        name: The graph's name.
        external: Keep weights in `<path>.data`: protobuf holds no more than 2 GB. Those of under 1 KB stay inside, as
            shape inference wants to see them.
    """

    def __init__(self, path: Path, name: str, *, external: bool = False) -> None:
        import onnx

        self._path = path
        self._external = external
        self._data: BinaryIO | None = None
        # Filled in place: onnx.helper's make_graph and make_model would copy all weights twice.
        self._model = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="hetero")
        self._model.opset_import.add(domain="", version=OPSET)
        self._graph = self._model.graph
        self._graph.name = name
        self._scope = ""
        self._used: set[str] = set()
        self._shapes: dict[tuple[int, ...], str] = {}

    def __enter__(self) -> OnnxWriter:
        if self._external:
            self._data = self._path.with_name(self._path.name + ".data").open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._data is not None:
            self._data.close()
        if kind is None:
            self._path.write_bytes(self._model.SerializeToString())

    def scope(self, name: str) -> None:
        """Nodes from here on are named `name/...`."""
        self._scope = name

    def input(self, name: str, dtype: Any, shape: tuple[Dim, ...]) -> str:
        """Declare an input."""
        self._graph.input.append(_value(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: tuple[Dim, ...]) -> None:
        """Declare the value of the last node, or of an earlier one, as an output."""
        for node in self._graph.node:
            for field in (node.input, node.output):
                field[:] = [name if entry == value else entry for entry in field]
        self._graph.output.append(_value(name, dtype, shape))

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Store an array."""
        import onnx

        array = np.ascontiguousarray(array)
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = self._graph.initializer.add(name=name, data_type=kind, dims=array.shape)
        if self._data is None or array.nbytes < 1024:
            tensor.raw_data = array.tobytes()
        else:
            self._data.write(bytes(-self._data.tell() % _ALIGNMENT))
            place = {"location": self._path.name + ".data", "offset": self._data.tell(), "length": array.nbytes}
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            self._data.write(array.data)
        return name

    def shape(self, *sizes: int) -> str:
        """A list of whole numbers as an input: a shape (0: as before), axes, a start."""
        if sizes not in self._shapes:
            name = "const/" + "_".join(map(str, sizes)).replace("-", "m")
            self._shapes[sizes] = self.weight(name, np.array(sizes, dtype=np.int64))
        return self._shapes[sizes]

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node of one output, and give that output's name."""
        import onnx

        name = stem = "/".join(part for part in (self._scope, name or kind) if part)
        count = 1
        while name in self._used:
            count += 1
            name = f"{stem}_{count}"
        self._used.add(name)
        self._graph.node.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _value(name: str, dtype: Any, shape: tuple[Dim, ...]) -> onnx.ValueInfoProto:
    import onnx

    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
