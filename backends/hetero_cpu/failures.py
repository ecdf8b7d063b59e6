"""What ONNX Runtime raises, in hetero's errors and in fewer words.

Its exceptions share no base class, and what went wrong stands in their text alone, behind the place in its C++ source.
The class names and texts are those of ONNX Runtime 1.19 to 1.31.
"""

from __future__ import annotations

import re

from hetero.backend import DeviceLost, ExecutionError, OutOfMemory, Unsupported
from hetero.errors import ArtifactMissing, HeteroError, ProgramInvalid

_LONGEST = 400

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOAD = re.compile(r"(Load model from .*? failed:|Exception during initialization: )")
_NODE = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ")
_SOURCE = re.compile(r"\S*\.(?:h|cc|cpp):\d+ (?:.*? was false\. |[^()]*\([^()]*\) |\w+ )", re.DOTALL)

_OPSET = re.compile(r"Opset (\d+) is under development.*till opset (\d+)", re.DOTALL)
_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_MEMORY = re.compile(r"allocate memory|out of memory|bad_alloc|bad allocation", re.IGNORECASE)
_LOST = re.compile(r"device (?:was |is )?(?:lost|removed|hung|reset)|DEVICE_REMOVED|887A000[5-7]", re.IGNORECASE)
_SHAPES = re.compile(r"broadcast|dimension|shape|missing from input feed", re.IGNORECASE)


def load_failure(error: Exception, version: str) -> HeteroError:
    """The hetero error for what making a session raised.

    Whatever says that this onnxruntime cannot take the model is `Unsupported`: another device, with another runtime or
    another artifact, may. Only a file that is no ONNX model at all is broken for every device.

    Args:
        error: What ONNX Runtime raised.
        version: Its version.
    """
    kind, text = type(error).__name__, str(error)
    opset, ir = _OPSET.search(text), _IR.search(text)
    if opset or ir:
        what, has, most = ("opset", *opset.groups()) if opset else ("IR version", *ir.groups())  # type: ignore[union-attr]
        return Unsupported(
            f"the model has {what} {has}; onnxruntime {version} reads up to {what} {most}",
            fix=f"pip install --upgrade onnxruntime, or export the model with {what} {most} or lower",
        )
    if kind == "InvalidProtobuf":
        return ProgramInvalid("not an ONNX model, or truncated", fix="export or download the model again")
    if kind == "NoSuchFile" or isinstance(error, FileNotFoundError):
        return ArtifactMissing(f"a file of the model is gone: {shorten(text)}")
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return OutOfMemory(f"not enough memory to load the model: {shorten(text)}")
    return Unsupported(f"onnxruntime {version} refuses the model: {shorten(text)}")


def run_failure(error: Exception) -> HeteroError:
    """The hetero error for what a run raised.

    A refusal of the arguments is no fault of the device: it is `Unsupported`, and the device stays in use.
    """
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return OutOfMemory(f"not enough memory: {shorten(text)}")
    if kind == "DeviceReset" or _LOST.search(text):
        return DeviceLost(shorten(text))
    if kind == "InvalidArgument" or _SHAPES.search(text):
        return Unsupported(f"onnxruntime refuses these inputs or their shapes: {shorten(text)}")
    return ExecutionError(f"onnxruntime failed: {shorten(text)}")


def shorten(text: str) -> str:
    """An ONNX Runtime message in one line, without status codes, paths and places in its source."""
    text = _LOAD.sub("", _STATUS.sub("", text))
    text = _NODE.sub(lambda match: f"{match[1]} node {match[2]!r}: " if match[2] else f"{match[1]} node: ", text)
    text = " ".join(_SOURCE.sub("", text, count=1).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
