"""What is told about a board's NPU, on fake system trees of boards with vendor and mainline kernels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero_rknn.system import driver_version, library_version, system_report

Tree = Mapping[str, str | bytes]


def library(version: str) -> bytes:
    """The part of a librknnrt.so that counts: a format string of the same beginning comes first."""
    return (
        b"\x7fELF" + bytes(5000) + b"RKNN Runtime Information, librknnrt version: %s\0"
        b"%d.%d.%d\0librknnrt version: " + version.encode() + b" (429f97ae6b@2025-04-09T09:09:27)\0" + bytes(5000)
    )


def uevent(driver: str, name: str, compatible: str) -> str:
    return f"DRIVER={driver}\nOF_NAME={name}\nOF_FULLNAME=/{name}\nOF_COMPATIBLE_0={compatible}\nOF_COMPATIBLE_N=1\n"


DISPLAY = uevent("rockchip-drm", "display-subsystem", "rockchip,display-subsystem")
PANTHOR = uevent("panthor", "gpu", "rockchip,rk3588-mali")

# Orange Pi 5 with the vendor's 6.1 kernel: the display is card0, the NPU card1, card2 is a virtual one; debugfs is for
# root.
RK3588_BSP: Tree = {
    "proc/device-tree/compatible": b"rockchip,rk3588s-orangepi-5\0rockchip,rk3588\0",
    "proc/device-tree/model": b"Orange Pi 5\0",
    "proc/device-tree/npu@fdab0000/compatible": b"rockchip,rk3588-rknpu\0",
    "proc/device-tree/npu@fdab0000/status": b"okay\0",
    "sys/module/rknpu/version": "0.9.8\n",
    "sys/class/drm/card0/device/uevent": DISPLAY,
    "sys/class/drm/card0-HDMI-A-1/device/uevent": "",
    "sys/class/drm/card1/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3588-rknpu"),
    "sys/class/drm/card2/device/uevent": "",
    "sys/class/drm/renderD128/device/uevent": DISPLAY,
    "sys/class/drm/renderD129/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3588-rknpu"),
    "sys/bus/platform/devices/fdab0000.npu/uevent": uevent("RKNPU", "npu", "rockchip,rk3588-rknpu"),
    "sys/class/devfreq/fb000000.gpu/cur_freq": "300000000\n",
    "sys/class/devfreq/fdab0000.npu/cur_freq": "1000000000\n",
    "sys/class/devfreq/fdab0000.npu/min_freq": "300000000\n",
    "sys/class/devfreq/fdab0000.npu/max_freq": "1000000000\n",
    "sys/class/devfreq/fdab0000.npu/available_frequencies": (
        "300000000 400000000 500000000 600000000 700000000 800000000 900000000 1000000000\n"
    ),
    "sys/class/devfreq/fdab0000.npu/governor": "rknpu_ondemand\n",
    "sys/class/devfreq/fdab0000.npu/available_governors": (
        "rknpu_ondemand dmc_ondemand userspace powersave performance simple_ondemand\n"
    ),
    "sys/kernel/debug/rknpu/version": "RKNPU driver: v0.9.8\n",
    "sys/kernel/debug/rknpu/load": "NPU load:  Core0:  0%, Core1: 12%, Core2:100%,\n",
    "dev/dri/card0": "",
    "dev/dri/card1": "",
    "dev/dri/card2": "",
    "dev/dri/renderD128": "",
    "dev/dri/renderD129": "",
    "usr/lib/librknnrt.so": library("2.3.2"),
}

# A mainline kernel: its own driver, no devfreq, no library.
RK3588_MAINLINE: Tree = {
    "proc/device-tree/compatible": b"radxa,rock-5b\0rockchip,rk3588\0",
    "proc/device-tree/model": b"Radxa ROCK 5B\0",
    "proc/device-tree/npu@fdab0000/compatible": b"rockchip,rk3588-rknn-core\0",
    "proc/device-tree/npu@fdab0000/status": b"okay\0",
    "sys/class/accel/accel0/device/uevent": uevent("rocket", "npu", "rockchip,rk3588-rknn-core"),
    "sys/bus/platform/devices/fdab0000.npu/uevent": uevent("rocket", "npu", "rockchip,rk3588-rknn-core"),
    "sys/class/drm/card0/device/uevent": DISPLAY,
    "sys/class/drm/card1/device/uevent": PANTHOR,
    "sys/class/drm/renderD128/device/uevent": PANTHOR,
    "dev/accel/accel0": "",
    "dev/dri/renderD128": "",
}

# A mainline kernel with the vendor's driver as a module: its DRM device has no parent that could be named.
RK3588_MODULE: Tree = {
    **{name: content for name, content in RK3588_MAINLINE.items() if "accel" not in name},
    "proc/device-tree/npu@fdab0000/compatible": b"rockchip,rk3588-rknpu\0",
    "sys/bus/platform/devices/fdab0000.npu/uevent": uevent("RKNPU", "npu", "rockchip,rk3588-rknpu"),
    "sys/module/rknpu/version": "0.9.8\n",
    "sys/class/drm/card2/device/uevent": "",
    "sys/class/drm/renderD129/device/uevent": "",
    "sys/class/drm/card3/uevent": "",
    "dev/dri/card2": "",
    "dev/dri/card3": "",
    "dev/dri/renderD129": "",
    "usr/lib/librknnrt.so": library("2.3.2"),
}

# Radxa ROCK 4D, whose NPU starts at its slowest and stays there; /proc/rknpu is switched on in this kernel.
RK3576: Tree = {
    "proc/device-tree/compatible": b"radxa,rock-4d\0rockchip,rk3576\0",
    "proc/device-tree/model": b"Radxa ROCK 4D\0",
    "proc/rknpu/version": "RKNPU driver: v0.9.8\n",
    "proc/rknpu/load": "NPU load:  Core0:  3%, Core1:  4%,\n",
    "sys/class/drm/card1/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3576-rknpu"),
    "sys/class/drm/renderD129/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3576-rknpu"),
    "sys/class/devfreq/27700000.npu/cur_freq": "300000000\n",
    "sys/class/devfreq/27700000.npu/max_freq": "950000000\n",
    "sys/class/devfreq/27700000.npu/available_frequencies": "300000000 400000000 500000000 950000000\n",
    "sys/class/devfreq/27700000.npu/governor": "rknpu_ondemand\n",
    "sys/class/devfreq/27700000.npu/available_governors": "rknpu_ondemand userspace powersave performance\n",
    "dev/dri/card1": "",
    "dev/dri/renderD129": "",
    "usr/lib/librknnrt.so": library("2.3.0"),
}

# An RK3566 board with a 4.19 kernel: one core, no `CoreN:`, and no voltage steps to choose from.
RK3566: Tree = {
    "proc/device-tree/compatible": b"BIQU,bigtree-cb2\0rockchip,rk3566\0",
    "proc/device-tree/model": b"BIQU CB2\0",
    "sys/module/rknpu/version": "0.7.2\n",
    "sys/class/drm/card1/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3568-rknpu"),
    "sys/class/drm/renderD129/device/uevent": uevent("RKNPU", "npu", "rockchip,rk3568-rknpu"),
    "sys/class/devfreq/fde40000.npu/cur_freq": "600000000\n",
    "sys/class/devfreq/fde40000.npu/min_freq": "200000000\n",
    "sys/class/devfreq/fde40000.npu/max_freq": "900000000\n",
    "sys/class/devfreq/fde40000.npu/governor": "rknpu_ondemand\n",
    "sys/kernel/debug/rknpu/load": "NPU load:  5%\n",
    "dev/dri/card1": "",
    "dev/dri/renderD129": "",
    "usr/lib/librknnrt.so": library("2.3.0"),
}

BOARDS = {
    "rk3588": RK3588_BSP,
    "rk3588-mainline": RK3588_MAINLINE,
    "rk3588-module": RK3588_MODULE,
    "rk3576": RK3576,
    "rk3566": RK3566,
}


@pytest.fixture
def board(host: hetero.Host) -> Callable[..., hetero.Host]:
    """Writes a board's system tree, with files changed or (None) left out."""

    def make(tree: Tree, changes: Mapping[str, str | bytes | None] | None = None) -> hetero.Host:
        for name, content in {**tree, **(changes or {})}.items():
            if content is None:
                continue
            path = host.sysroot / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return host

    return make


