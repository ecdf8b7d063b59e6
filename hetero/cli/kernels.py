"""`hetero kernels`: what there is of each kernel for an NPU, whether its source is right, and building it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, plain
from hetero.cli.failures import FAILED, NOT_HERE
from hetero.cli.progress import progress_bar
from hetero.errors import Unavailable
from hetero.kernel_tools import KernelEntry, Rung, Size
from hetero.plugins import Plugins

if TYPE_CHECKING:
    from hetero.kernel_tools import KernelTools

FOLDER = "HETERO_XRT_KERNELS"
"""The variable that names the folder with one folder a compiled kernel, as for the XRT backend."""


@click.group("kernels")
def command() -> None:
    """List the kernels for NPUs, check their sources, and build them.

    A compiled kernel needs the NPU maker's tools; what they would refuse or answer wrongly is found without them as far
    as that goes: `hetero kernels verify`.
    """


def _size_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--columns`, `--rows`, `--tiles-per-core`, `--layout`, `--stack`."""
    for option in (
        click.option("--stack", type=click.IntRange(1), metavar="BYTES", help="A core's stack."),
        click.option(
            "--layout",
            type=click.Choice(["packed", "separate"]),
            help="One buffer for all columns, or one for each. Default: as the design says.",
        ),
        click.option("--tiles-per-core", type=click.IntRange(1), metavar="N", help="Of one launch."),
        click.option("--rows", type=click.IntRange(1, 4), help="Cores of a column."),
        click.option("--columns", type=click.IntRange(1, 4), help="Columns of the array."),
    ):
        function = option(function)
    return function


@command.command("list")
@runtime.json_option
def list_kernels(as_json: bool) -> None:
    """List the kernels and what there is of each: reference, source, design, compiled form.

    A name with {K} is a family of kernels with sizes in their names; the usual ones are told below the table.

    Compiled kernels are looked for in the folder that HETERO_XRT_KERNELS names.
    """
    named = os.environ.get(FOLDER)
    folders = [Path(named).expanduser()] if named else []
    found = [(tools.target, entry) for tools in _all_tools() for entry in tools.kernels(folders)]
    if as_json:
        echo_json({"kernels": [{"target": target, "reference": True, **plain(entry)} for target, entry in found]})
        return
    columns = ("kernel", "target", "reference", "source", "design", "compiled", "limits")
    echo_table(columns, [_row(target, entry) for target, entry in found])
    for _, entry in found:
        if entry.usual:
            click.echo(f"{entry.name}: usual sizes are {', '.join(entry.usual)}")


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--compiler", help="For this machine: g++ (the default) or clang.")
@click.option("--rung", "rungs", type=int, multiple=True, metavar="N", help="Only this check; may be repeated.")
@click.option("--all", "every_size", is_flag=True, help="All usual sizes of every family, not just the first of each.")
@click.option("--full", is_flag=True, help="Check a family's kernel on its own size, which can take minutes.")
@_size_options
@runtime.json_option
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    compiler: str | None,
    rungs: tuple[int, ...],
    every_size: bool,
    full: bool,
    columns: int | None,
    rows: int | None,
    tiles_per_core: int | None,
    layout: str | None,
    stack: int | None,
    as_json: bool,
) -> None:
    """Check kernels, by default all that have a source: budgets, C++ against the reference, the design.

    A family of kernels is named by a size (gemm_i8_i32_384x1536), or by its pattern for all of its usual sizes. The
    first check is on that size; the second and the third are on a small one that stands for it, unless --full.

    The first three checks run anywhere with a C++ compiler, the others need the NPU maker's tools. Nothing is run on an
    NPU. Exit code 1 when a check fails, 3 when one that was asked for by --rung cannot run here.
    """
    size = Size(columns, rows, tiles_per_core, layout, stack, full)
    results: dict[str, list[Rung]] = {}
    every = _all_tools()
    asked = _asked(names, every, every_size)
    with progress_bar(not as_json) as bar:
        for name in asked:
            tools = _tools_of(name, every)
            chosen = list(rungs) or [number for number, _ in tools.rungs]
            bar.begin(name)
            results[name] = []
            for rung in tools.verify(name, chosen, compiler or tools.compilers[0], size):
                results[name].append(rung)
                bar.update(len(results[name]), len(chosen), rung.title)
    if as_json:
        echo_json({"kernels": {name: plain(found) for name, found in results.items()}})
    else:
        _echo_results(results)
    states = {rung.state for found in results.values() for rung in found}
    if "failed" in states:
        ctx.exit(FAILED)
    if rungs and "not here" in states:
        ctx.exit(NOT_HERE)


