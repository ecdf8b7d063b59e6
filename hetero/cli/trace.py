"""`hetero trace`: what happened to a program's requests, as a file to look at."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, milliseconds
from hetero.cli.inputs import Pairs, echo_assumed, input_options, make_feed
from hetero.cli.outputs import writable_folder
from hetero.errors import OptionError

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.telemetry.records import Record

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
    chain: str | None,
    simulate: tuple[str, ...],
    outputs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Run MODEL a number of times and write what happened: which lane ran what, what waited, what failed.

    Inputs are random unless they are given. When a request fails, those before it are written all the same.

    \b
        hetero trace model.onnx -o trace.json -o timeline.png
        hetero trace model.onnx --requests 200 --policy throughput -o records.jsonl
        hetero trace --from records.jsonl -o timeline.svg
    """  # noqa: D301
    from hetero.telemetry.jsonl import read_records

    if (model is None) == (source is None):
        raise click.UsageError("give a MODEL to run, or records with --from, one of the two")
    targets = trace_targets(outputs)
    if source is not None:
        records = read_records(source, skip_damaged=skip_damaged)
        write_all(records, targets)
    else:
        assert model is not None
        with runtime.make_runtime(chain=chain, simulate=simulate, options=options) as rt:
            program = rt.open(model)
            feed = make_feed(program, inputs, shapes, seed, default="random")
            with (
                traced(rt, targets) as records,
                rt.load(program, device=device, fallback=fallback, policy=policy) as session,
            ):
                for _ in session.map((feed.arrays for _ in range(requests)), in_flight=in_flight):
                    pass
        echo_assumed(feed.assumed)
    report = _report(records, targets)
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
def traced(rt: Runtime, targets: Sequence[Path]) -> Iterator[list[Record]]:
    """Collect the records of the requests that end meanwhile, and write them; those before an error, too.

    Yields:
        The list in which they are collected.
    """
    records: list[Record] = []
    if not targets:
        yield records
        return
    unsubscribe = rt.records.subscribe(records.append)
    try:
        yield records
    except BaseException:
        if records:
            write_all(records, targets)
        raise
    else:
        write_all(records, targets)
    finally:
        unsubscribe()


def write_all(records: Sequence[Record], targets: Sequence[Path]) -> None:
    """Write a trace of the records to each file."""
    from hetero.telemetry.trace import Trace

    trace = Trace(records)
    for target in targets:
        trace.write(target)


def _report(records: Sequence[Record], targets: Sequence[Path]) -> dict[str, Any]:
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
        "written": [str(target) for target in targets],
    }


def _echo(report: dict[str, Any], targets: Sequence[Path]) -> None:
    names = ", ".join(report["programs"]) or "nothing"
    marks = dict.fromkeys(report["simulated"], " (simulated)")
    answered = ", ".join(f"{device}{marks.get(device, '')} {n}" for device, n in report["answered"].items())
    click.echo(
        f"{names}: {report['requests']} requests, answered by {answered or 'no device'}; "
        f"{report['fell_back']} fell back, the longest wait was {milliseconds(report['wait_seconds'])}"
    )
    for target in targets:
        click.echo(f"{target}" + (f" (open it in {PERFETTO})" if target.suffix.lower() == ".json" else ""))
