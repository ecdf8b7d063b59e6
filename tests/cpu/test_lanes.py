"""Calls at once do not see each other's data."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import hetero
from hetero import Call
from hetero_cpu.backend import CpuBackend
from hetero_cpu.executable import OrtExecutable
from tests import models
from tests.cpu.conftest import Load

LANES = 4
CALLS = 200


@pytest.mark.parametrize("shape", [(64,), ("n",)], ids=["buffers", "direct"])
def test_each_lane_gets_its_own_answer(load: Load, tmp_path: Path, shape: tuple[int | str]) -> None:
    executable = load(models.double(tmp_path / "d.onnx", shape), lanes=LANES, threads=2)
    assert executable.lanes == LANES
    start = threading.Barrier(LANES)

    def work(lane: int) -> list[float]:
        start.wait(60)
        wrong = []
        call = Call(lane)
        for number in range(CALLS):
            value = float(lane * CALLS + number)
            y = executable.run({"x": np.full(64, value, np.float32)}, call)["y"]
            if not np.array_equal(y, np.full(64, 2 * value, np.float32)):
                wrong.append(value)
        return wrong

    with ThreadPoolExecutor(LANES) as pool:
        assert list(pool.map(work, range(LANES))) == [[]] * LANES


def test_many_threads_through_a_runtime_each_get_their_own_answer(host: hetero.Host, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = models.matmul(tmp_path / "m.onnx", 8)
    options = {"cpu": {"lanes": 3, "threads": 1}}
    with hetero.Runtime(backends=[CpuBackend], plugins=False, host=host, options=options) as rt:
        session = rt.load(path)

        def work(number: int) -> bool:
            a = np.full((8, 8), number, np.float32)
            return bool(np.array_equal(session(a, np.eye(8, dtype=np.float32)), a))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(CALLS)))


def test_lanes_and_threads_reach_the_session(load: Load, tmp_path: Path) -> None:
    executable = load(models.double(tmp_path / "d.onnx"), lanes=2, threads=4, spinning=0)
    assert (executable.details["threads"], executable.details["lanes"]) == (4, 2)
    settings = executable._session.get_session_options()
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (3, 1)
    assert settings.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_quota_narrows_the_sessions_threads(load: Load, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, text in {
        "proc/self/status": "Cpus_allowed_list:\t0-15\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "300000 100000\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    host = hetero.Host(environ={}, sysroot=root, cache=tmp_path / "cache")
    executable = load(models.double(tmp_path / "d.onnx"), host=host)
    assert isinstance(executable, OrtExecutable)
    assert executable._session.get_session_options().intra_op_num_threads == 3