@command.command()
@click.argument("name")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder to make; name its parent in HETERO_XRT_KERNELS.",
)
@_size_options
@runtime.json_option
def build(
    name: str,
    folder: Path,
    columns: int | None,
    rows: int | None,
    tiles_per_core: int | None,
    layout: str | None,
    stack: int | None,
    as_json: bool,
) -> None:
    """Build a kernel for the NPU: the xclbin, its instructions, and the kernel.toml that describes them.

    \b
        hetero kernels build attention_i8_64x64 -o kernels/attention_i8_64x64
        HETERO_XRT_KERNELS=kernels hetero run attention_i8_64x64 ...
    """  # noqa: D301
    files = _tools_of(name, _all_tools()).build(name, folder, Size(columns, rows, tiles_per_core, layout, stack))
    if as_json:
        echo_json({"kernel": name, "folder": folder, "files": [file.name for file in files]})
        return
    click.echo(f"built {name} in {folder}: {', '.join(file.name for file in files)}")
    click.echo(f"next: {FOLDER}={folder.parent} hetero run {name}")


def _all_tools() -> list[KernelTools]:
    plugins = Plugins()
    plugins.discover(os.environ)
    found = plugins.kernel_tools()
    if not found:
        raise Unavailable(
            "no installed plugin brings kernels", fix="`hetero plugins` lists the plugins and why one is not in order"
        )
    return found


def _asked(names: tuple[str, ...], every: list[KernelTools], every_size: bool) -> list[str]:
    """The kernels to check: those named, a family's pattern standing for its usual sizes; else all with a source."""
    entries = [entry for tools in every for entry in tools.kernels([])]
    families = {entry.name: list(entry.usual) for entry in entries if entry.usual}
    if names and not every_size:
        return list(dict.fromkeys(size for name in names for size in families.get(name, [name])))
    found = [
        size
        for entry in entries
        if entry.source
        for size in (entry.usual if every_size else entry.usual[:1]) or (entry.name,)
    ]
    return list(dict.fromkeys([*names, *found]))


def _tools_of(name: str, every: list[KernelTools]) -> KernelTools:
    """Those that know the kernel; else the first, which say that they do not."""
    return next((tools for tools in every if any(e.covers(name) for e in tools.kernels([]))), every[0])


def _row(target: str, entry: KernelEntry) -> tuple[str, ...]:
    there = ["yes" if found else "no" for found in (entry.source, entry.design)]
    return entry.name, target, "yes", *there, str(entry.compiled or "no"), entry.limits


def _echo_results(results: dict[str, list[Rung]]) -> None:
    rows = [
        (name if place == 0 else "", str(rung.number), rung.title, rung.state, rung.detail * (rung.state == "passed"))
        for name, found in results.items()
        for place, rung in enumerate(found)
    ]
    echo_table(("kernel", "rung", "check", "result", "found"), rows)
    told: set[tuple[str, str]] = set()
    for name, found in results.items():
        for rung in found:
            # What is not here is not here for every kernel.
            if rung.state == "passed" or (rung.state == "not here" and (rung.detail, rung.fix) in told):
                continue
            told.add((rung.detail, rung.fix))
            place = f"{name}, {rung.title}" if rung.state == "failed" else rung.title
            click.echo(f"\n{place}: {rung.state}: {rung.detail}")
            if rung.fix:
                click.echo(f"  fix: {rung.fix}")
