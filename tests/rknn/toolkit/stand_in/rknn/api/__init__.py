"""A stand-in for `rknn.api`, see README.md. The name of the model's graph chooses what goes wrong."""

# ruff: noqa: T201  the toolkit prints

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import time
from typing import Any

import numpy as np
import onnx

_TRACEBACK = """Traceback (most recent call last):
  File "rknn/api/rknn_log.py", line 344, in rknn.api.rknn_log.error_catch_decorator.error_catch_wrapper
  File "rknn/api/rknn_log.py", line 95, in rknn.api.rknn_log.RKNNLog.e
ValueError: {}
"""
TABLE = """
# simulator_error: calculate the output error of each layer of the simulator (compared to the 'golden' value).

layer_name                            simulator_error
                                  entire              single
                               cos      euc        cos      euc
---------------------------------------------------------------------
[Input] x                    1.00000 | 0.00000   1.00000 | 0.00000
[exDataConvert] x_int8       0.99981 | 0.45588   0.99981 | 0.45588
[Conv] h_mm                  0.90075 | 4.41761   0.91075 | 4.41761
[Add] y-rs                   0.40075 | 9.52344   0.99975 | 0.52341
"""


class RKNN:
    def __init__(self, verbose: bool = False, verbose_file: str | None = None) -> None:
        print("I rknn-toolkit2 version: 2.5.0")
        if os.environ.get("STAND_IN_RKNN") == "broken":
            raise ModuleNotFoundError("No module named 'pkg_resources'")

    def config(self, target_platform: str | None = None, **settings: Any) -> int:
        if target_platform not in ("rk3588", "rk3576", "rk3566", "rk3568", "rk3562"):
            self._refuse("config", f"Invalid target_platform {target_platform!r}!")
        self.target = target_platform
        self.settings = settings
        return 0

    def load_onnx(
        self, model: str, inputs: list[str] | None = None, input_size_list: list[list[int]] | None = None
    ) -> int:
        self.path = model
        self.model = onnx.load(model)
        graph = self.model.graph
        self.fault = graph.name
        weights = {tensor.name for tensor in graph.initializer}
        read = {name for node in graph.node for name in node.input}
        ends = [value for value in graph.input if value.name not in weights]
        for name in inputs or []:
            if name not in read:
                self._refuse("load_onnx", f"The {name!r} in inputs={inputs} is invalid!")
        self.shapes = dict(zip(inputs or [], input_size_list or [], strict=True))
        for value in ends:
            dims = [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
            if value.name not in self.shapes and not all(isinstance(dim, int) for dim in dims):
                self._refuse("load_onnx", f"The input shape {dims} of {value.name!r} is not support!")
            self.shapes.setdefault(value.name, dims)
        self.inputs = [value.name for value in ends if value.name in read]  # the others are dropped
        self.all_inputs = [value.name for value in ends]
        try:
            onnx.checker.check_model(self.model)
        except onnx.checker.ValidationError as error:
            self._refuse("load_onnx", str(error))
        if self.fault == "refused":
            self._refuse("load_onnx", "Unsupport onnx opset 22, need <= 19!")
        return 0

    def build(self, do_quantization: bool = True, dataset: str | None = None, auto_hybrid: bool = False) -> int:
        print("I OpFusing 0 : 100%|####| 100/100 [00:00<00:00, 6988.53it/s]")
        print("E RKNN: [07:52:57.507] Unkown op target: 0")
        self.quantized = do_quantization
        if do_quantization:
            if dataset is None:
                self._refuse("build", "The 'dataset' is None!")
            self._read_dataset(str(dataset))
        if self.fault == "minus_one":
            print("\x1b[1;31mE\x1b[0m \x1b[1;31mbuild: Meet unsupported dims in reducesum\x1b[0m")
            return -1
        if self.fault == "says_nothing":
            return -1
        if self.fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exits":
            sys.exit(3)
        if self.fault == "custom_op":
            # From C, into C's own buffer.
            ctypes.CDLL(None).printf(b"No lowering found for: y, node type = Det, use CustomOperatorLower instead.\n")
        return 0

    def export_rknn(self, path: str) -> int:
        ends = [{"left": "input", "left_tensor_id": i, "right_tensor_id": i} for i in range(len(self.inputs))]
        tensors = [{"tensor_id": i, "url": name, "size": self.shapes[name]} for i, name in enumerate(self.inputs)]
        told = json.dumps(
            {
                "target_platform": [self.target],
                "norm_tensor": tensors,
                "graph": ends,
                "settings": self.settings,
                "quantized": self.quantized,
                "shapes": self.shapes,
            }
        ).encode()
        # Two builds of one model differ in bytes.
        body = os.urandom(32)
        head = struct.pack("<8sQQ", b"RKNN", 6, len(body)).ljust(64, b"\0")
        with open(path, "wb") as file:
            file.write(head + body + struct.pack("<Q", len(told)) + told)
        return 0

    def init_runtime(self) -> int:
        print("I Target is None, use simulator!")
        return 0

    def inference(self, inputs: list[Any], data_format: list[str] | None = None) -> list[Any] | None:
        import onnxruntime

        for name, array, form in zip(self.inputs, inputs, data_format or [], strict=False):
            if array.dtype == np.float64:
                print("\x1b[1;31mE\x1b[0m \x1b[1;31minference: Unsupport inputs[0].dtype: float64\x1b[0m")
                return None
            if not self.shapes[name]:
                raise IndexError("list index out of range")
            if array.ndim == 4 and form != "nchw":
                self._refuse("inference", f"The input(ndarray) shape {array.shape} is wrong, expect 'nhwc'!")
        if self.fault == "no_answer":
            return None
        if self.fault == "hangs":
            print("hanging", flush=True)
            time.sleep(3600)
        if self.fault == "killed_later":
            os.kill(os.getpid(), signal.SIGKILL)
        feed = dict(zip(self.inputs, inputs, strict=True))
        for name in self.all_inputs:
            feed.setdefault(name, np.zeros(self.shapes[name], np.float32))
        session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        answer = session.run(None, feed)
        # The toolkit computes float16 as float32.
        answer = [array.astype(np.float32) if array.dtype == np.float16 else array for array in answer]
        if self.quantized and self.fault == "poor_int8":
            answer = [
                np.sign(array) * np.arange(array.size).reshape(array.shape).astype(array.dtype) for array in answer
            ]
        if self.fault == "overflow":
            answer = [np.full_like(array, np.nan) for array in answer]
        return answer

    def accuracy_analysis(self, inputs: list[str], output_dir: str) -> int:
        os.makedirs(output_dir)
        with open(os.path.join(output_dir, "error_analysis.txt"), "w") as file:
            file.write(TABLE)
        return 0

    def release(self) -> None:
        return None

    def _read_dataset(self, dataset: str) -> None:
        with open(dataset) as file:
            lines = file.read().splitlines()
        for line in lines:
            files = line.split()
            if len(files) != len(self.inputs):
                self._refuse("build", f"{len(files)} files for {len(self.inputs)} inputs!")
            for name, path in zip(self.inputs, files, strict=True):
                shape = list(np.load(path).shape)
                if shape != self.shapes[name]:
                    self._refuse("build", f"The input({path!r}) shape {shape} is wrong, expect {self.shapes[name]}!")

    def _refuse(self, call: str, words: str) -> None:
        print(f"\x1b[1;31mE\x1b[0m \x1b[1;31m{call}: {_TRACEBACK.format(words)}\x1b[0m")
        raise ValueError(_TRACEBACK.format(words))
