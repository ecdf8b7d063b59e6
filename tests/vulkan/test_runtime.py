"""Requests while the GPU is lost, full, late or wrong: the CPU answers, the record says why, the GPU comes back."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import hetero
from hetero.backend import Host
from hetero.onnx_file import open_onnx
from hetero.session import Session
from hetero.tensors import Array
from hetero_cpu.backend import CpuBackend
from hetero_vulkan import executable, onnx_program
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.choosing import VARIABLE
from hetero_vulkan.ops import tuning
from tests.models import save, tensor
from tests.vulkan import networks
from tests.vulkan.machine import LOST, TIMED_OUT, WHICH, Clock, Faults

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TOLERANCE = 1e-5


class Rig:
    """A Runtime with the chain vulkan, cpu, under the validation layer.

    Attributes:
        clock: The Runtime's, on which a device that is set aside waits.
        backend: The Vulkan backend.
    """

    def __init__(self, folder: Path, faults: Faults, messages: list[str] | None) -> None:
        self.folder = folder
        self.clock = Clock()
        self.host = Host(environ={VARIABLE: WHICH}, cache=folder / "cache")
        validate = None if messages is None else messages.append

        def vulkan(host: Host) -> VulkanBackend:
            return VulkanBackend(host, wrap=faults, validate=validate, clock=faults.clock)

        self.runtime = hetero.Runtime(
            backends=[vulkan, CpuBackend],
            plugins=False,
            host=self.host,
            chain=["vulkan", "cpu"],
            clock=self.clock,
            learn=False,
        )
        backend = self.runtime.backends["vulkan"]
        assert isinstance(backend, VulkanBackend)
        self.backend = backend

    def load(self, **options: Any) -> Session:
        """A small encoder."""
        path = self.folder / "encoder.onnx"
        if not path.exists():
            networks.bert(path, layers=1)
        program = dataclasses.replace(open_onnx(path), sizes={"batch": 1, "length": 6})
        return self.runtime.load(program, options={"vulkan": options})

    def come_back(self, session: Session) -> None:
        """Let the pause of a device that was set aside pass, and wait for its canary's answer."""
        back = threading.Event()
        lanes = session._candidates[0].lanes
        recovered = lanes.recovered

        def seen(unit: Any) -> None:
            recovered(unit)
            back.set()

        lanes.recovered = seen  # type: ignore[method-assign]
        self.clock.now += 100
        self.runtime.timers.run_due()
        assert back.wait(60)
        while not session._candidates[0].free:
            pass  # the lane that answered is given back a moment later

    @property
    def last(self) -> Any:
        """The record of the last request."""
        return list(self.runtime.records)[-1]


@pytest.fixture
def rig(tmp_path: Path, faults: Faults, validated: bool, messages: list[str]) -> Iterator[Rig]:
    rig = Rig(tmp_path, faults, messages if validated else None)
    instance = rig.backend._instance
    assert instance is not None
    vulkan = instance.vulkan
    yield rig
    faults.heal()
    rig.runtime.close()
    assert dict(vulkan.live) == {}
    assert messages == []


