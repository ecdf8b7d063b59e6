"""What suits a device is measured once, kept whole, and never taken when it answers wrongly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from hetero.errors import DeviceLost
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.ops.tuning import VERSION, attention_ways, gemm_ways, measured, tunings
from tests.vulkan.machine import LOST, Faults, made_up, with_matrices


class Measured:
    """Runs what is to be measured, and says how long that took as it was told to."""

    def __init__(self, fastest: str = "attention", rows: int = 16, spoil: str = "") -> None:
        self.fastest, self.rows, self.spoil = fastest, rows, spoil
        self.calls = 0

    def __call__(self, device: VulkanDevice, steps: list[Dispatch]) -> float:
        self.calls += 1
        with device.record(steps) as commands:
            commands.run(60)
        (step,) = steps
        if step.pipeline.name.startswith(self.spoil) and self.spoil:
            step.buffers[-1].write(np.zeros(step.buffers[-1].nbytes // 4, np.float32))
        wanted = step.pipeline.name.startswith(self.fastest)
        return 1.0 if wanted and step.pipeline.constants.get("ROWS", self.rows) == self.rows else 2.0


def test_the_fastest_is_taken_and_kept(device: VulkanDevice, tmp_path: Path) -> None:
    measure = Measured("gemm_tiles")
    found = tunings(device, tmp_path, measure=measure, budget=1e9)
    assert found.gemm.family == "tiles"
    assert measure.calls == len(gemm_ways(device.physical)) + len(attention_ways(device.physical))
    again = tunings(device, tmp_path, measure=measure)
    assert (again.gemm, again.attention, again.seconds) == (found.gemm, found.attention, {})
    assert measure.calls == len(found.seconds)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_one_that_answers_wrongly_is_not_taken(device: VulkanDevice) -> None:
    found = tunings(device, None, measure=Measured("gemm_tiles", spoil="gemm_tiles"), budget=1e9)
    assert found.gemm.family == "subgroup"
    assert not any(name.startswith("product, tiles") for name in found.seconds)


def test_where_all_answer_wrongly_the_default_stays(device: VulkanDevice) -> None:
    found = tunings(device, None, measure=Measured(spoil="gemm"), budget=1e9)
    assert found.gemm == gemm_ways(device.physical)["default"]


def test_no_further_way_is_begun_when_the_time_is_over(device: VulkanDevice) -> None:
    measure = Measured()
    found = tunings(device, None, measure=measure, budget=0.0)
    assert found.gemm == gemm_ways(device.physical)["default"]
    assert measure.calls == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": %d}' % VERSION,
        b'{"version": %d, "gemm": "by magic", "half": "default", "attention": "default"}' % VERSION,
        b'{"version": %d, "gemm": "default", "half": "by magic", "attention": "default"}' % VERSION,
    ],
)
def test_a_file_that_is_of_no_use_is_replaced(device: VulkanDevice, tmp_path: Path, content: bytes) -> None:
    tunings(device, tmp_path, measure=Measured(), budget=0.0)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    measure = Measured()
    tunings(device, tmp_path, measure=measure, budget=0.0)
    assert measure.calls == 2
    assert json.loads(path.read_bytes())["gemm"] == "default"
    assert len(device.notes) == (0 if b"magic" in content else 1)


def test_another_version_of_the_file_is_measured_anew_without_a_note(device: VulkanDevice, tmp_path: Path) -> None:
    tunings(device, tmp_path, measure=Measured(), budget=0.0)
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "version": 0}))
    measure = Measured()
    tunings(device, tmp_path, measure=measure, budget=0.0)
    assert measure.calls == 2
    assert device.notes == []


def test_another_driver_is_measured_anew(device: VulkanDevice, tmp_path: Path) -> None:
    tunings(device, tmp_path, measure=Measured(), budget=0.0)
    device.physical = dataclasses.replace(device.physical, driver_version=device.physical.driver_version + 1)
    tunings(device, tmp_path, measure=Measured(), budget=0.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_costs_no_more_than_the_measuring(device: VulkanDevice, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = tunings(device, tmp_path / "file", measure=Measured(), budget=0.0)
    assert found.gemm == gemm_ways(device.physical)["default"]


def test_a_loss_is_told(device: VulkanDevice, faults: Faults) -> None:
    faults.fail("vkQueueSubmit", LOST, times=9)
    with pytest.raises(DeviceLost):
        tunings(device, None)


def test_measuring_gives_the_devices_own_time(device: VulkanDevice) -> None:
    found = tunings(device, None, measure=measured, budget=0.0)
    assert all(seconds > 0 for seconds in found.seconds.values())


def test_ways_keep_to_the_devices_limits() -> None:
    limits = {"maxComputeSharedMemorySize": 32768, "maxComputeWorkGroupInvocations": 256}
    assert "tiles of 128x128" in gemm_ways(made_up(limits=limits))
    assert "cooperative matrices" not in gemm_ways(made_up(limits=limits))
    assert "cooperative matrices" in gemm_ways(with_matrices(limits=limits))
    small = gemm_ways(made_up(limits={**limits, "maxComputeSharedMemorySize": 8000}, subgroup=16))
    assert [name for name in small if name.startswith("tiles")] == ["tiles of 32x32"]
    assert "subgroup of 32 rows" in small
