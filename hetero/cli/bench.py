"""`hetero bench`: one program on several devices, side by side."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, marked, milliseconds, plain
from hetero.cli.failures import FAILED, NOT_HERE
from hetero.cli.inputs import Feed, Pairs, echo_assumed, input_options, make_feed
from hetero.cli.measure import Contender, Effort, latency, max_difference, measure, measure_energy, prepare
from hetero.cli.progress import progress_bar
from hetero.tensors import shape_text

if TYPE_CHECKING:
    from hetero.backend import Device
    from hetero.program import Program
    from hetero.runtime import Runtime


@click.command("bench")
@click.argument("model")
@click.option("--device", "devices", multiple=True, metavar="NAMES", help="A device or backend; may be repeated.")
@input_options
@click.option("--seconds", type=click.FloatRange(min=0.0), default=3.0, show_default=True, help="Time for each device.")
@click.option("--runs", type=click.IntRange(min=1), help="So many runs on each device, in place of --seconds.")
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Runs on each device after the first that are not counted.",
)
@runtime.timeout_option
@click.option(
    "--meter",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="The power meter for joules per item (`hetero doctor` lists them); auto: one that counts the device; or none.",
)
@runtime.backend_options
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    devices: tuple[str, ...],
    inputs: Pairs,
    shapes: Pairs,
    seed: int,
    seconds: float,
    runs: int | None,
    warmup: int,
    timeout: float,
    meter: str,
    options: runtime.Options,
    thermal: str | None,
    on_hot: str | None,
    chain: str | None,
    simulate: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time MODEL on each device, the devices taking turns, and compare them.

    Inputs are random unless they are given. Latency is from call to answer, one request at a time; throughput is with
    several under way. Times of a simulated device are the simulator's, and modelled: they say nothing of the hardware.
    A device that does not answer within --timeout is told as failed, and is not waited for.

    Where the machine has a power meter, each device is then set to work and idle by turns, the others at rest: joules
    per item are what work takes more than rest, and are kept for the policy `efficiency`. Let nothing else run then.

    \b
        hetero bench model.onnx --shape batch=8
        hetero bench model.onnx --device vulkan --device cpu --runs 200 --json
    """  # noqa: D301
    with (
        runtime.make_runtime(
            chain=chain, simulate=simulate, options=options, thermal=runtime.thermal_of(thermal, on_hot)
        ) as rt,
        contextlib.ExitStack() as stack,
    ):
        program = rt.open(model)
        chosen = _devices(rt, devices)
        feed = make_feed(program, inputs, shapes, seed, default="random")
        contenders = [prepare(rt, program, device) for device in chosen]
        for contender in contenders:
            stack.callback(contender.close)
        with progress_bar() as bar:
            bar.begin(program.name)
            effort = Effort(warmup, seconds, runs, timeout or None)
            measure(contenders, feed.arrays, effort, bar.update)
            if meter != "none":
                bar.begin("energy")
                measure_energy(rt, contenders, feed.arrays, effort, None if meter == "auto" else meter, bar.update)
        report = _report(program, feed, contenders)
        if as_json:
            echo_json(report)
        else:
            _echo(report)
    if any(contender.outcome == "failed" for contender in contenders):
        ctx.exit(FAILED)
    if all(contender.outcome != "ok" for contender in contenders):
        ctx.exit(NOT_HERE)


def _devices(rt: Runtime, names: Sequence[str]) -> list[Device]:
    """The devices that are named, else all, in order and each once."""
    if not names:
        return list(rt.devices)
    wanted = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    return [device for _, device in rt.select(wanted)]


def _report(program: Program, feed: Feed, contenders: Sequence[Contender]) -> dict[str, Any]:
    measured = [contender for contender in contenders if contender.seconds and contender.outcome == "ok"]
    first = measured[0] if measured else None
    return {
        "program": program.name,
        "inputs": feed.describe(),
        "assumed": feed.assumed,
        "first": first.device.name if first else None,
        "devices": [_entry(contender, first) for contender in contenders],
    }


def _entry(contender: Contender, first: Contender | None) -> dict[str, Any]:
    times = latency(contender.seconds)
    against = first if contender.outcome == "ok" else None
    return {
        "device": contender.device.name,
        "simulated": contender.device.simulated,
        "watts": contender.device.watts,
        "modelled": contender.device.simulated,
        "outcome": contender.outcome,
        "reason": contender.reason,
        "load_seconds": contender.load_seconds,
        "first_seconds": contender.first_seconds,
        "latency_seconds": times,
        "throughput": statistics.median(contender.rates) if contender.rates else None,
        "ratio": _median(contender) / _median(against) if against else None,
        "max_difference": max_difference(contender.outputs, against.outputs) if against else None,
        "energy": plain(contender.energy),
    }


def _median(contender: Contender) -> float:
    return statistics.median(contender.seconds)


def _echo(report: dict[str, Any]) -> None:
    echo_assumed(report["assumed"])
    given = ", ".join(f"{told['name']}: {told['dtype']}{shape_text(told['shape'])}" for told in report["inputs"])
    click.echo(f"{report['program']}" + (f" on {given}" if given else ""))
    columns = (
        "device",
        "load",
        "first run",
        "median",
        "p90",
        "min",
        "spread",
        "runs",
        "per second",
        "energy",
        "time",
        "max diff",
    )
    rows = []
    for entry in report["devices"]:
        times = entry["latency_seconds"]
        rows.append(
            (
                marked(entry["device"], entry["simulated"]),
                milliseconds(entry["load_seconds"]),
                milliseconds(entry["first_seconds"]),
                milliseconds(times["median"]),
                milliseconds(times["p90"]),
                milliseconds(times["min"]),
                "-" if times["spread"] is None else f"{times['spread'] * 100:.0f}%",
                str(times["runs"]),
                "-" if entry["throughput"] is None else f"{entry['throughput']:.1f}",
                _joules(entry["energy"]),
                "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}x",
                "-" if entry["max_difference"] is None else f"{entry['max_difference']:.3g}",
            )
        )
    echo_table(columns, rows)
    if report["first"]:
        click.echo(f"time and max diff are against {report['first']}")
    if any(entry["modelled"] for entry in report["devices"]):
        click.echo("times of a simulated device are modelled, not measured")
    for entry in report["devices"]:
        _echo_energy(entry)
    for entry in report["devices"]:
        if entry["outcome"] != "ok":
            outcome = "not supported" if entry["outcome"] == "unsupported" else "failed"
            click.echo(f"{entry['device']}: {outcome}: {entry['reason']}")


def _joules(energy: dict[str, Any] | None) -> str:
    if energy is None:
        return "-"
    return "unknown" if energy["joules"] is None else f"{energy['joules']:.3g} J"


def _echo_energy(entry: dict[str, Any]) -> None:
    """Where a device's joules come from, or why they are unknown."""
    energy = entry["energy"]
    if energy is None:
        return
    declared = "" if entry["watts"] is None else f"; its backend declares {entry['watts']:g} W"
    if energy["joules"] is None:
        click.echo(f"{entry['device']}: energy unknown: {energy['reason']}{declared}")
        if energy["fix"]:
            click.echo(f"  fix: {energy['fix']}")
        return
    click.echo(
        f"{entry['device']}: {energy['joules']:.3g} J per item, measured by {energy['meter']}: "
        f"{energy['work_watts']:.3g} W at work less {energy['idle_watts']:.3g} W at rest, {energy['items']} items; "
        f"{energy['gross']:.3g} J with the rest"
    )
