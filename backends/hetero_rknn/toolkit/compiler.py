"""ONNX to `.rknn`, and how far the toolkit's simulator is from ONNX Runtime on it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hetero.backend import CompileReport, CompileRequest, Host, Option
from hetero.compiling.report import LayerLoss, OutputError, Progress, Sample, output_error, worst_of
from hetero.errors import CompileError, DeviceLost, HeteroError, ProgramInvalid
from hetero.program import Program
from hetero_rknn.toolkit.environment import new_log, prepare, scratch
from hetero_rknn.toolkit.layers import worst_layers
from hetero_rknn.toolkit.process import ToolkitFailed, Worker
from hetero_rknn.toolkit.words import left_to_custom_ops

#: The toolkit's settings that are worth a user's while.
OPTIONS: tuple[Option, ...] = (
    Option(
        "quantized_algorithm",
        str,
        "normal",
        "How int8 ranges are found: `normal` is quick, `mmse` and `kl_divergence` are slow and often closer.",
        choices=("normal", "mmse", "kl_divergence"),
    ),
    Option(
        "quantized_method",
        str,
        "channel",
        "Whether int8 weights have a range for each channel or for each layer.",
        choices=("channel", "layer"),
    ),
    Option("auto_hybrid", bool, False, "Leave those layers in fp16 that int8 would harm most."),
    Option("optimization_level", int, 3, "0 to 3; less where a graph optimisation does harm.", choices=(0, 1, 2, 3)),
    Option("single_core_mode", bool, False, "A smaller file for RK3588 that runs on one core only."),
    Option("compress_weight", bool, False, "A smaller file."),
    Option("enable_flash_attention", bool, False, "Fuse attention where the toolkit finds it."),
)

#: The name of the artifact in the folder that is compiled into.
FILE = "model.rknn"

#: What to do about inputs without a dimension.
SCALARS = "give them the shape [1] in the model, or make constants of them"

_SHARES = {
    "import": 0.0,
    "load": 0.05,
    "build": 0.1,
    "quantise and build": 0.1,
    "write": 0.6,
    "start the simulator": 0.62,
}
_CHECKED = 0.65
_ANALYSED = 0.9


def compile_program(request: CompileRequest, out: Path, host: Host, progress: Progress) -> CompileReport:
    """See `Backend.compile`."""
    refusal = refused(request.shapes)
    if refusal:
        raise CompileError(f"{request.program.name!r} for {request.target}: {refusal}", fix=SCALARS)
    environment = prepare(host, progress)
    started = time.monotonic()
    log = new_log(host, request.target)
    try:
        with Worker(environment.python, log, scratch(host)) as worker:
            run = _Compilation(request, out, worker, progress)
            run.build()
            outputs = run.compare()
            layers = run.layers(outputs)
            notes = run.notes()
    except ToolkitFailed as error:
        raise CompileError(
            f"rknn-toolkit2 {environment.version} failed to {error.stage} {request.program.name!r} for "
            f"{request.target}: {error.words} (log: {log})",
            fix=_advice(error),
        ) from None
    except DeviceLost as error:
        raise CompileError(
            f"{request.program.name!r} for {request.target}: {error.problem}",
            fix="give the machine more memory or close other programs; a smaller --shape needs less",
        ) from None
    return CompileReport(
        target=request.target,
        kind="rknn",
        file=FILE,
        compiler=f"rknn-toolkit2 {environment.version}",
        precision="int8" if request.int8 else "fp16",
        shapes=dict(request.shapes),
        outputs=outputs,
        samples=len(request.checks),
        layers=layers,
        notes=notes,
        seconds=round(time.monotonic() - started, 2),
    )


def refused(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Why the toolkit cannot take a program with inputs of these shapes; empty when it can, as far as is known."""
    scalars = [name for name, shape in shapes.items() if not shape]
    return (
        f"the simulator of rknn-toolkit2 fails on inputs without a dimension ({', '.join(scalars)})" if scalars else ""
    )


