"""`hetero trace`: what happened to a program's requests, as a file to look at."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, marked, milliseconds
from hetero.cli.inputs import Pairs, echo_assumed, input_options, make_feed
from hetero.cli.outputs import writable_folder
from hetero.errors import OptionError

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.telemetry.trace import Trace
    from hetero.thermal.steering import Decision

PERFETTO = "https://ui.perfetto.dev"


@click.command()
@click.argument("model", required=False)
@click.option(
    "--from", "source", type=click.Path(path_type=Path), metavar="FILE.jsonl", help="Show these records; run nothing."
)
@click.option("--skip-damaged", is_flag=True, help="With --from: leave out lines that cannot be read, and say so.")
@input_options
@click.option("--requests", type=click.IntRange(min=1), default=50, show_default=True, help="How many.")
@click.option("--in-flight", type=click.IntRange(min=1), help="How many at a time. Default: two for each lane.")
@click.option("--device", metavar="NAMES", help="Use only this device or backend, or these in this order: vulkan,cpu.")
@click.option("--policy", default="chain", show_default=True, help="Who takes a request: chain, fastest, throughput...")
@runtime.load_options
@click.option("--loads/--no-loads", default=True, show_default=True, help="Also show when programs were loaded.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="What to write: .json (for Perfetto), .png or .svg (a picture), .jsonl (the records); may be repeated.",
)
@runtime.json_option
def command(
    model: str | None,
    source: Path | None,
    skip_damaged: bool,
    inputs: Pairs,
    shapes: Pairs,
    seed: int,
    requests: int,
    in_flight: int | None,
    device: str | None,
    policy: str,
    fallback: Any,
    options: runtime.Options,
    thermal: str | None,
    on_hot: str | None,
    chain: str | None,
    simulate: tuple[str, ...],
    loads: bool,
    outputs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run MODEL a number of times and write what happened: which lane ran what, what waited, what failed.

    Inputs are random unless they are given. When a request fails, those before it are written all the same. Loading may
    take far longer than all requests: --no-loads leaves it out.

    \b
        hetero trace model.onnx -o trace.json -o timeline.png
        hetero trace model.onnx --requests 200 --policy throughput -o records.jsonl
        hetero trace --from records.jsonl -o timeline.svg
    """  # noqa: D301
    from hetero.telemetry.trace import Trace

    if (model is None) == (source is None):
        raise click.UsageError("give a MODEL to run, or records with --from, one of the two")
    targets = trace_targets(outputs)
    if source is not None:
        trace = Trace.read(source, skip_damaged=skip_damaged)
        if not loads:
            trace.loads.clear()
        write_all(trace, targets)
    else:
        assert model is not None
        with runtime.make_runtime(
            chain=chain, simulate=simulate, options=options, thermal=runtime.thermal_of(thermal, on_hot)
        ) as rt:
            program = rt.open(model)
            feed = make_feed(program, inputs, shapes, seed, default="random")
            with (
                traced(rt, targets, loads=loads) as trace,
                rt.load(program, device=device, fallback=fallback, policy=policy) as session,
            ):
                for _ in session.map((feed.arrays for _ in range(requests)), in_flight=in_flight):
                    pass
        echo_assumed(feed.assumed)
    report = _report(trace, targets)
    if as_json:
        echo_json(report)
    else:
        _echo(report, targets)


def trace_targets(paths: Sequence[Path]) -> list[Path]:
    """Where a trace goes, checked before any work is done.

    Raises:
        OptionError: A suffix that is not known, two equal paths, a folder that cannot be written to.
        Unavailable: A picture, and matplotlib is not installed.
    """
    from hetero.telemetry.trace import check_suffix

    targets = [path.expanduser() for path in paths]
    if len(set(targets)) < len(targets):
        raise OptionError("two outputs would go to one file", fix="give each --output a file of its own")
    for target in targets:
        check_suffix(target)
        if target.is_dir():
            raise OptionError(f"--output: {target} is a folder", fix="choose a file")
        writable_folder(target.parent)
    return targets


@contextmanager
def traced(rt: Runtime, targets: Sequence[Path], *, loads: bool = True) -> Iterator[Trace]:
    """Collect the requests and loads that end meanwhile, and write them; those before an error, too.

    Yields:
        The trace in which they are collected.
    """
    from hetero.telemetry.trace import Trace

    trace = Trace()
    if not targets:
        yield trace
        return
    unsubscribe = rt.records.subscribe(trace.records.append, trace.loads.append if loads else None)
    try:
        yield trace
    except BaseException:
        if trace.records or trace.loads:
            write_all(trace, targets)
        raise
    else:
        write_all(trace, targets)
    finally:
        unsubscribe()


def write_all(trace: Trace, targets: Sequence[Path]) -> None:
    """Write a trace to each file."""
    for target in targets:
        trace.write(target)


def _report(trace: Trace, targets: Sequence[Path]) -> dict[str, Any]:
    records = trace.records
    answered: collections.Counter[str] = collections.Counter()
    simulated: set[str] = set()
    for record in records:
        if record.device is not None:
            answered[record.device] += 1
            simulated |= {record.device} if record.simulated else set()
    return {
        "programs": list(dict.fromkeys(record.program for record in records)),
        "requests": len(records),
        "outcomes": dict(collections.Counter(record.outcome for record in records)),
        "answered": dict(answered),
        "simulated": sorted(simulated),
        "fell_back": sum(record.fell_back for record in records),
        "wait_seconds": max((record.wait_seconds for record in records), default=0.0),
        "heat": dict(collections.Counter(_told(decision) for record in records for decision in record.heat)),
        "heat_held_seconds": sum(decision.held or 0.0 for record in records for decision in record.heat),
        "loads": [
            {
                "program": load.program,
                "device": load.attempt.device,
                "simulated": load.attempt.simulated,
                "outcome": load.attempt.outcome,
                "reason": load.attempt.reason,
                "seconds": load.attempt.seconds,
                "cached": load.cached,
            }
            for load in trace.loads
        ],
        "written": [str(target) for target in targets],
    }


def _told(decision: Decision) -> str:
    """What was decided, without the reason."""
    does = {"pace": "paced", "stop": "stopped", "run": "let through"}
    return f"{decision.device} {does.get(decision.action, f'left for {decision.to}')}"


def _echo(report: dict[str, Any], targets: Sequence[Path]) -> None:
    names = ", ".join(report["programs"]) or "nothing"
    marks = dict.fromkeys(report["simulated"], " (simulated)")
    answered = ", ".join(f"{device}{marks.get(device, '')} {n}" for device, n in report["answered"].items())
    click.echo(
        f"{names}: {report['requests']} requests, answered by {answered or 'no device'}; "
        f"{report['fell_back']} fell back, the longest wait was {milliseconds(report['wait_seconds'])}"
    )
    if report["heat"]:
        told = ", ".join(f"{what} {n}" for what, n in report["heat"].items())
        click.echo(f"heat: {told}; held back for {milliseconds(report['heat_held_seconds'])} in all")
    for load in report["loads"]:
        where = marked(load["device"], load["simulated"])
        if load["outcome"] == "ok":
            cached = {True: ", from the cache", False: ", compiled anew", None: ""}[load["cached"]]
            click.echo(f"loaded {load['program']} on {where} in {milliseconds(load['seconds'])}{cached}")
        else:
            click.echo(f"not loaded: {load['program']} on {where}: {load['outcome']}: {load['reason']}")
    for target in targets:
        click.echo(f"{target}" + (f" (open it in {PERFETTO})" if target.suffix.lower() == ".json" else ""))
