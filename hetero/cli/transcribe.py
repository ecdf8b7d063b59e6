"""`hetero transcribe`: speech to text, with what ran where."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hetero.cli import runtime
from hetero.cli.console import clock, echo_json, echo_table, marked
from hetero.cli.failures import FAILED, describe, report
from hetero.cli.outputs import writable_folder
from hetero.cli.progress import Bar, progress_bar
from hetero.cli.trace import trace_targets, traced
from hetero.errors import AudioError, DispatchError
from hetero.thermal.timeline import HeatTimeline, check_picture, summary

if TYPE_CHECKING:
    from hetero.explain import Explanation
    from hetero.runtime import Runtime
    from hetero.whisper import Transcriber, Transcript

FORMATS = ("txt", "srt", "vtt", "tsv", "json")


def _temperatures(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        temperatures = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no temperature, expected 0 or 0,0.2,0.4") from None
    if not all(0 <= temperature <= 2 for temperature in temperatures):
        raise click.BadParameter(f"{value!r}: a temperature lies between 0 and 2")
    return temperatures


@click.command("transcribe")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option(
    "--model",
    default="tiny.en",
    show_default=True,
    help="A name that `hetero models` lists, a Hugging Face id (org/name), or a folder.",
)
@click.option("--device", metavar="NAMES", help="Run all parts on this device or backend, or these in this order.")
@click.option("--encoder-device", metavar="NAMES", help="Run the encoder there.")
@click.option("--decoder-device", metavar="NAMES", help="Run the decoder there.")
@click.option("--language", help="Of the speech: en, de, ...; detected when it is not given.")
@click.option(
    "--task",
    type=click.Choice(["transcribe", "translate"]),
    default="transcribe",
    show_default=True,
    help="Write what is said, or its translation into English.",
)
@click.option(
    "-f",
    "--output-format",
    "formats",
    multiple=True,
    type=click.Choice([*FORMATS, "all"]),
    help="What to write, to stdout or into --output-dir; may be repeated there. Default there: txt.",
)
@click.option("--output-dir", type=click.Path(path_type=Path), help="Write FILE's name with .txt, .srt, ... here.")
@click.option("--initial-prompt", help="Text that comes before, for the spelling of names and the style.")
@click.option(
    "--temperature",
    metavar="NUMBERS",
    callback=_temperatures,
    help="Of the sampling; several are tried in turn while the text looks wrong. Default: 0,0.2,0.4,0.6,0.8,1.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="At most so many tokens for each 30 s of audio.")
@click.option("--without-timestamps", is_flag=True, help="One segment for each 30 s.")
@click.option(
    "--trace",
    "traces",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what ran where and when: .json (for Perfetto), .png, .svg or .jsonl; may be repeated.",
)
@click.option(
    "--timeline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw how warm the devices were, what ran where, and what heat held back: .png or .svg.",
)
@runtime.load_options
@click.option("--verbose", is_flag=True, help="Timestamps also when stdout is no terminal; say why each device.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@runtime.json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    model: str,
    device: str | None,
    encoder_device: str | None,
    decoder_device: str | None,
    formats: tuple[str, ...],
    output_dir: Path | None,
    temperature: tuple[float, ...] | None,
    traces: tuple[Path, ...],
    timeline: Path | None,
    fallback: Any,
    options: runtime.Options,
    thermal: str | None,
    on_hot: str | None,
    chain: str | None,
    simulate: tuple[str, ...],
    verbose: bool,
    quiet: bool,
    as_json: bool,
    **decoding: Any,
) -> None:
    """Transcribe speech in audio (or video) FILES of any common format.

    Segments go to stdout as they come, on a terminal with times; progress and a summary of what ran where go to stderr.

    \b
        hetero transcribe talk.mp3
        hetero transcribe talk.mp3 -f srt > talk.srt
        hetero transcribe *.flac --model base --output-dir texts -f txt -f json
    """  # noqa: D301
    targets = _targets(files, formats, output_dir, as_json)
    trace_files = trace_targets(traces)
    if timeline is not None:
        check_picture(timeline)
        writable_folder(timeline.parent)
    _check_packages()
    if temperature is not None:
        decoding["temperature"] = temperature
    to_stdout = formats[0] if formats and output_dir is None else None
    shown = not as_json and to_stdout is None
    started = time.perf_counter()
    with (
        runtime.make_runtime(
            chain=chain, simulate=simulate, options=options, thermal=runtime.thermal_of(thermal, on_hot)
        ) as rt,
        traced(rt, trace_files),
        progress_bar(not quiet) as bar,
        _transcriber(rt, model, _devices(device, encoder_device, decoder_device), fallback, bar) as transcriber,
    ):
        load_seconds = time.perf_counter() - started
        heat = HeatTimeline(rt) if timeline is not None or (rt.modelled and rt.governor) else None
        work = _Work(transcriber, decoding, bar, shown, verbose or sys.stdout.isatty(), not as_json, len(files) > 1)
        done = [work.file(file, targets[file]) for file in files]
        explanations = [part.explain() for part in _parts(transcriber)] if verbose else []
        document = _document(transcriber, done, load_seconds)
        if heat is not None:
            heat.close()
            document["heat"] = heat.to_dict()
            if timeline is not None:
                heat.draw(timeline, ", ".join(Path(file).name for file in files))
    if as_json:
        echo_json(document)
    for entry in done:
        if entry.transcript is not None and to_stdout is not None:
            _write_to_stdout(entry.transcript, to_stdout)
    if not as_json and not quiet:
        _echo_summary(document, explanations)
        for line in summary(document["heat"]) if "heat" in document else ():
            click.echo(line, err=True)
    if any(entry.error is not None for entry in done):
        ctx.exit(FAILED)


@dataclass(frozen=True)
class _Done:
    """What became of one file: a transcript or an error."""

    file: str
    transcript: Transcript | None = None
    written: tuple[Path, ...] = ()
    error: Exception | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "transcript": self.transcript.to_dict() if self.transcript else None,
            "written": [str(path) for path in self.written],
            "error": describe(self.error) if self.error else None,
        }


@dataclass(frozen=True)
class _Work:
    """Transcribes file after file.

    Attributes:
        transcriber: Does it.
        decoding: The options of `Transcriber.segments`.
        bar: Shows how far it is.
        shown: Whether segments go to stdout as they come.
        timed: Whether they go there with their times.
        told: Whether errors go to stderr as they come.
        headed: Whether each file gets a heading there, or where there are no times, an empty line after it.
    """

    transcriber: Transcriber
    decoding: Mapping[str, Any]
    bar: Bar
    shown: bool
    timed: bool
    told: bool
    headed: bool

    def file(self, file: str, targets: Mapping[str, Path]) -> _Done:
        """The transcript of one file, written to its targets; an error of this file ends no other's."""
        from hetero.whisper import write

        self.bar.begin(Path(file).name)
        if self.shown and self.headed and self.timed:
            self.bar.line(f"{file}:")
        try:
            transcript = self._transcript(file)
            for form, path in targets.items():
                write(transcript, form, path)
        except (AudioError, DispatchError, OSError) as error:
            if self.told:
                click.echo(f"{file}:", err=True)
                report(error, as_json=False)
            return _Done(file, error=error)
        if self.shown and self.headed and not self.timed:
            self.bar.line("")
        return _Done(file, transcript, tuple(targets.values()))

    def _transcript(self, file: str) -> Transcript:
        started = time.perf_counter()

        def progress(done: float, total: float) -> None:
            speed = done / max(time.perf_counter() - started, 1e-9)
            self.bar.update(done, total, f"{clock(done)} of {clock(total)}, {speed:.1f}x real time")

        segments = self.transcriber.segments(file, progress=progress, **self.decoding)
        for segment in segments:
            if self.shown:
                times = f"[{clock(segment.start, 3)} --> {clock(segment.end, 3)}] " if self.timed else ""
                self.bar.line(times + segment.text)
        return segments.transcript()


