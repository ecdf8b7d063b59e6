"""`hetero top`: what it shows of scripted programs, on a clock of the test's, and of a real one that it starts."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

import hetero
from hetero.cli import console, panels, top, viewer
from hetero.cli.fitting import Column, fitted
from hetero.cli.panels import Panels, decisions_told, fallbacks_told
from hetero.cli.sparkline import sparkline
from hetero.cli.started import Started
from hetero.cli.viewer import KEPT, Viewer
from hetero.errors import InputError
from hetero.memory.statistics import PoolStatistics
from hetero.monitor.asking import Process, Silent
from hetero.monitor.status import (
    CandidateStatus,
    DeviceStatus,
    FallbackStatus,
    GovernorStatus,
    HeatDecision,
    HeatEvent,
    HeatStatus,
    RuntimeStatus,
    SessionStatus,
)
from hetero.testing.thermal.machine import ThermalMachine
from tests.cli.backends import reference
from tests.cli.conftest import Line

Answers = list[Process | Silent]

HOT = HeatStatus(84.2, "npu-thermal", True, "hot", 0.3, -0.25, 0.3, "84.2 C, and little runs")
FALLBACK = FallbackStatus(12.0, "encoder", "cpu", False, ("rknn: run failed: DeviceLost: it was reset",), "")
DECISION = HeatDecision(3.0, "encoder", "rknn", "pace", "", 0.25, "84.2 C (npu-thermal)")


def session(ended: int = 10, **changes: Any) -> SessionStatus:
    candidates = (CandidateStatus("rknn", True, "ready", "", 0.0, 3, 2, 9),)
    values: dict[str, Any] = {"policy": "chain", "fallback": "allow", "device": "rknn", "waiting": 4, "failed": 0}
    values |= {"cancelled": 0, "too_late": 0, "fell_back": 1, "heated": 2, "seconds": 5.0, "per_second": 2.0}
    values |= {"latency": 0.0125, "latency_95": 0.05, "wait": 0.001, "candidates": candidates}
    return SessionStatus(**{"number": 1, "program": "encoder", "ended": ended, **values, **changes})


def device(name: str = "rknn", **changes: Any) -> DeviceStatus:
    values: dict[str, Any] = {"backend": name, "kind": "npu", "description": "", "simulated": True, "lanes": 3}
    values |= {"busy": 2, "load": 0.5, "state": "ok", "reason": "", "retry_in": 0.0, "heat": HOT}
    return DeviceStatus(**{"name": name, **values, **changes})


def runtime(age: float = 10.0, ended: int = 10, **changes: Any) -> RuntimeStatus:
    pool = PoolStatistics("host", 4096, 1 << 20, 1 << 20, None, 1, 9, 1)
    governor = GovernorStatus("default", "auto", (HeatEvent(20.0, "rknn: warn -> hot: 84.2 C"),))
    values: dict[str, Any] = {"devices": (device(),), "absent": (), "sessions": (session(ended),), "memory": (pool,)}
    values |= {"governor": governor, "fallbacks": (FALLBACK,), "heat": (DECISION,), "closed": ""}
    return RuntimeStatus(**{"number": 1, "at": 0.0, "age": age, **values, **changes})


def process(pid: int = 4711, *runtimes: RuntimeStatus) -> Process:
    return Process(pid, ("python", "serve it.py"), "0.1.0", "", 1000.0, runtimes or (runtime(),))


class Programs:
    """What is answered, look by look; the last answers stay. Time passes when the command sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[Answers] = [[]]
        self.seconds = 0.0
        self.asked: list[int | None] = []
        self.sleeping: Callable[[], None] = lambda: None
        ask_all = self._answer
        made = Viewer
        monkeypatch.setattr(viewer, "Viewer", lambda *args: made(*args, ask=ask_all))
        monkeypatch.setattr(top, "now", lambda: self.seconds)
        monkeypatch.setattr(top, "sleep", self._sleep)
        monkeypatch.setattr(panels, "wall", lambda: 1192.0)

    def _answer(self, host: object, pid: int | None, patience: float) -> Sequence[Process | Silent]:
        self.asked.append(pid)
        answers = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return [answer for answer in answers if pid in (None, answer.pid)]

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.sleeping()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(monkeypatch)


def drawn(what: Any, width: int, ascii_only: bool = False) -> list[str]:
    out = Console(file=io.StringIO(), width=width, force_terminal=False)
    with out.capture() as captured:
        out.print(what)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert max(map(len, lines), default=0) <= width
    return lines


# One program


