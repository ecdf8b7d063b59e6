"""Small programs with known answers, by which a backend is judged.

Floats are small integers, so that float16 and bfloat16 can give the exact answer too; all answers come from numpy. The
models are written for ONNX opset 13 and IR version 8, which every runtime reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hetero.onnx_file import open_onnx
from hetero.program import Program
from hetero.tensors import Array, Dim, TensorSpec

OPSET = 13
IR_VERSION = 8

Inputs = dict[str, Array]


@dataclass(frozen=True)
class ReferenceProgram:
    """A program, its inputs, and the right answers.

    Attributes:
        name: Names the test cases.
        make: Writes the program's files into a folder and opens it; raises LookupError when it cannot be had here.
        inputs: Arrays that fit the program, made of a seed; another seed gives other values, and maybe shapes.
        expected: The right answer to such arrays, by output.
    """

    name: str
    make: Callable[[Path], Program]
    inputs: Callable[[int], Inputs]
    expected: Callable[[Mapping[str, Array]], Mapping[str, Array]]

    def __repr__(self) -> str:
        return f"<ReferenceProgram {self.name}>"


def onnx_program(
    name: str,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str]]],
    inputs: Mapping[str, tuple[Any, Sequence[Dim]]],
    outputs: Mapping[str, tuple[Any, Sequence[Dim]]],
    weights: Mapping[str, Array] | None = None,
) -> Callable[[Path], Program]:
    """A maker of an ONNX program.

    Args:
        name: The file's, without `.onnx`.
        nodes: Op, inputs, outputs.
        inputs: Dtype and shape by name.
        outputs: Likewise.
        weights: By name.
    """

    def make(folder: Path) -> Program:
        from onnx import helper, numpy_helper

        def values(specs: Mapping[str, tuple[Any, Sequence[Dim]]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                for key, (dtype, shape) in specs.items()
            ]

        graph = helper.make_graph(
            [helper.make_node(op, list(read), list(written)) for op, read, written in nodes],
            name,
            values(inputs),
            values(outputs),
            [numpy_helper.from_array(array, key) for key, array in (weights or {}).items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        path = folder / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return open_onnx(path)

    return make


def whole(seed: int, shape: Sequence[int], dtype: Any = np.float32, low: int = -4, high: int = 5) -> Array:
    """Small integers in an array of that dtype."""
    return np.random.default_rng(seed).integers(low, high, tuple(shape)).astype(dtype)


_BIG = 1024


def big_program() -> ReferenceProgram:
    """Y = x @ w with 4 MiB of weights: what is not freed shows."""
    weights = whole(3, (_BIG, _BIG))
    return ReferenceProgram(
        "big",
        onnx_program(
            "big",
            [("MatMul", "xw", "y")],
            {"x": (np.float32, (1, _BIG))},
            {"y": (np.float32, (1, _BIG))},
            {"w": weights},
        ),
        lambda seed: {"x": whole(seed, (1, _BIG))},
        lambda given: {"y": given["x"] @ weights},
    )


def uneven_program() -> ReferenceProgram:
    """Z = x + y, both of any length; the seed's inputs fit, `{"x": [3], "y": [4]}` do not and must be refused."""
    return ReferenceProgram(
        "uneven",
        onnx_program(
            "uneven",
            [("Add", "xy", "z")],
            {"x": (np.float32, ("m",)), "y": (np.float32, ("n",))},
            {"z": (np.float32, ("k",))},
        ),
        lambda seed: {"x": whole(seed, (5,)), "y": whole(seed + 1, (5,))},
        lambda given: {"z": given["x"] + given["y"]},
    )


def _elementwise(
    name: str, op: str, dtype: Any, shape: Sequence[int], function: Any, low: int = -4
) -> ReferenceProgram:
    """A program z = function(x, y), x and y of a dtype and shape."""
    spec = (dtype, shape)
    return ReferenceProgram(
        name,
        onnx_program(name, [(op, "xy", "z")], {"x": spec, "y": spec}, {"z": spec}),
        lambda seed: {"x": whole(seed, shape, dtype, low), "y": whole(seed + 1000, shape, dtype, low)},
        # A sum of two scalars is no array any more.
        lambda given: {"z": np.asarray(function(given["x"], given["y"]), dtype)},
    )