def note(report: Any, part: str) -> str:
    found = [text for text in report.notes if part in text]
    assert len(found) == 1, report.notes
    return str(found[0])


def test_a_healthy_board_has_nothing_to_remark(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_BSP))
    assert report.notes == ()
    assert report.platform is not None
    assert report.platform.name == "rk3588"
    assert dict(report.properties) == {
        "soc": "RK3588, 3 NPU cores",
        "board": "Orange Pi 5",
        "kernel driver": "rknpu 0.9.8",
        "librknnrt": "2.3.2 (/usr/lib/librknnrt.so)",
        "device nodes": "/dev/dri/card1, /dev/dri/renderD129",
        "frequency": "1000 MHz (300-1000 MHz, rknpu_ondemand)",
        "load": "core0 0 %, core1 12 %, core2 100 %",
    }


def test_the_nodes_of_the_display_and_the_gpu_are_not_the_npus(board: Callable[..., hetero.Host]) -> None:
    host = board(RK3588_BSP)
    assert system_report(host).nodes == (host.sysroot / "dev/dri/card1", host.sysroot / "dev/dri/renderD129")


def test_a_mainline_kernel_is_told_to_be_the_wrong_one(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_MAINLINE))
    assert "librknnrt cannot use; boot the vendor's kernel" in note(report, "rocket")
    assert "librknnrt.so was not found in /usr/lib, " in note(report, "not found")
    assert report.properties["kernel driver"] == "unknown"
    assert report.nodes == ()
    assert report.frequency is None


