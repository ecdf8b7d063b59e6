"""Errors as people and scripts see them, and the exit codes that they lead to."""

from __future__ import annotations

import logging
import traceback

import click

from hetero.cli.console import echo_json
from hetero.errors import (
    DispatchError,
    HeteroError,
    InputError,
    ModelError,
    OptionError,
    ProgramError,
    Unavailable,
)

OK = 0
FAILED = 1
USAGE = 2
NOT_HERE = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

_EXTRAS = {
    "av": "whisper",
    "huggingface_hub": "whisper",
    "onnxruntime": "cpu",
    "safetensors": "whisper",
    "tokenizers": "whisper",
}


def exit_code(error: BaseException) -> int:
    """The exit code of an error: whose it is to mend, and whether another machine could do better."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, InputError | OptionError | ProgramError):
        return USAGE
    if isinstance(error, Unavailable | ModelError) or _extra(error):
        return NOT_HERE
    if isinstance(error, DispatchError):
        refused = all(attempt.outcome in ("unavailable", "unsupported") for attempt in error.attempts)
        return NOT_HERE if refused else FAILED
    return FAILED


def describe(error: BaseException) -> dict[str, object]:
    """An error as JSON-ready values: `error` (its type), `problem`, `fix`, `attempts`."""
    problem, fix = _problem_and_fix(error)
    attempts = error.attempts if isinstance(error, DispatchError) else ()
    return {
        "error": "UsageError" if isinstance(error, click.UsageError) else type(error).__name__,
        "problem": problem,
        "fix": fix,
        "attempts": [attempt.to_dict() for attempt in attempts],
    }


def text_of(error: BaseException) -> str:
    """An error as lines for people: the problem, each device's part, the fix."""
    problem, fix = _problem_and_fix(error)
    attempts = error.attempts if isinstance(error, DispatchError) else ()
    lines = [click.style("error: ", fg="red", bold=True) + problem, *(f"  - {attempt}" for attempt in attempts)]
    if fix:
        lines.append(click.style("fix: ", fg="green", bold=True) + fix)
    return "\n".join(lines)


def report(error: BaseException, as_json: bool) -> int:
    """Tell of an error: lines on stderr, or one JSON document on stdout; with `-vv` also the traceback, on stderr.

    Returns:
        The exit code.
    """
    if logging.getLogger("hetero").isEnabledFor(logging.DEBUG):
        click.echo("".join(traceback.format_exception(error)).rstrip(), err=True)
    if as_json:
        echo_json(describe(error))
    elif isinstance(error, click.ClickException):
        error.show()
    else:
        click.echo(text_of(error), err=True)
    return exit_code(error)


def _problem_and_fix(error: BaseException) -> tuple[str, str]:
    if isinstance(error, HeteroError):
        return error.problem, error.fix
    if isinstance(error, click.UsageError):
        return error.format_message(), f"see `{error.ctx.command_path} --help`" if error.ctx else ""
    if isinstance(error, click.ClickException):
        return error.format_message(), ""
    extra = _extra(error)
    if extra:
        return f"the Python package {_missing(error)!r} is not installed", f'pip install "hetero[{extra}]"'
    if isinstance(error, MemoryError):
        return f"there is not enough memory: {error}", "use smaller shapes or a smaller model"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}", ""
    return (
        f"unexpected {type(error).__name__}: {error}",
        "this is a defect: run again as `hetero -vv ...` and report what it prints",
    )


def _missing(error: BaseException) -> str:
    """The top-level package that an import did not find."""
    return (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""


def _extra(error: BaseException) -> str | None:
    return _EXTRAS.get(_missing(error))
