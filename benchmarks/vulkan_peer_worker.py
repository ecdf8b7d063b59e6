"""One peer of benchmarks/vulkan_encoder.py, in the peer's own virtual environment; not meant to be started by hand.

    python vulkan_peer_worker.py PEER FOLDER

FOLDER has encoder.onnx, product.onnx and encoder.npz (the weights); inputs are mel.npy and a.npy. Each line of the
standard input is a command: `load encoder`, `run product`. Each gets a line of JSON; `load` runs once and leaves the
answer in FOLDER/PEER-encoder.npy. It imports nothing of hetero, which these environments do not have.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]
HEAD = 64
"""Elements of a head, in every Whisper."""

PAGE = 4096


def onnxruntime_webgpu(folder: Path, what: str, x: Any) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(folder / f"{what}.onnx"), options, providers=["WebGpuExecutionProvider", "CPUExecutionProvider"]
    )
    if session.get_providers()[0] != "WebGpuExecutionProvider":
        raise RuntimeError("the WebGPU provider did not start")
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def onnxruntime_ggml(folder: Path, what: str, x: Any) -> Run:
    # ggml leaves software drivers alone unless the device is named.
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    import onnxruntime_ggml

    session = onnxruntime_ggml.InferenceSession(str(folder / f"{what}.onnx"), {"device": "gpu"})
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})[0]


def iree(folder: Path, what: str, x: Any) -> Run:
    import iree.runtime

    module = folder / f"iree-{what}.vmfb"
    if not module.exists():
        tools = Path(sys.executable).parent
        mlir = folder / f"iree-{what}.mlir"
        subprocess.run([tools / "iree-import-onnx", folder / f"{what}.onnx", "-o", mlir, "--opset-version", "17"],
                       check=True, stdout=sys.stderr)  # fmt: skip
        subprocess.run([tools / "iree-compile", mlir, "-o", module, "--iree-hal-target-device=vulkan",
                        f"--iree-vulkan-target={os.environ.get('IREE_VULKAN_TARGET', 'valhall')}"],
                       check=True, stdout=sys.stderr)  # fmt: skip
    config = iree.runtime.Config("vulkan")
    context = iree.runtime.SystemContext(config=config)
    context.add_vm_module(iree.runtime.VmModule.mmap(context.instance, str(module)))
    found = context.modules.module
    call = next(found[name] for name in found.vm_module.function_names if "$" not in name and not name.startswith("__"))
    # IREE reads results by importing numpy's memory, and the driver imports memory from whole pages alone.
    interop = iree.runtime.array_interop
    interop.np = types.SimpleNamespace(**{**vars(np), "empty": in_pages})
    aligned = in_pages(x.shape, x.dtype)
    aligned[:] = x
    return lambda: np.asarray(call(aligned).to_host())


def in_pages(shape: Any, dtype: Any) -> Any:
    """As numpy.empty, from the beginning of a page."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(nbytes + 2 * PAGE, np.uint8)
    start = -room.ctypes.data % PAGE
    return room[start : start + nbytes].view(dtype).reshape(shape)


def ncnn(folder: Path, what: str, x: Any) -> Run:
    import ncnn as library

    net = library.Net()
    net.opt.use_vulkan_compute = True
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed"):
        setattr(net.opt, name, False)
    text, weights = ncnn_encoder(folder) if what == "encoder" else ncnn_product(folder)
    (folder / f"ncnn-{what}.param").write_text(text)
    (folder / f"ncnn-{what}.bin").write_bytes(weights)
    if net.load_param(str(folder / f"ncnn-{what}.param")) or net.load_model(str(folder / f"ncnn-{what}.bin")):
        raise RuntimeError("ncnn does not load what was written for it")
    given = np.ascontiguousarray(x.reshape(x.shape[-2:]))

    def run() -> Any:
        with net.create_extractor() as extractor:
            extractor.input("x", library.Mat(given))
            result, found = extractor.extract("y")
            if result:
                raise RuntimeError(f"ncnn gives {result}")
            return np.array(found)

    return run


