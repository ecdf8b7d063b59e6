"""A progress bar on stderr, when that is a terminal; lines that other code writes there go above it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hetero.cli.console import terminal

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """What a command tells of its progress. Without a terminal it shows nothing and only writes lines.

    Args:
        progress: The bar, or None.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, note="") if progress else None

    def update(self, done: float, total: float, note: str = "") -> None:
        """Show that `done` of `total` is done, in any unit, and a few words."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=max(total, done), note=note)

    def begin(self, description: str) -> None:
        """Start from nothing with something new."""
        if self._progress is not None and self._task is not None:
            self._progress.reset(self._task, total=None, description=description, note="")

    def line(self, text: str) -> None:
        """A line on stdout, above the bar where both are on the terminal."""
        if self._progress is not None and sys.stdout.isatty():
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text)
            sys.stdout.flush()


@contextlib.contextmanager
def progress_bar(wanted: bool = True) -> Iterator[Bar]:
    """A bar while the block runs; a silent one when it is not wanted or stderr is not a terminal."""
    console = terminal(err=True) if wanted and sys.stderr.isatty() else None
    if console is None or not console.is_interactive:
        yield Bar()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    # Only stderr is redirected: what goes to stdout may be a file.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        yield Bar(progress)
