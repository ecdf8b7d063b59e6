"""Mistakes that people made with such kernels, put back in: each is caught, and by what.

| mistake | caught by |
|---|---|
| inputs and outputs in turn in the manifest | the canary; the simulator counts inputs that nobody wrote |
| no sync to the device | the canary; the simulator counts inputs that nobody wrote |
| no sync from the device | the canary |
| two columns swapped, the last ones too | the canary, which fills a whole launch |
| columns that wait for one another | the instructions, read at load; modelled time |
| another group id than the xclbin's | the backend, at load |
| a group id that is ignored | the canary; the simulator counts it |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_xrt.backend import XrtBackend
from tests.xrt.machine import KERNEL, REFERENCES
from tests.xrt.npu import Laptop, check, inputs_of

SHAPE: dict[str, Any] = {"columns": 4, "tiles_per_launch": 8, "layout": "separate"}


class Laboratory:
    """A simulated NPU and the CPU, with one compiled kernel that can be spoilt before it is loaded."""

    def __init__(self, host: hetero.Host, folder: Path, **shape: Any) -> None:
        self.clock = ControlledClock(poll_seconds=1e-3)
        self.x = simulated_pyxrt(SimulatedPhoenix(), kernels=REFERENCES, clock=self.clock)
        self.path = write_stand_in(folder / KERNEL, get(KERNEL).program(), **{**SHAPE, **shape})
        self.runtime = hetero.Runtime(
            backends=[self._backend, CpuBackend],
            plugins=False,
            host=hetero.Host(environ={}, sysroot=host.sysroot, cache=host.cache, simulate=("phoenix",)),
            options={"xrt": {"kernels": str(folder)}},
            learn=False,
        )

    def _backend(self, host: hetero.Host) -> XrtBackend:
        return XrtBackend(host, pyxrt=self.x, clock=self.clock.now)

    def rename(self, **arguments: str) -> None:
        """Give the manifest's arguments other names, and what goes with a name: role, column and tensors."""
        head, *parts = self.path.read_text().split("\n[[argument]]\n")
        bodies = {part.split('name = "')[1].split('"')[0]: part.partition("\n")[2] for part in parts}
        for place, part in enumerate(parts):
            name = part.split('name = "')[1].split('"')[0]
            parts[place] = part.partition("\n")[0] + "\n" + bodies[arguments.get(name, name)]
        self.path.write_text("\n[[argument]]\n".join([head, *parts]))

    def answers(self) -> hetero.Session:
        """A session whose answers are right, whoever gives them."""
        session = self.runtime.load(get(KERNEL).program())
        for count in (1, 8, 11):
            inputs = inputs_of(KERNEL, count, count)
            np.testing.assert_array_equal(session.run(inputs).outputs["o"], get(KERNEL).reference(**inputs)["o"])
        return session

    def misuse(self) -> set[str]:
        self.runtime.close()
        report = self.x.npu.finish()
        assert report.crashes == ()
        return set(report.misuse)


@pytest.fixture
def lab(host: hetero.Host, tmp_path: Path) -> Iterator[Callable[..., Laboratory]]:
    made: list[Laboratory] = []

    def make(**shape: Any) -> Laboratory:
        made.append(Laboratory(host, tmp_path / "kernels", **shape))
        return made[-1]

    yield make
    for each in made:
        each.runtime.close()


def told_of_xrt(session: hetero.Session) -> str:
    """Why the NPU is not used."""
    report = next(report for report in session.explain().candidates if report.device == "xrt")
    return f"{report.state}: {report.reason}"


WRONG = "failed: the canary failed: output 'o' differs from the reference"


def test_without_a_mistake_the_npu_answers(lab: Callable[..., Laboratory]) -> None:
    machine = lab()
    session = machine.answers()
    assert told_of_xrt(session) == "ready: "
    assert {record.device for record in machine.runtime.records} == {"xrt"}
    assert machine.misuse() == set()


