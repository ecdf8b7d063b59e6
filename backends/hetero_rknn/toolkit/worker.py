"""Runs in the toolkit's own environment, as a process: takes one question a line, gives one answer a line, in JSON.

Imports nothing of hetero, and keeps to Python 3.9. Questions come on stdin, answers go to what was stdout; stdout
itself then leads to where stderr does, a log file, so that whatever the toolkit prints, from Python or from C, ends
there. Arrays travel as `.npy` files in the working folder. The process ends when stdin does, and is killed when the
other end of the pipe in its argument is closed, whatever it is doing.

An answer is `{"ok": ...}` or `{"failed": WORDS, "stage": STAGE}`; before it may come `{"stage": STAGE}`.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any


class Failed(Exception):
    """A call of the toolkit that did not do what it should."""


class Models:
    """The models that were built in this process, by the caller's numbers."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell
        self._built: dict[int, tuple[Any, list[str]]] = {}
        self.stage = ""

    def hello(self) -> dict[str, Any]:
        """Import the toolkit and make one of its objects, which imports the rest."""
        self._begin("import")
        import numpy
        from rknn.api import RKNN

        RKNN(verbose=False).release()
        return {
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": numpy.__version__,
            "toolkit": _toolkit_version(),
        }

    def build(
        self,
        number: int,
        model: str,
        target: str,
        shapes: dict[str, list[int]],
        free: bool,
        dataset: str,
        config: dict[str, Any],
        build: dict[str, Any],
        out: str,
    ) -> dict[str, Any]:
        """ONNX to `.rknn`, and make the simulator ready.

        Args:
            number: To ask for the model by.
            model: The ONNX file.
            target: The SoC.
            shapes: Of the inputs, in order.
            free: The model leaves sizes open, so the shapes have to be told.
            dataset: A file of the toolkit's form to quantise by; empty for none.
            config: Further arguments of the toolkit's `config`.
            build: Further arguments of its `build`.
            out: Where to write the `.rknn`.

        Returns:
            `inputs`: the names of the inputs that the compiled model has.
        """
        self._begin("import")
        from rknn.api import RKNN

        rknn = RKNN(verbose=False)
        self._done(rknn.config(target_platform=target, **config), "config")
        self._begin("load")
        told = {"inputs": list(shapes), "input_size_list": list(shapes.values())} if free else {}
        self._done(rknn.load_onnx(model=model, **told), "load_onnx")
        self._begin("quantise and build" if dataset else "build")
        self._done(rknn.build(do_quantization=bool(dataset), dataset=dataset or None, **build), "build")
        self._begin("write")
        self._done(rknn.export_rknn(out), "export_rknn")
        inputs = _input_names(out)
        self._begin("start the simulator")
        self._done(rknn.init_runtime(), "init_runtime")
        self._built[number] = (rknn, inputs)
        return {"inputs": inputs}

    def infer(self, number: int, inputs: dict[str, str], outputs: list[str]) -> dict[str, Any]:
        """Run a model in the simulator.

        Args:
            number: Of the model.
            inputs: Files by name; those that the compiled model does not have are left out.
            outputs: Files to write, in the model's order.
        """
        self._begin("simulate")
        import numpy

        rknn, names = self._built[number]
        arrays = [numpy.load(inputs[name]) for name in names]
        # Else what has four dimensions is taken for NHWC.
        formats = ["nchw" if array.ndim == 4 else "nhwc" for array in arrays]
        answer = rknn.inference(inputs=arrays, data_format=formats)
        if answer is None or len(answer) != len(outputs):
            raise Failed(f"inference gave {'nothing' if answer is None else f'{len(answer)} outputs'}")
        for array, path in zip(answer, outputs):  # noqa: B905  Python 3.9
            numpy.save(path, numpy.asarray(array))
        return {}

    def reference(self, model: str, inputs: dict[str, str], outputs: dict[str, str]) -> dict[str, Any]:
        """Run the ONNX model in ONNX Runtime.

        Args:
            model: The ONNX file.
            inputs: Files by name.
            outputs: Files to write, by name.
        """
        self._begin("run ONNX Runtime")
        import numpy
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        answer = session.run(list(outputs), {name: numpy.load(path) for name, path in inputs.items()})
        for array, path in zip(answer, outputs.values()):  # noqa: B905
            numpy.save(path, array)
        return {}

    def analyse(self, number: int, inputs: dict[str, str], folder: str) -> dict[str, Any]:
        """The toolkit's own account of where precision is lost, as the text that it writes.

        Args:
            number: Of the model.
            inputs: Files by name.
            folder: For the outputs of all layers: gigabytes, as the case may be.
        """
        self._begin("analyse")
        rknn, names = self._built[number]
        self._done(
            rknn.accuracy_analysis(inputs=[inputs[name] for name in names], output_dir=folder), "accuracy_analysis"
        )
        with open(os.path.join(folder, "error_analysis.txt"), encoding="utf-8", errors="replace") as file:
            return {"text": file.read()}

    def drop(self, number: int) -> dict[str, Any]:
        """Free a model."""
        self._begin("free")
        self._built.pop(number)[0].release()
        return {}

    def _begin(self, stage: str) -> None:
        self.stage = stage
        self._tell({"stage": stage})

    def _done(self, code: Any, call: str) -> None:
        if code != 0:
            raise Failed(f"{call} gave {code!r}")


def _toolkit_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rknn-toolkit2")
    except PackageNotFoundError:
        return "unknown"


def _input_names(path: str) -> list[str]:
    """The inputs that a `.rknn` file says it has. The toolkit drops what the model does not use.

    The file: `RKNN`, at 16 the length of the body, which begins at 64; behind it a length and a description in JSON.
    """
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"RKNN":
            raise Failed("export_rknn wrote no .rknn file")
        file.seek(64 + struct.unpack_from("<Q", head, 16)[0])
        length = struct.unpack("<Q", file.read(8))[0]
        told = json.loads(file.read(length).decode("utf-8"))
    tensors = {tensor["tensor_id"]: tensor["url"] for tensor in told["norm_tensor"]}
    ends = [end for end in told["graph"] if end["left"] == "input"]
    ends.sort(key=lambda end: int(end["left_tensor_id"]))
    return [tensors[end["right_tensor_id"]] for end in ends]


def _die_with(lifeline: int) -> None:
    """Have the kernel kill this process when its parent ends, even if the toolkit hangs and holds the GIL."""
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def main() -> None:
    """Answer until stdin ends."""
    _die_with(int(sys.argv[1]))
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (2, 1)):
        os.dup2(ours, theirs)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    models = Models(tell)
    for line in questions:
        question = json.loads(line)
        try:
            answer: dict[str, Any] = {"ok": getattr(models, question.pop("ask"))(**question)}
        except Exception as error:
            import traceback

            traceback.print_exc()
            words = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            answer = {"failed": words, "stage": models.stage}
        except SystemExit as error:  # the toolkit calls exit() here and there
            answer = {"failed": f"it called exit({error.code!r})", "stage": models.stage}
        # What C has printed would else come when the process ends.
        ctypes.CDLL(None).fflush(None)
        tell(answer)


if __name__ == "__main__":
    main()