@contextlib.contextmanager
def _transcriber(
    rt: Runtime, name: str, device: str | dict[str, str] | None, fallback: Any, bar: Bar
) -> Iterator[Transcriber]:
    from hetero.whisper import Transcriber, open_model

    bar.begin(name)
    model = open_model(name, progress=lambda stage, done: bar.update(done, 1.0, stage))
    with Transcriber(model, runtime=rt, device=device, fallback=fallback) as transcriber:
        yield transcriber


def _devices(both: str | None, encoder: str | None, decoder: str | None) -> str | dict[str, str] | None:
    """The devices by part; the cross-attention, which reads what the encoder gives, goes with that."""
    if encoder is None and decoder is None:
        return both
    named = {"encoder": encoder or both, "cross": encoder or both, "decoder": decoder or both}
    return {part: names for part, names in named.items() if names is not None}


def _targets(
    files: Sequence[str], formats: Sequence[str], folder: Path | None, as_json: bool
) -> dict[str, dict[str, Path]]:
    """The files to write by audio file and format; refused before any work when they cannot be."""
    if len(set(files)) < len(files):
        raise click.UsageError("a file is given twice")
    if folder is None:
        if as_json and formats:
            raise click.UsageError("--json and --output-format both go to stdout: add --output-dir")
        if len(formats) > 1 or "all" in formats:
            raise click.UsageError("several formats do not fit into stdout: add --output-dir")
        if len(files) > 1 and formats and formats[0] != "txt":
            raise click.UsageError(f"several files do not fit into one {formats[0]}: add --output-dir")
        return {file: {} for file in files}
    wanted = FORMATS if "all" in formats else tuple(dict.fromkeys(formats)) or ("txt",)
    stems = [Path(file).stem for file in files]
    # talk.mp3 and talk.wav: the whole names tell them apart.
    names = stems if len(set(stems)) == len(stems) else [Path(file).name for file in files]
    if len(set(names)) < len(names):
        raise click.UsageError("two files have one name, so their transcripts would: do them one by one")
    folder = writable_folder(folder)
    return {file: {form: folder / f"{name}.{form}" for form in wanted} for file, name in zip(files, names, strict=True)}