def test_inputs_and_outputs_in_turn_are_caught_by_the_canary(lab: Callable[..., Laboratory]) -> None:
    machine = lab()
    # The kernel takes in0 in1 in2 in3 out0 out1 out2 out3; the first design's host code gave in0 out0 in1 out1 ...
    order = ["in0", "out0", "in1", "out1", "in2", "out2", "in3", "out3"]
    compiled = [f"in{column}" for column in range(4)] + [f"out{column}" for column in range(4)]
    machine.rename(**dict(zip(compiled, order, strict=True)))
    session = machine.answers()
    assert told_of_xrt(session).startswith(WRONG)
    assert {record.device for record in machine.runtime.records} == {"cpu"}
    assert machine.misuse() == {"unwritten_input", "argument_size"}


@pytest.mark.parametrize(
    ("direction", "seen"), [("to_device", {"unwritten_input", "stale_input"}), ("from_device", set())]
)
def test_a_missing_sync_is_caught_by_the_canary(
    lab: Callable[..., Laboratory], direction: str, seen: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = lab()
    directions = machine.x.xclBOSyncDirection
    left_out = {
        "to_device": directions.XCL_BO_SYNC_BO_TO_DEVICE,
        "from_device": directions.XCL_BO_SYNC_BO_FROM_DEVICE,
    }[direction]
    sync = machine.x.bo.sync

    def forgetful(bo: Any, way: Any, *rest: Any) -> None:
        # The instructions are always synced: without them nothing runs.
        if way is not left_out or bo.buffer.group & 0xFFFF:
            sync(bo, way, *rest)

    monkeypatch.setattr(machine.x.bo, "sync", forgetful)
    assert told_of_xrt(machine.answers()).startswith(WRONG)
    assert machine.misuse() == seen


@pytest.mark.parametrize("columns", [(0, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("side", ["in", "out"])
def test_swapped_columns_are_caught_by_the_canary(
    lab: Callable[..., Laboratory], side: str, columns: tuple[int, int]
) -> None:
    machine = lab()
    one, other = (f"{side}{column}" for column in columns)
    machine.rename(**{one: other, other: one})
    assert told_of_xrt(machine.answers()).startswith(WRONG)
    assert machine.misuse() == set(), "every buffer is in order: nothing but the answer tells"


def test_swapped_columns_in_one_context_of_several_are_caught_by_the_canary(lab: Callable[..., Laboratory]) -> None:
    machine = lab(columns=2, tiles_per_launch=2)
    machine.rename(in0="in1", in1="in0")
    assert told_of_xrt(machine.answers()).startswith(WRONG)


def test_columns_that_wait_for_one_another_are_told_and_take_four_times_as_long(
    lab: Callable[..., Laboratory], tmp_path: Path
) -> None:
    machine = lab(serial=True)
    session = machine.answers()
    assert told_of_xrt(session) == "ready: "
    assert "columns=work one after the other" in str(session.explain())
    assert machine.misuse() == set(), "its answers are right"
    seconds = []
    for serial in (False, True):
        laptop = Laptop(tmp_path / str(serial), poll=1e-6)
        executable = laptop.load(laptop.manifest(columns=4, tiles_per_launch=4, serial=serial))
        assert ("columns" in executable.details) is serial
        check(executable, 4)
        before = laptop.clock.now()
        check(executable, 4)
        seconds.append(laptop.clock.now() - before - laptop.npu.phoenix.dispatch_seconds)
        laptop.check_clean()
    assert seconds[1] / seconds[0] == pytest.approx(4.0, rel=0.01)


def test_a_group_id_that_is_not_the_xclbin_s_is_refused_at_load(lab: Callable[..., Laboratory]) -> None:
    machine = lab()
    machine.path.write_text(machine.path.read_text().replace('role = "out"', 'role = "out"\ngroup = 7', 1))
    assert told_of_xrt(machine.answers()).startswith(
        f"unsupported: {machine.path}: argument out0 has group 7, but the xclbin says 0"
    )
    assert machine.misuse() == set(), "no buffer was made with it"


def test_a_group_id_that_nobody_asked_for_is_caught_by_the_canary(
    lab: Callable[..., Laboratory], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = lab()
    group_id = machine.x.kernel.group_id
    monkeypatch.setattr(machine.x.kernel, "group_id", lambda kernel, index: group_id(kernel, index) | (index > 2) * 3)
    assert told_of_xrt(machine.answers()).startswith(WRONG)
    assert machine.misuse() == {"group_id"}
