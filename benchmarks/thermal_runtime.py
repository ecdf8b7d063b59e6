"""A Runtime that serves requests on modelled machines, half an hour each: what its governor makes of heat.

    python benchmarks/thermal_runtime.py [--machines 30] [--seed 1] [--jobs 2] [--json] [--plot FILE.png]

Beside `benchmarks/thermal.py`, in which the law alone steers a model second by second, this one has the whole way of a
request: sessions, scheduler, worker threads, governor, timers. Modelled are the devices (a call takes as long as the
device needs at its present speed, and heats the machine meanwhile), the files of `/sys`, and the time, which moves only
while every thread waits for it. Nothing here was measured on hardware.

- Three streams ask, each for its next answer as soon as it has one: as much as one device can do. A call takes 0.6 s on
  a lane of the NPU (`--call-seconds`).
- Throughput is a share of the solution of a linear program that knows the future and stays below the limit. Who is
  above the limit, or lowers the clock and the voltage, can have more than 100 %.
- Seconds at or above the limit are by the temperature as it was, not as a sensor told it.

Machines drawn by chance are those of `benchmarks/thermal.py`. Needs scipy; `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hetero.testing.thermal.bound import most_items
from hetero.testing.thermal.plant import NPU
from hetero.testing.thermal.scenarios import SECONDS, Scenario, drawn, named
from hetero.testing.thermal.serving import Served, serve
from hetero.testing.thermal.ways import WAYS

# Seconds for which the program's duties are constant: the scenarios change at multiples of them, chance does not.
INTERVAL, INTERVAL_DRAWN = 5.0, 10.0


@dataclass(frozen=True)
class Job:
    """One scenario, dealt with in one way; without a way, its bound."""

    kind: str
    place: int
    way: str | None
    scenario: Scenario
    call_seconds: float
    streams: int


def run(job: Job) -> tuple[Job, float | Served]:
    """In a process of its own."""
    if job.way is None:
        return job, most_items(job.scenario, INTERVAL if job.kind == "named" else INTERVAL_DRAWN)
    return job, serve(job.scenario, WAYS[job.way], call_seconds=job.call_seconds, streams=job.streams)


def results(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Any]]:
    """As they come."""
    if processes == 1:
        yield from map(run, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            yield future.result()


def row_of(served: Served, bound: float) -> dict[str, Any]:
    """What is told of one scenario and one way."""
    outcome = served.outcome
    return {
        "percent": round(100 * outcome.items / bound, 1),
        "hot_seconds": outcome.hot_seconds,
        "highest": round(outcome.highest, 1),
        "changes": outcome.changes,
        "swings_a_minute": round(60 * outcome.swings / len(outcome.duties), 2),
        "requests": served.requests,
        "failed": len(served.errors),
        "longest_seconds": round(served.longest, 2),
        "npu_share": round(float(served.shares[:, NPU].mean()), 3),
        "heat": dict(served.decisions),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of machines drawn by chance."""
    percents, hot, longest = (
        np.array([row[name] for row in rows]) for name in ("percent", "hot_seconds", "longest_seconds")
    )
    return {
        "mean": round(float(percents.mean()), 1),
        "median": round(float(np.median(percents)), 1),
        "10th percentile": round(float(np.percentile(percents, 10)), 1),
        "hot seconds, mean": round(float(hot.mean()), 1),
        "hot seconds, 90th percentile": round(float(np.percentile(hot, 90)), 1),
        "hot seconds, most": float(hot.max()),
        "machines ever hot, %": round(100 * float((hot > 0).mean()), 1),
        "changes of backend": round(float(np.mean([row["changes"] for row in rows])), 1),
        "swings of duty in a minute": round(float(np.mean([row["swings_a_minute"] for row in rows])), 2),
        "slowest request, s, median": round(float(np.median(longest)), 2),
        "requests that failed": float(sum(row["failed"] for row in rows)),
    }


