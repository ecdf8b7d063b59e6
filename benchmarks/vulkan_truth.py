"""How far Whisper's encoder on Vulkan and in ONNX Runtime are from the same in float64: `benchmarks/vulkan_truth.py`.

    HETERO_VK_DEVICE=llvmpipe python benchmarks/vulkan_truth.py [--models tiny.en,base] [--inputs noise,librivox-0880]

The truth is `hetero.graph` in numpy with all weights and values in float64. Errors are shares of the largest value (the
largest error) and of the whole (typical: by the root mean square).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from hetero.backend import Call, Host
from hetero.graph.evaluate import evaluate
from hetero.graph.onnx_import import import_onnx
from hetero.onnx_file import open_onnx
from hetero.tensors import Array
from hetero.whisper.audio import decode_audio
from hetero.whisper.mel import log_mel
from hetero.whisper.models import open_model
from hetero_vulkan.backend import VulkanBackend

SPEECH = Path(__file__).parents[1] / "tests" / "data" / "speech"
SIZES = {"batch": 1, "frames": 3000}


def heard(name: str) -> Array:
    """Noise, or the first 30 s of a recording."""
    if name == "noise":
        return np.random.default_rng(0).standard_normal((1, 80, 3000), dtype=np.float32)
    return log_mel(decode_audio(SPEECH / f"{name}.flac"), padding=30 * 16000)[None, :, :3000]


def errors(answer: Array, truth: Array) -> tuple[float, float]:
    """The largest and the typical one."""
    off = answer - truth
    return float(np.abs(off).max() / np.abs(truth).max()), float(np.linalg.norm(off) / np.linalg.norm(truth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tiny.en,base")
    parser.add_argument("--inputs", default="noise,librivox-0880", help="noise, and names of tests/data/speech")
    parser.add_argument("--precision", default="fp32", help="of the Vulkan backend")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    told: list[dict[str, object]] = []
    backend = VulkanBackend(Host())
    (device, *_) = backend.probe()
    options = {option.name: option.default for option in backend.options}
    options |= {"timeout": None, "precision": arguments.precision}
    for model in arguments.models.split(","):
        path = open_model(model).encoder / "encoder.onnx"
        executable = backend.load(dataclasses.replace(open_onnx(path), sizes=SIZES), device, options)
        graph = import_onnx(path, sizes=SIZES)
        others = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for name in arguments.inputs.split(","):
            mel = heard(name)
            (truth,) = evaluate(graph, {"mel": mel}, double=True).values()
            (ours,) = executable.run({"mel": mel}, Call(0)).values()
            (theirs,) = others.run(None, {"mel": mel})
            told.append(
                {
                    "model": model,
                    "input": name,
                    "vulkan": errors(ours, truth),
                    "onnxruntime": errors(theirs, truth),
                    "between them": errors(ours, theirs),
                }
            )
        executable.close()
    backend.close()
    if arguments.json:
        print(json.dumps({"device": device.description, "errors": told}, indent=1))
        return
    table = Table(title=f"{device.description}, {arguments.precision}: errors, largest and typical")
    for heading in ("model", "input", "vulkan of float64", "onnxruntime of float64", "between them"):
        table.add_column(heading)
    for row in told:
        columns = (row["vulkan"], row["onnxruntime"], row["between them"])
        table.add_row(str(row["model"]), str(row["input"]), *("{:.2g}, {:.2g}".format(*column) for column in columns))  # type: ignore[misc]
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
