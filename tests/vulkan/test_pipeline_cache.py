"""Compiled pipelines on disk: used when they are this driver's, and never when they are not."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path

import pytest

from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.physical import Physical
from hetero_vulkan.pipeline_cache import _MARK, PipelineCache, file_stem, fits
from tests.vulkan.machine import LOST, Faults, Machine, made_up


def file_of(machine: Machine) -> Path:
    (found,) = (machine.folder / "vulkan").glob("*.bin")
    return found


def cache_of(device: VulkanDevice) -> PipelineCache:
    cache = device._cache
    assert cache is not None
    return cache


def compiled(machine: Machine) -> Path:
    with machine.open() as device:
        device.pipeline("add")
    return file_of(machine)


def test_pipelines_are_kept_for_the_next_process(machine: Machine) -> None:
    path = compiled(machine)
    assert fits(path.read_bytes()[len(_MARK) + 32 :], machine.choice.physical)
    with machine.open() as device:
        assert cache_of(device).loaded == path.stat().st_size - len(_MARK) - 32
        assert device.notes == []
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_nothing_is_written_where_nothing_is_new(machine: Machine) -> None:
    path = compiled(machine)
    path.unlink()
    with machine.open():
        pass
    assert not path.exists()


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty", "foreign"])
def test_a_damaged_file_is_told_and_made_anew(machine: Machine, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = compiled(machine)
    good = path.read_bytes()
    bad = {
        "one bit": good[:-1] + bytes([good[-1] ^ 1]),
        "cut": good[:-4],
        "empty": b"",
        "foreign": b"something else altogether",
    }[damage]
    path.write_bytes(bad)
    with caplog.at_level(logging.WARNING), machine.open() as device:
        assert cache_of(device).loaded == 0
        assert "damaged" in device.notes[0]
        device.pipeline("add")
    assert "damaged" in caplog.text
    assert path.read_bytes() == good


def test_pipelines_of_another_driver_are_not_given_to_this_one(machine: Machine) -> None:
    path = compiled(machine)
    data = bytearray(path.read_bytes()[len(_MARK) + 32 :])
    data[16] ^= 1
    path.write_bytes(_MARK + hashlib.sha256(data).digest() + data)
    with machine.open() as device:
        assert cache_of(device).loaded == 0
        assert "another driver" in device.notes[0]


@pytest.mark.parametrize("change", [{"vendor": 1}, {"model": 1}, {"cache_uuid": bytes([1] * 16)}])
def test_the_header_names_vendor_model_and_driver(change: dict[str, object]) -> None:
    physical = made_up()
    header = b"".join(number.to_bytes(4, "little") for number in (32, 1, physical.vendor, physical.model))
    data = header + physical.cache_uuid + b"pipelines"
    assert fits(data, physical)
    assert not fits(data, dataclasses.replace(physical, **change))  # type: ignore[arg-type]
    assert not fits(data[:31], physical)


def test_another_version_of_the_driver_has_a_file_of_its_own() -> None:
    def stem(**change: object) -> str:
        physical: Physical = dataclasses.replace(made_up(uuid=None), **change)  # type: ignore[arg-type]
        return file_stem(physical)

    assert stem() == stem()
    assert len({stem(), stem(driver_info="Mesa 26"), stem(driver_version=2), stem(cache_uuid=bytes([1] * 16))}) == 4


def test_a_folder_that_cannot_be_written_is_told_and_no_failure(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    (machine.folder / "vulkan").write_text("a file where the folder should be")
    with machine.open() as device:
        device.pipeline("add")
    assert "not kept" in caplog.text


def test_a_cache_that_cannot_be_read_back_is_told_and_no_failure(
    machine: Machine, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    with machine.open() as device:
        device.pipeline("add")
        faults.fail("vkGetPipelineCacheData", LOST)
    assert "not kept" in caplog.text
