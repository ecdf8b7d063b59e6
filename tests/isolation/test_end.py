"""No process outlives what started it, whatever it is doing and however that ends."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Backend, Call
from tests.isolation.backends import F32, FORK_AND_DIE, HANG, HANG_WITH_GIL, Crashing, Pipes, echo
from tests.isolation.conftest import load, wait_for_end

ROOT = Path(__file__).parents[2]

LOADED = """
import os, signal, sys
import numpy as np
import hetero
from tests.isolation.backends import Crashing, echo
print("the main module runs", flush=True)
runtime = hetero.Runtime(backends=[Crashing], plugins=False, isolate=True, learn=False)
session = runtime.load(echo(**{options}), canary=False)
print(session.explain().candidates[0].details["pid"], flush=True)
"""


Script = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Starts scripts, and ends those that are still there after two minutes, or when the test ends."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def start(text: str, **options: Any) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        path.write_text(LOADED.replace("**{options}", f"**{options!r}") + text)
        paths = [str(ROOT), str(ROOT / "backends"), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # A test that waits for a line then reads the end of the output instead, and fails.
        limit = threading.Timer(120, process.kill)
        limit.start()
        started.append((process, limit))
        return process

    yield start
    for process, limit in started:
        limit.cancel()
        limit.join()
        process.kill()
        with process:
            pass


def child_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    assert parent.stdout.readline() == "the main module runs\n"
    line = parent.stdout.readline()
    assert line.strip().isdigit(), line + parent.stdout.read()
    return int(line)


@pytest.mark.parametrize("what", [HANG, HANG_WITH_GIL], ids=["hangs", "hangs with the GIL"])
def test_close_ends_a_process_that_hangs(
    make_runtime: Callable[..., hetero.Runtime], pipes: Pipes, what: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero.isolation.process.Process.close.__defaults__", (0.2,))
    runtime = make_runtime(Crashing, isolate=True)
    session = runtime.load(echo(pipes=str(pipes.folder)), canary=False)
    pid = session.explain().candidates[0].details["pid"]
    future = session.submit(np.full(2, what, F32))
    pipes.wait()

    runtime.close(timeout=0)

    wait_for_end(pid)
    assert isinstance(future.exception(60), hetero.errors.HeteroError)


def test_a_dropped_backend_ends_its_process(host: hetero.Host) -> None:
    from hetero.isolation import isolated

    backend = isolated(Crashing)(host)
    pid = load(backend).details["pid"]
    del backend
    gc.collect()
    wait_for_end(pid)


def test_the_end_of_the_interpreter_ends_the_process_and_the_main_module_runs_once(script: Script) -> None:
    parent = script("print(session(np.ones(2, np.float32)).tolist())")
    pid = child_of(parent)
    assert parent.stdout is not None
    assert parent.stdout.read() == "[1.0, 1.0]\n"
    parent.communicate(timeout=60)
    assert parent.returncode == 0
    wait_for_end(pid)


@pytest.mark.parametrize("what", [0, HANG, HANG_WITH_GIL], ids=["idle", "hangs", "hangs with the GIL"])
def test_a_killed_parent_leaves_no_process(script: Script, pipes: Pipes, what: float) -> None:
    text = f"session.submit(np.full(2, {what}, np.float32))\nsys.stdin.read()"
    parent = script(text, pipes=str(pipes.folder))
    pid = child_of(parent)
    if what:
        pipes.wait()
    parent.kill()
    parent.communicate(timeout=60)
    wait_for_end(pid)


def test_a_fork_of_the_parent_neither_keeps_nor_ends_the_process(script: Script, pipes: Pipes) -> None:
    text = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
if os.fork() == 0:
    try:
        session(np.ones(2, np.float32))
    except hetero.errors.ClosedError:
        print("closed", flush=True)
    sys.stdin.read()
    sys.exit(0)
os.read(os.open({go!r}, os.O_RDONLY), 2)
print(session(np.ones(2, np.float32)).tolist(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Not by its input, which it shares with the fork: either of them might read what is written there.
    parent = script(text.replace("{go!r}", repr(str(pipes.folder / "go"))))
    pid = child_of(parent)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "closed\n"
    pipes.go()
    assert parent.stdout.readline() == "[1.0, 1.0]\n"
    wait_for_end(pid)  # while the fork still waits for the end of its input
    parent.communicate(timeout=60)
    assert parent.returncode == -signal.SIGKILL


def test_a_fork_in_the_middle_of_something_does_not_hang(script: Script) -> None:
    text = """
import threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
process = runtime.backends["crash"]._current
with process._lock, process._ended._cond:  # as another thread may have them at any time
    fork = os.fork()
    if fork == 0:
        print(process.dead, flush=True)
        os._exit(0)
end = time.monotonic() + 30
while os.waitpid(fork, os.WNOHANG) == (0, 0):
    time.sleep(0.01)
    if time.monotonic() > end:
        print("the fork hangs", flush=True)
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
        break
print(session(np.ones(2, np.float32)).tolist(), flush=True)
"""
    parent = script(text)
    child_of(parent)
    assert parent.stdout is not None
    # `communicate` would leave out what came together with the lines that were read.
    assert parent.stdout.read() == "True\n[1.0, 1.0]\n"
    parent.communicate(timeout=60)


def test_a_child_that_takes_no_more_calls_is_ended(
    make_backend: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero.isolation.process._ACCEPT", 0.2)
    monkeypatch.setattr("hetero.isolation.process._DEATH", 1.0)
    backend = make_backend()
    pid = load(backend).details["pid"]
    os.kill(pid, signal.SIGSTOP)
    process = backend.process()  # type: ignore[attr-defined]

    def hand_over_channels() -> None:
        for _ in range(5000):
            process._open()

    with pytest.raises(hetero.errors.DeviceLost):
        hand_over_channels()
    wait_for_end(pid)


def test_the_end_is_told_even_where_its_cause_cannot_be_read(
    backend: Backend, pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)

    def unreadable(*_: object) -> bytes:
        raise OSError("the report cannot be read")

    executable = load(backend, pipes=str(pipes.folder))
    monkeypatch.setattr("hetero.isolation.process.os.pread", unreadable)
    with pytest.raises(hetero.errors.DeviceLost, match="SIGSEGV"):
        executable.run({"x": np.full(2, FORK_AND_DIE, F32)}, Call())
    pipes.go()
    backend.close()
    assert [type(args.exc_value) for args in said] == [OSError]


def test_a_backend_that_is_collected_while_its_childs_end_is_told_leaves_nothing(
    make_backend: Callable[..., Backend],
) -> None:
    backend = make_backend()
    executable = load(backend)
    process = backend.process()  # type: ignore[attr-defined]
    where: list[threading.Thread] = []

    class Collector(logging.Handler):
        """Does what the collector might, in whichever thread it comes upon the backend."""

        def emit(self, record: logging.LogRecord) -> None:
            where.append(threading.current_thread())
            process.close()

    log, collector = logging.getLogger("hetero.isolation.process"), Collector()
    log.addHandler(collector)
    try:
        with pytest.raises(hetero.errors.ClosedError):
            executable.run({"x": np.full(2, -2, F32)}, Call())
        process._watcher.join(60)
    finally:
        log.removeHandler(collector)
    assert where == [process._watcher]
    assert not process._watcher.is_alive()
    assert (process._report, process._lifeline, process._control.fileno()) == (-1, -1, -1)


def test_ctrl_c_is_the_parents_to_handle(backend: Backend) -> None:
    executable = load(backend)
    os.kill(executable.details["pid"], signal.SIGINT)
    np.testing.assert_array_equal(executable.run({"x": np.ones(2, F32)}, Call())["y"], 1)
