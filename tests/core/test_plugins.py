"""A broken plugin is noted with its reason and does no harm to the others."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hetero
from hetero import errors
from tests.fakes import DOUBLE, fake

GOOD = """
import hetero
from tests.fakes import DOUBLE, fake
Good = fake("good")
@hetero.hookimpl
def hetero_backend():
    return Good
@hetero.hookimpl
def hetero_program(name):
    return DOUBLE if name == "good-program" else None
@hetero.hookimpl
def hetero_program_names():
    return ["good-program"]
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts plugin modules on the path, with metadata as if pip had installed them; nothing else is discovered."""
    monkeypatch.syspath_prepend(str(tmp_path))
    points: list[importlib.metadata.EntryPoint] = []

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda: importlib.metadata.EntryPoints(points))

    def install(name: str, source: str, group: str = "hetero.backends") -> None:
        module = f"plugin_{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(source)
        sys.modules.pop(module, None)
        points.append(importlib.metadata.EntryPoint(name, module, group))

    return install


def make(host: hetero.Host) -> hetero.Runtime:
    return hetero.Runtime(host=host)


def test_an_installed_backend_is_found_and_used_by_name(install: Install, host: hetero.Host) -> None:
    install("good", GOOD)
    with make(host) as runtime:
        assert [device.name for device in runtime.devices] == ["good"]
        assert runtime.load("good-program", device="good")([3.0]).tolist() == [6.0]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1/0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemError('driver ABI')", "SystemError: driver ABI"),
        (
            "import hetero\n@hetero.hookimpl\ndef hetero_backend(): return 7",
            "gave 7, expected a subclass of hetero.Backend",
        ),
        ("import hetero\n@hetero.hookimpl\ndef hetero_backend(): raise OSError('libfoo.so')", "OSError: libfoo.so"),
        (
            "import hetero\nclass B(hetero.Backend): pass\n@hetero.hookimpl\ndef hetero_backend(): return B",
            "B has no name: set the class attribute `name`",
        ),
        (
            "import hetero\nfrom tests.fakes import fake\n@hetero.hookimpl\ndef hetero_backend(): return fake('good')",
            "backend name 'good' is taken",
        ),
        ("import hetero\n@hetero.hookimpl\ndef hetero_backend(wrong): return None", "wrong"),
        ("import hetero\n@hetero.hookimpl\ndef hetero_bakend(): return None", "hetero_bakend"),
    ],
    ids=[
        "import",
        "crash",
        "syntax",
        "system",
        "type",
        "hook raises",
        "nameless",
        "taken",
        "signature",
        "unknown hook",
    ],
)
def test_a_broken_plugin_is_told_of_and_the_good_one_works(
    install: Install, host: hetero.Host, source: str, reason: str
) -> None:
    install("good", GOOD)
    install("zzz", source)
    with make(host) as runtime:
        assert [device.name for device in runtime.devices] == ["good"]
        assert len(runtime.broken_plugins) == 1
        assert reason in str(runtime.broken_plugins[0])
        assert any(absent.backend == "zzz" and reason in absent.reason for absent in runtime.absent)


def test_naming_a_broken_plugins_device_tells_why_it_is_not_there(install: Install, host: hetero.Host) -> None:
    install("good", GOOD)
    install("zzz", "import no_such_module")
    with make(host) as runtime, pytest.raises(errors.Unavailable, match="no_such_module"):
        runtime.load(DOUBLE, device="zzz")


def test_a_program_plugin_that_crashes_hides_no_other_program(install: Install, host: hetero.Host) -> None:
    install("good", GOOD)
    crash = "import hetero\n@hetero.hookimpl\ndef hetero_program(name): raise KeyError(name)"
    install("aaa", crash)
    install("zzz", crash, group="hetero.programs")
    with make(host) as runtime:
        assert runtime.load("good-program").device == "good"
        with pytest.raises(errors.ProgramNotFound, match="did you mean good-program"):
            runtime.load("god-program")
        assert {broken.name for broken in runtime.broken_plugins} == {"aaa", "zzz"}
        assert not any(absent.backend == "zzz" for absent in runtime.absent), "it is not a backend that is missing"


def test_two_backends_of_one_name_given_by_hand_are_refused(host: hetero.Host) -> None:
    with pytest.raises(errors.OptionError, match="two backends are called 'n'"):
        hetero.Runtime(backends=[fake("n"), fake("n")], plugins=False, host=host)