def test_the_vendors_driver_as_a_module_is_found_on_a_mainline_kernel(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_MODULE))
    assert [node.name for node in report.nodes] == ["card2", "renderD129"]
    assert report.driver_version == "0.9.8"
    assert report.notes == ()


def test_a_frequency_that_does_not_move_is_remarked(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3576))
    assert note(report, "stuck").endswith(
        "stuck at 300 of 950 MHz: the governor rknpu_ondemand does not look at the load; "
        "echo performance | sudo tee /sys/class/devfreq/27700000.npu/governor"
    )
    assert report.load == (3, 4)


def test_a_chip_with_one_core_is_read_too(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3566))
    assert report.properties["soc"] == "RK3566, 1 NPU core"
    assert report.load == (5,)
    assert report.frequency is not None
    assert str(report.frequency) == "600 MHz (200-900 MHz, rknpu_ondemand)"
    assert report.notes == ()


@pytest.mark.parametrize("tree", BOARDS.values(), ids=BOARDS)
def test_properties_can_be_written_as_json(board: Callable[..., hetero.Host], tree: Tree) -> None:
    report = system_report(board(tree))
    assert json.loads(json.dumps(report.properties)) == report.properties
    assert all(isinstance(text, str) and text for text in report.notes)


def test_a_machine_that_is_no_board_is_not_scolded_for_its_kernel(host: hetero.Host) -> None:
    report = system_report(host)
    assert report.platform is None
    assert report.properties["kernel driver"] == "unknown"
    assert [text for text in report.notes if "kernel" in text] == []


def test_an_unknown_soc_is_shown_as_it_calls_itself(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board({"proc/device-tree/compatible": b"acme,board\0rockchip,rv1126b\0"}))
    assert report.properties["soc"] == "unknown (acme,board, rockchip,rv1126b)"


@pytest.mark.parametrize("version", ["0.9.2", "0.9.3"])
def test_a_driver_that_is_known_to_be_bad_is_remarked(board: Callable[..., hetero.Host], version: str) -> None:
    report = system_report(board(RK3588_BSP, {"sys/module/rknpu/version": version}))
    remark = note(report, f"rknpu {version} is known to be bad")
    assert "0.9.6 or later" in remark
    assert "schedule=0" in remark


def test_trouble_with_the_other_cores_is_none_on_a_chip_without_them(board: Callable[..., hetero.Host]) -> None:
    assert system_report(board(RK3566, {"sys/module/rknpu/version": "0.9.2"})).notes == ()
    report = system_report(board(RK3566, {"sys/module/rknpu/version": "0.9.3"}))
    assert note(report, "known to be bad").endswith("0.9.6 or later")


