"""A process answers for its Runtimes: to its user alone, as long as it has some, and nobody waits for it for ever."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.errors import InputError, OptionError, Unavailable
from hetero.monitor import asking, places, publishing
from hetero.monitor.asking import Process, Silent, ask, ask_all, process_of
from hetero.monitor.switch import is_monitored
from tests.fakes import DOUBLE, fake

Make = Callable[..., hetero.Runtime]
X = np.ones(2, np.float32)

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix-domain sockets here")


def published() -> Path:
    path = publishing.published_at()
    assert path is not None
    return path


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hetero-monitor"]


@contextmanager
def answering(path: Path, *pieces: bytes, close: bool = True) -> Iterator[None]:
    """A socket of that name, whose process says these things to one who asks, and then ends or is silent."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    done = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with places.address(path) as where:
            listener.bind(where)
        listener.listen(4)

        def answer() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # nobody has asked
            with connection:
                for piece in pieces:
                    connection.sendall(piece)
                if not close:
                    done.wait(30)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()


def leave(path: Path) -> None:
    """A socket of that name, as a process leaves it that is killed."""
    path.parent.mkdir(mode=0o700, parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, places.address(path) as where:
        listener.bind(where)
        listener.listen(1)


def name_of(pid: int) -> str:
    return places.new_name().replace(f"-{os.getpid()}-", f"-{pid}-")


# Whether a program can be looked at


@pytest.mark.parametrize(
    ("argument", "variable", "expected"),
    [
        (None, None, False),
        (None, "1", True),
        (None, " On ", True),
        (None, "0", False),
        (None, "", False),
        (False, "1", False),
        (True, None, True),
    ],
)
def test_the_program_decides_else_its_environment(argument: bool | None, variable: str | None, expected: bool) -> None:
    assert is_monitored(argument, {} if variable is None else {"HETERO_MONITOR": variable}) is expected


def test_an_environment_that_says_neither_is_refused(make_runtime: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="HETERO_MONITOR is 'please', expected 1 or 0"):
        make_runtime(host=hetero.Host(environ={"HETERO_MONITOR": "please"}, cache=tmp_path))


def test_a_program_that_is_not_published_has_no_socket_no_thread_and_no_import(tmp_path: Path) -> None:
    code = (
        "import sys, threading, hetero\n"
        "with hetero.Runtime(plugins=False): print(threading.active_count(),\n"
        "    [name for name in sys.modules if name in ('hetero.monitor.publishing', 'hetero.monitor.looking')])"
    )
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path / "cache"), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("HETERO_MONITOR", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    assert done.stdout == "1 []\n"
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])
    assert not (tmp_path / "cache" / "monitor").exists()


# What is answered


def test_the_answer_is_what_the_runtimes_say(make_runtime: Make, host: hetero.Host) -> None:
    runtime = make_runtime(fake("n"), monitor=True)
    session = runtime.load(DOUBLE)
    session(X)
    (answer,) = ask_all(host)
    assert isinstance(answer, Process)
    assert (answer.pid, answer.command) == (os.getpid(), tuple(sys.orig_argv))
    (told,) = answer.runtimes
    assert told.number == runtime.status().number
    assert (told.sessions[0].program, told.sessions[0].ended) == ("double", 1)
    assert ask_all(host, pid=os.getpid()) != []
    assert ask_all(host, pid=1) == []


def test_one_socket_answers_for_all_runtimes_and_closes_with_the_last(make_runtime: Make, host: hetero.Host) -> None:
    first, second = make_runtime(fake("a"), monitor=True), make_runtime(fake("b"), monitor=True)
    unseen = make_runtime(fake("c"))
    path = published()
    assert [each.devices[0].name for each in ask(path).runtimes] == ["a", "b"]
    first.close()
    assert [each.devices[0].name for each in ask(path).runtimes] == ["b"]
    second.close()
    assert not path.exists()
    assert publishing.published_at() is None
    unseen.close()
    for thread in threads():
        thread.join(30)
    assert threads() == []


def test_a_runtime_that_is_dropped_takes_its_socket_with_it(host: hetero.Host) -> None:
    runtime = hetero.Runtime(backends=[fake("n")], plugins=False, host=host, monitor=True)
    path, (thread,) = published(), threads()
    assert path.exists()
    del runtime
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
    assert not path.exists()


