"""`hetero thermal`: how warm the devices are, what the kernel and hetero do about it, and recordings of both."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, marked, plain, terminal
from hetero.energy.choice import sources_of
from hetero.errors import InputError
from hetero.monitor.heat import heat_of

if TYPE_CHECKING:
    from hetero.backend import Device, Host
    from hetero.monitor.status import HeatStatus
    from hetero.thermal.governor import Governor
    from hetero.thermal.recording import Step

_COLUMNS = ("device", "temperature", "state", "duty", "tokens", "in use", "sensor", "why")

# For tests: what the commands count seconds with, and how they let them pass.
clock: Callable[[], float] = time.monotonic
sleep: Callable[[float], object] = time.sleep


_KEPT = 60

_UNTOLD = " (Rockchip's own kernel caps its clock from 85 C without one)"

_KINDS_OF_WORK = "Kind of work: default, llm_inference, continuous_audio, burst, battery."
_THRESHOLD = "A threshold: npu.maximum=80; may be repeated."


def _profile_options(command: Any) -> Any:
    """`--profile`, `--law`, `--limit`."""
    profile = click.option("--profile", default="default", show_default=True, metavar="NAME", help=_KINDS_OF_WORK)
    law = click.option("--law", default="budget", show_default=True, metavar="NAME", help="budget or tokens.")
    limit = click.option("--limit", "limits", multiple=True, metavar="KIND.NAME=C", help=_THRESHOLD)
    return profile(law(limit(command)))


@click.group("thermal", invoke_without_command=True)
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option(
    "--explain", is_flag=True, help="Also say which sensors there are, which counts, and what the kernel does."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="Go on for so many seconds, also without a terminal.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks."
)
@_profile_options
@runtime.machine_options
@click.option("--sysroot", type=click.Path(path_type=Path), help="Look at another root of /sys and /proc (a copy).")
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context,
    once: bool,
    explain: bool,
    seconds: float | None,
    interval: float,
    profile: str,
    law: str,
    limits: tuple[str, ...],
    chain: str | None,
    simulate: tuple[str, ...],
    sysroot: Path | None,
    as_json: bool,
) -> None:
    """Show how warm the devices are and how much work each may be given.

    On a terminal and without --once the table is live, until Ctrl-C. With --seconds a table is printed at each interval
    without a terminal too, and with --json a document in a line.

    This looks and decides, and changes nothing: what the governor of a running program does is shown by `hetero top`.
    """
    host, devices = _machine(chain, simulate, sysroot)
    ctx.obj = (host, devices)
    if ctx.invoked_subcommand is not None:
        return
    governor = _governor(host, devices, profile, law, limits)
    if once:
        seconds = 0.0
    if as_json and seconds is None:
        governor.tick()
        echo_json(_document(governor, devices, explain, host.sysroot))
    elif as_json:
        for _ in _looks(governor, interval, seconds):
            click.echo(json.dumps(plain(_document(governor, devices, explain, host.sysroot)), allow_nan=False))
    elif explain or seconds == 0 or not terminal().is_interactive:
        for number, _ in enumerate(_looks(governor, interval, seconds or 0.0)):
            click.echo("\n" if number else "", nl=False)
            _echo_once(governor, devices, explain, host.sysroot)
    else:
        _live(governor, devices, interval, seconds)


@command.command("record")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=click.FloatRange(min=1), default=60.0, show_default=True, help="For how long.")
@_profile_options
@click.pass_obj
def record(
    obj: tuple[Host, list[Device]], file: Path, seconds: float, profile: str, law: str, limits: tuple[str, ...]
) -> None:
    """Write down what the sensors say and what would be granted, a line of JSON each second."""
    from hetero.thermal.recording import Recorder

    host, devices = obj
    governor = _governor(host, devices, profile, law, limits)
    begun, ticks = clock(), 0
    with file.open("w", encoding="utf-8") as out:
        recorder = Recorder(out, governor, {device.name: device for device in devices})
        while True:
            recorder.write(clock() - begun, governor.tick())
            ticks += 1
            left = begun + ticks - clock()
            if clock() - begun + max(0.0, left) >= seconds:
                break
            sleep(max(0.0, left))
    click.echo(f"{file}: {ticks} samples of {', '.join(device.name for device in devices) or 'no device'}")


@command.command("replay")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_profile_options
@runtime.json_option
def replay(file: Path, profile: str, law: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Take a recording through the governor: what it would have done at these temperatures.

    What it would have done would have changed the temperatures after it; a recording's stay as they are.
    """
    from hetero.thermal.profiles import profile_named
    from hetero.thermal.recording import replay as steps_of

    chosen = profile_named(profile)
    changes = _parsed(limits)
    by_kind = {kind: chosen.limits_of(kind).with_(changes[kind]) for kind in ("npu", "gpu", "cpu") if kind in changes}
    unknown = [name for name in changes if name not in by_kind]
    if unknown:
        raise click.UsageError(f"--limit of a recording is by kind (npu, gpu, cpu), not by {unknown[0]!r}")
    steps = list(steps_of(file, chosen, law, by_kind))
    if not steps:
        raise InputError(
            f"{file} holds no sample", fix="record for longer: hetero thermal record --seconds 60 FILE.jsonl"
        )
    if as_json:
        echo_json([_step_dict(step) for step in steps])
        return
    changes_of = _turns(steps)
    rows = [
        (f"{step.at:.0f}", step.device, str(step.reading), step.now.state, f"{step.now.duty:.0%}", step.now.why)
        for step in changes_of
    ]
    echo_table(("second", "device", "temperature", "state", "duty", "why"), rows)
    for name in dict.fromkeys(step.device for step in steps):
        own = [step for step in steps if step.device == name]
        mean = sum(step.now.duty for step in own) / len(own)
        paced = sum(step.now.paced for step in own)
        click.echo(f"{name}: {len(own)} samples, {mean:.0%} of full work granted, less than full in {paced} of them")


