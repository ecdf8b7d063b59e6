"""A trace of requests: for Perfetto and chrome://tracing, as a picture, as lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from hetero.errors import OptionError
from hetero.telemetry.chrome import chrome_trace
from hetero.telemetry.jsonl import read_all, write_records
from hetero.telemetry.records import LoadRecord, Record, Records
from hetero.telemetry.spans import Layout
from hetero.telemetry.timeline import PICTURES, check_matplotlib, draw
from hetero.telemetry.whole import writing

PathLike = str | os.PathLike[str]


class Trace:
    """What happened to some requests, and when what was loaded, to look at.

        Trace(runtime.records).write("trace.json")      # open it in https://ui.perfetto.dev or chrome://tracing
        Trace(runtime.records).write("timeline.png")

    Args:
        records: Of finished requests: `runtime.records`, or what `read_records` gave.
        loads: Of loads; those of `runtime.records`, when not given.

    Attributes:
        records: The same, as a list.
        loads: The same, as a list.
    """

    def __init__(self, records: Iterable[Record] = (), loads: Iterable[LoadRecord] | None = None) -> None:
        if loads is None:
            loads = records.loads if isinstance(records, Records) else ()
        self.records = list(records)
        self.loads = list(loads)

    @classmethod
    def read(cls, path: PathLike, *, skip_damaged: bool = False) -> Trace:
        """The trace of a file that `record_to_file` or `write_records` wrote. Errors as `read_all`."""
        told = read_all(path, skip_damaged=skip_damaged)
        records = [record for record in told if isinstance(record, Record)]
        return cls(records, [record for record in told if isinstance(record, LoadRecord)])

    def write(self, path: PathLike) -> None:
        """Write a file of the kind that its name says: `.json`, `.png`, `.svg` or `.jsonl`.

        The file appears whole or not at all.

        Raises:
            OptionError: Another suffix, or no such folder.
            Unavailable: A picture, and matplotlib is not installed.
        """
        writers: dict[str, Callable[[PathLike], None]] = {
            ".json": self.write_chrome,
            ".jsonl": self.write_records,
            **dict.fromkeys(PICTURES, self.write_timeline),
        }
        check_suffix(path)
        writers[Path(path).suffix.lower()](path)

    def write_chrome(self, path: PathLike) -> None:
        """Write the Trace Event Format as JSON: a process for each device, a thread for each lane.

        Raises:
            OptionError: The path is a folder, or its folder is not there.
        """
        document = json.dumps(chrome_trace(Layout(self.records, self.loads)), allow_nan=False, separators=(",", ":"))
        with writing(path) as file:
            file.write(document.encode())

    def write_timeline(self, path: PathLike) -> None:
        """Draw the lanes as rows and the runs as bars, with how many requests waited below; `.png` or `.svg`.

        Raises:
            OptionError: Another suffix, or no such folder.
            Unavailable: matplotlib is not installed.
        """
        check_suffix(path, PICTURES)
        with writing(path) as file:
            draw(Layout(self.records, self.loads), file, Path(path).suffix.lower()[1:])

    def write_records(self, path: PathLike) -> None:
        """Write the records as lines of JSON, which `Trace.read` reads. Errors as for `write_chrome`."""
        write_records([*self.loads, *self.records], path)


def check_suffix(path: PathLike, allowed: tuple[str, ...] = (".json", ".jsonl", *PICTURES)) -> None:
    """Refuse a file that could not be written, before the work is done that it is to show.

    Raises:
        OptionError: A suffix that is not among `allowed`.
        Unavailable: A picture, and matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in allowed:
        raise OptionError(
            f"{os.fspath(path)!r} ends in {suffix or 'no suffix'!r}, expected {', '.join(allowed)}",
            fix=".json is for Perfetto, .png and .svg are pictures, .jsonl holds the records",
        )
    if suffix in PICTURES:
        check_matplotlib()
