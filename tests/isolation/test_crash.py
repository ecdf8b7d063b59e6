"""What ends a backend's process ends no request."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Backend, Call
from hetero.errors import ClosedError, DeviceLost
from tests.fakes import fake
from tests.isolation import backends
from tests.isolation.backends import F32, HANG, PID, WAIT, Crashing, Pipes, echo
from tests.isolation.conftest import load, wait_for_end

MakeRuntime = Callable[..., hetero.Runtime]


def x(what: float = 1.0, n: int = 4) -> Any:
    return np.full(n, what, F32)


def second(inputs: Any, call: Any) -> Any:
    return {"y": inputs["x"] * 2}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (-1, "the process of backend 'crash' was killed by SIGSEGV (signal 11)"),
        (-2, "the process of backend 'crash' was killed by SIGSEGV (signal 11)"),
        (-3, "the process of backend 'crash' was killed by SIGABRT (signal 6)"),
        (-4, "the process of backend 'crash' ended with exit code 3"),
        (-5, "the process of backend 'crash' ended with exit code 1"),
        (-6, "the process of backend 'crash' was killed by SIGTERM (signal 15)"),
    ],
)
def test_a_crash_in_the_middle_of_a_request_is_answered_by_the_next_device(
    make_runtime: MakeRuntime, what: float, reason: str
) -> None:
    runtime = make_runtime(Crashing, fake("second", kind="cpu", run=second), isolate=["crash"])
    session = runtime.load(echo(), canary=False)
    assert session.device == "crash"

    result = session.run(x(what))

    np.testing.assert_array_equal(result.value, x(what) * 2)
    assert result.record.device == "second"
    assert [attempt.device for attempt in result.record.attempts] == ["crash", "second"]
    assert result.record.attempts[0].reason == f"DeviceLost: {reason}"


def test_a_process_killed_from_outside_in_the_middle_of_a_request_is_answered_by_the_next_device(
    make_runtime: MakeRuntime, pipes: Pipes
) -> None:
    runtime = make_runtime(Crashing, fake("second", kind="cpu", run=second), isolate=["crash"])
    session = runtime.load(echo(pipes=str(pipes.folder)), canary=False)
    pid = session.explain().candidates[0].details["pid"]
    future = session.submit(x(HANG))
    pipes.wait()

    os.kill(pid, signal.SIGSEGV)

    np.testing.assert_array_equal(future.result(), x(HANG) * 2)
    assert runtime.records.last is not None
    assert "SIGSEGV" in runtime.records.last.attempts[0].reason
    assert session.device == "second"


def test_a_lost_process_is_started_again_and_its_program_loaded_by_the_next_call(make_runtime: MakeRuntime) -> None:
    session = make_runtime(Crashing, fake("second", kind="cpu"), isolate=["crash"]).load(echo(), canary=False)
    first = session.explain().candidates[0].details["pid"]
    session(x(-2))

    answer = session(x(PID), device="crash")

    assert int(answer[0]) != first
    assert session.explain().candidates[0].details["pid"] == int(answer[0])
    wait_for_end(first)


def test_a_process_that_died_between_two_calls_costs_one_call_at_most(backend: Backend) -> None:
    executable = load(backend)
    os.kill(executable.details["pid"], signal.SIGKILL)
    wait_for_end(executable.details["pid"])
    with contextlib.suppress(DeviceLost):  # whether the parent knows of it yet is a race that either may win
        executable.run({"x": x()}, Call())
    np.testing.assert_array_equal(executable.run({"x": x()}, Call())["y"], x())


def test_every_pending_call_hears_of_the_end(backend: Backend, pipes: Pipes) -> None:
    executable = load(backend, pipes=str(pipes.folder), lanes=3)
    with ThreadPoolExecutor(3) as pool:
        futures = []
        for lane in range(3):
            futures.append(pool.submit(executable.run, {"x": x(HANG)}, Call(lane)))
            pipes.wait()
        os.kill(executable.details["pid"], signal.SIGABRT)
        for future in futures:
            with pytest.raises(DeviceLost, match=r"killed by SIGABRT \(signal 6\)"):
                future.result()


def test_the_end_is_noticed_though_a_process_of_the_childs_holds_its_pipes(backend: Backend, pipes: Pipes) -> None:
    executable = load(backend, pipes=str(pipes.folder))
    with pytest.raises(DeviceLost, match="SIGSEGV"):
        executable.run({"x": x(backends.FORK_AND_DIE)}, Call())
    pipes.go()


def test_other_programs_of_a_lost_process_are_loaded_again(backend: Backend) -> None:
    one, other = load(backend), load(backend, lanes=2)
    with pytest.raises(DeviceLost):
        one.run({"x": x(-2)}, Call())
    np.testing.assert_array_equal(other.run({"x": x(5)}, Call(1))["y"], x(5))
    np.testing.assert_array_equal(one.run({"x": x(6)}, Call())["y"], x(6))
    assert one.details["pid"] == other.details["pid"]


def test_restarts_are_bounded_per_minute(make_backend: Callable[..., Backend]) -> None:
    now = [100.0]
    executable = load(make_backend(restarts=2, clock=lambda: now[0]))
    for _ in range(3):
        with pytest.raises(DeviceLost, match="SIGSEGV"):
            executable.run({"x": x(-2)}, Call())
        now[0] += 10
    with pytest.raises(DeviceLost, match=r"died again after 2 restarts within a minute; .* for another 40 s"):
        executable.run({"x": x()}, Call())
    now[0] += 41
    np.testing.assert_array_equal(executable.run({"x": x()}, Call())["y"], x())


def test_a_program_that_cannot_be_loaded_again_is_a_lost_device(backend: Backend, pipes: Pipes) -> None:
    executable = load(backend, on_load="once", pipes=str(pipes.folder))
    with pytest.raises(DeviceLost, match="SIGSEGV"):
        executable.run({"x": x(-2)}, Call())
    with pytest.raises(DeviceLost, match="in the next one the program cannot be loaded: only once"):
        executable.run({"x": x()}, Call())


def test_a_crash_at_load_passes_the_device_over_and_the_next_load_works(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime(Crashing, fake("second", kind="cpu"), isolate=["crash"])
    session = runtime.load(echo(on_load="crash"))
    assert session.device == "second"
    report = session.explain().candidates[0]
    assert report.state == "failed"
    assert "SIGSEGV" in report.reason
    assert runtime.load(echo(), canary=False).device == "crash"


def test_a_crash_in_probe_leaves_the_other_devices(make_runtime: MakeRuntime, host: hetero.Host) -> None:
    crashing = hetero.Host(environ={"CRASH_PROBE": "1"}, sysroot=host.sysroot, cache=host.cache)
    runtime = make_runtime(Crashing, fake("second", kind="cpu"), isolate=["crash"], host=crashing)
    assert [device.name for device in runtime.devices] == ["second"]
    assert "SIGSEGV" in runtime.absent[0].reason


def test_where_it_crashed_is_logged(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DeviceLost):
        load(backend).run({"x": x(-1)}, Call())
    assert "in _segfault" in caplog.text
    assert "backends.py" in caplog.text


def test_an_interrupted_wait_leaves_the_lane_to_the_run_until_that_has_ended(backend: Backend, pipes: Pipes) -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are handled in the main thread, and this is another one")
    executable = load(backend, pipes=str(pipes.folder))

    class Interrupt(BaseException):
        pass

    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise Interrupt

    def send() -> None:
        pipes.wait()
        # Again and again: Python handles a signal that comes just before the wait begins only when that has ended.
        while not interrupted.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            interrupted.wait(0.05)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = threading.Thread(target=send)
        thread.start()
        with pytest.raises(Interrupt):
            executable.run({"x": x(WAIT)}, Call())
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(executable.run, {"x": x(3)}, Call())
        pipes.go()
        np.testing.assert_array_equal(following.result()["y"], x(3))


def test_a_running_call_is_cancelled_in_the_process(make_runtime: MakeRuntime, pipes: Pipes) -> None:
    session = make_runtime(Crashing, isolate=True).load(echo(pipes=str(pipes.folder)))
    future = session.submit(x(HANG))
    pipes.wait()
    future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    np.testing.assert_array_equal(session(x(2)), x(2))


def test_cancelling_what_is_over_does_nothing(backend: Backend) -> None:
    executable = load(backend)
    call = Call()
    executable.run({"x": x()}, call)
    assert not executable.cancel(call)


def test_calls_after_close_say_so(backend: Backend) -> None:
    executable = load(backend)
    executable.close()
    with pytest.raises(ClosedError):
        executable.run({"x": x()}, Call())
    backend.close()
    with pytest.raises(ClosedError):
        backend.probe()


def test_the_vendors_module_is_not_imported_here(backend: Backend) -> None:
    executable = load(backend)
    with pytest.raises(hetero.errors.ExecutionError):
        executable.run({"x": x(backends.FOREIGN)}, Call())
    assert "tests.isolation.vendor" not in sys.modules
