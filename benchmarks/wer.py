"""Word error rate over the speech of the tests, by model.

    python benchmarks/wer.py tiny.en base --device cpu

Text is normalised as OpenAI's published figures are (`whisper_normalizer`), errors are counted by `jiwer`. Exits with 1
where a model is above `--limit`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

SPEECH = Path(__file__).parent.parent / "tests" / "data" / "speech"


def measure(transcriber: Any, speech: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Transcribe every recording of a folder and count the errors.

    Args:
        transcriber: A `hetero.whisper.Transcriber`.
        speech: Folder with recordings and `transcripts.json`, `{file: text}`.
        options: For `Transcriber.transcribe`.

    Returns:
        The word error rate over all words, seconds of audio and of work, and the same for each recording.
    """
    import jiwer
    from whisper_normalizer.english import EnglishTextNormalizer

    normal = EnglishTextNormalizer()
    expected = json.loads((speech / "transcripts.json").read_text(encoding="utf-8"))
    clips = []
    for name, text in expected.items():
        transcript = transcriber.transcribe(speech / name, **options)
        counts = jiwer.process_words(normal(text), normal(transcript.text))
        errors = counts.substitutions + counts.deletions + counts.insertions
        clips.append(
            {
                "file": name,
                "words": counts.hits + counts.substitutions + counts.deletions,
                "errors": errors,
                "audio_seconds": transcript.duration,
                "seconds": transcript.seconds,
                "timings": transcript.timings,
                "devices": transcript.devices,
                "simulated": transcript.simulated,
                "text": transcript.text,
            }
        )
    words, errors = sum(clip["words"] for clip in clips), sum(clip["errors"] for clip in clips)
    return {
        "model": transcriber.model.name,
        "wer": errors / words,
        "words": words,
        "errors": errors,
        "audio_seconds": sum(clip["audio_seconds"] for clip in clips),
        "seconds": sum(clip["seconds"] for clip in clips),
        "clips": clips,
    }


@click.command()
@click.argument("models", nargs=-1)
@click.option("--speech", type=click.Path(exists=True, file_okay=False, path_type=Path), default=SPEECH)
@click.option("--device", help="The only device to use; the whole chain when not given.")
@click.option("--language", default="en", show_default=True)
@click.option("--limit", type=float, default=0.05, show_default=True, help="Highest word error rate that passes.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(models: tuple[str, ...], speech: Path, device: str | None, language: str, limit: float, as_json: bool) -> None:
    """Measure MODELS (names, Hugging Face ids or folders; tiny.en by default)."""
    from hetero import Runtime
    from hetero.whisper import Transcriber

    results = []
    with Runtime() as runtime:
        for model in models or ("tiny.en",):
            with Transcriber(model, runtime=runtime, device=device) as transcriber:
                results.append(measure(transcriber, speech, {"language": language}))
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        _show(results)
    sys.exit(any(result["wer"] > limit for result in results))


def _show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Word error rate")
    for heading in ("model", "recording", "words", "errors", "WER", "audio", "x real time", "devices"):
        table.add_column(heading, justify="left" if heading in ("model", "recording", "devices") else "right")
    for result in results:
        for clip in result["clips"]:
            table.add_row(result["model"], clip["file"], *_figures(clip), _devices(clip))
        table.add_row(result["model"], "all", *_figures(result), "", style="bold", end_section=True)
    Console().print(table)


def _figures(row: dict[str, Any]) -> list[str]:
    return [
        str(row["words"]),
        str(row["errors"]),
        f"{row['errors'] / row['words']:.1%}",
        f"{row['audio_seconds']:.1f} s",
        f"{row['audio_seconds'] / row['seconds']:.1f}",
    ]


def _devices(clip: dict[str, Any]) -> str:
    used = {name for counts in clip["devices"].values() for name in counts}
    return ", ".join(f"{name} (simulated)" if name in clip["simulated"] else name for name in sorted(used))


if __name__ == "__main__":
    main()
