"""The command `hetero` itself: its commands by name, logging, and where every error ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from hetero.cli.failures import BROKEN_PIPE, INTERRUPTED, OK, report

_COMMANDS = (
    "devices",
    "doctor",
    "power",
    "run",
    "bench",
    "transcribe",
    "trace",
    "thermal",
    "top",
    "compile",
    "kernels",
    "models",
    "cache",
    "plugins",
)

_EXIT_CODES = """
\b
Exit codes:
  0    all went well
  1    the work failed: a device, a trial, a file
  2    wrong usage, or input, options or a program that cannot be used
  3    not available here: no device that can do it, or a speech model or
       optional package that is missing
  130  interrupted (Ctrl-C)
"""


class Commands(click.Group):
    """Commands that are imported when they are called: `NAME` is `command` in the module `hetero.cli.NAME`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"hetero.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; of one that there is not, say which one may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            if not near or "Did you mean" in error.message:
                raise
            meant = f"{error.message} Did you mean {' or '.join(map(repr, near))}?"
            raise click.UsageError(meant, error.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for; a reader that went away ends it without a word."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run with these arguments (else the process's) and exit with a code that means something."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except Exception as error:
            code = report(error, as_json="--json" in given)
        sys.exit(code if isinstance(code, int) else OK)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXIT_CODES,
)
@click.option("-v", "--verbose", count=True, help="Log what happens to stderr; -vv also details and tracebacks.")
@click.version_option(package_name="hetero", prog_name="hetero")
@click.pass_context
def cli(ctx: click.Context, verbose: int) -> None:
    """Run models on this machine's NPUs, GPUs and CPU, and say what ran where.

    \b
        hetero devices                            what is here, and what is not and why
        hetero doctor                             does each device give right answers?
        hetero power                              power modes, and setting one
        hetero run model.onnx --input x=x.npy     run a model once
        hetero bench model.onnx                   compare the devices on it
        hetero trace model.onnx -o trace.json     a timeline of what ran where
        hetero thermal                            how warm it is, and what that changes
        hetero top -- python app.py               what a running program does, live
        hetero transcribe talk.mp3 -f srt         speech to text
        hetero compile model.onnx --target rk3588 a bundle for an NPU
        hetero kernels verify                     are the NPU kernels' sources right?
    """  # noqa: D301
    _log_to_stderr(verbose)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its number, not the user a traceback.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


class _Lines(logging.Handler):
    """Log records on whatever stderr is at that time, so that a progress bar can give way."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            click.echo(self.format(record), err=True)
        except Exception:
            self.handleError(record)


class _OneLine(logging.Formatter):
    """`warning: message`, with an exception's type and text instead of its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        error = record.exc_info[1] if record.exc_info else None
        return f"{line}: {type(error).__name__}: {error}" if error is not None else line


def _log_to_stderr(verbose: int) -> None:
    logger = logging.getLogger("hetero")
    logger.setLevel([logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)])
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Lines)]:
        logger.removeHandler(handler)
    lines = _Lines()
    detailed = logging.Formatter("%(relativeCreated)6.0f ms %(levelname)s %(name)s: %(message)s")
    lines.setFormatter(detailed if verbose > 1 else _OneLine())
    logger.addHandler(lines)


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere: the interpreter would complain about it when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