def test_the_socket_and_its_folder_are_the_users_alone(make_runtime: Make) -> None:
    make_runtime(fake("n"), monitor=True)
    path = published()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_user_is_told_nothing(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make_runtime(fake("n"), monitor=True)
    # The socket's end believes somebody else to be there; who asks knows better.
    monkeypatch.setattr(publishing, "user_of", lambda connection: os.geteuid() + 1)
    monkeypatch.setattr(asking, "is_own", lambda connection: True)
    with pytest.raises(InputError, match="broke off before it said anything"):
        ask(published())


def test_a_socket_behind_which_another_user_is_is_not_believed(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runtime(fake("n"), monitor=True)
    monkeypatch.setattr(asking, "is_own", lambda connection: False)
    with pytest.raises(Unavailable, match="another user"):
        ask(published())


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="this system does not tell who is at the other end")
def test_the_user_at_the_other_end_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert publishing.user_of(ours) == os.geteuid()


def test_who_asks_and_does_not_read_holds_up_nobody_for_long(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, host: hetero.Host
) -> None:
    monkeypatch.setattr(publishing, "_PATIENCE", 0.05)
    make_runtime(fake("n"), monitor=True)
    large = {publishing.MARK: publishing.FORMAT, "filling": "x" * (8 << 20)}
    monkeypatch.setattr(publishing.Publisher, "document", lambda publisher: large)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        with places.address(published()) as where:
            silent.connect(where)
        monkeypatch.undo()
        assert isinstance(ask_all(host, patience=30)[0], Process)


def test_a_snapshot_that_fails_ends_that_answer_and_not_the_next(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = make_runtime(fake("n"), monitor=True)
    monkeypatch.setattr(type(runtime), "status", lambda runtime: 1 / 0)
    with pytest.raises(InputError, match="broke off"):
        ask(published())
    monkeypatch.undo()
    assert len(ask(published()).runtimes) == 1
    assert "could not be made" in caplog.text


# Places


def test_a_login_sessions_folder_is_preferred_to_the_cache(make_runtime: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    host = hetero.Host(environ={"XDG_RUNTIME_DIR": str(run)}, sysroot=tmp_path / "root", cache=tmp_path / "cache")
    make_runtime(fake("n"), host=host, monitor=True)
    assert published().parent == run / "hetero"
    assert len(ask_all(host)) == 1


def test_programs_without_a_login_session_are_found_from_one_and_the_other_way_round(
    make_runtime: Make, tmp_path: Path
) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    session = root / f"run/user/{os.getuid()}"
    session.mkdir(mode=0o700, parents=True)
    inside = hetero.Host(environ={"XDG_RUNTIME_DIR": str(session)}, sysroot=root, cache=cache)
    outside = hetero.Host(environ={}, sysroot=root, cache=cache)
    for there, here in ((inside, outside), (outside, inside)):
        runtime = make_runtime(fake("n"), host=there, monitor=True)
        assert len(ask_all(here)) == 1
        runtime.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux has a way to a socket with a long path")
def test_a_path_longer_than_a_sockets_may_be_works_all_the_same(make_runtime: Make, tmp_path: Path) -> None:
    cache = tmp_path / ("long" * 40)
    host = hetero.Host(environ={}, sysroot=tmp_path / "root", cache=cache)
    make_runtime(fake("n"), host=host, monitor=True)
    assert len(str(published())) > 108
    assert isinstance(ask_all(host)[0], Process)


def test_where_there_is_no_way_a_long_path_is_told_and_the_program_runs(
    make_runtime: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: str(path) != "/proc/self/fd" and is_dir(path))
    host = hetero.Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / ("long" * 40))
    runtime = make_runtime(fake("n"), host=host, monitor=True)
    np.testing.assert_array_equal(runtime.load(DOUBLE)(X), 2 * X)
    assert "longer than the 103 bytes" in caplog.text
    assert "fix: set XDG_RUNTIME_DIR or HETERO_CACHE_DIR to a shorter path" in caplog.text


def test_without_unix_sockets_the_log_says_so_and_the_program_runs(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    runtime = make_runtime(fake("n"), monitor=True)
    np.testing.assert_array_equal(runtime.load(DOUBLE)(X), 2 * X)
    assert "no Unix-domain sockets" in caplog.text
    runtime.close()


def test_a_folder_that_others_may_write_to_is_not_used(
    make_runtime: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = hetero.Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path)
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor").chmod(0o777)
    with caplog.at_level(logging.WARNING):
        make_runtime(fake("n"), host=host, monitor=True)
    assert "others may write to it" in caplog.text
    assert publishing.published_at() is None
    assert ask_all(host) == []


def test_a_folder_behind_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "monitor").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="it is no folder"):
        places.make_folder(hetero.Host(environ={}, cache=tmp_path))


# Processes that have ended, and those that answer nonsense


def test_the_socket_of_a_dead_process_is_removed(host: hetero.Host) -> None:
    path = host.cache / "monitor" / name_of(4711)
    leave(path)
    assert path.exists()
    assert ask_all(host) == []
    assert not path.exists()


def test_names_of_other_machines_and_other_files_are_let_be(host: hetero.Host) -> None:
    folder = host.cache / "monitor"
    other = folder / "another.host-17-0123abcd.sock"
    leave(other)
    (folder / "notes.txt").write_text("mine")
    (folder / name_of(18)).write_text("no socket")
    assert ask_all(host) == []
    assert len(list(folder.iterdir())) == 3


def test_a_process_that_is_killed_leaves_nothing_that_is_taken_for_it(tmp_path: Path) -> None:
    code = (
        "import sys, os, hetero\n"
        "rt = hetero.Runtime(plugins=False, monitor=True)\n"
        "print('ready', flush=True); sys.stdin.readline(); os._exit(1)"
    )
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("XDG_RUNTIME_DIR", None)
    host = hetero.Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert [answer.pid for answer in ask_all(host, patience=30)] == [child.pid]
        child.stdin.close()
        child.wait(60)
    assert len(places.sockets(host)) == 1
    assert ask_all(host) == []
    assert places.sockets(host) == []


def test_the_silent_are_waited_for_as_long_as_said_and_no_longer(host: hetero.Host) -> None:
    with answering(host.cache / "monitor" / name_of(4711), close=False):
        assert ask_all(host, patience=0.05) == [
            Silent(4711, "it did not answer within 0.05 s: it is stopped, or very busy")
        ]


def test_a_trickle_does_not_get_around_the_time_limit(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    path = tmp_path / "monitor" / name_of(1)
    with answering(path, b"{" * 10, close=False), pytest.raises(Unavailable, match="did not answer within 2 s"):
        # Each look at the clock finds a second gone, however soon the next piece comes.
        ask(path, 2, clock=lambda: float(next(ticks)))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "broke off before it said anything"),
        (b"hello\n", "is no JSON"),
        (b'{"hetero monitor": 1, "pid": 1', "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[]", "none of hetero's"),
        (b'{"pid": 1}', "none of hetero's"),
        (b'{"hetero monitor": 2, "hetero": "9.0"}', "it speaks format 2 (hetero 9.0), this hetero knows 1"),
        (b'{"hetero monitor": 1, "pid": 1}', "its answer has no 'command'"),
    ],
)
def test_an_answer_that_cannot_be_read_is_told_with_what_is_wrong(host: hetero.Host, answer: bytes, says: str) -> None:
    with answering(host.cache / "monitor" / name_of(4711), answer):
        (silent,) = ask_all(host, patience=30)
    assert isinstance(silent, Silent)
    assert says in silent.reason


