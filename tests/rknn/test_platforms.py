"""Which SoC a device tree names, and what its NPU is known to have."""

from __future__ import annotations

from pathlib import Path

import pytest

import hetero
from hetero_rknn.platforms import PLATFORMS, Platform, compatibles, platform_in, platform_named, platform_of


def with_tree(host: hetero.Host, *compatible: str) -> hetero.Host:
    tree = host.sysroot / "proc/device-tree"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "compatible").write_bytes("".join(text + "\0" for text in compatible).encode())
    return host


# Root nodes of boards' device trees.
BOARDS = [
    (("radxa,rock-5b", "rockchip,rk3588"), "rk3588"),
    (("rockchip,rk3588s-orangepi-5", "rockchip,rk3588"), "rk3588"),
    (("rockchip,rk3588s-evb1-v10", "rockchip,rk3588s"), "rk3588s"),
    (("radxa,e52c", "rockchip,rk3582", "rockchip,rk3588s"), "rk3588s"),
    (("rockchip,rk3588s-tablet-12c-linux",), "rk3588s"),
    (("radxa,rock-4d", "rockchip,rk3576"), "rk3576"),
    (("radxa,zero3", "rockchip,rk3566"), "rk3566"),
    (("hardkernel,odroid-m1", "rockchip,rk3568"), "rk3568"),
    (("rockchip,rk3562-evb2-ddr4-v10", "rockchip,rk3562"), "rk3562"),
]


@pytest.mark.parametrize(("compatible", "name"), BOARDS)
def test_a_board_is_known_by_its_device_tree(host: hetero.Host, compatible: tuple[str, ...], name: str) -> None:
    found = platform_of(with_tree(host, *compatible))
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "compatible",
    [
        (),
        ("raspberrypi,5-model-b", "brcm,bcm2712"),
        ("rockchip,rk3399-evb", "rockchip,rk3399"),
        ("rockchip,rk35880",),
        ("acme,rk3588",),
        ("rockchip,rv1126b",),
    ],
)
def test_another_machine_is_not_taken_for_a_known_soc(host: hetero.Host, compatible: tuple[str, ...]) -> None:
    assert platform_of(with_tree(host, *compatible)) is None


def test_a_machine_without_a_device_tree_is_no_platform(host: hetero.Host) -> None:
    assert platform_of(host) is None
    assert compatibles(host) == ()


def test_a_device_tree_that_is_no_text_is_no_platform(host: hetero.Host) -> None:
    with_tree(host)
    (host.sysroot / "proc/device-tree/compatible").write_bytes(b"\xff\xfe\0\0\0rockchip\0")
    assert platform_of(host) is None


def test_the_socs_own_name_goes_before_a_board_that_begins_with_another() -> None:
    found = platform_in(("rockchip,rk3588-board", "rockchip,rk3588s"))
    assert found is not None
    assert found.name == "rk3588s"


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_every_name_and_alias_leads_to_its_platform_only(platform: Platform) -> None:
    for name in (platform.name, *platform.aliases):
        assert platform_named(name.upper()) is platform
    names = [name for each in PLATFORMS for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))


def test_the_cores_are_those_of_the_vendors_kernel_driver() -> None:
    cores = {platform.name: platform.cores for platform in PLATFORMS}
    assert cores == {"rk3588": 3, "rk3588s": 3, "rk3576": 2, "rk3566": 1, "rk3568": 1, "rk3562": 1}


def test_a_core_that_is_not_there_has_no_mask() -> None:
    masks = {platform.name: dict(platform.masks) for platform in PLATFORMS}
    assert masks["rk3588"] == {"auto": 0, "0": 1, "1": 2, "2": 4, "0_1": 3, "0_1_2": 7, "all": 7}
    assert masks["rk3576"] == {"auto": 0, "0": 1, "1": 2, "0_1": 3, "all": 3}
    assert masks["rk3566"] == masks["rk3568"] == masks["rk3562"] == {"auto": 0, "0": 0, "all": 0}


def test_a_model_for_the_s_variant_is_one_for_the_whole_chip() -> None:
    small = platform_named("rk3588s")
    assert small is not None
    assert small.target == "rk3588"
    assert all(platform.target in platform.targets for platform in PLATFORMS)


def test_sysroot_is_honoured(tmp_path: Path) -> None:
    """The machine that runs the tests does not shine through."""
    assert platform_of(hetero.Host(environ={}, sysroot=tmp_path, cache=tmp_path)) is None
