"""Small programs with known answers, to find out whether a device works: `hetero doctor` runs them on each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hetero.errors import FallbackForbidden, HeteroError
from hetero.scheduler.reasons import reason_of
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.program import Program
    from hetero.runtime import Runtime
    from hetero.session import Session

KERNEL = "attention_i8_64x64"

#: Seconds after which a device that does not answer counts as hung.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Trial:
    """A program, an input and the right answer.

    Attributes:
        name: For listings.
        program: What is run.
        inputs: By name.
        expected: The outputs by name, as numpy gives them.
        tolerance: The greatest error that is still right.
        larger: The same with so many rows, to fill a launch; None where the program has no free dimension.
    """

    name: str
    program: Program
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    tolerance: float
    larger: Callable[[int], Trial] | None = None


@dataclass(frozen=True)
class Finding:
    """What a trial showed about a device.

    Attributes:
        trial: The trial's name.
        outcome: `ok`, `unsupported` (the device does not take this kind of program), `failed` or `wrong`.
        reason: Why not `ok`.
        max_error: The greatest difference from the right answer; None when there was no answer, or one with NaN.
        load_seconds: None when it could not be loaded.
        run_seconds: The first run; None when there was no answer.
        units: The parts of the device that answered, each for itself; empty where it has none.
    """

    trial: str
    outcome: Literal["ok", "unsupported", "failed", "wrong"]
    reason: str = ""
    max_error: float | None = None
    load_seconds: float | None = None
    run_seconds: float | None = None
    units: tuple[str, ...] = ()

    @property
    def sick(self) -> bool:
        """The device does not do what it should."""
        return self.outcome in ("failed", "wrong")


def trials(runtime: Runtime, folder: Path) -> tuple[list[Trial], list[str]]:
    """The trials of every device, their files written to `folder`.

    Returns:
        Them, and the reasons why some are missing.
    """
    return _made([lambda: _onnx(runtime, folder), lambda: _kernel(runtime, KERNEL)])


def own_trials(runtime: Runtime, backend: str) -> tuple[list[Trial], list[str]]:
    """The trials that a backend's devices get besides: the kernels that are compiled for them; as for `trials`."""
    names = [name for name in runtime.backends[backend].trial_programs() if name != KERNEL]
    return _made([functools.partial(_kernel, runtime, name) for name in names])


def _made(makers: Sequence[Callable[[], Trial]]) -> tuple[list[Trial], list[str]]:
    found: list[Trial] = []
    missing: list[str] = []
    for make in makers:
        try:
            found.append(make())
        except HeteroError as error:
            missing.append(error.problem)
    return found, missing


def try_on(runtime: Runtime, device: str, trial: Trial) -> Finding:
    """Load the program on one device, run it, and compare the answer."""
    try:
        with runtime.load(trial.program, device=device, fallback="forbid", standby=False, timeout=_PATIENCE) as session:
            load_seconds = session.explain().candidates[0].load_seconds
            units = tuple(session.units(device))
            rows = session.rows(device)
            if trial.larger is not None and rows > 1:
                trial = trial.larger(rows)
            finding = _answer(session, device, trial, load_seconds)
            # Lanes take turns, so that as many requests as there are lanes ask each core once.
            for _ in units[1:]:
                if finding.outcome == "ok":
                    first = finding.run_seconds
                    finding = replace(_answer(session, device, trial, load_seconds), run_seconds=first)
            return replace(finding, units=tuple(dict.fromkeys(units)))
    except FallbackForbidden as error:
        last = error.attempts[-1]
        return Finding(trial.name, "unsupported" if last.outcome == "unsupported" else "failed", last.reason)
    except Exception as error:
        return Finding(trial.name, "failed", reason_of(error))


def _answer(session: Session, device: str, trial: Trial, load_seconds: float | None) -> Finding:
    result = session.run(trial.inputs)
    if result.record.device != device:
        return Finding(trial.name, "failed", f"{result.record.device} answered in its place")
    lane = result.record.attempts[-1].lane
    units = session.units(device)
    finding = _compared(trial, result.outputs, load_seconds, result.record.run_seconds)
    if finding.sick and units and lane is not None:
        finding = replace(finding, reason=f"{units[lane]}: {finding.reason}")
    return finding


def _compared(trial: Trial, outputs: Mapping[str, Array], load_seconds: float | None, run_seconds: float) -> Finding:
    worst = 0.0
    for name, expected in trial.expected.items():
        answer = outputs[name]
        if answer.shape != expected.shape:
            reason = f"{name} has shape {answer.shape}, expected {expected.shape}"
            return Finding(trial.name, "wrong", reason, None, load_seconds, run_seconds)
        error = float(np.abs(answer.astype(np.float64) - expected.astype(np.float64)).max())
        if not error <= trial.tolerance:
            reason = f"{name} differs by {error:g}, at most {trial.tolerance:g} is right"
            return Finding(trial.name, "wrong", reason, error, load_seconds, run_seconds)
        worst = max(worst, error)
    return Finding(trial.name, "ok", "", worst, load_seconds, run_seconds)


def _onnx(runtime: Runtime, folder: Path) -> Trial:
    """An ONNX model of y = x @ w + b. All values are small integers, so that float16 gives the exact answer too."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    x, w, b = (random.integers(-4, 5, shape).astype(np.float32) for shape in ((8, 64), (64, 64), (64,)))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Add", ["product", "b"], ["y"])],
        "trial",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (8, 64))],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    # Old enough for every runtime that hetero supports.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / "trial.onnx"
    path.write_bytes(model.SerializeToString())
    program = runtime.open(path)
    compiled = [artifact for backend in runtime.backends.values() for artifact in backend.trial_artifacts()]
    program = replace(program, artifacts=(*program.artifacts, *compiled))
    y = x @ w + b
    # bfloat16 keeps 8 bits; an answer that is wrong is wrong by far more.
    tolerance = float(np.abs(y).max()) / 100
    return Trial("onnx matmul and add", program, {"x": x}, {"y": y}, tolerance)


def _kernel(runtime: Runtime, name: str, rows: int = 4) -> Trial:
    """A kernel of the project's or a plugin's, whose answer is the same on every device to the bit."""
    program = runtime.open(name)
    random = np.random.default_rng(0)
    inputs = {
        spec.name: random.integers(
            np.iinfo(spec.dtype).min,
            np.iinfo(spec.dtype).max,
            [size if isinstance(size, int) else rows for size in spec.shape or ()],
            spec.dtype,
            endpoint=True,
        )
        for spec in program.inputs
    }
    expected = program.artifact("kernel").payload.reference(**inputs)
    return Trial(f"kernel {name}", program, inputs, expected, 0.0, functools.partial(_kernel, runtime, name))