def sentence(length: int = 6, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {"input_ids": random.integers(0, 60, (1, length)), "attention_mask": np.ones((1, length), np.int64)}


def ask(rig: Rig, session: Session, **how: Any) -> str:
    """Ask the encoder something, check the answer, and say who gave it."""
    inputs = sentence(**how)
    answer = session(inputs)
    path = rig.folder / "encoder.onnx"
    import onnxruntime

    reference = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for output, expected in zip(reference.get_outputs(), reference.run(None, inputs), strict=True):
        most = float(np.abs(expected).max())
        np.testing.assert_allclose(answer[output.name], expected, rtol=0, atol=TOLERANCE * most)
    return str(rig.last.device)


def reasons(rig: Rig) -> list[tuple[str, str, str]]:
    return [(attempt.device, attempt.outcome, attempt.reason) for attempt in rig.last.attempts]


def split(monkeypatch: pytest.MonkeyPatch, most: float) -> None:
    monkeypatch.setattr(onnx_program, "most_cost_of", lambda physical: most)


@pytest.mark.parametrize(("function", "at"), [("vkQueueSubmit", 1), ("vkQueueSubmit", 4), ("vkWaitSemaphores", 1)])
def test_a_gpu_that_is_lost_in_the_middle_of_a_request_is_replaced_and_comes_back(
    rig: Rig, faults: Faults, monkeypatch: pytest.MonkeyPatch, function: str, at: int
) -> None:
    split(monkeypatch, 2e4)
    session = rig.load()
    assert ask(rig, session) == "vulkan:0"
    faults.fail(function, LOST, at=at)
    assert ask(rig, session, seed=1) == "cpu"
    (device, outcome, reason), _ = reasons(rig)
    assert (device, outcome) == ("vulkan:0", "failed")
    assert reason.startswith("DeviceLost: vulkan:0: ")
    assert "VK_ERROR_DEVICE_LOST" in reason
    assert ask(rig, session, seed=2) == "cpu"
    assert reasons(rig)[0][1] == "set aside"
    rig.come_back(session)
    for seed in range(3, 6):
        assert ask(rig, session, seed=seed, length=3 + seed) == "vulkan:0"


def test_a_gpu_without_room_gives_other_plans_up_then_leaves_the_request_to_the_cpu_and_goes_on(rig: Rig) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    file = save(rig.folder / "m.onnx", [node], [tensor("x", ("n",))], [tensor("y", ("n",))])
    program = dataclasses.replace(open_onnx(file), sizes={"n": 8})
    session = rig.runtime.load(program, options={"vulkan": {"plans": 20}})
    arena = rig.backend.holder(rig.runtime.devices[0])._device._arena  # type: ignore[union-attr]

    def ask(count: int) -> str:
        x = np.linspace(-1, 1, count, dtype=np.float32)
        np.testing.assert_array_equal(session(x), np.maximum(x, 0))
        return str(rig.last.device)

    million = 1 << 20  # of floats: 4 MiB
    assert ask(10 * million) == "vulkan:0"
    arena._limit = arena.statistics.in_use_bytes + arena.statistics.idle_bytes
    assert ask(9 * million) == "vulkan:0"  # in place of the plan before
    assert ask(12 * million) == "cpu"
    (_, outcome, reason), _ = reasons(rig)
    assert outcome == "failed"
    assert reason.startswith("OutOfMemory: vulkan:0 has no room for")
    assert ask(9 * million) == "vulkan:0"
    arena._limit = None
    assert ask(12 * million) == "vulkan:0"


def test_work_that_does_not_end_is_answered_by_the_cpu_and_waited_for_before_anything_is_freed(
    rig: Rig, faults: Faults
) -> None:
    session = rig.load()
    assert ask(rig, session) == "vulkan:0"
    faults.fail("vkWaitSemaphores", TIMED_OUT, times=100_000)
    freed = {name: faults.calls.get(name, 0) for name in ("vkFreeMemory", "vkDestroyCommandPool", "vkDestroyBuffer")}
    assert ask(rig, session, seed=1) == "cpu"
    (_, outcome, reason), _ = reasons(rig)
    assert outcome == "failed"
    assert reason.startswith("DeviceTimeout: vulkan:0 has not ended its work in 10")
    assert ask(rig, session, seed=2) == "cpu"
    assert reasons(rig)[0][1] == "set aside"
    assert {name: faults.calls.get(name, 0) for name in freed} == freed
    faults.heal()
    rig.come_back(session)
    assert ask(rig, session, seed=3) == "vulkan:0"


def test_nothing_is_freed_of_a_gpu_whose_work_never_ends(
    tmp_path: Path, faults: Faults, validated: bool, messages: list[str]
) -> None:
    rig = Rig(tmp_path, faults, messages if validated else None)
    session = rig.load()
    assert ask(rig, session) == "vulkan:0"
    faults.fail("vkWaitSemaphores", TIMED_OUT, times=1_000_000)
    assert ask(rig, session, seed=1) == "cpu"
    names = ("vkFreeMemory", "vkDestroyBuffer", "vkDestroyPipeline", "vkDestroyDevice", "vkDestroyInstance")
    freed = {name: faults.calls.get(name, 0) for name in names}
    session.close()
    rig.runtime.close()
    assert {name: faults.calls.get(name, 0) for name in names} == freed
    assert messages == []


def test_a_driver_that_compiles_when_a_shader_first_runs_is_given_the_time(rig: Rig, faults: Faults) -> None:
    faults.compile_slowly(300.0)
    session = rig.load(timeout=10.0)
    assert ask(rig, session) == "vulkan:0"
    assert faults.clock.now > 5000  # of shaders there are many
    assert ask(rig, session, length=9) == "vulkan:0"


def test_a_gpu_that_computes_wrongly_answers_nothing(rig: Rig, faults: Faults) -> None:
    faults.replace("vkCmdDispatch", lambda *arguments: None)
    session = rig.load()
    assert ask(rig, session) == "cpu"
    (device, outcome, reason), _ = reasons(rig)
    assert (device, outcome) == ("vulkan:0", "failed")
    assert reason.startswith("Unavailable: vulkan:0")
    assert "computes wrongly" in reason


def test_damaged_files_in_the_cache_cost_nothing_but_time(
    rig: Rig, faults: Faults, tmp_path: Path, messages: list[str], validated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(rig, rig.load()) == "vulkan:0"
    rig.runtime.close()
    files = list((rig.host.cache / "vulkan").glob("*.bin"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:-7])
    again = Rig(tmp_path, faults, messages if validated else None)
    with caplog.at_level(logging.WARNING):
        assert ask(again, again.load()) == "vulkan:0"
    assert "damaged" in caplog.text
    again.runtime.close()


def test_work_in_parts_gives_the_same_answer_to_the_last_bit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = sentence(12)
    counts = []
    made = executable.Session.plan

    def plan(self: Any, *arguments: Any) -> Any:
        found = made(self, *arguments)
        counts.append(found.commands.submissions)
        return found

    monkeypatch.setattr(executable.Session, "plan", plan)
    whole = rig.load()(inputs)
    assert max(counts) == 1
    for most in (1e5, 1e4, 1.0):
        split(monkeypatch, most)
        counts.clear()
        session = rig.load()
        answer = session(inputs)
        assert rig.last.device == "vulkan:0"
        assert max(counts) > 1
        for name, array in whole.items():
            np.testing.assert_array_equal(answer[name], array)
        session.close()


def test_what_suits_the_gpu_is_measured_once_kept_and_measured_again_when_the_file_is_broken(
    rig: Rig, tmp_path: Path, faults: Faults, messages: list[str], validated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., Any] = tuning.measured
    ways, more = tuning.gemm_ways, tuning.attention_ways
    calls: list[int] = []

    def measured(device: Any, steps: Any) -> float:
        calls.append(1)
        return float(real(device, steps))

    monkeypatch.setattr(tuning, "measured", measured)
    monkeypatch.setattr(tuning, "gemm_ways", lambda physical: dict(list(ways(physical).items())[:2]))
    monkeypatch.setattr(tuning, "attention_ways", lambda physical: dict(list(more(physical).items())[:2]))
    assert ask(rig, rig.load(tune=True)) == "vulkan:0"
    assert len(calls) == 4
    rig.runtime.close()
    (file,) = (rig.host.cache / "vulkan").glob("tuning-*.json")
    assert json.loads(file.read_text())["device"]
    for content, measurements in ((None, 0), (b"{", 4), (b'{"version": 1, "gemm": 3}', 4)):
        if content is not None:
            file.write_bytes(content)
        calls.clear()
        again = Rig(tmp_path, faults, messages if validated else None)
        assert ask(again, again.load(tune=True)) == "vulkan:0"
        assert len(calls) == measurements
        again.runtime.close()
    assert json.loads(file.read_text())["version"] == tuning.VERSION
