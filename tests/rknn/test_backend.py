"""The backend on a simulated board, through a real Runtime and over both drivers."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Host
from hetero.errors import (
    AllDevicesFailed,
    FallbackForbidden,
    NonFiniteOutput,
    OptionError,
    QueueFull,
    Unavailable,
)
from hetero.testing.rknn.npu import SimulatedNpu
from hetero.testing.rknn.twin import write_twin
from hetero_rknn.backend import RknnBackend
from hetero_rknn.executable import RknnExecutable
from tests import models
from tests.rknn.runtimes import DRIVERS, on_board

X = np.array([1, 2, 3, 4], np.float32)
CORE_CHOICES: list[dict[str, Any]] = [
    {"core_mask": "auto"},
    {"core_mask": "0_1_2"},
    {"tp_mode": "0,1"},
    {"schedule": 2},
    {"schedule": "0,1,2"},
    {"schedule": [0, 0, 1]},
    {"schedule": [0, 1], "order": "static", "threads_per_core": 2},
    {"enable_pacing": True},
    {"disable_dup_context": True},
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return models.double(tmp_path / "double.onnx")


def executable_of(session: hetero.Session) -> RknnExecutable:
    executable = session._candidates[0].executable
    assert isinstance(executable, RknnExecutable)
    return executable


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("choice", CORE_CHOICES, ids=str)
def test_every_way_to_choose_cores_gives_right_answers(driver: str, choice: dict[str, Any], model: Path) -> None:
    with on_board(driver, rknn=choice, chain=["rknn", "cpu"]) as runtime:
        session = runtime.load(model)
        answers = [answer.tolist() for answer in session.map([X * i for i in range(20)], device="rknn")]
        assert answers == [(X * i * 2).tolist() for i in range(20)]


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_answer_tells_that_it_was_simulated_and_explain_what_was_decided(driver: str, model: Path) -> None:
    with on_board(driver) as runtime:
        (npu, _) = runtime.devices
        assert npu.simulated
        assert "simulated Rockchip RK3588 NPU, 3 cores" in npu.description
        session = runtime.load(model)
        record = session.run(X).record
        assert record.simulated
        told = str(session.explain())
        assert f"driver={driver} (asked for)" in told
        assert "data parallel over core0, core1, core2, the default" in told


def test_every_core_answers_the_canary_and_one_that_does_not_is_left_out(model: Path) -> None:
    npu = SimulatedNpu(hung_core=1, hung_after=0)
    with on_board("capi", npu) as runtime:
        session = runtime.load(model, timeout=0.05)
        assert "core1: the canary failed: DeviceTimeout" in session.explain().candidates[0].reason
        for i in range(12):
            assert session.submit(X + i, device="rknn").result(30).tolist() == ((X + i) * 2).tolist()
        lanes = {record.attempts[-1].lane for record in runtime.records}
        assert lanes == {0, 2}


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_mask_for_one_call_is_taken_and_one_that_is_not_there_refused(driver: str, model: Path) -> None:
    with on_board(driver, SimulatedNpu(platform="rk3576")) as runtime:
        session = runtime.load(model)
        assert session(X, device="rknn", options={"rknn": {"core_mask": "0_1"}}).tolist() == (X * 2).tolist()
        with pytest.raises(AllDevicesFailed, match="no NPU core 2"):
            session(X, device="rknn", options={"rknn": {"core_mask": "2"}})
        with pytest.raises(OptionError, match="settled when the program is loaded"):
            session(X, options={"rknn": {"schedule": "0"}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "0,3"}, "no NPU core 3"),
        ({"schedule": "0", "tp_mode": "all"}, "schedule and rknn.tp_mode were both given"),
        ({"placement": "measure", "schedule": "0"}, "placement=measure and rknn.schedule were both given"),
        ({"order": "random"}, "expected one of dynamic, static"),
        ({"driver": "usb"}, "expected one of auto, lite, capi"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_opened(
    options: dict[str, Any], said: str, model: Path
) -> None:
    with pytest.raises(OptionError, match=said), on_board("lite", rknn=options) as runtime:
        runtime.load(model)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_overflow_is_run_again_on_the_cpu_or_raised_as_asked(driver: str, model: Path) -> None:
    big = np.full(4, 40000, np.float32)  # doubled it is more than half precision holds
    with on_board(driver, SimulatedNpu(fp16=True)) as runtime:
        session = runtime.load(model)
        result = session.run(big)
        assert result.value.tolist() == [80000] * 4
        assert "4 of 4 numbers in output 'y' are NaN or infinite" in result.record.attempts[0].reason
        assert [attempt.device for attempt in result.record.attempts] == ["rknn", "cpu"]
        assert session.run(X).record.device == "rknn", "an overflow is no failure of the device"
        strict = runtime.load(model, options={"rknn": {"on_nonfinite": "raise"}})
        with pytest.raises(NonFiniteOutput):
            strict(big)
        loose = runtime.load(model, options={"rknn": {"on_nonfinite": "pass"}}, canary=False)
        assert np.isinf(loose(big)).all()


def test_the_quicker_placement_is_measured_and_told_with_its_numbers(model: Path) -> None:
    # Three cores together are no quicker than one here: a context a core wins by far.
    npu = SimulatedNpu(job_seconds=0.005, speedup=(1, 1, 1))
    with on_board("capi", npu, rknn={"placement": "measure"}) as runtime:
        details = executable_of(runtime.load(model)).details
        assert details["chosen"] == "a context a core"
        assert "one over all cores: " in details["measured"]
        assert details["measured"].endswith("(modelled times)")


def test_pacing_refuses_what_comes_too_soon_and_says_when_to_come_again(model: Path) -> None:
    npu = SimulatedNpu(job_seconds=0.3)  # so long that two submits fall into one, however slow the machine
    with on_board("capi", npu, rknn={"enable_pacing": True, "schedule": "0"}, chain=["rknn"]) as runtime:
        session = runtime.load(model, on_full="raise", canary=False, standby=False)
        session(X)  # from now on a job is known to take 300 ms
        session.submit(X).result(30)
        pace = executable_of(session).pace
        assert pace is not None
        while pace.due_in() > 0:
            time.sleep(0.001)
        last = session.submit(X)
        with pytest.raises(QueueFull, match="rknn is paced: the next request may come in"):
            session.submit(X)
        assert last.result(30).tolist() == (X * 2).tolist(), "what was let in is answered"


@pytest.mark.parametrize("driver", DRIVERS)
def test_several_models_run_at_once_on_cores_of_their_own(driver: str, tmp_path: Path) -> None:
    with on_board(driver) as runtime:
        sessions = []
        for core in range(3):
            path = models.double(tmp_path / f"{core}.onnx")
            options = {"rknn": {"core_mask": str(core)}}
            sessions.append(runtime.load(path, options=options))
        futures = [session.submit(X + i, device="rknn") for i in range(10) for session in sessions]
        assert [future.result(30).tolist() for future in futures] == [
            ((X + i) * 2).tolist() for i in range(10) for _ in sessions
        ]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_line_a_job_tells_where_its_time_went(driver: str, model: Path, tmp_path: Path) -> None:
    log = tmp_path / "perf.log"
    with on_board(driver, environ={"HETERO_RKNN_PERF": str(log)}) as runtime:
        session = runtime.load(model, canary=False)
        for _ in range(5):
            session(X, device="rknn")
    lines = log.read_text().splitlines()
    assert len(lines) == 5
    assert all("set_input_us=" in line and "core_id=core" in line for line in lines)
    assert runtime.records.last is not None
    assert runtime.records.last.attempts[-1].copy_seconds > 0


def test_shapes_choose_among_files_and_one_that_was_not_compiled_goes_to_the_cpu(tmp_path: Path) -> None:
    source = models.double(tmp_path / "double.onnx", ["n"])
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "double.onnx").write_bytes(source.read_bytes())
    artifacts = ""
    for size in (4, 8):
        write_twin(source, bundle / f"{size}.rknn", platform="rk3588", shapes={"x": (size,)})
        artifacts += (
            f'[[artifact]]\nkind = "rknn"\ntarget = "rk3588"\npath = "{size}.rknn"\nshapes = {{ x = [{size}] }}\n'
        )
    (bundle / "hetero.toml").write_text(
        f'[program]\nformat = 1\n[[artifact]]\nkind = "onnx"\npath = "double.onnx"\n{artifacts}'
    )
    with on_board("lite") as runtime:
        session = runtime.load(bundle)
        for size, device in ((4, "rknn"), (8, "rknn"), (5, "cpu"), (4, "rknn")):
            record = session.run(np.ones(size, np.float32)).record
            assert record.device == device
        refused = [a.reason for r in runtime.records for a in r.attempts if a.outcome == "unsupported"]
        assert refused == ["compiled for x[4]; x[8]; got x[5]"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_lost_npu_is_recorded_and_the_answer_comes_from_the_cpu(driver: str, model: Path) -> None:
    with on_board(driver, SimulatedNpu(faults={"lost": 1.0})) as runtime:
        session = runtime.load(model, canary=False)
        result = session.run(X)
        assert result.value.tolist() == (X * 2).tolist()
        assert "RKNN_ERR_DEVICE_UNAVAILABLE" in result.record.attempts[0].reason


def test_a_machine_that_is_no_board_says_so_and_how_to_try_without_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="this is no Rockchip board") as caught:
        RknnBackend(Host(environ={}, sysroot=tmp_path, cache=tmp_path)).probe()
    assert "HETERO_SIMULATE=rk3588" in caught.value.fix


def test_a_board_without_the_vendors_library_is_told_what_to_install(tmp_path: Path) -> None:
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    with pytest.raises(Unavailable, match=r"neither librknnrt\.so nor rknn-toolkit-lite2 is installed") as caught:
        RknnBackend(Host(environ={}, sysroot=tmp_path, cache=tmp_path)).probe()
    assert "pip install rknn-toolkit-lite2" in caught.value.fix


def test_a_program_that_is_not_compiled_for_the_board_says_how_to_compile_it(model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"radxa,rock-5b\0rockchip,rk3588\0")
    library = tmp_path / "usr" / "lib" / "librknnrt.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"librknnrt version: 2.3.2 (x)\0")
    host = Host(environ={}, sysroot=tmp_path, cache=tmp_path / "cache")
    with hetero.Runtime(backends=[RknnBackend], plugins=False, host=host, learn=False) as runtime:
        assert runtime.devices[0].description == "Rockchip RK3588 NPU, 3 cores"
        with pytest.raises(FallbackForbidden) as caught:
            runtime.load(model, fallback="forbid")
    reason = caught.value.attempts[0].reason
    assert "is not compiled for the RK3588: it has no .rknn file" in reason


def test_an_unreadable_description_of_the_simulation_is_refused_with_its_keys() -> None:
    for text in ("speed=3", "job_us=fast", "faults=melt:0.5"):
        with pytest.raises(OptionError, match="a simulated NPU cannot be described by"):
            SimulatedNpu.from_text(text, platform="rk3588")


def test_a_description_of_the_simulation_reads_back_as_it_was_written() -> None:
    npu = SimulatedNpu(
        "rk3576", 0.02, (1, 1.5), (1, 3), 0.25, True, {"nan": 0.5, "hang": 0.1}, 1, 7, 42, "2.0.0", "0.9.2"
    )
    assert SimulatedNpu.from_text(npu.to_text(), platform="rk3588") == npu


def test_the_doctors_trial_is_the_model_that_the_shipped_files_were_made_of(tmp_path: Path) -> None:
    from hetero.cli.trials import trials

    with hetero.Runtime(backends=[RknnBackend], plugins=False, learn=False, host=Host(environ={})) as runtime:
        ((trial, *_), _) = trials(runtime, tmp_path)
    targets = {artifact.target for artifact in trial.program.artifacts if artifact.kind == "rknn"}
    assert targets == {"rk3588", "rk3576", "rk3566", "rk3562"}
    from hetero_rknn.model_file import check_signature, read_model_file

    for artifact in trial.program.artifacts:
        if artifact.kind == "rknn":
            header = read_model_file(artifact.file)
            assert header.platform == artifact.target
            assert not check_signature(header, trial.program.inputs, trial.program.outputs)


def test_importing_the_backend_imports_nothing_of_the_vendors() -> None:
    import subprocess

    code = "import sys, json, hetero_rknn.backend; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = json.loads(out)
    assert not [name for name in loaded if name.split(".")[0] in ("rknnlite", "rknn", "onnxruntime", "onnx")]


def test_two_threads_never_meet_in_one_object_of_the_vendors(model: Path) -> None:
    with on_board("lite", rknn={"threads_per_core": 2}) as runtime:
        session = runtime.load(model)
        wrong: list[int] = []

        def ask(start: int) -> None:
            for i in range(start, start + 100):
                if session(X + i, device="rknn").tolist() != ((X + i) * 2).tolist():
                    wrong.append(i)

        threads = [threading.Thread(target=ask, args=(1000 * i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        backend = runtime.backends["rknn"]
        assert isinstance(backend, RknnBackend)
        (simulator,) = backend.simulators
        assert simulator.counter("misuse") == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_model_newer_than_the_runtime_is_refused_before_that_is_asked(driver: str, model: Path) -> None:
    with on_board(driver, SimulatedNpu(library_version="1.4.0")) as runtime:
        report = runtime.load(model).explain().candidates[0]
        assert report.state == "unsupported"
        assert "librknnrt 1.4.0 reads formats up to" in report.reason