@pytest.mark.parametrize("version", ["0.8.2", "0.9.6", "0.9.8", "1.0.0"])
def test_other_drivers_are_not(board: Callable[..., hetero.Host], version: str) -> None:
    assert system_report(board(RK3588_BSP, {"sys/module/rknpu/version": version})).notes == ()


def test_the_drivers_version_is_taken_from_whichever_file_there_is(board: Callable[..., hetero.Host]) -> None:
    host = board({"sys/kernel/debug/rknpu/version": "RKNPU driver: v0.8.2\n"})
    assert driver_version(host) == "0.8.2"
    board({"proc/rknpu/version": "RKNPU driver: v0.9.7\n"})
    assert driver_version(host) == "0.9.7"
    board({"sys/module/rknpu/version": "0.9.8\n"})
    assert driver_version(host) == "0.9.8"


def test_a_switched_off_npu_is_told_how_to_switch_on(board: Callable[..., hetero.Host]) -> None:
    tree = {
        "proc/device-tree/compatible": b"radxa,zero3\0rockchip,rk3566\0",
        "proc/device-tree/npu@fde40000/compatible": b"rockchip,rk3568-rknpu\0",
        "proc/device-tree/npu@fde40000/status": b"disabled\0",
    }
    assert "overlay" in note(system_report(board(tree)), "switched off in the device tree")
    report = system_report(board(tree, {"proc/device-tree/npu@fde40000/status": b"okay\0"}))
    assert "no rknpu driver" in note(report, "kernel shows")


def test_an_idle_governor_that_follows_the_load_is_not_called_stuck(board: Callable[..., hetero.Host]) -> None:
    folder = "sys/class/devfreq/fdab0000.npu"
    slow = {f"{folder}/cur_freq": "300000000", f"{folder}/governor": "simple_ondemand"}
    assert system_report(board(RK3588_BSP, slow)).notes == ()


def test_a_governor_that_is_not_offered_is_not_recommended(board: Callable[..., hetero.Host]) -> None:
    folder = "sys/class/devfreq/fdab0000.npu"
    report = system_report(
        board(RK3588_BSP, {f"{folder}/cur_freq": "200000000", f"{folder}/available_governors": "rknpu_ondemand"})
    )
    assert note(report, "stuck").endswith(f"echo 1000000000 | sudo tee /{folder}/min_freq")


def test_a_limited_frequency_is_remarked(board: Callable[..., hetero.Host]) -> None:
    folder = "sys/class/devfreq/fdab0000.npu"
    report = system_report(board(RK3588_BSP, {f"{folder}/cur_freq": "800000000", f"{folder}/max_freq": "800000000"}))
    assert "limited to 800 of 1000 MHz: by heat" in note(report, "limited")


@pytest.mark.parametrize("text", ["", "<unsupported>", "-1", "many", "²"])
def test_a_frequency_that_is_no_number_is_unknown(board: Callable[..., hetero.Host], text: str) -> None:
    report = system_report(board(RK3588_BSP, {"sys/class/devfreq/fdab0000.npu/cur_freq": text}))
    assert report.properties["frequency"] == "unknown (300-1000 MHz, rknpu_ondemand)"
    assert report.notes == ()


def test_load_that_only_root_may_read_is_said_to_be_so(
    board: Callable[..., hetero.Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = board(RK3588_BSP)
    read = Path.read_text

    def denied(path: Path, *args: Any, **options: Any) -> str:
        if "kernel/debug" in path.as_posix():
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    report = system_report(host)
    assert report.load is None
    assert report.properties["load"] == "only root may read it"
    assert report.notes == ()


def test_load_that_the_kernel_does_not_show_is_left_out(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_BSP, {"sys/kernel/debug/rknpu/load": None}))
    assert report.load is None
    assert "load" not in report.properties


def test_fewer_cores_than_the_chip_should_have_are_remarked(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_BSP, {"proc/rknpu/load": "NPU load:  Core0:  0%, Core1:  0%,\n"}))
    assert "has 2 NPU cores, the RK3588 has 3" in note(report, "variant")
    assert note(report, "variant").endswith("use schedule=0,1")


