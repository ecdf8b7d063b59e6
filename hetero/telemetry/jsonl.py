"""Records as lines of JSON: written while the requests run, or afterwards, and read back.

A line is a request's, or with `"kind": "load"` that of a load.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, get_args

from hetero.errors import InputError, OptionError
from hetero.telemetry.records import Attempt, LoadRecord, Outcome, Record, Stage
from hetero.telemetry.whole import writing
from hetero.thermal.steering import Action, Decision

if TYPE_CHECKING:
    from hetero.runtime import Runtime

_log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


@contextmanager
def record_to_file(runtime: Runtime, path: PathLike) -> Iterator[Path]:
    """Write a line for each request or load that ends meanwhile; a file that is there is overwritten.

    Each line is on its way to the disk before the next one, so what a process that dies has done so far can be read.

    Args:
        runtime: Whose requests and loads.
        path: By convention `*.jsonl`.

    Yields:
        The path.

    Raises:
        OptionError: The file cannot be written to.
        OSError: A line could not be written, the disk being full, say: raised at the end, the requests go on.
    """
    target = Path(path).expanduser()
    try:
        file = target.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise OptionError(f"{target} cannot be written: {error.strerror}", fix="choose another file") from None
    with file:
        lines = _Lines(file)
        unsubscribe = runtime.records.subscribe(lines.add, lines.add)
        try:
            yield target
        finally:
            unsubscribe()
            lines.close()
    if lines.error is not None:
        raise lines.error


def write_records(records: Iterable[Record | LoadRecord], path: PathLike) -> None:
    """Write a line for each record. The file appears whole or not at all.

    Raises:
        OptionError: The path is a folder, or its folder is not there.
    """
    with writing(path) as file:
        for record in records:
            file.write(line_of(record).encode())


def read_records(path: PathLike, *, skip_damaged: bool = False) -> list[Record]:
    """The records of the requests in a file, in its order. Arguments and errors as `read_all`."""
    return [record for record in read_all(path, skip_damaged=skip_damaged) if isinstance(record, Record)]


def read_all(path: PathLike, *, skip_damaged: bool = False) -> list[Record | LoadRecord]:
    """The records of a file, in its order; empty lines count for nothing, and unknown keys neither.

    Args:
        path: As `record_to_file` wrote it.
        skip_damaged: Leave out the lines that cannot be read, with a warning, as when the process that wrote them was
            killed in the middle of one.

    Raises:
        InputError: There is no such file, or a line is damaged: which one, and how.
    """
    file = Path(path).expanduser()
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    records: list[Record | LoadRecord] = []
    damaged: list[int] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(record_of(json.loads(line)))
        except (ValueError, RecursionError) as error:
            if not skip_damaged:
                raise InputError(
                    f"{file}, line {number} is no record: {_problem(error)}",
                    fix="remove the line, or leave out what is damaged: skip_damaged=True, or --skip-damaged",
                ) from None
            damaged.append(number)
    if damaged:
        _log.warning("%s: %d damaged lines are left out, the first is line %d", file, len(damaged), damaged[0])
    return records


def line_of(record: Record | LoadRecord) -> str:
    """A record as one line, with its end."""
    return json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")) + "\n"


def record_of(values: Any) -> Record | LoadRecord:
    """A record from what its `to_dict` gave.

    Raises:
        ValueError: Something is missing, or of a wrong type.
    """
    if isinstance(values, dict) and "kind" in values:
        checks = {"kind": _one_of(("load",)), "program": _text, "started": _number, "cached": _truth_or_none}
        fields = _fields(values, {**checks, "attempt": _attempt}, "the record")
        return LoadRecord(fields["program"], fields["attempt"], fields["started"], fields["cached"])
    fields = _fields(
        values,
        {
            "id": _whole,
            "program": _text,
            "started": _number,
            "arrived": _number,
            "wait_seconds": _seconds,
            "total_seconds": _seconds,
            "error": _text_or_none,
            "attempts": _attempts,
        },
        "the record",
    )
    # Files that were written before heat was looked at tell of none.
    fields["heat"] = _decisions(values.get("heat", []))
    record = Record(fields["program"])
    for name, value in fields.items():
        setattr(record, name, value)
    return record


class _Lines:
    """Where records of several threads become lines of one file."""

    def __init__(self, file: IO[str]) -> None:
        self.error: OSError | None = None
        self._file: IO[str] | None = file
        self._lock = threading.Lock()

    def add(self, record: Record | LoadRecord) -> None:
        line = line_of(record)
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                self.error, self._file = error, None

    def close(self) -> None:
        with self._lock:
            self._file = None


Check = Callable[[Any], Any]


def _fields(values: Any, checks: Mapping[str, Check], what: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"{what} is {_shown(values)}, expected an object")
    fields = {}
    for name, check in checks.items():
        if name not in values:
            raise ValueError(f"{what} has no {name!r}")
        try:
            fields[name] = check(values[name])
        except (ValueError, OverflowError) as error:
            # A fault in a list says by itself where it is.
            place = "" if check in (_attempt, _attempts) else f"{name} is {_shown(values[name])}, "
            raise ValueError(f"{place}{error}") from None
    return fields


def _attempts(values: Any) -> list[Attempt]:
    if not isinstance(values, list):
        raise ValueError(f"attempts is {_shown(values)}, expected a list")
    return [_attempt(entry) for entry in values]


def _decisions(values: Any) -> list[Decision]:
    if not isinstance(values, list):
        raise ValueError(f"heat is {_shown(values)}, expected a list")
    return [_decision(entry) for entry in values]


def _decision(values: Any) -> Decision:
    checks: dict[str, Check] = {
        "device": _text,
        "action": _one_of(get_args(Action)),
        "reason": _text,
        "to": _text,
        "wait": _wait,
        "held": _seconds_or_none,
    }
    return Decision(**_fields(values, checks, "a decision for heat"))


def _wait(value: Any) -> float:
    """A wait without an end is written as none."""
    return math.inf if value is None else _seconds(value)


def _seconds_or_none(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _attempt(values: Any) -> Attempt:
    checks: dict[str, Check] = {
        "device": _text,
        "stage": _one_of(get_args(Stage)),
        "outcome": _one_of(get_args(Outcome)),
        "reason": _text,
        "seconds": _seconds,
        "simulated": _truth,
        "started": _number,
        "lane": _lane,
        "thread": _whole,
        "verify_seconds": _seconds,
        "copy_seconds": _seconds,
    }
    return Attempt(**_fields(_with_copies(values), checks, "an attempt"))


def _with_copies(entry: Any) -> Any:
    """Files that were written before copies were told are read too."""
    return {"copy_seconds": 0.0, **entry} if isinstance(entry, dict) else entry


def _expect(fits: bool, expected: str, value: Any) -> Any:
    if not fits:
        raise ValueError(f"expected {expected}")
    return value


def _text(value: Any) -> Any:
    return _expect(isinstance(value, str), "a text", value)


def _text_or_none(value: Any) -> Any:
    return _expect(value is None or isinstance(value, str), "a text or null", value)


def _truth(value: Any) -> Any:
    return _expect(isinstance(value, bool), "true or false", value)


def _truth_or_none(value: Any) -> Any:
    return _expect(value is None or isinstance(value, bool), "true, false or null", value)


def _whole(value: Any) -> Any:
    return _expect(isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a whole number", value)


def _lane(value: Any) -> Any:
    return None if value is None else _whole(value)


def _number(value: Any) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return float(_expect(fits, "a number", value))


def _seconds(value: Any) -> float:
    number = _number(value)
    _expect(number >= 0, "seconds, 0 or more", number)
    return number


def _one_of(allowed: tuple[str, ...]) -> Check:
    def check(value: Any) -> Any:
        return _expect(isinstance(value, str) and value in allowed, f"one of {', '.join(allowed)}", value)

    return check


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _problem(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON: {error.msg} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "no UTF-8"
    return str(error) or type(error).__name__