def test_one_program_is_shown_in_full(line: Line, programs: Programs) -> None:
    programs.looks = [[process()]]
    text = line("top", "--once").stdout
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert text.startswith("pid 4711  up 03:12  python 'serve it.py'")
    assert rows[2] == "device kind lanes load temp heat duty tokens health"
    assert rows[3] == "rknn (simulated) npu 2/3 50% ▅ 84.2 C ▅ hot 30% -0.25 s ok; 84.2 C, and little runs"
    assert "simulated devices: their times and temperatures are modelled" in text
    start = text.splitlines().index(next(row for row in text.splitlines() if row.startswith("program")))
    assert rows[start + 1] == "encoder chain rknn 4 2.0 █ 12.5 ms 50.0 ms 1.00 ms 10 1 0 2 rknn 9"
    assert rows[start + 4] == "host 4.1 kB 1.0 MB 1.0 MB none 90%"
    assert "heat (profile default, when hot: auto)\n  20 s ago  rknn: warn -> hot: 84.2 C" in text
    assert "3 s ago  encoder on rknn: paced, held back for 250 ms at most: 84.2 C (npu-thermal)" in text
    assert "12 s ago  encoder: rknn: run failed: DeviceLost: it was reset; answered by cpu" in text


def test_a_device_that_is_set_aside_says_why_and_when_it_is_asked_again(line: Line, programs: Programs) -> None:
    ill = device(state="set aside", reason="DeviceLost: it was reset", retry_in=3.2, heat=None)
    programs.looks = [[process(1, runtime(devices=(ill,)))]]
    assert "set aside, asked again in 3 s: DeviceLost: it was reset" in line("top", "--once").stdout


def test_several_runtimes_of_a_program_are_told_apart(line: Line, programs: Programs) -> None:
    programs.looks = [[process(1, runtime(number=3), runtime(number=5))]]
    text = line("top", "--once").stdout
    assert "Runtime 3" in text
    assert "Runtime 5" in text


def test_it_fits_any_width_and_keeps_what_matters_most() -> None:
    looking = Viewer(hetero.Host(environ={}), ask=lambda *_: [process()])
    looking.look()
    before: set[str] = set()
    for width in range(20, 200, 5):
        lines = drawn(Panels(width).process(process(), looking), width)
        headings = {word for line in (lines[2], lines[6]) for word in line.split()} if width >= 50 else set()
        assert before <= headings
        before = headings
        if width >= 50:
            assert {"device", "lanes", "load", "health", "queue", "per"} <= headings
    assert {"tokens", "duty", "temp", "waits", "kind"} <= before


def test_on_a_terminal_without_bars_there_are_none() -> None:
    looking = Viewer(hetero.Host(environ={}), ask=lambda *_: [process()])
    looking.look()
    with_bars = "\n".join(drawn(Panels(100).process(process(), looking), 100))
    without = "\n".join(drawn(Panels(100, ascii_only=True).process(process(), looking), 100))
    assert not with_bars.isascii()
    assert without.isascii()


# Several, none, one that is gone


def test_of_several_programs_there_is_a_table_and_on_demand_all(line: Line, programs: Programs) -> None:
    programs.looks = [[process(1), process(2, runtime(devices=(device(state="degraded"),))), Silent(3, "it is busy")]]
    text = line("top", "--once").stdout
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert rows[0] == "pid up busy queue per s hottest failed fell back health command"
    assert rows[1] == "1 03:12 2/3 4 2.0 █ 84.2 C 0 1 ok python 'serve it.py'"
    assert rows[2] == "2 03:12 2/3 4 2.0 █ 84.2 C 0 1 rknn degraded python 'serve it.py'"
    assert rows[3] == "3: it is busy"
    assert "hetero top PID" in text
    assert line("top", "--once", "--all").stdout.count("last fallbacks") == 2


def test_one_of_several_is_asked_for_by_its_number(line: Line, programs: Programs) -> None:
    programs.looks = [[process(1), process(2)]]
    assert line("top", 2, "--once").stdout.startswith("pid 2 ")
    assert programs.asked == [2]


def test_a_number_that_cannot_be_looked_at_is_not_available(line: Line, programs: Programs) -> None:
    said = line.refuses("top", 99, "--once", code=3, says="process 99 cannot be looked at, or is not there")
    assert "fix: start it as `hetero top -- python app.py`, with HETERO_MONITOR=1" in said


