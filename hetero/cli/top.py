"""`hetero top`: what running programs do with the devices, live."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import UNWRAPPED, echo_json, plain, terminal
from hetero.errors import Unavailable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hetero.backend import Device, Host
    from hetero.cli.started import Started
    from hetero.cli.viewer import Viewer, Warmth
    from hetero.monitor.asking import Process, Silent
    from hetero.thermal.governor import Governor

# For tests: what the command counts seconds with, and how it lets them pass.
now: Callable[[], float] = time.monotonic
sleep: Callable[[float], object] = time.sleep

HOW = "start it as `hetero top -- python app.py`, with HETERO_MONITOR=1, or make its Runtime(monitor=True)"

_BEHIND = "hetero.cli.top: the command behind --"
_TAIL = 10
_KEPT = 60


class _WithCommand(click.Command):
    """What stands behind `--` is a command line of its own and is not looked at."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = args.index("--") if "--" in args else len(args)
        ctx.meta[_BEHIND] = tuple(args[place + 1 :]) if place < len(args) else None
        return super().parse_args(ctx, args[:place])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] [PID | -- COMMAND...]")


@click.command("top", cls=_WithCommand)
@click.argument("pid", required=False, metavar="PID")
@click.option("--all", "in_full", is_flag=True, help="All of each program, where there are several.")
@click.option("--once", is_flag=True, help="Print one picture and end.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so many seconds.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the output of COMMAND goes. Default: a new file in the folder for temporary ones.",
)
@runtime.machine_options
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context,
    pid: str | None,
    in_full: bool,
    once: bool,
    interval: float,
    seconds: float | None,
    output: Path | None,
    chain: str | None,
    simulate: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show what running programs do: devices, load, heat, queues, throughput, latency, the last fallbacks.

    A program can be looked at when it was started with HETERO_MONITOR=1 or has a Runtime(monitor=True), by the same
    user alone. What is behind `--` is started so, and its exit code is passed on. Where nothing can be looked at,
    the machine's devices are shown with their temperatures.

    Without a terminal, a picture is printed at each interval. --json prints one document, with --seconds one in a line
    at each interval. Ctrl-C ends it.

    \b
        hetero top
        hetero top 4711
        hetero top -- python app.py
        hetero top --json --seconds 60 > minute.jsonl
    """  # noqa: D301
    from hetero.cli.started import Started
    from hetero.cli.viewer import Viewer

    behind = ctx.meta[_BEHIND]
    number = _pid(pid, behind)
    if output is not None and not behind:
        raise click.UsageError("--output is for the output of a COMMAND behind --")
    with runtime.make_runtime(chain=chain, simulate=simulate) as rt:
        host, devices = rt.host, list(rt.devices)
    with ExitStack() as stack:
        started = stack.enter_context(Started(behind, output)) if behind else None
        if started is not None:
            _say(f"{started.command[0]} is process {started.pid}; its output goes to {started.output}")
        viewer = Viewer(host, number, "" if started is None else started.run)
        top = _Top(viewer, _Machine(host, devices), started, number, in_full)
        if as_json:
            _documents(top, interval, seconds)
        elif once:
            top.first(interval)
            _print(top)
        elif terminal().is_interactive:
            _live(top, interval, seconds)
        else:
            _pictures(top, interval, seconds)
        if started is not None:
            ctx.exit(_end(started))
        if top.over:
            _say(f"process {number} has ended")


def _pid(pid: str | None, behind: Sequence[str] | None) -> int | None:
    if behind is not None and not behind:
        raise click.UsageError("there is no COMMAND behind --")
    if pid is None:
        return None
    if behind:
        raise click.UsageError("give a PID, or a COMMAND behind --, not both")
    if not pid.isdecimal():
        raise click.UsageError(f"{pid!r} is no number of a process; a program is started as: hetero top -- {pid} ...")
    return int(pid)


class _Machine:
    """The devices without any program: what their sensors say."""

    def __init__(self, host: Host, devices: Sequence[Device]) -> None:
        self._host = host
        self._devices = devices
        self._governor: Governor | None = None
        self._celsius: dict[str, deque[float | None]] = {device.name: deque(maxlen=_KEPT) for device in devices}

    def look(self) -> list[Warmth]:
        """The heat of each."""
        from hetero.cli.viewer import Warmth
        from hetero.monitor.heat import heat_of
        from hetero.thermal.governor import Governor

        if self._governor is None:
            self._governor = Governor(self._host, self._devices, clock=now)
        self._governor.tick()
        warm = []
        for device in self._devices:
            heat = heat_of(self._governor, device.name)
            if heat is not None:
                celsius = self._celsius[device.name]
                celsius.append(heat.celsius)
                warm.append(Warmth(device.name, device.simulated, heat, tuple(celsius)))
        return warm


class _Top:
    """What is shown, look by look.

    Attributes:
        answers: Of the last look.
        over: There is nothing more to look at.
        anew: The last look has shown something new.
    """

    def __init__(
        self, viewer: Viewer, machine: _Machine, started: Started | None, pid: int | None, in_full: bool
    ) -> None:
        self.answers: list[Process | Silent] = []
        self._whole: list[Process | Silent] = []
        self.over = False
        self.anew = True
        self._viewer = viewer
        self._machine = machine
        self._started = started
        self._pid = pid
        self._in_full = in_full
        self._seen = False

    def look(self) -> None:
        """Ask anew.

        Raises:
            Unavailable: The process that was asked for cannot be looked at.
        """
        from hetero.monitor.asking import Process

        # First, so that a program that ends after its answer is not taken for one that has none.
        ended = self._started is not None and self._started.code is not None
        answers = self._viewer.look()
        self.over = ended or (self._pid is not None and self._seen and not answers)
        if self._pid is not None and not answers and not self._seen:
            raise Unavailable(f"process {self._pid} cannot be looked at, or is not there", fix=HOW)
        self.anew = bool(answers) or not self.over or not self._seen
        # One that ended in the middle of its last answer is remembered by the answer before.
        self.answers = answers if self.anew else self._whole or self.answers
        if any(isinstance(answer, Process) for answer in answers):
            self._whole = answers
        self._seen = self._seen or bool(answers)

    def first(self, interval: float) -> None:
        """Look, and wait until a program that was started here can be looked at, or has ended."""
        self.look()
        while self._started is not None and not self.answers and not self.over:
            sleep(min(interval, 0.2))
            self.look()

    def picture(self, width: int, ascii_only: bool = False) -> RenderableType:
        """What was seen last."""
        from rich.console import Group
        from rich.text import Text

        from hetero.cli.panels import Panels
        from hetero.monitor.asking import Process

        panels = Panels(width, ascii_only)
        parts: list[RenderableType] = []
        processes = [answer for answer in self.answers if isinstance(answer, Process)]
        if len(self.answers) > 1:
            parts.append(panels.overview(self.answers, self._viewer))
            if not self._in_full:
                parts += [Text(), Text("one of them: hetero top PID; all of each: --all", "dim")]
        elif self.answers and not processes:
            parts.append(panels.overview(self.answers, self._viewer))
        if len(self.answers) == 1 or self._in_full:
            for process in processes:
                parts += [*([Text()] if parts else []), panels.process(process, self._viewer)]
        if not self.answers:
            parts += [panels.machine(self._machine.look()), Text(), Text(self._why_nothing())]
        if self._started is not None:
            parts += [Text(), *(Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in self._output())]
        return Group(*parts)

    def document(self) -> dict[str, Any]:
        """What was seen last, as JSON-ready values."""
        from hetero.monitor.asking import Process, Silent
        from hetero.monitor.forms import to_json

        return {
            "processes": [to_json(answer) for answer in self.answers if isinstance(answer, Process)],
            "silent": [to_json(answer) for answer in self.answers if isinstance(answer, Silent)],
            "machine": None if self.answers else self._machine_document(),
        }

    def _machine_document(self) -> list[dict[str, Any]]:
        return [
            {"device": each.device, "simulated": each.simulated, "heat": plain(each.heat)}
            for each in self._machine.look()
        ]

    def _why_nothing(self) -> str:
        if self._started is None:
            return f"no program can be looked at; {HOW}"
        if self._started.code is not None:
            return f"{self._started.command[0]} has ended and had no Runtime that could be looked at"
        return f"{self._started.command[0]} has no Runtime so far"

    def _output(self) -> list[str]:
        assert self._started is not None
        return [f"output, in {self._started.output}:", *self._started.tail(3)]


def _documents(top: _Top, interval: float, seconds: float | None) -> None:
    if seconds is None:
        top.first(interval)
        echo_json(top.document())
        return
    for _ in _looks(top, interval, seconds):
        click.echo(json.dumps(top.document(), allow_nan=False))


def _pictures(top: _Top, interval: float, seconds: float | None) -> None:
    for number, _ in enumerate(_looks(top, interval, seconds)):
        click.echo(("\n" if number else "") + time.strftime("%H:%M:%S"))
        _print(top)


def _live(top: _Top, interval: float, seconds: float | None) -> None:
    from rich.live import Live

    from hetero.cli.panels import ascii_only

    console = terminal()

    def picture() -> RenderableType:
        return top.picture(console.width, ascii_only(console))

    try:
        # A screen of its own: what was on the terminal is there again afterwards, and the last picture below it.
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            for _ in _looks(top, interval, seconds):
                live.update(picture(), refresh=True)
    finally:
        if top.answers:
            console.print(picture())


def _looks(top: _Top, interval: float, seconds: float | None) -> Iterator[None]:
    """Once for each look that shows something new, until the seconds have passed or nothing is left to look at."""
    begun = now()
    while True:
        top.look()
        if top.anew:
            yield
        if top.over or (seconds is not None and now() - begun + interval > seconds):
            return
        sleep(interval)


def _print(top: _Top) -> None:
    from hetero.cli.panels import ascii_only

    console = terminal()
    if not console.is_terminal:
        console.width = UNWRAPPED
    with console.capture() as captured:
        console.print(top.picture(console.width, ascii_only(console)))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _end(started: Started) -> int:
    """Wait for what was started; what it said last is told where it has failed."""
    code = started.wait()
    _say(f"{started.command[0]} has ended with {code}; its output is in {started.output}")
    if code:
        for line in started.tail(_TAIL):
            _say(f"  {line}")
    return code


def _say(text: str) -> None:
    click.echo(text, err=True)