def test_an_answer_without_end_is_broken_off(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_LARGEST", 1000)
    with answering(host.cache / "monitor" / name_of(1), b"x" * 5000):
        (silent,) = ask_all(host, patience=30)
    assert isinstance(silent, Silent)
    assert "longer than 1000 bytes" in silent.reason


def test_one_bad_answer_spoils_none_of_the_others(make_runtime: Make, host: hetero.Host) -> None:
    make_runtime(fake("n"), monitor=True)
    with answering(host.cache / "monitor" / name_of(1), b"?"):
        answers = ask_all(host, patience=30)
    assert [type(answer) for answer in answers] == [Silent, Process]


def test_any_part_of_a_true_answer_is_refused(make_runtime: Make) -> None:
    make_runtime(fake("n"), monitor=True)
    publisher = publishing._publisher
    assert publisher is not None
    whole = json.dumps(publisher.document())
    assert process_of(whole.encode()).pid == os.getpid()
    for end in range(0, len(whole) - 1, 7):
        with pytest.raises(InputError):
            process_of(whole[:end].encode())


# Fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_answers_for_itself_and_the_parent_for_itself(tmp_path: Path) -> None:
    code = """
import os, sys
import hetero
from hetero.monitor import publishing
rt = hetero.Runtime(plugins=False, monitor=True)
path = publishing.published_at()
child = os.fork()
if child == 0:
    gone = publishing.published_at() is None
    mine = hetero.Runtime(plugins=False, monitor=True)
    own = publishing.published_at()
    from hetero.monitor.asking import ask
    good = gone and own != path and ask(own, 30).pid == os.getpid() and path.exists()
    mine.close()
    os._exit(0 if good and not own.exists() and path.exists() else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
from hetero.monitor.asking import ask
assert ask(path, 30).pid == os.getpid()
rt.close()
assert not path.exists()
sys.exit(code)
"""
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("XDG_RUNTIME_DIR", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_outlives_its_parent_does_not_keep_its_socket_alive(tmp_path: Path) -> None:
    code = """
import os, sys
import hetero
rt = hetero.Runtime(plugins=False, monitor=True)
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.readline()
    os._exit(0)
os._exit(1)
"""
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("XDG_RUNTIME_DIR", None)
    host = hetero.Host(environ={}, sysroot=tmp_path / "root", cache=tmp_path / "cache")
    command = [sys.executable, "-W", "ignore", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        assert parent.wait(60) == 1
        assert len(places.sockets(host)) == 1
        assert ask_all(host, patience=30) == []


def no(*_: Any) -> None:
    raise AssertionError


def test_asking_costs_requests_nothing_when_nobody_asks(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero.monitor.looking.status_of", no)
    session = make_runtime(fake("n"), monitor=True).load(DOUBLE)
    for _ in range(10):
        session(X)
