"""What rounding values of Whisper's encoder to fp16 costs: `benchmarks/vulkan_rounding.py [MODEL [RECORDING ...]]`.

Computed by ONNX Runtime on the CPU, with values of one class put through fp16 where they are made. Each row is measured
with the class multiplied by three factors before, and divided by them behind: other roundings of the same size, which
show how much of an error is luck. A model with longer weights is made of it by three random changes. Printed are the
largest errors, as shares of the largest value, of fp32.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from hetero.tensors import Array
from hetero.whisper.audio import decode_audio
from hetero.whisper.mel import log_mel
from hetero.whisper.models import open_model

SPEECH = Path(__file__).parents[1] / "tests" / "data" / "speech"
FACTORS = (1.0, 1.2345, 1.618)
CLASSES = {
    r"encoder\.conv[12]/Mul_2": "convolutions",
    r"encoder\.embed_positions/Add|.*residual": "residual stream",
    r".*layer_norm/LayerNormalization": "layer normalisations",
    r".*q_proj/Add": "queries",
    r".*k_proj/MatMul": "keys",
    r".*v_proj/Add": "values",
    r".*self_attn/Reshape": "attention's output",
    r".*fc1/Mul_2": "hidden part",
}


def class_of(value: str) -> tuple[str, int]:
    """The class of a value, empty where it has none, and its layer; -1 before the first."""
    found = next((name for pattern, name in CLASSES.items() if re.fullmatch(pattern, value)), "")
    layer = re.search(r"layers\.(\d+)\.", value)
    return found, int(layer[1]) if layer else -1


def session_of(model: onnx.ModelProto, rounded: Callable[[str, int], bool]) -> ort.InferenceSession:
    """The model with the values of some classes and layers put through fp16, times the input `factor`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph, names = changed.graph, dict[str, str]()
    nodes = []
    for node in model.graph.node:
        own = onnx.NodeProto()
        own.CopyFrom(node)
        own.input[:] = [names.get(value, value) for value in node.input]
        nodes.append(own)
        for value in node.output:
            name, layer = class_of(value)
            if name and rounded(name, layer):
                names[value] = f"{value}#"
                nodes += [
                    helper.make_node("Mul", [value, "factor"], [f"{value}#1"]),
                    helper.make_node("Cast", [f"{value}#1"], [f"{value}#2"], to=TensorProto.FLOAT16),
                    helper.make_node("Cast", [f"{value}#2"], [f"{value}#3"], to=TensorProto.FLOAT),
                    helper.make_node("Div", [f"{value}#3", "factor"], [f"{value}#"]),
                ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("factor", TensorProto.FLOAT, []))
    options = ort.SessionOptions()
    # Nothing that could take two casts for nothing.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(changed.SerializeToString(), options, providers=["CPUExecutionProvider"])


def answers(session: ort.InferenceSession, mels: dict[str, Array], factor: float) -> dict[str, Array]:
    """By the recording's name."""
    given = {"factor": np.array(factor, np.float32)}
    return {name: session.run(None, {"mel": mel, **given})[0] for name, mel in mels.items()}


def with_weights(model: onnx.ModelProto, change: Callable[[Array], Array]) -> onnx.ModelProto:
    """The model with its matrices changed."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for constant in other.graph.initializer:
        array = numpy_helper.to_array(constant)
        if array.dtype == np.float32 and array.ndim > 1:
            constant.CopyFrom(numpy_helper.from_array(change(array).astype(np.float32), constant.name))
    return other


def halved(array: Array) -> Array:
    """In fp16."""
    return array.astype(np.float16)


def lengthened(generator: np.random.Generator, array: Array) -> Array:
    """Changed by up to a step of fp16, so that fp16 does not have it."""
    return array * (1 + generator.uniform(-1, 1, array.shape) * 2.0**-10)


def is_class(chosen: str, name: str, layer: int) -> bool:
    """Of a class, in any layer."""
    return name == chosen


def is_in(chosen: tuple[str, int], name: str, layer: int) -> bool:
    """Of a class in one layer; -1 is before the first."""
    return (name, layer) == chosen


def is_other(chosen: str, name: str, layer: int) -> bool:
    """Of any class but one."""
    return name != chosen


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="tiny.en")
    parser.add_argument("recordings", nargs="*", default=["librivox-0930", "two_cities"])
    given = parser.parse_args()
    model = onnx.load(str(open_model(given.model).encoder / "encoder.onnx"))
    mels = {
        name: log_mel(decode_audio(SPEECH / f"{name}.flac"), padding=30 * 16000)[None, :, :3000]
        for name in given.recordings
    }
    print(f"{'rounded to fp16':36}" + "".join(f"{name:>26}" for name in mels))

    def row(label: str, found: list[dict[str, Array]], references: list[dict[str, Array]]) -> None:
        cells = []
        for name in mels:
            pairs = [(each[name], reference[name]) for each, reference in zip(found, references, strict=True)]
            cells.append(" ".join(f"{np.abs(a - b).max() / np.abs(b).max():.1e}" for a, b in pairs))
        print(f"{label:36}" + "".join(f"{cell:>26}" for cell in cells), flush=True)

    def of(model: onnx.ModelProto) -> dict[str, Array]:
        return answers(session_of(model, lambda name, layer: False), mels, 1.0)

    def values(label: str, rounded: Callable[[str, int], bool]) -> None:
        session = session_of(model, rounded)
        row(label, [answers(session, mels, factor) for factor in FACTORS], [right] * len(FACTORS))

    right = of(model)
    row("weights", [of(with_weights(model, halved))], [right])
    longer = [with_weights(model, partial(lengthened, np.random.default_rng(seed))) for seed in range(len(FACTORS))]
    row(
        "weights of a model with longer ones",
        [of(with_weights(each, halved)) for each in longer],
        list(map(of, longer)),
    )
    values("all values", lambda name, layer: True)
    for chosen in dict.fromkeys(CLASSES.values()):
        values(chosen, partial(is_class, chosen))
        values(f"all but the {chosen}", partial(is_other, chosen))
    for place, chosen in ((-1, "residual stream"), (0, "layer normalisations"), (0, "keys"), (0, "attention's output")):
        values(f"{chosen}, layer {place}", partial(is_in, (chosen, place)))
    last = max(class_of(value)[1] for node in model.graph.node for value in node.output)
    values("the last layer", lambda name, layer: layer == last)
    values("its hidden part", lambda name, layer: (name, layer) == ("hidden part", last))


if __name__ == "__main__":
    main()
