"""The NPU's power mode through `xrt-smi`: each version's words, no shell, put back, and refusals in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import hetero
from hetero.cli.root import cli
from hetero.errors import ExecutionError, Unavailable
from hetero.isolation import isolated
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero_xrt import power
from hetero_xrt.backend import XrtBackend
from hetero_xrt.power import Tool, XrtPower
from tests.xrt.machine import REFERENCES
from tests.xrt.smi import BDF, Smi, laptop


@pytest.fixture
def smi(tmp_path: Path) -> Smi:
    return Smi(tmp_path / "tool")


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.fixture(autouse=True)
def pyxrt(monkeypatch: pytest.MonkeyPatch) -> None:
    module = simulated_pyxrt(kernels=REFERENCES, clock=ControlledClock(poll_seconds=1e-3))
    monkeypatch.setitem(sys.modules, "pyxrt", module)


def control(host: hetero.Host, smi: Smi | None, seconds: float = 10.0) -> XrtPower:
    return XrtPower(Tool(laptop(host, smi), seconds), BDF)


@pytest.mark.parametrize(
    ("version", "mode", "words"),
    [
        ("2.16.0", "default", ["--performance", "DEFAULT"]),
        ("2.16.0", "powersaver", ["--performance", "LOW"]),
        ("2.16.0", "balanced", ["--performance", "MEDIUM"]),
        ("2.16.0", "performance", ["--performance", "HIGH"]),
        ("2.17.0", "powersaver", ["--performance", "POWERSAVER"]),
        ("2.18.0", "turbo", ["--pmode", "turbo"]),
        ("2.23.1", "balanced", ["--pmode", "balanced"]),
        ("3.1.0", "powersaver", ["--pmode", "powersaver"]),
    ],
)
def test_each_version_is_asked_in_its_words(
    host: hetero.Host, smi: Smi, version: str, mode: str, words: list[str]
) -> None:
    names = ["Default", "Low", "Medium", "High"] if version == "2.16.0" else []
    smi.behave(version=version, **({"names": names} if names else {}))
    xrt = control(host, smi)
    xrt.set(mode)
    assert smi.calls("configure") == [["configure", "--device", BDF, *words]]
    assert xrt.read() == mode


@pytest.mark.parametrize(("version", "modes"), [("2.16.0", 4), ("2.17.0", 4), ("2.18.0", 5), ("2.13.0", 0)])
def test_modes_are_those_of_the_version(host: hetero.Host, smi: Smi, version: str, modes: int) -> None:
    smi.behave(version=version)
    assert len(control(host, smi).modes) == modes


def test_an_old_version_cannot_and_says_so(host: hetero.Host, smi: Smi) -> None:
    smi.behave(version="2.15.225")
    with pytest.raises(Unavailable, match=r"XRT 2\.15 knows no power modes") as caught:
        control(host, smi).set("balanced")
    assert "2.18" in caught.value.fix
    assert smi.calls("configure") == []


def test_the_tool_is_found_where_amd_puts_it(host: hetero.Host) -> None:
    smi = Smi(host.sysroot / power.PLACE)
    xrt = control(host, None)
    xrt.set("balanced")
    assert smi.mode == 2


def test_no_tool_is_told_with_where_it_was_looked_for(host: hetero.Host) -> None:
    with pytest.raises(Unavailable, match=r"neither on PATH nor in /opt/xilinx/xrt/bin"):
        control(host, None).read()


def test_a_user_who_is_not_root_is_told_what_to_type(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    smi.behave(refuse="DRM_IOCTL_AMDXDNA_SET_STATE IOCTL failed (err=-1): Operation not permitted")
    with pytest.raises(Unavailable, match=r"not root: .*Operation not permitted") as caught:
        control(host, smi).set("performance")
    assert caught.value.fix == "sudo hetero power --mode performance"


def test_turbo_with_the_npu_open_is_told(host: hetero.Host, smi: Smi) -> None:
    smi.behave(refuse="DRM_IOCTL_AMDXDNA_SET_STATE IOCTL failed (err=-16): Device or resource busy")
    with pytest.raises(ExecutionError, match=r"turbo was refused: .*busy") as caught:
        control(host, smi).set("turbo")
    assert "close every program" in caught.value.fix


def test_a_tool_that_says_yes_and_does_nothing_is_found_out(host: hetero.Host, smi: Smi) -> None:
    smi.behave(deaf=True)
    with pytest.raises(ExecutionError, match="stays in the mode default"):
        control(host, smi).set("balanced")


def test_a_tool_that_hangs_is_given_up(host: hetero.Host, smi: Smi) -> None:
    smi.behave(sleep=60)
    with pytest.raises(Unavailable, match=r"has not ended within 0\.05 s"):
        control(host, smi, seconds=0.05).read()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"report": "no JSON"}, "wrote no report that can be read"),
        ({"report": "{}"}, "wrote no report that can be read"),
        ({"report": json.dumps({"devices": [{}]})}, "tells no power mode"),
        ({"names": ["warp"]}, "a power mode 'warp'"),
        ({"banner": "what?"}, "does not tell a version"),
    ],
)
def test_what_cannot_be_read_is_told(host: hetero.Host, smi: Smi, how: dict[str, Any], told: str) -> None:
    smi.behave(**how)
    with pytest.raises((ExecutionError, Unavailable), match=told):
        control(host, smi).read()


def test_a_tool_that_cannot_be_started_is_told(host: hetero.Host, smi: Smi) -> None:
    smi.path.write_text("#!/nowhere/python\n")
    with pytest.raises(Unavailable, match="cannot be started"):
        control(host, smi).read()


def test_no_shell_sees_what_is_on_the_bus(host: hetero.Host, smi: Smi, tmp_path: Path) -> None:
    address = f"$(touch {tmp_path / 'gotcha'})"
    with pytest.raises(ExecutionError):
        XrtPower(Tool(laptop(host, smi)), address).set("balanced")
    assert smi.calls("configure")[0][2] == address
    assert not (tmp_path / "gotcha").exists()


# Through a Runtime.


def runtime(host: hetero.Host, **options: Any) -> hetero.Runtime:
    return hetero.Runtime(backends=[XrtBackend], plugins=False, host=host, learn=False, **options)


def test_a_runtime_holds_a_mode_and_puts_the_one_of_before_back(host: hetero.Host, smi: Smi) -> None:
    with runtime(laptop(host, smi), power="continuous_audio") as rt:
        assert smi.mode == 2
        (state,) = rt.power.states()
        assert (state.device, state.mode, state.wanted, state.problem) == ("xrt", "balanced", "balanced", "")
    assert smi.mode == 0


def test_the_mode_of_a_backend_in_another_process_is_set_from_this_one(host: hetero.Host, smi: Smi) -> None:
    machine = laptop(host, smi)
    (device,) = XrtBackend(machine).probe()
    control = isolated(XrtBackend)(machine).power(device)
    assert control is not None
    control.set("balanced")
    assert smi.mode == 2


def test_a_runtime_without_a_wish_never_starts_the_tool(host: hetero.Host, smi: Smi) -> None:
    with runtime(laptop(host, smi)):
        pass
    assert not (smi.folder / "calls").exists()


def test_a_simulated_npu_has_no_modes(host: hetero.Host, smi: Smi) -> None:
    with runtime(laptop(host, smi), simulate="phoenix", power="balanced") as rt:
        assert rt.power.devices == ()
    assert smi.mode == 0


# On the command line.


def line(host: hetero.Host, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setattr("hetero.cli.runtime.make_runtime", lambda **options: runtime(host))
    return CliRunner().invoke(cli, ["power", *arguments])


def test_the_command_shows_the_mode_and_what_can_be_set(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = line(laptop(host, smi), monkeypatch)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].split() == [
        "xrt",
        "default",
        "default,",
        "powersaver,",
        "balanced,",
        "performance,",
        "turbo",
    ]
    assert "  balanced: 600/1024 MHz" in result.stdout
    assert smi.calls("configure") == []


@pytest.mark.parametrize("wish", [("--mode", "powersaver"), ("--profile", "battery")])
def test_the_command_sets_a_mode_that_stays(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch, wish: tuple[str, str]
) -> None:
    result = line(laptop(host, smi), monkeypatch, *wish, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["devices"][0]["mode"] == document["devices"][0]["wanted"] == "powersaver"
    assert document["profiles"] == {"continuous_audio": "balanced", "burst": "performance", "battery": "powersaver"}
    assert smi.mode == 1


def test_the_command_tells_a_refusal_and_ends_with_1(
    host: hetero.Host, smi: Smi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    smi.behave(refuse="Operation not permitted")
    result = line(laptop(host, smi), monkeypatch, "--mode", "performance")
    assert result.exit_code == 1
    assert "problem on xrt: the power mode performance was refused" in result.stdout
    assert "fix: sudo hetero power --mode performance" in result.stdout


def test_the_command_ends_with_3_where_nothing_has_modes(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    result = line(host, monkeypatch, "--mode", "balanced")
    assert result.exit_code == 3
    assert "no device here has power modes" in result.stderr


def test_both_a_mode_and_a_profile_are_one_too_many(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert line(host, monkeypatch, "--mode", "default", "--profile", "burst").exit_code == 2
