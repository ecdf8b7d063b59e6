"""Power modes: held while a Runtime lives, put back when it ends and after a crash; a refusal stops nothing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Device, PowerControl
from hetero.errors import ExecutionError, OptionError, Unavailable
from tests.fakes import fake
from tests.models import double

MODES = {"default": "as it likes", "powersaver": "slow", "balanced": "between", "performance": "fast"}


class Switch:
    """A device's power mode, kept in a file, as it outlives the process; what is set is noted."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.write_text("default")
        self.asked: list[str] = []
        self.refuses: Exception | None = None
        self.silent: Exception | None = None

    @property
    def modes(self) -> Mapping[str, str]:
        return MODES

    def read(self) -> str:
        if self.silent is not None:
            raise self.silent
        return self.file.read_text()

    def set(self, mode: str) -> None:
        self.asked.append(mode)
        if self.refuses is not None:
            raise self.refuses
        self.file.write_text(mode)


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    return Switch(tmp_path / "mode")


@pytest.fixture
def kinds(switch: Switch) -> list[Any]:
    """A device with power modes, and one without."""

    class Powered(fake("npu")):  # type: ignore[misc]
        def power(self, device: Device) -> PowerControl:
            return switch

    return [Powered, fake("cpu", kind="cpu")]


Make = Callable[..., hetero.Runtime]