def _machine(chain: str | None, simulate: tuple[str, ...], sysroot: Path | None) -> tuple[Host, list[Device]]:
    from dataclasses import replace

    with runtime.make_runtime(chain=chain, simulate=simulate) as rt:
        if sysroot is None:
            return rt.host, list(rt.devices)
        return replace(rt.host, sysroot=sysroot), _stand_ins()


def _stand_ins() -> list[Device]:
    """For another machine's files: this machine's devices are not there, so one of each kind is supposed."""
    from hetero.backend import Device

    return [Device("npu", "npu"), Device("gpu", "gpu"), Device("cpu", "cpu")]


def _governor(host: Host, devices: Sequence[Device], profile: str, law: str, limits: tuple[str, ...]) -> Governor:
    from hetero.thermal.governor import Governor

    return Governor(host, devices, profile=profile, law=law, limits=_parsed(limits), clock=clock)


def _parsed(limits: tuple[str, ...]) -> dict[str, dict[str, float]]:
    parsed: dict[str, dict[str, float]] = {}
    for text in limits:
        place, equals, value = text.partition("=")
        owner, dot, name = place.strip().rpartition(".")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not (equals and dot and owner and name):
            raise click.UsageError(f"--limit {text!r} is not of the form KIND.NAME=DEGREES, as in npu.maximum=80")
        parsed.setdefault(owner, {})[name] = number
    return parsed


def _rows(governor: Governor, devices: Sequence[Device]) -> list[tuple[str, ...]]:
    return [_row(device, heat) for device in devices if (heat := heat_of(governor, device.name)) is not None]


def _row(device: Device, heat: HeatStatus) -> tuple[str, ...]:
    from hetero.cli.panels import lane_seconds, sensor_of

    celsius = "unknown" if heat.celsius is None else f"{heat.celsius:.1f} C"
    name, used = marked(device.name, device.simulated), "-" if heat.used is None else f"{heat.used:.0%}"
    tokens = lane_seconds(heat.tokens)
    return (name, celsius, heat.state, f"{heat.duty:.0%}", tokens, used, sensor_of(heat), heat.why)


