"""`hetero compile`: an ONNX model into a bundle with artifacts that were built for devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import echo_json, echo_table, size
from hetero.cli.inputs import Pairs, parse_repeated_pairs
from hetero.cli.progress import progress_bar
from hetero.errors import OptionError

if TYPE_CHECKING:
    from hetero.backend import Backend
    from hetero.compiling.build import Compiled
    from hetero.compiling.report import CompileReport

_CALIBRATION = """Typical inputs: .npy or .npz files, recordings for a Whisper encoder, or a folder of them; may be
repeated."""

_SHAPE = """INPUT=1,80,3000, or DIMENSION=4 for a free dimension. Given several times: an artifact for each."""


@click.command("compile")
@click.argument("model", required=False)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAMES",
    help="What to compile for: rk3588, or several: rk3588,rk3576; may be repeated.",
)
@click.option("--list-targets", is_flag=True, help="List the known targets and options, and do nothing.")
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), help="The bundle. [default: NAME.hetero]")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=SIZES", callback=parse_repeated_pairs, help=_SHAPE)
@click.option("--int8", is_flag=True, help="Quantise to 8 bits; needs --calibration.")
@click.option("--calibration", multiple=True, type=click.Path(), metavar="PATH", help=_CALIBRATION)
@click.option("--check", multiple=True, type=click.Path(), metavar="PATH", help="Compare on these inputs instead.")
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Refuse what comes less close to ONNX Runtime.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="BACKEND.OPTION=VALUE",
    callback=runtime.parse_options,
    help="An option of a backend's compiler, as --list-targets shows them; may be repeated.",
)
@click.option("--force", is_flag=True, help="Write the bundle even if the result is too far from ONNX Runtime.")
@click.option("--anew", is_flag=True, help="Compile even if the same is in the cache.")
@runtime.json_option
def command(
    model: str | None,
    targets: tuple[str, ...],
    list_targets: bool,
    out: Path | None,
    shapes: Pairs,
    int8: bool,
    calibration: tuple[str, ...],
    check: tuple[str, ...],
    min_cosine: float,
    options: runtime.Options,
    force: bool,
    anew: bool,
    as_json: bool,
) -> None:
    """Compile MODEL for devices, compare the result with ONNX Runtime, and put it into a bundle.

    MODEL is an .onnx file, a bundle's folder, or a name that `hetero models` lists. The bundle also holds the ONNX
    model, for the devices that take that; compiling into it again adds to it. Nothing is written when anything fails.

    \b
        hetero compile model.onnx --target rk3588,rk3576
        hetero compile whisper-tiny.en --target rk3588 --shape mel=1,80,3000
        hetero compile model.onnx --target rk3588 --int8 --calibration samples/
    """  # noqa: D301
    with runtime.make_runtime() as rt:
        if list_targets:
            _list(rt.backends, as_json)
            return
        names = [name for text in targets for name in text.split(",") if name.strip()]
        if model is None or not names:
            missing = "MODEL" if model is None else "--target"
            raise click.UsageError(f"{missing} is missing; `hetero compile --list-targets` lists the targets")
        with progress_bar(not as_json) as bar:
            bar.begin("compile")
            compiled = rt.compile(
                model,
                names,
                out=out,
                shapes=[(name, _sizes(name, text)) for name, text in shapes],
                int8=int8,
                calibration=calibration,
                check=check,
                min_cosine=min_cosine,
                options=options,
                force=force,
                anew=anew,
                progress=lambda stage, done: bar.update(done, 1.0, stage),
            )
    if as_json:
        echo_json({"bundle": compiled.bundle, "artifacts": [_told(*entry) for entry in _entries(compiled)]})
    else:
        _echo(compiled, min_cosine)


def _sizes(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise OptionError(
            f"--shape: {text!r} is no shape for {name!r}", fix="write INPUT=1,80,3000, or DIMENSION=4"
        ) from None


def _entries(compiled: Compiled) -> list[tuple[CompileReport, bool]]:
    return list(zip(compiled.reports, compiled.kept, strict=True))


def _told(report: CompileReport, kept: bool) -> dict[str, Any]:
    return {**report.to_dict(), "cached": kept}


def _echo(compiled: Compiled, min_cosine: float) -> None:
    rows = []
    for report, kept in _entries(compiled):
        shapes = " ".join("x".join(map(str, shape)) for shape in report.shapes.values())
        took = "from the cache" if kept else f"{report.seconds:.1f} s"
        for output in report.outputs:
            cosine, worst = f"{output.cosine:.7f}", f"{output.max_abs_error:.3g}"
            rows.append(
                (report.target, report.precision, shapes, output.name, cosine, worst, f"{output.largest:.3g}", took)
            )
    echo_table(("target", "precision", "shapes", "output", "cosine", "max error", "largest", "took"), rows)
    first = compiled.reports[0]
    count = "1 sample" if first.samples == 1 else f"{first.samples} samples"
    click.echo(f"compared with ONNX Runtime in the simulator of {first.compiler}, on {first.sampled} ({count})")
    for report in compiled.reports:
        for note in report.notes:
            click.echo(f"note: {report.target}: {note}", err=True)
        if not report.reaches(min_cosine):
            click.echo(f"warning: {report.target}: below {min_cosine:g}, written because of --force", err=True)
            for loss in report.layers:
                click.echo(f"  loses most: {loss.layer}, alone to {loss.own:.5f}, so far {loss.so_far:.5f}", err=True)
    taken = sum(file.stat().st_size for file in compiled.bundle.iterdir() if file.is_file())
    click.echo(f"{compiled.bundle}: {size(taken)}; `hetero run {compiled.bundle}` runs it")


def _list(backends: Mapping[str, Backend], as_json: bool) -> None:
    known = {name: backend for name, backend in backends.items() if backend.targets}
    if as_json:
        echo_json(
            {
                name: {
                    "targets": backend.targets,
                    "options": [
                        {
                            "name": option.name,
                            "type": option.type_name,
                            "default": option.default,
                            "help": option.help,
                            "choices": option.choices,
                        }
                        for option in backend.compile_options
                    ],
                }
                for name, backend in known.items()
            }
        )
        return
    if not known:
        click.echo("no installed backend compiles")
    for name, backend in known.items():
        click.echo(f"{name}: {', '.join(backend.targets)}")
        rows = [
            (f"{name}.{option.name}", str(option.default), ", ".join(map(str, option.choices)), option.help)
            for option in backend.compile_options
        ]
        if rows:
            click.echo()
            echo_table(("option", "default", "choices", "meaning"), rows)
