"""The toolkit's simulator as a device: there when asked for, right, and replaced when its process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Call
from hetero.bundle import open_program
from hetero.errors import ClosedError, DeviceLost, ExecutionError, FallbackForbidden, Unavailable, Unsupported
from hetero_cpu.backend import CpuBackend
from hetero_rknn.backend import RknnBackend
from hetero_rknn.toolkit import interpreters, pc
from hetero_rknn.toolkit.process import ToolkitFailed, Worker
from tests import models
from tests.rknn.toolkit.environments import Rknn, host_with

MakeRuntime = Callable[..., hetero.Runtime]
Load = Callable[..., Any]


@pytest.fixture
def pc_host(toolkit: Path, tmp_path: Path) -> hetero.Host:
    host = host_with(toolkit, tmp_path)
    return hetero.Host(host.environ, host.sysroot, host.cache, simulate=(pc.MACHINE,))


@pytest.fixture
def load(pc_host: hetero.Host) -> Iterator[Load]:
    """Loads a model on the device."""
    loaded: list[Any] = []

    def load_it(model: Path, **options: Any) -> Any:
        device = pc.probe(pc_host)
        assert device is not None
        loaded.append(pc.load(open_program(model), device, options, pc_host))
        return loaded[-1]

    yield load_it
    for executable in loaded:
        executable.close()


def test_the_backend_itself_loads_programs_on_it(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    x = np.ones((1, 8), np.float32)
    session = make_runtime(RknnBackend, host=pc_host).load(
        models.double(tmp_path / "double.onnx", (1, 8)), device=pc.DEVICE, fallback="forbid", canary=False
    )
    result = session.run(x)
    assert (result.record.device, result.record.simulated) == ("rknn:pc", True)
    assert "pc_target=rk3588" in str(session.explain())


def test_it_is_there_only_when_it_is_asked_for_by_name(
    make_runtime: MakeRuntime, toolkit_host: hetero.Host, pc_host: hetero.Host
) -> None:
    assert [device.name for device in make_runtime(Rknn, CpuBackend, host=toolkit_host).devices] == ["cpu"]
    devices = make_runtime(Rknn, CpuBackend, host=pc_host).devices
    assert [(device.name, device.simulated) for device in devices] == [("rknn:pc", True), ("cpu", False)]
    assert "its times say nothing" in devices[0].notes[0]
    assert devices[0].properties == {"rknn-toolkit2": "2.5.0"}


def test_where_it_cannot_be_had_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_version", lambda python: "3.14")
    host = hetero.Host(environ={}, cache=tmp_path, simulate=(pc.MACHINE,))
    with pytest.raises(Unavailable, match="needs Python"):
        pc.probe(host)


def test_it_answers_and_says_that_it_is_simulated(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    runtime = make_runtime(Rknn, CpuBackend, host=pc_host)
    session = runtime.load(models.two_outputs(tmp_path / "two.onnx"))
    x, y = np.float32([1, 2, 3, 4]), np.float32([5, 6, 7, 8])
    result = session.run(x, y)
    np.testing.assert_array_equal(result.outputs["total"], x + y)
    np.testing.assert_array_equal(result.outputs["product"], x * y)
    assert (result.record.device, result.record.simulated) == ("rknn:pc", True)


def test_each_set_of_shapes_is_compiled_once_and_the_oldest_forgotten(load: Load, tmp_path: Path) -> None:
    executable = load(models.dynamic(tmp_path / "dynamic.onnx"))
    for size in (1, 2, 3, 4, 5, 1, 5):
        x = np.ones((size, 3), np.float32)
        np.testing.assert_array_equal(executable.run({"x": x}, Call())["y"], 2 * x)
    (log,) = (tmp_path / "cache" / "rknn-toolkit2" / "logs").iterdir()
    assert log.read_text().count("use simulator!") == 6, "1 was forgotten when 5 came, 5 was not"


def test_a_bundles_compiled_shapes_are_ready_when_it_is_loaded(
    make_runtime: MakeRuntime, pc_host: hetero.Host, load: Load, tmp_path: Path
) -> None:
    shapes = [("batch", (1,)), ("width", (4,)), ("width", (8,))]
    bundle = make_runtime(Rknn, host=pc_host).compile(
        models.dynamic(tmp_path / "dynamic.onnx"), "rk3588", out=tmp_path / "bundle", shapes=shapes
    )
    executable = load(bundle.bundle)
    (log,) = (tmp_path / "cache" / "rknn-toolkit2" / "logs").glob("pc-*.log")
    assert log.read_text().count("use simulator!") == 2
    executable.run({"x": np.ones((1, 8), np.float32)}, Call())
    assert log.read_text().count("use simulator!") == 2


def test_dtypes_and_ranks_are_the_programs(load: Load, tmp_path: Path) -> None:
    from onnx import helper

    half = load(models.double(tmp_path / "half.onnx", (4,), np.float16))
    assert half.run({"x": np.ones(4, np.float16)}, Call())["y"].dtype == np.float16
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    total = load(models.save(tmp_path / "sum.onnx", [node], [models.tensor("x", [4])], [models.tensor("y", [])]))
    answer = total.run({"x": np.ones(4, np.float32)}, Call())["y"]
    assert (answer.shape, float(answer)) == ((), 4.0)
    with pytest.raises(Unsupported, match="without a dimension"):
        load(models.double(tmp_path / "scalar.onnx", ()))


def test_a_model_that_the_toolkit_refuses_goes_to_the_next_device(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    runtime = make_runtime(Rknn, CpuBackend, host=pc_host)
    model = models.double(tmp_path / "refused.onnx")
    result = runtime.load(model).run(np.ones(4, np.float32))
    assert result.record.device == "cpu"
    with pytest.raises(FallbackForbidden, match="Unsupport onnx opset 22"):
        runtime.load(model, device="rknn:pc", fallback="forbid")


def test_shapes_that_the_toolkit_refuses_are_no_fault_of_the_device(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "minus_one.onnx", ["n"]))
    with pytest.raises(Unsupported, match=r"unsupported dims in reducesum.*x: \[3\]"):
        executable.run({"x": np.ones(3, np.float32)}, Call())


def test_a_call_that_fails_is_told_in_the_toolkits_words_and_the_next_one_works(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "no_answer.onnx"))
    for _ in range(2):
        with pytest.raises(ExecutionError, match="failed to simulate: inference gave nothing"):
            executable.run({"x": np.ones(4, np.float32)}, Call())


def test_a_process_that_dies_is_a_lost_device_and_comes_back_with_the_next_call(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "double.onnx"))
    x = np.ones(4, np.float32)
    executable.run({"x": x}, Call())
    os.kill(executable._worker._process.pid, signal.SIGKILL)
    executable._worker._process.wait()
    np.testing.assert_array_equal(executable.run({"x": x}, Call())["y"], 2 * x)


def test_a_death_in_a_call_sends_the_request_elsewhere(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    runtime = make_runtime(Rknn, CpuBackend, host=pc_host)
    session = runtime.load(models.double(tmp_path / "killed_later.onnx"), canary=False)
    result = session.run(np.ones(4, np.float32))
    assert result.record.device == "cpu"
    assert "DeviceLost" in result.record.attempts[0].reason
    assert "SIGKILL" in result.record.attempts[0].reason


def test_closing_ends_a_call_that_hangs(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "hangs.onnx"))
    worker = executable._worker
    ended: list[BaseException] = []

    def run() -> None:
        try:
            executable.run({"x": np.ones(4, np.float32)}, Call())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    patience = time.monotonic() + 60
    while "hanging" not in worker.printed() and time.monotonic() < patience:
        time.sleep(0.01)
    executable.close()
    thread.join(60)
    assert [type(error) for error in ended] == [DeviceLost]
    assert not worker.alive
    assert not worker.folder.exists()
    with pytest.raises(ClosedError):
        executable.run({"x": np.ones(4, np.float32)}, Call())


def test_a_call_that_hangs_goes_elsewhere_after_the_time_out(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    runtime = make_runtime(Rknn, CpuBackend, host=pc_host)
    session = runtime.load(models.double(tmp_path / "hangs.onnx"), canary=False, timeout=0.5)
    result = session.run(np.ones(4, np.float32))
    assert result.record.device == "cpu"
    assert result.record.attempts[0].device == "rknn:pc"
    assert "0.5 s" in result.record.attempts[0].reason
    session.close(timeout=0.1)


HANGING = """
import sys
from pathlib import Path
from hetero_rknn.toolkit.process import Worker
worker = Worker(Path(sys.argv[1]), Path(sys.argv[2]))
print(worker._process.pid, worker.folder, flush=True)
worker.ask("build", number=1, model=sys.argv[3], target="rk3588", shapes={"x": [4]}, free=False, dataset="", config={},
           build={}, out="m.rknn")
