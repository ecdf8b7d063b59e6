"""Makes the files of this folder with Rockchip's toolkit; see README.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array((random.standard_normal(shape) / 8).astype(np.float32), name)


def value(name: str, shape: list[int], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], stored: list[Any]) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def image(folder: Path) -> Path:
    """Two convolutions over an image, NCHW."""
    return save(
        folder / "image.onnx",
        [
            helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "w2"], ["features"]),
        ],
        [value("image", [1, 3, 16, 24])],
        [value("features", [1, 4, 16, 24])],
        [weights("w1", 8, 3, 3, 3), weights("w2", 4, 8, 1, 1)],
    )


def pair(folder: Path) -> Path:
    """Two inputs, two outputs, the second of which is not of the last layer."""
    return save(
        folder / "pair.onnx",
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w2"], ["y"]),
            helper.make_node("Add", ["a", "mask"], ["second"]),
        ],
        [value("x", [2, 32]), value("mask", [2, 64])],
        [value("y", [2, 16]), value("second", [2, 64])],
        [weights("w1", 32, 64), weights("w2", 64, 16)],
    )


def tokens(folder: Path) -> Path:
    """An embedding: int64 in, float32 out."""
    return save(
        folder / "tokens.onnx",
        [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["hidden"])],
        [value("ids", [1, 8], TensorProto.INT64)],
        [value("hidden", [1, 8, 16])],
        [weights("table", 50, 32), weights("w", 32, 16)],
    )


def custom(folder: Path) -> Path:
    """An operator that is the user's own."""
    return save(
        folder / "custom.onnx",
        [helper.make_node("cstSquare", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        [value("x", [1, 8, 16])],
        [value("y", [1, 8, 16])],
        [],
    )


class Square:
    op_type = "cstSquare"

    def shape_infer(self, node: Any, in_shapes: list[Any], in_dtypes: list[Any]) -> tuple[list[Any], list[Any]]:
        return in_shapes.copy(), in_dtypes.copy()

    def compute(self, node: Any, inputs: list[Any]) -> list[Any]:
        return [inputs[0] * inputs[0]]


def compile_to(
    path: Path, model: Path, target: str, calibration: tuple[Any, ...] = (), operator: Any = None, **config: Any
) -> None:
    from rknn.api import RKNN

    rknn = RKNN()
    checked(rknn.config(target_platform=target, **config))
    if operator is not None:
        checked(rknn.reg_custom_op(operator))
    checked(rknn.load_onnx(model=str(model)))
    dataset = None
    if calibration:
        for number, array in enumerate(calibration):
            np.save(model.parent / f"{number}.npy", array)
        dataset = model.parent / "dataset.txt"
        dataset.write_text(" ".join(f"{number}.npy" for number in range(len(calibration))))
    checked(rknn.build(do_quantization=bool(calibration), dataset=str(dataset) if dataset else None))
    checked(rknn.export_rknn(str(path)))
    rknn.release()


def checked(code: Any) -> None:
    if code != 0:
        raise SystemExit(f"the toolkit answered {code!r}")


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        here = Path(work)
        compile_to(folder / "image.rk3588.rknn", image(here), "rk3588")
        compile_to(
            folder / "normalised.rk3562.rknn", image(here), "rk3562", mean_values=[[127] * 3], std_values=[[128] * 3]
        )
        compile_to(
            folder / "sizes.rk3562.rknn", image(here), "rk3562", dynamic_input=[[[1, 3, 16, 24]], [[1, 3, 8, 12]]]
        )
        calibration = tuple(random.random(shape, dtype=np.float32) for shape in ((2, 32), (2, 64)))
        compile_to(folder / "pair.rk3576.rknn", pair(here), "rk3576", calibration)
        compile_to(folder / "tokens.rk3566.rknn", tokens(here), "rk3566")
        compile_to(folder / "custom.rk3562.rknn", custom(here), "rk3562", operator=Square())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
