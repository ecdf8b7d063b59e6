"""The toolkit's simulator as a device, for numerics: what an NPU would answer, on a PC, without its speed.

It computes in fp16 as the NPU does, overflow included, and it is the vendor's own. It has no cores and no clock:
nothing about time can be learned from it. It runs what it has built itself and no `.rknn` file, so a program is
compiled from its ONNX model when it is loaded, or for each new set of shapes when it is called. Only there when asked
for by name.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from hetero.backend import (
    Array,
    Call,
    Device,
    DeviceLost,
    Executable,
    ExecutionError,
    Host,
    Option,
    Program,
    TensorSpec,
    Unsupported,
    WrongAnswer,
)
from hetero.errors import ClosedError
from hetero.tensors import shape_text
from hetero_rknn.toolkit import environment
from hetero_rknn.toolkit.compiler import FILE, SCALARS, build_arguments, refused
from hetero_rknn.toolkit.interpreters import find_python
from hetero_rknn.toolkit.process import ToolkitFailed, Worker
from hetero_rknn.toolkit.releases import TARGETS

_log = logging.getLogger(__name__)

#: What `HETERO_SIMULATE` or `Runtime(simulate=...)` names.
MACHINE = "rknn-pc"
#: The device's name.
DEVICE = "rknn:pc"

OPTIONS: tuple[Option, ...] = (
    Option("pc_target", str, TARGETS[0], "The SoC that the device rknn:pc computes like.", choices=TARGETS),
)

# A Whisper encoder takes 0.7 GB.
_MOST_MODELS = 4

_Shapes = tuple[tuple[int, ...], ...]


def probe(host: Host) -> Device | None:
    """The device, when the user asks for it by name; nothing is made or started.

    Raises:
        Unavailable: It is asked for and cannot be had; why.
    """
    if MACHINE not in host.simulate:
        return None
    found = environment.find(host)
    notes: tuple[str, ...] = ("fp16 numerics only: it has no cores, and its times say nothing",)
    if found is None:
        find_python(host)
        notes += ("the environment of rknn-toolkit2 is made when the first program is loaded (0.65 GB)",)
    return Device(
        DEVICE,
        kind="npu",
        description="Rockchip NPU numerics, by the simulator of rknn-toolkit2",
        rank=190,  # behind every NPU that computes at a useful speed
        simulated=True,
        properties={"rknn-toolkit2": environment.version_of(host)},
        notes=notes,
    )


def load(program: Program, device: Device, options: Mapping[str, Any], host: Host) -> Executable:
    """A program in the simulator; see `Backend.load`. `options` has what `OPTIONS` declares.

    Raises:
        Unsupported: The toolkit refuses the model, or there is no ONNX model.
        Unavailable: The toolkit's environment cannot be made.
        DeviceLost: Its process died.
    """
    program.artifact("onnx")
    if any(spec.dtype == object for spec in (*program.inputs, *program.outputs)):
        raise Unsupported("texts are for the CPU alone")

    def progress(stage: str, done: float) -> None:
        _log.info("rknn-toolkit2: %s", stage)

    if environment.find(host) is None:
        _log.warning("making the environment of rknn-toolkit2, which takes minutes and 0.65 GB, once")
    executable = PcExecutable(
        program, options.get("pc_target") or TARGETS[0], environment.prepare(host, progress), host
    )
    try:
        executable.warm_up()
    except BaseException:
        executable.close()
        raise
    return executable


class PcExecutable(Executable):
    """A program in the simulator, in a process of its own.

    A process that died is started again by the next call, so that a canary can bring the device back.

    Args:
        program: With an ONNX artifact.
        target: The SoC to compute like.
        found: The toolkit's environment.
        host: For the log.
    """

    def __init__(self, program: Program, target: str, found: environment.Environment, host: Host) -> None:
        self._program = program
        self._target = target
        self._python = found.python
        self._host = host
        self._lock = threading.Lock()
        self._closed = False
        self._worker: Worker | None = None
        self._models: OrderedDict[_Shapes, int] = OrderedDict()
        self._count = 0
        self.details = {"rknn-toolkit2": found.version, "pc_target": target, "precision": "fp16"}

    def warm_up(self) -> None:
        """Start the process, and build the model for the shapes that are known. Errors as `load`."""
        worker = self._started()
        worker.try_toolkit()
        for shapes in self._known_shapes()[:_MOST_MODELS]:
            self._model(worker, shapes)

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """Run once; see `Executable.run`. The first call with new shapes compiles for them, which takes seconds."""
        worker = self._started()
        try:
            number = self._model(worker, tuple(inputs[spec.name].shape for spec in self._program.inputs))
            files = worker.save(inputs)
            names = worker.names(spec.name for spec in self._program.outputs)
            worker.ask("infer", number=number, inputs=files, outputs=list(names.values()))
            worker.forget(files)
            return {spec.name: self._output(worker.take(names[spec.name]), spec) for spec in self._program.outputs}
        except ToolkitFailed as error:
            raise ExecutionError(error.problem) from None
        except DeviceLost:
            self._lose(worker)
            raise
        except OSError as error:
            raise ExecutionError(f"arrays cannot be handed to rknn-toolkit2: {error}") from error

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with self._lock:
            self._closed = True
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.close(leave=False)

    def _started(self) -> Worker:
        with self._lock:
            if self._closed:
                raise ClosedError("this executable is closed")
            if self._worker is not None and not self._worker.alive:
                self._worker.close(leave=False)
                self._worker = None
            if self._worker is None:
                self._worker = Worker(self._python, environment.new_log(self._host, "pc"))
                self._models.clear()
            return self._worker

    def _lose(self, worker: Worker) -> None:
        with self._lock:
            if self._worker is worker:
                self._worker = None
        worker.close(leave=False)

    def _model(self, worker: Worker, shapes: _Shapes) -> int:
        """The number of the model for these shapes, built when it is the first time."""
        if shapes in self._models:
            self._models.move_to_end(shapes)
            return self._models[shapes]
        named = dict(zip((spec.name for spec in self._program.inputs), shapes, strict=True))
        refusal = refused(named)
        if refusal:
            raise Unsupported(refusal, fix=SCALARS)
        if len(self._models) >= _MOST_MODELS:
            _, oldest = self._models.popitem(last=False)
            worker.ask("drop", number=oldest)
        self._count += 1
        try:
            worker.ask(
                "build",
                number=self._count,
                **build_arguments(self._program, self._target, named),
                dataset="",
                config={},
                build={},
                out=FILE,
            )
        except ToolkitFailed as error:
            told = ", ".join(f"{name}: {shape_text(shape)}" for name, shape in named.items())
            raise Unsupported(f"{error.problem} ({told})") from None
        self._models[shapes] = self._count
        return self._count

    def _known_shapes(self) -> list[_Shapes]:
        """Those that the program has, or that its compiled artifacts were made for."""
        names = [spec.name for spec in self._program.inputs]
        fixed = {spec.name: tuple(dim for dim in spec.shape or () if type(dim) is int) for spec in self._program.inputs}
        if all(spec.shape is not None and len(fixed[spec.name]) == len(spec.shape) for spec in self._program.inputs):
            return [tuple(fixed[name] for name in names)]
        compiled = (artifact.shapes for artifact in self._program.artifacts_of("rknn"))
        return list(dict.fromkeys(tuple(shapes[name] for name in names) for shapes in compiled if shapes))

    def _output(self, array: Array, spec: TensorSpec) -> Array:
        """In the program's dtype (the toolkit gives float32 for float16), and without a dimension where it has none."""
        if array.dtype != spec.dtype:
            array = array.astype(spec.dtype)
        if spec.shape == () and array.size == 1:
            return array.reshape(())
        if spec.shape is not None and array.ndim != len(spec.shape):
            raise WrongAnswer(f"output {spec.name!r} has shape {shape_text(array.shape)}, expected {spec.shape}")
        return array