def test_nodes_that_may_not_be_opened_are_named_with_their_group(
    board: Callable[..., hetero.Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = board(RK3588_BSP)
    groups = {"card1": "video", "renderD129": "render"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name not in groups)
    monkeypatch.setattr(Path, "group", lambda path: groups[path.name])
    remark = note(system_report(host), "may not open")
    assert "/dev/dri/card1, /dev/dri/renderD129" in remark
    assert "sudo usermod -aG render,video $USER" in remark


def test_a_group_without_a_name_is_given_by_number(
    board: Callable[..., hetero.Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = board(RK3588_BSP)
    number = (host.sysroot / "dev/dri/card1").stat().st_gid

    def nameless(path: Path) -> str:
        raise KeyError(path)

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(Path, "group", nameless)
    assert f"join the group {number}:" in note(system_report(host), "may not open")


def test_nodes_that_a_container_was_not_given_are_named(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_BSP, {"dev/dri/card1": None, "dev/dri/renderD129": None}))
    remark = note(report, "in a container")
    assert remark.endswith("--device /dev/dri/card1 --device /dev/dri/renderD129")


def test_a_kernel_without_drm_for_the_npu_has_one_node(board: Callable[..., hetero.Host]) -> None:
    host = board({"dev/rknpu": "", "sys/module/rknpu/version": "0.9.8"})
    assert system_report(host).nodes == (host.sysroot / "dev/rknpu",)


# --- the library -----------------------------------------------------------------------------------------------------


def test_a_librarys_version_is_read_from_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "librknnrt.so"
    path.write_bytes(library("2.0.0b0"))
    assert library_version(path) == "2.0.0b0"


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"librknnrt version: ", b"librknnrt version: %s (%s)\0" * 3])
def test_a_library_without_a_version_has_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "librknnrt.so"
    path.write_bytes(content)
    assert library_version(path) is None


def test_a_library_that_is_not_there_has_no_version(tmp_path: Path) -> None:
    assert library_version(tmp_path / "librknnrt.so") is None
    assert library_version(tmp_path) is None


def test_a_library_where_the_vendors_class_does_not_look_is_remarked(board: Callable[..., hetero.Host]) -> None:
    place = "usr/lib/aarch64-linux-gnu/librknnrt.so"
    report = system_report(board(RK3588_BSP, {"usr/lib/librknnrt.so": None, place: library("2.3.2")}))
    assert f"librknnrt.so is at /{place}" in note(report, "link it there")


def test_libraries_of_several_versions_are_remarked(board: Callable[..., hetero.Host]) -> None:
    report = system_report(board(RK3588_BSP, {"usr/local/lib/librknnrt.so": library("1.4.0")}))
    remark = note(report, "several versions")
    assert "/usr/lib/librknnrt.so (2.3.2), /usr/local/lib/librknnrt.so (1.4.0)" in remark
    assert report.library_version == "2.3.2"


def test_a_link_to_the_library_is_no_second_one(board: Callable[..., hetero.Host]) -> None:
    host = board(RK3588_BSP)
    other = host.sysroot / "usr/lib64/librknnrt.so"
    other.parent.mkdir(parents=True)
    other.symlink_to(host.sysroot / "usr/lib/librknnrt.so")
    assert system_report(host).notes == ()


def test_nothing_that_would_wake_the_npu_is_read(
    board: Callable[..., hetero.Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading debugfs' `freq` powers the NPU on, opening a node attaches to the driver."""
    host = board(RK3588_BSP, {"sys/kernel/debug/rknpu/freq": "1000000000\n", "proc/rknpu/freq": "1000000000\n"})
    opened: list[str] = []
    open_file = Path.open

    def noted(path: Path, *args: Any, **options: Any) -> Any:
        opened.append(path.relative_to(host.sysroot).as_posix())
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", noted)
    system_report(host)
    assert "sys/module/rknpu/version" in opened
    assert [name for name in opened if name.startswith("dev/") or name.endswith("rknpu/freq")] == []
