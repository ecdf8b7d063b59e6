"""`hetero run`: a program, once or a few times, on the best device."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, marked, milliseconds
from hetero.cli.inputs import Feed, Pairs, echo_assumed, input_options, make_feed, parse_pairs
from hetero.cli.outputs import output_paths, save_all, summary, summary_row
from hetero.errors import DispatchError
from hetero.tensors import shape_text

if TYPE_CHECKING:
    from hetero.runtime import Runtime
    from hetero.session import Result, Session
    from hetero.telemetry.records import Attempt


@click.command("run")
@click.argument("model")
@input_options
@click.option("--output-dir", type=click.Path(path_type=Path), help="Write each output to NAME.npy in this folder.")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME=FILE.npy",
    callback=parse_pairs,
    help="Write this output to this file; may be repeated.",
)
@click.option("--device", metavar="NAMES", help="Use only this device or backend, or these in this order: vulkan,cpu.")
@runtime.load_options
@runtime.timeout_option
@click.option("--repeat", type=click.IntRange(min=1), default=1, show_default=True, help="How many runs.")
@click.option("--explain", is_flag=True, help="Also tell of each device why it was or was not taken.")
@runtime.json_option
def command(
    model: str,
    inputs: Pairs,
    shapes: Pairs,
    seed: int,
    output_dir: Path | None,
    outputs: Pairs,
    device: str | None,
    fallback: Any,
    options: runtime.Options,
    thermal: str | None,
    on_hot: str | None,
    chain: str | None,
    simulate: tuple[str, ...],
    timeout: float,
    repeat: int,
    explain: bool,
    as_json: bool,
) -> None:
    """Run MODEL once and show its outputs.

    MODEL is an .onnx file, a bundle's folder, or a name that `hetero models` lists. A device that does not
    answer within --timeout is not waited for: the next one answers.

    \b
        hetero run model.onnx --input image=cat.npy --output-dir out
        hetero run model.onnx --input random --shape batch=8 --device cpu --repeat 20
        hetero run attention_i8_64x64 --input random --shape tiles=4 --explain
    """  # noqa: D301
    with (
        runtime.make_runtime(
            chain=chain, simulate=simulate, options=options, thermal=runtime.thermal_of(thermal, on_hot)
        ) as rt,
        _not_waiting(rt, timeout),
    ):
        program = rt.open(model)
        feed = make_feed(program, inputs, shapes, seed)
        chosen = {name: Path(file) for name, file in outputs}
        paths = output_paths([spec.name for spec in program.outputs], output_dir, chosen)
        started = time.perf_counter()
        session = rt.load(program, device=device, fallback=fallback, standby=False, timeout=timeout or None)
        load_seconds = time.perf_counter() - started
        results = [session.run(feed.arrays) for _ in range(repeat)]
        result = results[-1]
        save_all({path: result.outputs[name] for name, path in paths.items()})
        report = _report(session, results, load_seconds, feed, paths, explain)
        hung = [attempt for attempt in result.record.attempts if _hangs(attempt, timeout)]
        if as_json:
            echo_json(report)
        else:
            _echo(report, result, hung, session.explain() if explain else None)


@contextlib.contextmanager
def _not_waiting(rt: Runtime, timeout: float) -> Iterator[None]:
    """Say what to do about a call that hangs, and do not wait for it at the end."""
    try:
        yield
    except DispatchError as error:
        if any(_hangs(attempt, timeout) for attempt in error.attempts):
            error.fix = "; ".join(filter(None, ("--timeout gives it longer, and 0 waits for ever", error.fix)))
        raise
    finally:
        if any(_hangs(attempt, timeout) for record in rt.records for attempt in record.attempts):
            rt.close(timeout=0)


def _hangs(attempt: Attempt, timeout: float) -> bool:
    return attempt.outcome == "failed" and attempt.reason.endswith(f"no answer within {timeout:g} s")


def _report(
    session: Session,
    results: list[Result],
    load_seconds: float,
    feed: Feed,
    paths: Mapping[str, Path],
    explain: bool,
) -> dict[str, Any]:
    record = results[-1].record
    seconds = [result.record.run_seconds for result in results]
    devices = [result.record.device or "" for result in results]
    return {
        "program": session.program.name,
        "device": record.device,
        "simulated": record.simulated,
        "fell_back": any(result.record.fell_back for result in results),
        "answered": {device: devices.count(device) for device in dict.fromkeys(devices)},
        "load_seconds": load_seconds,
        "runs": len(results),
        "run_seconds": {
            "first": seconds[0],
            "median": statistics.median(seconds),
            "min": min(seconds),
            "max": max(seconds),
        },
        "inputs": feed.describe(),
        "assumed": feed.assumed,
        "outputs": [
            {**summary(name, array), "file": str(paths[name]) if name in paths else None}
            for name, array in results[-1].outputs.items()
        ],
        "record": record.to_dict(),
        "explanation": session.explain().to_dict() if explain else None,
    }


def _echo(report: Mapping[str, Any], result: Result, hung: Sequence[Attempt], explanation: object) -> None:
    echo_assumed(report["assumed"])
    times = report["run_seconds"]
    parts = [milliseconds(times["first"]), f"loaded in {milliseconds(report['load_seconds'])}"]
    if report["runs"] > 1:
        parts = [
            f"{report['runs']} runs",
            f"median {milliseconds(times['median'])}",
            f"min {milliseconds(times['min'])}",
            f"max {milliseconds(times['max'])}",
            f"first {milliseconds(times['first'])}",
            parts[-1],
        ]
    # A simulator's own time says nothing of the hardware that it imitates.
    modelled = ["times are of the simulator"] if report["simulated"] else []
    where = marked(report["device"], report["simulated"])
    click.echo(f"{report['program']} ran on {where}: {', '.join(parts + modelled)}")
    for attempt in result.record.attempts if report["fell_back"] else ():
        if attempt.outcome != "ok":
            click.echo(f"passed over: {attempt}" + (f"; {runtime.LEFT_ALONE}" if attempt in hung else ""))
    if len(report["answered"]) > 1:
        click.echo("answered: " + ", ".join(f"{name} {count}" for name, count in report["answered"].items()))
    for told in report["inputs"]:
        click.echo(f"input {told['name']}: {told['dtype']}{shape_text(told['shape'])} from {told['from']}")
    click.echo()
    columns = ("output", "dtype", "shape", "min", "mean", "max", "first values")
    echo_table(columns, [summary_row(told) for told in report["outputs"]])
    for told in report["outputs"]:
        if told["not_finite"]:
            click.echo(f"note: {told['name']} has {told['not_finite']} values that are not finite", err=True)
        if told["file"]:
            click.echo(f"{told['name']} is in {told['file']}")
    if explanation is not None:
        click.echo(f"\n{explanation}")
