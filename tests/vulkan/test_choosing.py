"""Which devices are used, in which order, and what is said when there is none."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest

from hetero.errors import Unavailable
from hetero_vulkan.choosing import VARIABLE, check_kernel, choose, ordered
from tests.vulkan.machine import made_up

SOFTWARE = made_up("llvmpipe (LLVM 15)", sort="cpu", driver="llvmpipe", driver_id=13)
INTEGRATED = made_up("AMD Radeon 780M", sort="integrated")
CARD = made_up("NVIDIA GeForce", driver="NVIDIA", driver_id=4, uuid=uuid.UUID(int=7))
VIRTUAL = made_up("Virtio-GPU Venus", sort="virtual", driver="venus", driver_id=22)
ALL = ordered([SOFTWARE, VIRTUAL, INTEGRATED, CARD])


def names(asked: str = "") -> list[str]:
    return [f"{device.name} {device.physical.name}" for device in choose(ALL, {VARIABLE: asked} if asked else {})]


def test_cards_come_before_integrated_gpus_and_software_is_left_out() -> None:
    assert names() == ["vulkan:0 NVIDIA GeForce", "vulkan:1 AMD Radeon 780M", "vulkan:2 Virtio-GPU Venus"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("1", ["vulkan:1 AMD Radeon 780M"]),
        ("radeon", ["vulkan:1 AMD Radeon 780M"]),
        ("llvmpipe", ["vulkan:3 llvmpipe (LLVM 15)"]),
        (str(CARD.uuid), ["vulkan:0 NVIDIA GeForce"]),
        ("3, geforce", ["vulkan:3 llvmpipe (LLVM 15)", "vulkan:0 NVIDIA GeForce"]),
        ("venus,2", ["vulkan:2 Virtio-GPU Venus"]),
    ],
)
def test_a_device_is_named_by_index_name_driver_or_uuid(asked: str, found: list[str]) -> None:
    assert names(asked) == found


def test_all_counts_software_too() -> None:
    assert len(names("all")) == 4


@pytest.mark.parametrize("asked", ["7", "mali", "00000000-0000-0000-0000-000000000001"])
def test_a_name_that_is_not_there_is_told_with_those_that_are(asked: str) -> None:
    with pytest.raises(Unavailable, match=f"names '{asked}'") as caught:
        choose(ALL, {VARIABLE: f"0,{asked}"})
    assert "1: AMD Radeon 780M (integrated, UUID" in caught.value.fix


def test_software_alone_is_no_gpu() -> None:
    with pytest.raises(Unavailable, match="only software: llvmpipe") as caught:
        choose(ordered([SOFTWARE]), {})
    assert f"{VARIABLE}=all" in caught.value.fix


def test_no_device_is_told() -> None:
    with pytest.raises(Unavailable, match="shows no device"):
        choose([], {})
    with pytest.raises(Unavailable, match="no Vulkan device here"):
        choose([], {VARIABLE: "0"})


@pytest.mark.parametrize(("better", "worse"), [(3, 2), (2, 1), (6, 5), (4, 24), (9, 20), (3, 99)])
def test_of_two_drivers_for_one_device_the_better_one_is_used_and_the_other_told(better: int, worse: int) -> None:
    same = uuid.uuid4()
    pair = [made_up("one", uuid=same, driver_id=worse, driver="worse"), made_up("two", uuid=same, driver_id=better)]
    for found in (pair, pair[::-1]):
        (device,) = ordered(found)
        assert device.physical.driver_id == better
        assert device.notes == ("also served by worse, which is not used",)


def test_devices_without_a_uuid_are_not_taken_for_one_another() -> None:
    assert len(ordered([made_up(uuid=None), made_up(uuid=None)])) == 2


@pytest.mark.parametrize("node", ["dri/renderD128", "nvidia0", "mali0", "kgsl-3d0", "dxg"])
def test_drivers_are_loaded_where_the_kernel_shows_a_gpu(tmp_path: Path, node: str) -> None:
    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/dri/card0").touch()  # a display without a GPU
    if sys.platform == "linux":
        with pytest.raises(Unavailable, match="the kernel shows no GPU") as caught:
            check_kernel(tmp_path, {})
        assert f"{VARIABLE}=all" in caught.value.fix
    check_kernel(tmp_path, {VARIABLE: "llvmpipe"})
    (tmp_path / "dev" / node).touch()
    check_kernel(tmp_path, {})
