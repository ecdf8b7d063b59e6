"""Ways to deal with heat, on modelled machines: half an hour each, against the best that could have been done.

    python benchmarks/thermal.py [--drawn 200] [--seed 1] [--json] [--plot FILE.png]

Machines are modelled (`hetero.testing.thermal`): two thermal stages and hotspots, sensors that lag and tell steps, what
vendors' kernels do. Nothing here was measured on hardware, and each constant has its source or the word *assumed* in
`hetero.testing.thermal.builds`. What steers is the code that runs on real machines.

- Thirteen scenarios, and machines and weather drawn by chance.
- Throughput is a share of the solution of a linear program that knows the future and stays below the limit. Who is
  above the limit, or lowers the clock and the voltage, can have more than 100 %.
- Seconds at or above the limit are by the temperature as it was, not as a sensor told it.

The constants of the law were chosen on 100 machines of another seed (2024). Needs scipy; `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hetero.testing.thermal.bound import most_items
from hetero.testing.thermal.scenarios import Scenario, drawn, named
from hetero.testing.thermal.strategies import STRATEGIES, Outcome, play

# Seconds for which the program's duties are constant: the scenarios change at multiples of them, chance does not.
INTERVAL, INTERVAL_DRAWN = 5.0, 10.0


def shares(outcomes: Sequence[Outcome], bounds: Sequence[float]) -> list[float]:
    """Items in percent of the bounds."""
    return [100 * outcome.items / bound for outcome, bound in zip(outcomes, bounds, strict=True)]


def measure(scenarios: Sequence[Scenario], chances: Sequence[Scenario]) -> dict[str, Any]:
    """Everything that is printed, and under `outcomes` what is drawn."""
    bounds = [most_items(scenario, INTERVAL) for scenario in scenarios]
    chance_bounds = [most_items(scenario, INTERVAL_DRAWN) for scenario in chances]
    result: dict[str, Any] = {"scenarios": {}, "drawn": {}, "outcomes": {}}
    for name, make in STRATEGIES.items():
        outcomes = play(scenarios, make)
        result["outcomes"][name] = outcomes
        for scenario, outcome, share in zip(scenarios, outcomes, shares(outcomes, bounds), strict=True):
            result["scenarios"].setdefault(scenario.name, {})[name] = {
                "percent": round(share, 1),
                "hot_seconds": outcome.hot_seconds,
                "highest": round(outcome.highest, 1),
                "changes": outcome.changes,
            }
        if chances:
            result["drawn"][name] = summary(play(chances, make), chance_bounds)
    return result


def summary(outcomes: Sequence[Outcome], bounds: Sequence[float]) -> dict[str, float]:
    """Of machines drawn by chance."""
    percents = np.array(shares(outcomes, bounds))
    hot = np.array([outcome.hot_seconds for outcome in outcomes])
    return {
        "mean": round(float(percents.mean()), 1),
        "median": round(float(np.median(percents)), 1),
        "10th percentile": round(float(np.percentile(percents, 10)), 1),
        "hot seconds, mean": round(float(hot.mean()), 1),
        "hot seconds, 90th percentile": round(float(np.percentile(hot, 90)), 1),
        "hot seconds, most": float(hot.max()),
        "machines ever hot, %": round(100 * float((hot > 0).mean()), 1),
        "changes of backend": round(float(np.mean([outcome.changes for outcome in outcomes])), 1),
        "swings of duty in a minute": round(
            float(np.mean([60 * outcome.swings / len(outcome.duties) for outcome in outcomes])), 2
        ),
    }


def plot(file: Path, scenario: Scenario, outcomes: dict[str, Outcome], percents: dict[str, float]) -> None:
    """Temperatures and duties of one scenario, one line a strategy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=(3, 2))
    for name, outcome in outcomes.items():
        minutes = np.arange(len(outcome.temperatures)) / 60
        label = f"{name}: {percents[name]:.0f} %, {outcome.hot_seconds:.0f} s hot"
        above.plot(minutes, outcome.temperatures, lw=1.0, label=label)
        below.plot(minutes, outcome.duties, lw=0.8)
    above.axhline(scenario.limits.maximum, color="black", lw=0.8, ls="--")
    above.set_ylabel("NPU, C (modelled)")
    above.set_title(scenario.name)
    above.set_ylim(bottom=60)
    above.legend(fontsize=8, loc="lower right")
    below.set_ylabel("duty of the NPU")
    below.set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def tables(result: dict[str, Any]) -> list[Table]:
    """For people."""
    each = Table(title="modelled machines: % of the best plan (seconds at the limit or above; changes of backend)")
    each.add_column("scenario")
    for name in STRATEGIES:
        each.add_column(name, justify="right")
    for scenario, row in result["scenarios"].items():
        cells = [f"{cell['percent']:.1f} ({cell['hot_seconds']:.0f}; {cell['changes']})" for cell in row.values()]
        each.add_row(scenario, *cells)
    made = [each]
    if result["drawn"]:
        chance = Table(title="modelled machines drawn by chance")
        chance.add_column("")
        for name in STRATEGIES:
            chance.add_column(name, justify="right")
        for line in result["drawn"]["ours"]:
            chance.add_row(line, *(f"{result['drawn'][name][line]:g}" for name in STRATEGIES))
        made.append(chance)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", type=int, default=200, help="machines drawn by chance")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw one scenario")
    parser.add_argument("--plot-scenario", default="fan stops", help="a part of its name")
    args = parser.parse_args()
    started = time.perf_counter()
    scenarios = named()
    result = measure(scenarios, drawn(args.drawn, args.seed))
    outcomes = result.pop("outcomes")
    if args.plot is not None:
        place = next(place for place, each in enumerate(scenarios) if args.plot_scenario in each.name)
        name = scenarios[place].name
        percents = {strategy: cell["percent"] for strategy, cell in result["scenarios"][name].items()}
        plot(args.plot, scenarios[place], {strategy: each[place] for strategy, each in outcomes.items()}, percents)
    if args.json:
        print(json.dumps({"drawn_count": args.drawn, "seed": args.seed, **result}, indent=2))
        return
    console = Console(width=None if Console().is_terminal else 170)
    for table in tables(result):
        console.print(table)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