def _kernel(name: str) -> ReferenceProgram:
    """A kernel that a plugin brings; its answer is the same on every device, to the bit."""

    @functools.cache
    def opened() -> Program:
        from hetero.plugins import Plugins

        plugins = Plugins()
        plugins.discover()
        program = plugins.program(name)
        if program is None:
            raise LookupError(f"no installed plugin brings the kernel {name!r}")
        return program

    def specs() -> Sequence[TensorSpec]:
        return opened().inputs

    def inputs(seed: int) -> Inputs:
        random = np.random.default_rng(seed)
        tiles = {
            spec.name: [dim if isinstance(dim, int) else 2 for dim in spec.shape or ()] for spec in opened().inputs
        }
        return {key: random.integers(-128, 128, shape, np.int8) for key, shape in tiles.items()}

    def expected(given: Mapping[str, Array]) -> Mapping[str, Array]:
        answer: Mapping[str, Array] = opened().artifact("kernel").payload.reference(**given)
        return answer

    return ReferenceProgram(f"kernel-{name}", lambda folder: opened(), inputs, expected)


def reference_programs() -> tuple[ReferenceProgram, ...]:
    """The programs of the kit."""
    f32, weights, bias = np.float32, whole(1, (16, 8)), whole(2, (8,))
    bytes_weights = whole(4, (16, 8), np.int8, -128, 128)
    return (
        _elementwise("add", "Add", f32, (4,), np.add),
        ReferenceProgram(
            "matmul",
            onnx_program(
                "matmul",
                [("MatMul", "xw", "p"), ("Add", "pb", "y")],
                {"x": (f32, (4, 16))},
                {"y": (f32, (4, 8))},
                {"w": weights, "b": bias},
            ),
            lambda seed: {"x": whole(seed, (4, 16))},
            lambda given: {"y": given["x"] @ weights + bias},
        ),
        ReferenceProgram(
            "two-outputs",
            onnx_program(
                "two_outputs",
                [("Add", ["x", "y"], ["total"]), ("Mul", ["x", "y"], ["product"])],
                {"x": (f32, (2, 3)), "y": (f32, (2, 3))},
                {"total": (f32, (2, 3)), "product": (f32, (2, 3))},
            ),
            lambda seed: {"x": whole(seed, (2, 3)), "y": whole(seed + 1000, (2, 3))},
            lambda given: {"total": given["x"] + given["y"], "product": given["x"] * given["y"]},
        ),
        ReferenceProgram(
            "dynamic-batch",
            onnx_program(
                "dynamic_batch",
                [("MatMul", "xw", "p"), ("Relu", "p", "y")],
                {"x": (f32, ("batch", 16))},
                {"y": (f32, ("batch", 8))},
                {"w": weights},
            ),
            lambda seed: {"x": whole(seed, ((1, 3, 8)[seed % 3], 16))},
            lambda given: {"y": np.maximum(given["x"] @ weights, 0)},
        ),
        ReferenceProgram(
            "identity",
            onnx_program("identity", [("Identity", "x", "y")], {"x": (f32, (6,))}, {"y": (f32, (6,))}),
            lambda seed: {"x": whole(seed, (6,))},
            lambda given: {"y": given["x"].copy()},
        ),
        _elementwise("float16", "Add", np.float16, (2, 4), np.add),
        ReferenceProgram(
            "int8",
            onnx_program(
                "int8",
                [("MatMulInteger", "xw", "y")],
                {"x": (np.int8, (4, 16))},
                {"y": (np.int32, (4, 8))},
                {"w": bytes_weights},
            ),
            lambda seed: {"x": whole(seed, (4, 16), np.int8, -128, 128)},
            lambda given: {"y": given["x"].astype(np.int32) @ bytes_weights.astype(np.int32)},
        ),
        _elementwise("int64", "Mul", np.int64, (5,), np.multiply),
        _elementwise("bool", "Xor", np.bool_, (16,), np.logical_xor, low=0),
        _elementwise("scalar", "Add", f32, (), np.add),
        ReferenceProgram(
            "zero-size",
            onnx_program("zero_size", [("Add", "xx", "y")], {"x": (f32, ("n", 3))}, {"y": (f32, ("n", 3))}),
            lambda seed: {"x": whole(seed, (0 if seed % 2 == 0 else 2, 3))},
            lambda given: {"y": given["x"] + given["x"]},
        ),
        *map(_kernel, ("attention_i8_64x64", "gelu_i8", "layernorm_i8_256", "matmul_i8_64x64")),
    )