def build_arguments(program: Program, target: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the worker's `build` needs of every model."""
    free = any(spec.shape is None or any(type(dim) is not int for dim in spec.shape) for spec in program.inputs)
    # The toolkit drops inputs that nothing reads, and refuses to be told of their shapes.
    used = used_inputs(program)
    return {
        "model": str(program.artifact("onnx").file.absolute()),
        "target": target,
        "shapes": {name: list(shape) for name, shape in shapes.items() if name in used},
        "free": free,
    }


class _Compilation:
    """One run of the worker."""

    def __init__(self, request: CompileRequest, out: Path, worker: Worker, progress: Progress) -> None:
        self._request = request
        self._out = out
        self._worker = worker
        self._progress = progress
        self._dropped: list[str] = []
        self._worst_sample: Sample = request.checks[0]

    def build(self) -> None:
        """Write the `.rknn`; the model stays in the worker."""
        request, options = self._request, dict(self._request.options)
        hybrid = {"auto_hybrid": True} if options.pop("auto_hybrid") and request.int8 else {}
        answer = self._worker.ask(
            "build",
            lambda stage: self._progress(stage, _SHARES.get(stage, 0.0)),
            number=0,
            **build_arguments(request.program, request.target, request.shapes),
            dataset=self._dataset() if request.int8 else "",
            config=options,
            build=hybrid,
            out=str((self._out / FILE).absolute()),
        )
        self._dropped = [name for name in request.shapes if name not in answer["inputs"]]

    def compare(self) -> tuple[OutputError, ...]:
        """The simulator against ONNX Runtime, on every sample."""
        checks, least = self._request.checks, 2.0
        errors: list[list[OutputError]] = []
        for place, sample in enumerate(checks):
            self._progress(f"compare sample {place + 1} of {len(checks)}", self._share(place / len(checks)))
            errors.append(self._errors_on(sample))
            worst = min((e.cosine if e.cosine == e.cosine else -2.0 for e in errors[-1]), default=1.0)
            if worst < least:
                least, self._worst_sample = worst, sample
        return tuple(worst_of(of_one) for of_one in zip(*errors, strict=True))

    def layers(self, outputs: tuple[OutputError, ...]) -> tuple[LayerLoss, ...]:
        """Where int8 loses most, if it loses too much: this takes ten times as long as compiling."""
        if not self._request.int8 or all(output.cosine >= self._request.min_cosine for output in outputs):
            return ()
        self._progress("look for the layers that lose most", _ANALYSED)
        files = self._worker.save(self._worst_sample)
        answer = self._worker.ask("analyse", number=0, inputs=files, folder="layers")
        return worst_layers(answer["text"])

    def notes(self) -> tuple[str, ...]:
        """What people should know about the result."""
        notes = [
            f"the input {name!r} is used by nothing: the compiled model does not have it" for name in self._dropped
        ]
        for output, op in left_to_custom_ops(self._worker.printed()):
            notes.append(
                f"{op} (at {output}) has no implementation for the NPU: the board needs a custom operator for it"
            )
        return tuple(notes)

    def _share(self, done: float) -> float:
        return _CHECKED + (_ANALYSED - _CHECKED) * done

    def _dataset(self) -> str:
        """The calibration data in the toolkit's form: a line of files for each sample."""
        self._progress("write the calibration data", 0.0)
        used = used_inputs(self._request.program)
        lines = [
            " ".join(self._worker.save({name: sample[name] for name in sample if name in used}).values())
            for sample in self._request.calibration
        ]
        (self._worker.folder / "dataset.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return "dataset.txt"

    def _errors_on(self, sample: Sample) -> list[OutputError]:
        program, worker = self._request.program, self._worker
        names = [spec.name for spec in program.outputs]
        files = worker.save(sample)
        expected, got = worker.names(names), worker.names(names)
        worker.ask("reference", model=str(program.artifact("onnx").file.absolute()), inputs=files, outputs=expected)
        worker.ask("infer", number=0, inputs=files, outputs=list(got.values()))
        worker.forget(files)
        errors = []
        for name in names:
            theirs, ours = worker.take(expected[name]), worker.take(got[name])
            if theirs.size != ours.size:
                raise CompileError(
                    f"the simulator of rknn-toolkit2 gives {name!r} in the shape {ours.shape}, ONNX Runtime in "
                    f"{theirs.shape} (log: {worker.log})"
                )
            errors.append(output_error(name, ours.reshape(theirs.shape), theirs))
        return errors


def used_inputs(program: Program) -> set[str]:
    """The inputs that some node reads, those of subgraphs included.

    Raises:
        ProgramInvalid: The file was damaged since the program was opened.
    """
    import onnx
    from google.protobuf.message import DecodeError

    def names(graph: onnx.GraphProto) -> set[str]:
        read = {output.name for output in graph.output}
        for node in graph.node:
            read.update(node.input)
            for attribute in node.attribute:
                for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                    read |= names(inner)
        return read

    path = program.artifact("onnx").file
    try:
        read = names(onnx.load(path, load_external_data=False).graph)
    except DecodeError:
        raise ProgramInvalid(f"{path} is not an ONNX model, or is truncated", fix="export the model again") from None
    return {spec.name for spec in program.inputs} & read


def _advice(error: HeteroError) -> str:
    words = error.problem
    if "opset" in words:
        return "export the model with an opset of 19 or less, or convert it: onnx.version_converter"
    if "not support" in words or "Unsupport" in words or "unsupport" in words:
        return "replace that part of the model; the other devices run it as it is"
    return "the log tells more"
