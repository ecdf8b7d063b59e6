"""An isolated backend is, but for its process, the backend that it isolates."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Artifact, Backend, Call, PolledExecutable
from hetero.errors import (
    DeviceTimeout,
    ExecutionError,
    HeteroError,
    InputError,
    OptionError,
    PluginError,
    ProgramInvalid,
    Unavailable,
    Unsupported,
    WrongAnswer,
)
from hetero.isolation import isolated
from hetero.isolation.failures import Failure, plain
from hetero.testing import BackendConformance
from hetero_cpu.backend import CpuBackend
from tests.fakes import fake
from tests.isolation import backends
from tests.isolation.backends import F32, Crashing, echo, make_crashing
from tests.isolation.conftest import load

MakeRuntime = Callable[..., hetero.Runtime]


class TestIsolatedCpu(BackendConformance):
    """What the contract asks of a backend holds across the process's border too."""

    backend = isolated(CpuBackend)  # type: ignore[assignment]

    # The installed `cpu` is another class; the process, with its pipes, stays between probes on purpose; and nothing is
    # polled on this side.
    test_is_found_by_its_name = None  # type: ignore[assignment]
    test_probe_gives_the_same_again = None  # type: ignore[assignment]
    test_a_ticket_can_be_polled = None  # type: ignore[assignment]


def test_what_the_backend_declares_is_known_without_a_process() -> None:
    kind = isolated(Crashing)
    assert isinstance(kind, type)
    assert issubclass(kind, Backend)
    assert (kind.name, kind.options, kind.simulates) == ("crash", Crashing.options, ("rk9999",))


def test_a_function_that_makes_a_backend_can_be_isolated(make_backend: Callable[..., Backend]) -> None:
    for factory in (make_crashing, functools.partial(make_crashing)):
        backend = make_backend(factory)
        assert (backend.name, backend.simulates) == ("crash", ("rk9999",))
        assert [option.name for option in backend.options] == [option.name for option in Crashing.options]
        assert [device.name for device in backend.probe()] == ["crash"]


def test_devices_come_as_plain_values(backend: Backend) -> None:
    (device,) = backend.probe()
    assert device.properties == {"path": "/dev/crash", "cores": 3}
    assert type(device.properties["cores"]) is int


def test_explain_tells_of_the_process(make_runtime: MakeRuntime) -> None:
    session = make_runtime(Crashing, isolate=True).load(echo())
    details = session.explain().candidates[0].details
    assert details["driver"] == "/lib/libcrash.so"
    assert details["isolated"] is True
    assert details["pid"] == int(session(np.full(1, backends.PID, F32))[0])
    assert f"isolated=True, pid={details['pid']}" in str(session.explain())


def test_a_polled_executable_is_driven_in_the_process(backend: Backend) -> None:
    executable = load(backend, polled=True)
    assert not isinstance(executable, PolledExecutable)
    np.testing.assert_array_equal(executable.run({"x": np.ones(3, F32)}, Call())["y"], 2)