def test_without_a_program_the_machine_is_shown_and_how_a_program_shows_itself(
    line: Line, programs: Programs, tmp_path: Path
) -> None:
    machine = ThermalMachine(tmp_path / "root", "rk3588")
    machine.sysroot.show({0: 81.25, 1: 70.0, 2: 72.0, 3: 75.0})
    line.backends = [reference("rknn", "npu", lanes=3), reference("cpu")]
    result = line("top", "--once")
    assert result.exit_code == 0, result.output
    text = result.stdout
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert rows[0] == "device temp heat duty tokens in use sensor why"
    assert re.match(r"rknn 81\.2 C ▅ warn \d+% 1\.50 s ", rows[1])
    assert "no program can be looked at; start it as `hetero top -- python app.py`, with HETERO_MONITOR=1" in text
    (npu, cpu) = line.json("top")["machine"]
    assert (npu["device"], npu["heat"]["celsius"], cpu["heat"]["celsius"]) == ("rknn", 81.25, 72.0)


def test_a_program_that_ends_meanwhile_is_the_end_when_it_was_asked_for(line: Line, programs: Programs) -> None:
    programs.looks = [[process(5)], [process(5)], []]
    result = line("top", 5)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("pid 5 ") == 2
    assert result.stderr == "process 5 has ended\n"


def test_a_program_that_ends_in_its_answer_leaves_the_picture_of_before(line: Line, programs: Programs) -> None:
    programs.looks = [[process(5)], [Silent(5, "it broke off before it said anything")], []]
    looking = Viewer(hetero.Host(environ={}), ask=programs._answer)
    shown = top._Top(looking, None, None, 5, False)  # type: ignore[arg-type]
    for _ in range(3):
        shown.look()
    assert shown.over
    assert [type(answer) for answer in shown.answers] == [Process]


def test_when_all_programs_have_ended_the_machine_is_shown_until_there_is_another(
    line: Line, programs: Programs
) -> None:
    programs.looks = [[process(5)], [], [process(6)]]
    pictures = line("top", "--seconds", 2).stdout.split("\n\n")
    text = "\n".join(pictures)
    assert text.index("pid 5 ") < text.index("no program can be looked at") < text.index("pid 6 ")


# How often, how long, for whom


def test_without_a_terminal_a_picture_is_printed_at_each_interval(line: Line, programs: Programs) -> None:
    programs.looks = [[process()]]
    result = line("top", "--interval", 0.5, "--seconds", 2)
    assert result.stdout.count("pid 4711") == 5
    assert programs.seconds == 2.0
    assert "\x1b" not in result.stdout


def test_ctrl_c_ends_it_without_a_traceback(line: Line, programs: Programs) -> None:
    def interrupt() -> None:
        if programs.seconds >= 3:
            raise KeyboardInterrupt

    programs.looks, programs.sleeping = [[process()]], interrupt
    result = line("top")
    assert result.exit_code == 130
    assert result.stdout.count("pid 4711") == 3
    assert result.stderr.strip() == "interrupted"


def test_on_a_terminal_it_is_drawn_on_a_screen_of_its_own_and_the_last_picture_stays(
    line: Line, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    terminal = Console(file=out, width=90, height=40, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(top, "terminal", lambda: terminal)
    programs.looks = [[process()]]
    assert line("top", "--seconds", 2).exit_code == 0
    live, after = out.getvalue().split("\x1b[?1049l")
    assert live.startswith("\x1b[?1049h")
    assert live.count("pid 4711") == 3
    assert after.count("pid 4711") == 1


def test_json_is_one_document_with_all_that_is_known(line: Line, programs: Programs) -> None:
    programs.looks = [[process(), Silent(3, "it is busy")]]
    document = line.json("top")
    assert list(document) == ["processes", "silent", "machine"]
    assert document["silent"] == [{"pid": 3, "reason": "it is busy"}]
    assert document["machine"] is None
    (told,) = document["processes"]
    assert told["runtimes"][0] == runtime().to_dict()


def test_json_with_seconds_is_a_document_in_a_line_at_each_interval(line: Line, programs: Programs) -> None:
    programs.looks = [[process(1, runtime(ended=ended))] for ended in (1, 2, 3)]
    lines = line("top", "--json", "--seconds", 2).stdout.splitlines()
    documents = [json.loads(text) for text in lines]
    assert [each["processes"][0]["runtimes"][0]["sessions"][0]["ended"] for each in documents] == [1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("python", "app.py"), "Got unexpected extra argument"),
        (("python",), "a program is started as: hetero top -- python ..."),
        (("-5",), "No such option"),
        (("--",), "there is no COMMAND behind --"),
        (("5", "--", "true"), "give a PID, or a COMMAND behind --, not both"),
        (("--output", "x.log"), "--output is for the output of a COMMAND"),
        (("--interval", "0"), "--interval"),
    ],
)
def test_wrong_usage_is_told(line: Line, programs: Programs, arguments: tuple[str, ...], says: str) -> None:
    line.refuses("top", *arguments, says=says)