files = worker.save({"x": __import__("numpy").ones(4, "float32")})
worker.ask("infer", number=1, inputs=files, outputs=["y.npy"])
"""


def test_a_worker_whose_log_was_removed_goes_on_and_tells_what_failed(toolkit: Path, tmp_path: Path) -> None:
    with Worker(toolkit / "bin" / "python", tmp_path / "log") as worker:
        worker.log.unlink()
        assert worker.try_toolkit()["toolkit"]
        with pytest.raises(ToolkitFailed, match="KeyError"):
            worker.ask("drop", number=1)
        assert "Traceback" in worker.printed()


def test_a_hanging_toolkit_does_not_outlive_the_application(toolkit: Path, tmp_path: Path) -> None:
    model = models.double(tmp_path / "hangs.onnx")
    log = tmp_path / "log"
    command = [sys.executable, "-c", HANGING, str(toolkit / "bin" / "python"), str(log), str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        pid = int(application.stdout.readline().split()[0])
        patience = time.monotonic() + 60
        while (not log.exists() or "hanging" not in log.read_text()) and time.monotonic() < patience:
            time.sleep(0.01)
        assert Path(f"/proc/{pid}").exists()
        application.kill()
    while running(pid) and time.monotonic() < patience:
        time.sleep(0.01)
    assert not running(pid)


def running(pid: int) -> bool:
    """Whether a process is there and no zombie, for which nobody may have come yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_texts_and_programs_without_onnx_are_refused(load: Load, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="texts"):
        load(models.strings(tmp_path / "strings.onnx"))


def test_an_unknown_soc_is_refused_before_anything_starts(
    make_runtime: MakeRuntime, pc_host: hetero.Host, tmp_path: Path
) -> None:
    runtime = make_runtime(Rknn, CpuBackend, host=pc_host)
    with pytest.raises(hetero.errors.OptionError, match="expected one of rk3588"):
        runtime.load(models.double(tmp_path / "double.onnx"), options={"rknn": {"pc_target": "rk9999"}})