def test_only_the_named_backends_are_isolated(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(Crashing, fake("second", kind="cpu"), isolate="crash")
    details = {name: backend.__class__.__name__ for name, backend in runtime.backends.items()}
    assert details == {"crash": "IsolatedBackend", "second": "Fake_second"}


def test_isolating_an_unknown_backend_is_an_error(make_runtime: MakeRuntime) -> None:
    with pytest.raises(OptionError, match=r"isolate= names the backend 'rkn'"):
        make_runtime(Crashing, isolate=["rkn"])


class InMain(Crashing):
    pass


InMain.__module__ = "__main__"


@pytest.mark.parametrize(
    "factory", [fake("local"), InMain, lambda host: Crashing(host)], ids=["made", "main", "lambda"]
)
def test_what_cannot_be_imported_by_name_is_refused(make_runtime: MakeRuntime, factory: Any) -> None:
    with pytest.raises(OptionError, match="cannot be imported there by name") as caught:
        make_runtime(factory, isolate=True)
    assert "at the top of a module" in caught.value.fix


@pytest.mark.parametrize(
    ("what", "kind", "problem", "fix"),
    [
        (backends.REFUSE, Unsupported, "not these shapes", "pad to 8"),
        (backends.TIMEOUT, DeviceTimeout, "core 1 does not answer", ""),
        (backends.FOREIGN, ExecutionError, "VendorError: code -7", ""),
        (backends.BAD_TYPE, WrongAnswer, "output 'y' is a list, expected a numpy array", ""),
        (
            backends.NO_MAPPING,
            WrongAnswer,
            "run() gave a list, expected a mapping from output name to array",
            "",
        ),
    ],
)
def test_errors_of_a_run_carry_type_problem_fix_and_traceback(
    backend: Backend, what: float, kind: type[HeteroError], problem: str, fix: str
) -> None:
    executable = load(backend)
    with pytest.raises(kind) as caught:
        executable.run({"x": np.full(2, what, F32)}, Call())
    assert type(caught.value) is kind
    assert (caught.value.problem, caught.value.fix) == (problem, fix)
    assert "Traceback (most recent call last)" in str(caught.value.__cause__)
    np.testing.assert_array_equal(executable.run({"x": np.ones(2, F32)}, Call())["y"], 1)


@pytest.mark.parametrize(
    ("on_load", "kind", "problem"),
    [
        ("refuse", Unsupported, "op Foo is not supported"),
        ("broken", ProgramInvalid, "the file is cut off"),
        ("nothing", PluginError, "load() gave None, expected an Executable"),
    ],
)
def test_errors_of_a_load_carry_their_type(
    backend: Backend, on_load: str, kind: type[HeteroError], problem: str
) -> None:
    with pytest.raises(kind) as caught:
        load(backend, on_load=on_load)
    assert problem in caught.value.problem


def test_a_missing_device_keeps_its_reason_and_fix(make_runtime: MakeRuntime, host: hetero.Host) -> None:
    runtime = make_runtime(Crashing, isolate=True, host=replace(host, environ={"NO_DRIVER": "1"}))
    assert [(a.backend, a.reason, a.fix) for a in runtime.absent] == [("crash", "no driver", "modprobe crash")]


def test_a_program_that_cannot_be_sent_is_not_supported(backend: Backend) -> None:
    program = replace(echo(), artifacts=(Artifact("test", payload=threading.Lock()),))
    with pytest.raises(Unsupported, match="'echo' cannot be handed to the process of backend 'crash'"):
        load(backend, program)


class Payload:
    pass


def test_a_program_that_cannot_be_read_there_is_not_supported(backend: Backend, monkeypatch: Any) -> None:
    import sys

    monkeypatch.setattr(sys.modules["__main__"], "Payload", Payload, raising=False)
    monkeypatch.setattr(Payload, "__module__", "__main__")
    program = replace(echo(), artifacts=(Artifact("test", payload=Payload()),))
    with pytest.raises(Unsupported, match="cannot be read in the backend's process: AttributeError"):
        load(backend, program)


def test_an_error_of_a_foreign_subclass_comes_as_heteros_own() -> None:
    class Special(InputError):
        def __init__(self) -> None:
            super().__init__("bad", fix="mend it")

    error = Failure.of(Special()).error()
    assert type(error) is InputError
    assert (error.problem, error.fix) == ("bad", "mend it")
    assert type(Failure.of(Unavailable("none")).error()) is Unavailable


def test_details_are_made_plain() -> None:
    class Odd(int):
        def __str__(self) -> str:
            return "odd"

    given = {"a": np.float32(0.5), 1: (Odd(1), [None, b"x"]), "set": {2}}
    assert plain(given) == {"a": 0.5, "1": ("odd", [None, b"x"]), "set": [2]}
