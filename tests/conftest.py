"""Shared set-up: no test touches the user's cache folder, and runtimes are closed when a test ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Converted models are kept between runs, beside pytest's own cache; workers share it.
os.environ["HETERO_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "hetero")
for _name in ("HETERO_SIMULATE", "HETERO_BACKENDS", "HETERO_DISABLE_PLUGINS"):
    os.environ.pop(_name, None)

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hetero  # noqa: E402


@pytest.fixture
def host(tmp_path: Path) -> hetero.Host:
    """A machine with an empty cache, an empty environment and nothing under /sys and /proc."""
    return hetero.Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache")


@pytest.fixture
def make_runtime(host: hetero.Host) -> Iterator[Callable[..., hetero.Runtime]]:
    """Makes Runtimes of the given backends, without installed plugins, and closes them."""
    made: list[hetero.Runtime] = []

    def make(*backends: Any, **options: Any) -> hetero.Runtime:
        made.append(hetero.Runtime(backends=backends, plugins=False, host=options.pop("host", host), **options))
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()


@pytest.fixture
def untraced() -> Iterator[None]:
    """Nobody traces the test, nor the threads that it starts, as coverage does.

    For the same few lines a million times, which other tests reach too: tracing makes them three to ten times slower.
    Not pytest-cov's `no_cover`, which leaves a second tracer at work in each worker of pytest-xdist.
    """
    own, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    yield
    threading.settrace(of_threads)  # type: ignore[arg-type]
    sys.settrace(own)


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        absent = os.environ.get("HETERO_TEST_ABSENT", "").split(",")
        if not any(name and name in reason for name in absent):
            _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything was just installed (CI says so), a test that skips did not test what it is there for.

    What cannot be installed from any registry is named in HETERO_TEST_ABSENT; such skips have its name in their reason.
    """
    if os.environ.get("HETERO_TEST_NO_SKIPS") and _skipped and not hasattr(session.config, "workerinput"):
        print("\nskipped, though HETERO_TEST_NO_SKIPS is set:", *_skipped, sep="\n  ")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