def test_a_mode_is_held_as_long_as_the_runtime_lives(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    with make_runtime(*kinds, power="balanced") as rt:
        assert switch.read() == "balanced"
        (state,) = rt.power.states()
        assert (state.device, state.mode, state.wanted, state.problem) == ("npu", "balanced", "balanced", "")
    assert switch.asked == ["balanced", "default"]


@pytest.mark.parametrize(
    ("profile", "mode"), [("continuous_audio", "balanced"), ("burst", "performance"), ("battery", "powersaver")]
)
def test_a_profile_is_a_mode(make_runtime: Make, kinds: list[Any], switch: Switch, profile: str, mode: str) -> None:
    with make_runtime(*kinds, power=profile):
        assert switch.read() == mode


def test_nobody_who_asks_for_nothing_gets_anything(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    with make_runtime(*kinds):
        pass
    assert switch.asked == []


def test_an_unknown_mode_is_an_error_before_anything_is_made(make_runtime: Make, kinds: list[Any]) -> None:
    with pytest.raises(OptionError, match="power is 'warp'") as caught:
        make_runtime(*kinds, power="warp")
    assert "continuous_audio" in caught.value.fix


def test_an_exception_puts_the_mode_back(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    with pytest.raises(ZeroDivisionError), make_runtime(*kinds, power="powersaver"):
        _ = 1 / 0
    assert switch.read() == "default"


@pytest.mark.parametrize(
    "refusal", [Unavailable("only root may", fix="sudo"), ExecutionError("a context is open"), Unavailable("no tool")]
)
def test_a_refusal_is_told_and_stops_nothing(
    make_runtime: Make,
    kinds: list[Any],
    switch: Switch,
    refusal: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    switch.refuses = refusal
    with caplog.at_level(logging.WARNING), make_runtime(*kinds, power="performance") as rt:
        (state,) = rt.power.states()
        assert (state.mode, state.wanted) == ("default", "performance")
        assert (state.problem, state.fix) == (refusal.problem, refusal.fix)
        x = np.ones(4, np.float32)
        np.testing.assert_array_equal(rt.load(double(tmp_path / "m.onnx"))(x), 2 * x)
    assert refusal.problem in caplog.text
    assert switch.asked == ["performance"], "what was never set is not put back"
    assert not list((rt.host.cache / "power").glob("*.json"))


def test_a_mode_that_cannot_be_told_is_not_changed(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    """It could not be put back."""
    switch.silent = Unavailable("no tool", fix="install it")
    with make_runtime(*kinds, power="performance") as rt:
        (state,) = rt.power.states()
        assert (state.mode, state.problem, state.fix) == (None, "no tool", "install it")
    assert switch.asked == []


def test_a_mode_that_the_device_has_not_is_told(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    with make_runtime(*kinds, power="turbo") as rt:
        assert "has no power mode 'turbo'" in rt.power.states()[0].problem
    assert switch.asked == []


def test_the_last_of_several_runtimes_puts_back_what_was_before_the_first(
    make_runtime: Make, kinds: list[Any], switch: Switch
) -> None:
    first = make_runtime(*kinds, power="balanced")
    second = make_runtime(*kinds, power="performance")
    first.close()
    assert switch.read() == "performance", "it is somebody else's now"
    second.close()
    assert switch.read() == "default"


def test_what_is_set_for_good_is_what_is_put_back(make_runtime: Make, kinds: list[Any], switch: Switch) -> None:
    with make_runtime(*kinds) as rt:
        rt.power.set("npu", "battery")
    assert switch.read() == "powersaver"
    with make_runtime(*kinds, power="balanced") as rt:
        rt.power.set("npu", "performance")
        assert switch.read() == "performance"
    assert switch.asked == ["powersaver", "balanced", "performance"], "it is put back where it is"
    assert switch.read() == "performance"


CRASH = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    import hetero
    from hetero.backend import Device
    from tests.core.test_power import Switch
    from tests.fakes import fake

    class Powered(fake("npu")):
        def power(self, device):
            return switch

    switch = Switch(Path(sys.argv[1]))
    host = hetero.Host(environ={}, sysroot=Path("/nowhere"), cache=Path(sys.argv[2]))
    rt = hetero.Runtime(backends=[Powered], plugins=False, host=host, power="performance")
    print(switch.read(), flush=True)
    if sys.argv[3] == "crash":
        os._exit(7)
    """
)


@pytest.mark.parametrize("end", ["crash", "exit"])
def test_a_process_that_crashed_is_tidied_up_after_and_one_that_ends_does_it_itself(
    make_runtime: Make, kinds: list[Any], switch: Switch, host: hetero.Host, end: str
) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(switch.file), str(host.cache), end],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'backends'}:{root / 'kernels'}", "HETERO_CACHE_DIR": str(host.cache)},
    )
    assert done.stdout.strip() == "performance", done.stderr
    if end == "exit":
        assert done.returncode == 0
        assert switch.read() == "default"
        return
    assert done.returncode == 7
    assert switch.read() == "performance"
    with make_runtime(*kinds):
        assert switch.read() == "default"
    assert not list((host.cache / "power").glob("*.json"))


def test_a_process_that_still_runs_is_not_tidied_up_after(
    make_runtime: Make, kinds: list[Any], switch: Switch, host: hetero.Host
) -> None:
    other = make_runtime(*kinds, power="performance")
    with make_runtime(*kinds):
        assert switch.read() == "performance"
    assert switch.read() == "performance"
    other.close()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"before": 3, "holders": 5}', '{"holders": [1, {"pid": "x"}]}'])
def test_a_damaged_guard_does_no_harm(
    make_runtime: Make, kinds: list[Any], switch: Switch, host: hetero.Host, content: str
) -> None:
    (host.cache / "power").mkdir(parents=True)
    (host.cache / "power/npu.json").write_text(content)
    with make_runtime(*kinds, power="balanced"):
        assert switch.read() == "balanced"
    assert switch.read() == "default"


def test_a_number_that_another_process_has_now_is_no_holder(
    make_runtime: Make, kinds: list[Any], switch: Switch, host: hetero.Host
) -> None:
    switch.file.write_text("performance")
    (host.cache / "power").mkdir(parents=True)
    holder = {"pid": 1, "started": "12345678901", "token": "x"}
    (host.cache / "power/npu.json").write_text(json.dumps({"before": "powersaver", "holders": [holder]}))
    with make_runtime(*kinds):
        assert switch.read() == "powersaver"


def test_no_device_with_modes_is_a_warning(make_runtime: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), make_runtime(fake("cpu", kind="cpu"), power="balanced") as rt:
        assert rt.power.states() == []
    assert "no device here has power modes" in caplog.text
