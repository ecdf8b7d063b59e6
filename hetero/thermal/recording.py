"""What a governor saw, written down second by second, and what one would have done with it.

A recording is JSON, one line a second, behind a first line that says what it is::

    {"hetero thermal": 1, "profile": "default", "devices": {"rknn": {"kind": "npu", "lanes": 3}}}
    {"at": 12.0, "devices": {"rknn": {"celsius": 81.2, "source": "npu-thermal", "direct": true, "used": 1.0, ...}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, get_args

from hetero.backend import Device, Kind
from hetero.errors import InputError
from hetero.thermal.control import Control, Grant
from hetero.thermal.governor import Governor
from hetero.thermal.limits import STATES, Limits
from hetero.thermal.profiles import Profile
from hetero.thermal.readings import Reading
from hetero.thermal.samples import Sample

FORMAT = 1
_MARK = "hetero thermal"


class Recorder:
    """Writes what a governor sees.

    Args:
        file: Open for writing.
        governor: Whose.
        devices: Those that it watches.
        clock: Seconds, the governor's.
    """

    def __init__(self, file: TextIO, governor: Governor, devices: Mapping[str, Device]) -> None:
        self._file = file
        self._governor = governor
        self._line(
            {
                _MARK: FORMAT,
                "profile": governor.profile.name,
                "devices": {name: {"kind": each.kind, "lanes": each.lanes} for name, each in devices.items()},
            }
        )

    def write(self, at: float, samples: Mapping[str, Sample]) -> None:
        """A tick, at so many seconds."""
        told = self._governor.to_dict()["devices"]
        each = {name: {**told[name], "resolution": samples[name].resolution} for name in samples}
        self._line({"at": round(at, 3), "devices": each})

    def _line(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, allow_nan=False) + "\n")
        self._file.flush()


@dataclass(frozen=True)
class Step:
    """One second of a recording, as it was and as it would have been.

    Attributes:
        at: Seconds, on the clock of the recording.
        device: By name.
        reading: As it was recorded.
        used: The share of its time in which the device worked; None when nobody told.
        then: What the governor of that time granted.
        now: What this one would grant.
    """

    at: float
    device: str
    reading: Reading
    used: float | None
    then: Grant
    now: Grant


def replay(
    file: Path, profile: Profile, law: str = "budget", limits: Mapping[Kind, Limits] | None = None
) -> Iterator[Step]:
    """Take a recording through the controls: what they would have granted, for the temperatures that there were.

    A grant changes the temperatures that come after it; a recording's do not change any more. So this tells how the
    controls judge a moment, not how warm the machine would have become.

    Args:
        file: As `Recorder` wrote it.
        profile: Thresholds.
        law: `budget` or `tokens`.
        limits: Thresholds that differ from the profile's, by kind of device.

    Raises:
        InputError: The file is no recording, or damaged.
    """
    controls: dict[str, Control] = {}
    last: dict[str, float] = {}
    with file.open(encoding="utf-8") as lines:
        kinds = _kinds(file, next(lines, ""))
        for number, line in enumerate(lines, 2):
            if not line.strip():
                continue
            try:
                at, devices = _tick(line)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{file}, line {number}: {error!r}", fix="record again; a line that was cut off may be removed"
                ) from None
            for name, told in devices.items():
                kind = kinds.get(name, "npu")
                given = (limits or {}).get(kind) or profile.limits_of(kind)
                if name not in controls:
                    controls[name] = Control(given, law)
                control = controls[name]
                reading, used, resolution, then = told
                control.speak(given, reading.direct)
                passed = at - last.get(name, at - 1.0)
                if not passed > 0:
                    raise InputError(f"{file}, line {number}: time does not go on there", fix="record again")
                last[name] = at
                worked = then.duty if used is None else used
                yield Step(at, name, reading, used, then, control.step(reading, worked, passed, resolution))


def _kinds(file: Path, line: str) -> dict[str, Kind]:
    try:
        head = json.loads(line)
        form, devices = head[_MARK], head["devices"]
        kinds = {str(name): each["kind"] for name, each in devices.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file} is no recording of `hetero thermal record`", fix="make one: hetero thermal record FILE.jsonl"
        ) from None
    if form != FORMAT:
        raise InputError(f"{file} is a recording of format {form}; this version reads {FORMAT}", fix="record again")
    wrong = [kind for kind in kinds.values() if kind not in get_args(Kind)]
    if wrong:
        raise InputError(f"{file} names a kind of device that there is not: {wrong[0]!r}", fix="record again")
    return kinds


def _tick(line: str) -> tuple[float, dict[str, tuple[Reading, float | None, float, Grant]]]:
    """Raises ValueError, KeyError or TypeError."""
    value = json.loads(line)
    devices = {}
    for name, each in value["devices"].items():
        celsius = None if each["celsius"] is None else float(each["celsius"])
        state = each["state"]
        if state not in STATES:
            raise ValueError(f"no such state: {state!r}")
        reading = Reading(
            celsius, float(each["age"] or 0.0), bool(each["direct"]), str(each["source"]), str(each["reason"])
        )
        grant = Grant(float(each["duty"]), state, str(each["why"]))
        used = None if each["used"] is None else float(each["used"])
        devices[str(name)] = (reading, used, float(each["resolution"]), grant)
    return float(value["at"]), devices