def _echo_once(governor: Governor, devices: Sequence[Device], explain: bool, sysroot: Path) -> None:
    echo_table(_COLUMNS, _rows(governor, devices))
    if not governor.sensors:
        click.echo("\nthis machine shows no temperature of an NPU, a GPU or a CPU;")
        click.echo("a Runtime can only guess at heat, from how long calls take")
    if not explain:
        return
    power = governor.power
    click.echo(f"\npower: {power.source}; platform profile: {power.platform_profile or 'none'}")
    for device in devices:
        limits = governor.limits(device.name)
        click.echo(
            f"\n{device.name}: warn {limits.warn:g} C, maximum {limits.maximum:g} C, stop {limits.stop:g} C, "
            f"cool again below {limits.resume:g} C; {governor.tokens(device.name):.2f} lane-seconds to spend"
        )
        for sensor, said in governor.voices(device.name):
            click.echo(f"  {sensor.name}: {said}")
    click.echo("\nwhat the kernel does by itself:")
    told = [f"  {sensor.name}: {trip}" for sensor in governor.sensors for trip in sensor.trips]
    click.echo("\n".join(told) or "  nothing that it tells of")
    npu = any(trip.cools and "npu" in " ".join(trip.cools) for sensor in governor.sensors for trip in sensor.trips)
    if any(device.kind == "npu" for device in devices) and not npu and governor.sensors:
        click.echo(f"  no trip point slows an NPU down{_UNTOLD if _is_board(governor) else ''}")
    click.echo("\nwhat on_hot='auto' compares, joules of an item:")
    for name, said in sources_of(devices, sysroot).items():
        click.echo(f"  {name}: {said}")


def _is_board(governor: Governor) -> bool:
    """Zones of Rockchip's boards were found."""
    return any(sensor.name in ("npu-thermal", "soc-thermal", "package-thermal") for sensor in governor.sensors)


def _document(governor: Governor, devices: Sequence[Device], explain: bool, sysroot: Path) -> dict[str, Any]:
    document = governor.to_dict()
    if explain:
        power = governor.power
        document["power"] = {"source": power.source, "platform_profile": power.platform_profile}
        document["sensors"] = [
            {"name": each.name, "part": each.part, "trips": [str(trip) for trip in each.trips]}
            for each in governor.sensors
        ]
        for device in devices:
            document["devices"][device.name]["limits"] = governor.limits(device.name)
            said = [{"sensor": sensor.name, "said": text} for sensor, text in governor.voices(device.name)]
            document["devices"][device.name]["considered"] = said
        for name, told in sources_of(devices, sysroot).items():
            document["devices"][name]["energy"] = told
    return document


def _looks(governor: Governor, interval: float, seconds: float | None) -> Iterator[None]:
    """Tick once for each look; None goes on for ever."""
    begun = clock()
    while True:
        governor.tick()
        yield
        if seconds is not None and clock() - begun + interval > seconds:
            return
        sleep(interval)


def _live(governor: Governor, devices: Sequence[Device], interval: float, seconds: float | None) -> None:
    from rich.live import Live

    from hetero.cli.panels import Panels, ascii_only
    from hetero.cli.viewer import Warmth

    console = terminal()
    went: dict[str, deque[float | None]] = {device.name: deque(maxlen=_KEPT) for device in devices}
    with Live(console=console, auto_refresh=False) as live:
        for _ in _looks(governor, interval, seconds):
            warm = []
            for device in devices:
                heat = heat_of(governor, device.name)
                assert heat is not None
                went[device.name].append(heat.celsius)
                warm.append(Warmth(device.name, device.simulated, heat, tuple(went[device.name])))
            live.update(Panels(console.width, ascii_only(console)).machine(warm), refresh=True)


def _turns(steps: Sequence[Step]) -> list[Step]:
    """The steps at which a device's state changed, or its duty by a tenth or more."""
    shown: dict[str, Step] = {}
    turns = []
    for step in steps:
        last = shown.get(step.device)
        if last is None or last.now.state != step.now.state or abs(last.now.duty - step.now.duty) >= 0.1:
            shown[step.device] = step
            turns.append(step)
    return turns


def _step_dict(step: Step) -> dict[str, Any]:
    return {
        "at": step.at,
        "device": step.device,
        "celsius": step.reading.celsius,
        "used": step.used,
        "then": {"state": step.then.state, "duty": step.then.duty},
        "now": {"state": step.now.state, "duty": step.now.duty, "why": step.now.why},
    }