def plot(file: Path, scenario: Scenario, served: dict[str, Served], rows: dict[str, Any]) -> None:
    """Temperatures and the NPU's work in one scenario, one line a way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=(3, 2))
    smooth = np.ones(10) / 10
    for name, each in served.items():
        minutes = np.arange(len(each.outcome.temperatures)) / 60
        label = f"{name}: {rows[name]['percent']:.0f} %, {each.outcome.hot_seconds:.0f} s hot"
        above.plot(minutes, each.outcome.temperatures, lw=1.0, label=label)
        below.plot(minutes[9:], np.convolve(each.outcome.duties, smooth, mode="valid"), lw=0.8)
    above.axhline(scenario.limits.maximum, color="black", lw=0.8, ls="--")
    above.set_ylabel("NPU, C (modelled)")
    above.set_title(f"{scenario.name} (a Runtime on a modelled machine)")
    above.set_ylim(bottom=60)
    above.legend(fontsize=8, loc="lower right")
    below.set_ylabel("NPU at work, 10 s means")
    below.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def tables(result: dict[str, Any], ways: Sequence[str]) -> list[Table]:
    """For people."""
    made = []
    if result["scenarios"]:
        each = Table(title="modelled machines: % of the best plan (seconds at the limit or above; changes of backend)")
        each.add_column("scenario")
        for name in ways:
            each.add_column(name, justify="right")
        for scenario, row in result["scenarios"].items():
            cells = (row[way] for way in ways)
            each.add_row(scenario, *(f"{c['percent']:.1f} ({c['hot_seconds']:.0f}; {c['changes']})" for c in cells))
        made.append(each)
    if result["drawn"]:
        chance = Table(title=f"{result['machines']} modelled machines drawn by chance")
        chance.add_column("")
        for name in ways:
            chance.add_column(name, justify="right")
        for line in result["drawn"][ways[0]]:
            chance.add_row(line, *(f"{result['drawn'][way][line]:g}" for way in ways))
        made.append(chance)
    return made


def measure(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], dict[str, dict[str, Served]]]:
    """Everything that is printed; and what became of each named scenario, to be drawn."""
    sets = {
        "named": [s for s in named(args.seconds) if args.only.lower() in s.name.lower()],
        "drawn": drawn(args.machines, args.seed, args.seconds),
    }
    jobs = [
        Job(kind, place, way, scenario, args.call_seconds, args.streams)
        for kind, scenarios in sets.items()
        for place, scenario in enumerate(scenarios)
        for way in (None, *args.ways)
    ]
    bounds: dict[tuple[str, int], float] = {}
    served: dict[tuple[str, int, str], Served] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("half hours", total=len(jobs))
        for job, value in results(jobs, args.jobs):
            bar.advance(task)
            if job.way is None:
                bounds[job.kind, job.place] = value
            else:
                served[job.kind, job.place, job.way] = value
    rows = {key: row_of(each, bounds[key[0], key[1]]) for key, each in served.items()}
    result: dict[str, Any] = {
        "machines": args.machines,
        "scenarios": {
            scenario.name: {way: rows["named", place, way] for way in args.ways}
            for place, scenario in enumerate(sets["named"])
        },
        "drawn": {
            way: summary([rows["drawn", place, way] for place in range(args.machines)])
            for way in (args.ways if args.machines else ())
        },
    }
    shown = {
        scenario.name: {way: served["named", place, way] for way in args.ways}
        for place, scenario in enumerate(sets["named"])
    }
    return result, shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=30, help="machines drawn by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each scenario")
    parser.add_argument("--call-seconds", type=float, default=0.6, help="of a call on a lane of the NPU")
    parser.add_argument("--streams", type=int, default=3, help="that ask at once")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="named scenarios with this in their name; - for none"
    )
    parser.add_argument("--way", action="append", choices=list(WAYS), dest="ways", help="may be repeated; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw one scenario")
    parser.add_argument("--plot-scenario", default="fan stops", help="a part of its name")
    args = parser.parse_args()
    args.ways = args.ways or list(WAYS)
    started = time.perf_counter()
    result, shown = measure(args, Console(stderr=True))
    if args.plot is not None:
        name = next((name for name in shown if args.plot_scenario in name), None)
        if name is None:
            parser.error(f"--plot-scenario {args.plot_scenario!r} is in the name of no scenario that was played")
        scenario = next(each for each in named(args.seconds) if each.name == name)
        plot(args.plot, scenario, shown[name], result["scenarios"][name])
    if args.json:
        print(json.dumps({"seed": args.seed, "seconds": args.seconds, **result}, indent=2))
        return
    console = Console(width=None if Console().is_terminal else 170)
    for table in tables(result, args.ways):
        console.print(table)
    failed = sum(row["failed"] for rows in result["scenarios"].values() for row in rows.values())
    print(f"requests that failed: {failed}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