class Ncnn:
    """A network as ncnn reads it: lines of text, and weights one after the other."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blobs = 0
        self.weights: list[bytes] = []

    def layer(self, kind: str, tops: int, bottoms: list[str], **parameters: Any) -> list[str]:
        names = [f"b{self.blobs + i}" for i in range(tops)]
        self.blobs += tops
        told = " ".join(f"{key[1:]}={value}" for key, value in parameters.items())
        name = f"{kind}{len(self.lines)}"
        self.lines.append(f"{kind} {name} {len(bottoms)} {tops} {' '.join([*bottoms, *names])} {told}")
        return names

    def add(self, kind: str, *bottoms: str, **parameters: Any) -> str:
        return self.layer(kind, 1, list(bottoms), **parameters)[0]

    def split(self, bottom: str) -> list[str]:
        return self.layer("Split", 2, [bottom])

    def tagged(self, array: Any) -> None:
        """Weights, after the mark that says float32."""
        self.weights += [bytes(4), np.ascontiguousarray(array, np.float32).tobytes()]

    def plain(self, array: Any) -> None:
        self.weights.append(np.ascontiguousarray(array, np.float32).tobytes())

    def done(self, source: str, result: str) -> tuple[str, bytes]:
        lines = [f"Input input 0 1 {source}", *self.lines, f"Noop last 1 1 {result} y"]
        return "\n".join(["7767517", f"{len(lines)} {self.blobs + 2}", *lines, ""]), b"".join(self.weights)


def ncnn_product(folder: Path) -> tuple[str, bytes]:
    b = np.load(folder / "b.npy")
    net = Ncnn()
    y = net.add("Gemm", "x", _3=1, _5=1, _6=1, _8=b.shape[1], _9=b.shape[0], _10=-1)
    net.tagged(b.T)
    return net.done("x", y)


def ncnn_encoder(folder: Path) -> tuple[str, bytes]:
    """Whisper's encoder, layer by layer, with whichever of ncnn's layers are made for it."""
    w = np.load(folder / "encoder.npz")
    net = Ncnn()
    x = "x"
    for name, stride in (("encoder.conv1", 1), ("encoder.conv2", 2)):
        kernel = w[f"{name}.weight"]
        x = net.add("Convolution1D", x, _0=kernel.shape[0], _1=3, _2=1, _3=stride, _4=1, _15=1, _5=1, _6=kernel.size)
        net.tagged(kernel)
        net.plain(w[f"{name}.bias"])
        x = net.add("GELU", x, _0=0)
    x = net.add("Permute", x, _0=1)
    positions = w["encoder.embed_positions.weight"]
    length, width = positions.shape
    known = net.add("MemoryData", _0=width, _1=length)
    net.plain(positions)
    x = net.add("BinaryOp", x, known, _0=0)

    def norm(x: str, name: str) -> str:
        y = net.add("LayerNorm", x, _0=width, _1=1e-5, _2=1)
        net.plain(w[f"{name}.weight"])
        net.plain(w[f"{name}.bias"])
        return y

    def linear(x: str, name: str) -> str:
        matrix = w[f"{name}.weight"]
        y = net.add("Gemm", x, _3=1, _5=1, _6=1, _8=matrix.shape[1], _9=matrix.shape[0], _10=4)
        net.tagged(matrix.T)
        net.tagged(w[f"{name}.bias"])
        return y

    for layer in range(sum(name.endswith(".fc1.weight") for name in w.files)):
        at = f"encoder.layers.{layer}"
        x, before = net.split(x)
        y = norm(x, f"{at}.self_attn_layer_norm")
        # The scale of the scores is in the weights already.
        y = net.add("MultiHeadAttention", y, _0=width, _1=width // HEAD, _2=width * width, _6=1.0)
        for name in ("q", "k", "v", "out"):
            matrix, bias = (f"{at}.self_attn.{name}_proj.{part}" for part in ("weight", "bias"))
            net.tagged(w[matrix].T)
            net.plain(w[bias] if bias in w.files else np.zeros(width))
        x, before = net.split(net.add("BinaryOp", y, before, _0=0))
        y = net.add("GELU", linear(norm(x, f"{at}.final_layer_norm"), f"{at}.fc1"), _0=0)
        x = net.add("BinaryOp", linear(y, f"{at}.fc2"), before, _0=0)
    return net.done("x", norm(x, "encoder.layer_norm"))


PEERS = {
    "onnxruntime-webgpu": onnxruntime_webgpu,
    "ncnn": ncnn,
    "iree": iree,
    "onnxruntime-ggml": onnxruntime_ggml,
}


def main() -> None:
    peer, folder = sys.argv[1], Path(sys.argv[2])
    # What libraries print goes to the other stream.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        command, what = line.split()
        begun, processor = time.perf_counter(), time.process_time()
        told: dict[str, Any] = {}
        try:
            if command == "load":
                x = np.load(folder / ("mel.npy" if what == "encoder" else "a.npy"))
                runs[what] = PEERS[peer](folder, what, x)
                np.save(folder / f"{peer}-{what}.npy", runs[what]())
            else:
                runs[what]()
        except Exception as error:  # of whichever kind a peer raises: it is told, and the others go on
            told["error"] = f"{type(error).__name__}: {error}"
        told |= {"wall": time.perf_counter() - begun, "processor": time.process_time() - processor}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