# From look to look


def test_throughput_is_what_was_done_between_two_looks() -> None:
    looks = [[process(1, runtime(age=age, ended=ended))] for age, ended in ((10, 100), (12, 160), (13, 160))]
    looking = Viewer(hetero.Host(environ={}), ask=lambda *_: looks.pop(0))
    for _ in range(3):
        (answer,) = looking.look()
    assert isinstance(answer, Process)
    history = looking.history(answer, answer.runtimes[0])
    # What the program itself says of its last seconds stands in for the first.
    assert list(history.rates[1]) == [2.0, 30.0, 0.0]
    assert list(history.celsius["rknn"]) == [84.2] * 3


def test_what_is_remembered_is_bounded_and_goes_with_its_program() -> None:
    alive: list[Answers] = [[process(1), process(2)]]
    looking = Viewer(hetero.Host(environ={}), ask=lambda *_: alive[0])
    for _ in range(KEPT + 5):
        looking.look()
    assert {len(history.loads["rknn"]) for history in looking.histories.values()} == {KEPT}
    alive[0] = [process(1), Silent(2, "busy")]
    looking.look()
    assert {key[0] for key in looking.histories} == {1, 2}
    alive[0] = [process(1)]
    looking.look()
    assert {key[0] for key in looking.histories} == {1}


def test_it_does_not_show_itself(programs: Programs) -> None:
    looking = Viewer(hetero.Host(environ={}), ask=lambda *_: [process(os.getpid()), process(1)])
    assert [answer.pid for answer in looking.look()] == [1]


# Words


def test_alike_fallbacks_are_told_once_with_their_number() -> None:
    other = FallbackStatus(70.0, "encoder", None, False, ("cpu: run failed: x",), "AllDevicesFailed: none")
    newer = FallbackStatus(2.0, *list(vars(FALLBACK).values())[1:])
    assert fallbacks_told([other, FALLBACK, newer]) == [
        "2 s ago  2 times, encoder: rknn: run failed: DeviceLost: it was reset; answered by cpu",
        "1 min ago  encoder: cpu: run failed: x; AllDevicesFailed: none",
    ]


def test_alike_decisions_are_told_once_with_the_longest_wait() -> None:
    steered = HeatDecision(9.0, "encoder", "rknn", "steer", "cpu", None, "84 C; cpu takes fewer joules")
    longer = HeatDecision(5.0, "encoder", "rknn", "pace", "", 0.5, "an older reason")
    assert decisions_told([steered, longer, DECISION]) == [
        "3 s ago  2 times, encoder on rknn: paced, held back for 500 ms at most: 84.2 C (npu-thermal)",
        "9 s ago  encoder on rknn: sent to cpu: 84 C; cpu takes fewer joules",
    ]


def test_bars_go_from_the_least_to_the_greatest_and_leave_gaps() -> None:
    assert sparkline([0, 1, None, 4, 8, 99], width=9, low=0, high=8) == "▁▂ ▅██"
    assert sparkline([1, 2, 3], width=2, low=0, high=3, ascii_only=True).isascii()
    assert sparkline([5, 5], width=4, low=5, high=5) == "▁▁"
    assert sparkline([], width=4, low=0, high=1) == ""


def test_columns_of_the_highest_rank_give_way_first_and_empty_ones_at_once() -> None:
    columns = (Column("a"), Column("b", 2), Column("c", 1), Column("e", 1), Column("d", elastic=True))
    row = {"a": Text("aaaa"), "b": Text("bbbb"), "c": Text("cccc"), "d": Text("d" * 30), "e": Text("")}
    assert drawn(fitted(columns, [row], 60), 60)[1] == "aaaa  bbbb  cccc  " + "d" * 30
    assert drawn(fitted(columns, [row], 40), 40)[1] == "aaaa  bbbb  cccc  " + "d" * 21 + "…"
    assert drawn(fitted(columns, [row], 35), 35)[1] == "aaaa  cccc  " + "d" * 22 + "…"
    assert drawn(fitted(columns, [row], 31), 31)[1] == "aaaa  " + "d" * 24 + "…"
    assert drawn(fitted(columns, [row], 18), 18)[1] == "aaaa  " + "d" * 11 + "…"


# A command that is started


PROGRAM = """
import sys
import numpy as np
import hetero
from hetero.tensors import TensorSpec
sys.path.insert(0, {root!r})
from tests.fakes import DOUBLE, fake
rt = hetero.Runtime(backends=[fake("npu", lanes=2, simulated=True), fake("cpu", kind="cpu")], plugins=False)
session = rt.load(DOUBLE)
for _ in range(7):
    session(np.ones(3, np.float32))
print("worked", flush=True)
{end}
"""