def _check_packages() -> None:
    """Refuse at once what would fail after the model was converted."""
    for package in ("av", "tokenizers"):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def _parts(transcriber: Transcriber) -> tuple[Any, ...]:
    sessions = transcriber.sessions
    return sessions.encoder, sessions.cross, sessions.decoder


def _document(transcriber: Transcriber, done: Sequence[_Done], load_seconds: float) -> dict[str, Any]:
    transcripts = [entry.transcript for entry in done if entry.transcript is not None]
    audio = sum(transcript.duration for transcript in transcripts)
    seconds = sum(transcript.seconds for transcript in transcripts)
    return {
        "model": {"name": transcriber.model.name, "origin": transcriber.model.origin},
        "files": [entry.to_dict() for entry in done],
        "stages": _stages(transcripts),
        "load_seconds": load_seconds,
        "audio_seconds": audio,
        "seconds": seconds,
        "speed": audio / seconds if seconds else None,
    }


def _stages(transcripts: Sequence[Transcript]) -> list[dict[str, Any]]:
    """Seconds and devices of each stage, over all files; `other` is mostly the choice of tokens."""
    seconds: dict[str, float] = {}
    counts: dict[str, dict[str, int]] = {}
    simulated = {device for transcript in transcripts for device in transcript.simulated}
    for transcript in transcripts:
        for stage, spent in transcript.timings.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
        for stage, devices in transcript.devices.items():
            told = counts.setdefault(stage, {})
            for device, count in devices.items():
                told[device] = told.get(device, 0) + count
    rest = sum(transcript.seconds for transcript in transcripts) - sum(seconds.values())
    seconds["other"] = max(0.0, rest)
    return [
        {
            "stage": stage,
            "devices": [
                {"device": device, "simulated": device in simulated, "count": count}
                for device, count in counts.get(stage, {}).items()
            ],
            "seconds": spent,
        }
        for stage, spent in seconds.items()
    ]


def _passed_over(transcripts: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """For how many requests a device was asked in vain, by stage and by what it did."""
    counts: dict[tuple[str, str], int] = {}
    for transcript in transcripts:
        for stage, told in transcript["passed_over"].items():
            for what, count in told.items():
                counts[stage, what] = counts.get((stage, what), 0) + count
    return counts


def _write_to_stdout(transcript: Transcript, form: str) -> None:
    from hetero.whisper import render

    click.echo(render(transcript, form), nl=False)


def _echo_summary(document: Mapping[str, Any], explanations: Sequence[Explanation]) -> None:
    """What it took and what ran where, on stderr."""
    good = [entry["transcript"] for entry in document["files"] if entry["transcript"]]
    for entry in document["files"]:
        for path in entry["written"]:
            click.echo(f"wrote {path}", err=True)
    if not good:
        return
    languages = ", ".join(dict.fromkeys(transcript["language"] for transcript in good))
    audio, seconds = document["audio_seconds"], document["seconds"]
    speed = f"{document['speed']:.1f}x real time" if document["speed"] else "no audio"
    click.echo(
        f"\n{clock(audio, 1)} of audio ({languages}) in {seconds:.2f} s: {speed}; "
        f"{document['model']['name']} ready in {document['load_seconds']:.2f} s",
        err=True,
    )
    rows = []
    for stage in document["stages"]:
        names = [
            marked(used["device"], used["simulated"]) + (f" x{used['count']}" if len(stage["devices"]) > 1 else "")
            for used in stage["devices"]
        ]
        rows.append((stage["stage"], ", ".join(names) or "host", f"{stage['seconds']:.2f}"))
    echo_table(("stage", "device", "seconds"), rows, err=True)
    for (stage, told), count in _passed_over(good).items():
        click.echo(f"{stage}: passed over for {count} requests: {told}", err=True)
    absent: tuple[str, ...] = ()
    for explanation in explanations:
        # What is not on this machine is the same for all parts.
        click.echo(f"\n{explanation.text(absent=explanation.absent != absent)}", err=True)
        absent = explanation.absent
