"""The environment keeps plugins out without importing them, says so, and overrides the order of devices."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import hetero
from hetero import errors
from hetero.plugins import Plugins
from tests.fakes import DOUBLE, fake

SOURCE = """
import hetero
from tests.fakes import DOUBLE, fake
Made = fake({name!r})
@hetero.hookimpl
def hetero_backend():
    return Made
@hetero.hookimpl
def hetero_program_names():
    return ["{name}-b", "{name}-a"]
"""


class Distribution:
    """What an entry point knows of the distribution that brings it."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version


class Point:
    """An installed entry point."""

    def __init__(self, name: str, value: str, distribution: str) -> None:
        self.name = name
        self.value = value
        self.dist = Distribution(distribution, "1.2")

    def load(self) -> object:
        return importlib.import_module(self.value)


class Points(list[Point]):
    """All of them are backends."""

    def select(self, *, group: str) -> list[Point]:
        return self if group == "hetero.backends" else []


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bool]:
    """Plugins `own` (of hetero itself), `a` and `b` (of others); gives whether a plugin was imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    module = {name: f"switched_{name}_{tmp_path.name.replace('-', '_')}" for name in ("own", "a", "b")}
    for name, file in module.items():
        (tmp_path / f"{file}.py").write_text(SOURCE.format(name=name))
    points = [Point(name, file, "hetero" if name == "own" else f"hetero-{name}") for name, file in module.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda: Points(points))
    return lambda name: module[name] in sys.modules


Installed = Callable[[str], bool]


def runtime(host: hetero.Host, environ: Mapping[str, str]) -> hetero.Runtime:
    return hetero.Runtime(host=replace(host, environ=environ))


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, "a b own"),
        ({"HETERO_DISABLE_PLUGINS": "", "HETERO_ALLOW_PLUGINS": " "}, "a b own"),
        ({"HETERO_DISABLE_PLUGINS": "0"}, "a b own"),
        ({"HETERO_DISABLE_PLUGINS": "off"}, "a b own"),
        ({"HETERO_DISABLE_PLUGINS": "1"}, "own"),
        ({"HETERO_DISABLE_PLUGINS": " TRUE "}, "own"),
        ({"HETERO_DISABLE_PLUGINS": "a"}, "b own"),
        ({"HETERO_DISABLE_PLUGINS": "own, b"}, "a"),
        ({"HETERO_ALLOW_PLUGINS": "b"}, "b own"),
        ({"HETERO_ALLOW_PLUGINS": "a,b", "HETERO_DISABLE_PLUGINS": "b"}, "a own"),
        ({"HETERO_ALLOW_PLUGINS": "a", "HETERO_DISABLE_PLUGINS": "1"}, "own"),
    ],
)
def test_the_environment_decides_which_plugins_are_taken_in(
    installed: Installed, host: hetero.Host, environ: Mapping[str, str], names: str
) -> None:
    with runtime(host, environ) as rt:
        assert sorted(rt.backends) == names.split()


def test_a_disabled_plugin_is_not_imported(installed: Installed, host: hetero.Host) -> None:
    with runtime(host, {"HETERO_DISABLE_PLUGINS": "a"}):
        assert installed("b")
        assert not installed("a")


@pytest.mark.parametrize(
    ("environ", "reason", "fix"),
    [
        (
            {"HETERO_DISABLE_PLUGINS": "a"},
            "disabled by HETERO_DISABLE_PLUGINS",
            "take 'a' out of HETERO_DISABLE_PLUGINS",
        ),
        ({"HETERO_DISABLE_PLUGINS": "1"}, "disabled by HETERO_DISABLE_PLUGINS", "unset HETERO_DISABLE_PLUGINS"),
        ({"HETERO_ALLOW_PLUGINS": "b"}, "disabled by HETERO_ALLOW_PLUGINS", "add 'a' to HETERO_ALLOW_PLUGINS"),
    ],
)
def test_what_is_disabled_is_told_as_absent_with_reason_and_fix(
    installed: Installed, host: hetero.Host, environ: Mapping[str, str], reason: str, fix: str
) -> None:
    with runtime(host, environ) as rt:
        absent = {entry.backend: entry for entry in rt.absent}["a"]
        assert absent.reason.startswith(reason)
        assert absent.fix.startswith(fix)
        with pytest.raises(errors.Unavailable, match=reason):
            rt.load(DOUBLE, device="a")


def test_a_disabled_plugin_takes_all_its_backends_along_and_says_so(
    installed: Installed, host: hetero.Host, tmp_path: Path
) -> None:
    for file in tmp_path.glob("switched_a_*.py"):
        file.write_text(file.read_text().replace("return Made", "return [Made, fake('a2')]"))
    with runtime(host, {}) as rt:
        assert {"a", "a2"} <= set(rt.backends)
    environ = {"HETERO_DISABLE_PLUGINS": "a"}
    with runtime(host, environ) as rt:
        (absent,) = (entry for entry in rt.absent if entry.backend == "a")
        assert ", with every backend that the plugin brings (switched_a_" in absent.reason
        assert ", from hetero-a 1.2)" in absent.reason
        for wrong in ({"device": "a2"}, {"options": {"a2": {}}}):
            with pytest.raises(errors.OptionError, match="'a2'") as error:
                rt.load(DOUBLE, **wrong)  # type: ignore[arg-type]
            assert "a backend of the disabled plugin 'a' (switched_a_" in error.value.fix
            assert "take 'a' out of HETERO_DISABLE_PLUGINS" in error.value.fix
    with pytest.raises(errors.OptionError) as error:
        runtime(host, {**environ, "HETERO_BACKENDS": "a2"})
    assert "a backend of the disabled plugin 'a'" in error.value.fix
    with runtime(host, {}) as rt, pytest.raises(errors.OptionError) as error:
        rt.load(DOUBLE, device="a3")
    assert "disabled" not in error.value.fix


def test_a_name_that_no_plugin_has_is_warned_of(
    installed: Installed, host: hetero.Host, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "hetero"), runtime(host, {"HETERO_DISABLE_PLUGINS": "aa,b"}):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        "HETERO_DISABLE_PLUGINS names 'aa', and no plugin of that name is installed"
    ]


def test_the_listing_tells_what_each_plugin_gives_and_what_became_of_it(installed: Installed) -> None:
    plugins = Plugins()
    plugins.discover({"HETERO_DISABLE_PLUGINS": "b"})
    told = {plugin.name: plugin for plugin in plugins.installed()}
    assert (told["a"].state, told["a"].backends, told["a"].programs) == ("ok", ("a",), ("a-a", "a-b"))
    assert (told["a"].distribution, told["a"].version) == ("hetero-a", "1.2")
    assert (told["b"].state, told["b"].backends, told["b"].programs) == ("disabled", (), ())


def test_a_plugin_whose_hook_fails_is_listed_as_broken_with_the_reason(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in tmp_path.glob("switched_a_*.py"):
        file.write_text("import hetero\n@hetero.hookimpl\ndef hetero_backend(): raise OSError('libfoo.so')\n")
    plugins = Plugins()
    plugins.discover({})
    told = {plugin.name: plugin for plugin in plugins.installed()}
    assert (told["a"].state, told["a"].reason) == ("broken", "OSError: libfoo.so")
    assert told["b"].state == "ok"


def test_the_environment_overrides_the_order_when_no_chain_is_given(host: hetero.Host) -> None:
    backends = [fake("cpu", kind="cpu"), fake("npu"), fake("gpu", kind="gpu")]
    turned = replace(host, environ={"HETERO_BACKENDS": "cpu, npu"})
    with hetero.Runtime(backends=backends, plugins=False, host=turned) as rt:
        assert [device.name for device in rt.devices] == ["cpu", "npu"]
    with hetero.Runtime(backends=backends, plugins=False, host=turned, chain="gpu,cpu") as rt:
        assert [device.name for device in rt.devices] == ["gpu", "cpu"], "what the caller says goes first"
    with hetero.Runtime(backends=backends, plugins=False, host=replace(host, environ={"HETERO_BACKENDS": ""})) as rt:
        assert [device.name for device in rt.devices] == ["npu", "gpu", "cpu"]


def test_an_order_with_an_unknown_name_tells_which_variable_is_wrong(host: hetero.Host) -> None:
    wrong = replace(host, environ={"HETERO_BACKENDS": "cpu,nppu"})
    with pytest.raises(errors.OptionError, match="HETERO_BACKENDS names 'nppu'"):
        hetero.Runtime(backends=[fake("cpu")], plugins=False, host=wrong)