def started(tmp_path: Path, end: str, *options: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(root=root, end=end))
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("XDG_RUNTIME_DIR", None)
    command = [sys.executable, "-m", "hetero", "top", *options, "--output", str(tmp_path / "out.log")]
    return subprocess.run(
        [*command, "--", sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


# Goes on until its socket is asked anew: an answer in which all its work is done has arrived by then.
ASKED = """
import threading
from hetero.monitor import publishing
asked = threading.Semaphore(0)
document = publishing.Publisher.document
publishing.Publisher.document = lambda publisher: (document(publisher), asked.release())[0]
asked.acquire(timeout=60) and asked.acquire(timeout=60)
rt.close()
"""


def test_a_started_program_is_shown_its_output_kept_apart_and_its_exit_code_passed_on(tmp_path: Path) -> None:
    done = started(tmp_path, ASKED + "sys.exit(3)", "--json", "--seconds", "60", "--interval", "0.1")
    assert done.returncode == 3, done.stderr
    documents = [json.loads(text) for text in done.stdout.splitlines()]
    sessions = [
        session
        for document in documents
        for answer in document["processes"]
        for runtime in answer["runtimes"]
        for session in runtime["sessions"]
    ]
    assert (sessions[-1]["program"], sessions[-1]["ended"]) == ("double", 7)
    assert (tmp_path / "out.log").read_text() == "worked\n"
    assert f"its output goes to {tmp_path / 'out.log'}" in done.stderr
    assert "has ended with 3" in done.stderr
    assert "  worked" in done.stderr


def test_a_started_program_that_ends_at_once_leaves_its_exit_code(tmp_path: Path) -> None:
    done = started(tmp_path, "rt.close(); sys.exit(0)", "--once")
    assert done.returncode == 0, done.stderr
    assert "has ended with 0" in done.stderr


def test_a_program_without_a_runtime_is_told(line: Line, tmp_path: Path) -> None:
    result = line("top", "--once", "--output", tmp_path / "log", "--", sys.executable, "-c", "print('nothing here')")
    assert result.exit_code == 0, result.output
    assert "has ended and had no Runtime that could be looked at" in result.stdout
    assert (tmp_path / "log").read_text() == "nothing here\n"


def test_what_looks_like_our_options_behind_the_dashes_is_the_programs(line: Line, tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:])"
    arguments = ("--", sys.executable, "-c", code, "--json", "--", "-x")
    assert line("top", "--once", "--output", tmp_path / "log", *arguments).exit_code == 0
    assert (tmp_path / "log").read_text() == "['--json', '--', '-x']\n"


def test_a_program_that_is_not_there_is_told_and_leaves_no_file(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line.refuses("top", "--", "no-such-program", says="'no-such-program' cannot be started: No such file")
    assert list(tmp_path.glob("hetero-top-*")) == []
    line.refuses("top", "--output", tmp_path / "no" / "log", "--", "true", says="cannot be written to")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_an_interruption_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    code = (
        "import time\ntry:\n  print('ready', flush=True); time.sleep(600)\nexcept KeyboardInterrupt:\n  print('tidy')"
    )
    log = tmp_path / "log"
    program = Started((sys.executable, "-c", code), log)

    def interrupted() -> None:
        with program:
            while "ready" not in program.tail(1):
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert program.code == 0
    assert log.read_text() == "ready\ntidy\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_program_that_a_signal_ends_has_the_code_that_a_shell_gives_it(tmp_path: Path) -> None:
    with Started((sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"), tmp_path / "log") as program:
        assert program.wait() == 128 + 15


def test_a_started_program_is_told_to_show_itself(tmp_path: Path) -> None:
    code = "import os; print(os.environ['HETERO_MONITOR'], os.environ['HETERO_MONITOR_RUN'])"
    with Started((sys.executable, "-c", code), tmp_path / "log") as program:
        assert program.wait() == 0
        assert program.tail(1) == [f"1 {program.run}"]
    with pytest.raises(InputError):
        Started(("no-such-program",), tmp_path / "log")


def test_a_json_call_of_it_imports_no_rich(tmp_path: Path) -> None:
    code = (
        "import sys; from hetero.cli.root import cli; cli.main(['top', '--json'], standalone_mode=False)\n"
        "print('rich' in sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "HETERO_CACHE_DIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, check=True
    )
    assert done.stderr.splitlines()[-1] == "False"
    assert console.UNWRAPPED > 1000
