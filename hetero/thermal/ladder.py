"""The NPU's clock as a ladder: lower steps need less voltage and do more with a joule. Root alone may climb it.

The steps are those that devfreq shows; what is set is `max_freq`, above which the kernel then does not go. It is set
back when the ladder is closed, when the interpreter ends, and, where the process was killed, by the next one that
looks: what stood there before is kept in a file in the cache folder for as long as it is changed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hetero.errors import Unavailable
from hetero.thermal import sysfs
from hetero.thermal.npu import devfreq_folder, npu_frequency

_log = logging.getLogger(__name__)

# The notes of this process' own ladders: numbers of processes alone do not tell, in a container every one may be 1.
_OPEN: set[Path] = set()

_BELOW = 0.97
_PATIENCE = 10.0


def power_share(clock: float, highest: float) -> float:
    """What a clock takes, as a share of what the highest one does: assumed to go by its square.

    By the clock and the voltage squared it would be the third power where the voltage rises with the clock, and the
    first where it does not; no kernel tells its users which. What is wrong with it is learned as heat of others.
    """
    return (clock / highest) ** 2


def next_step(clocks: Sequence[int], clock: int, wanted: float, since: float) -> int:
    """The step for what is wanted of the device: the lowest one that can do it, so that it works nearly all the time.

    Args:
        clocks: The steps, lowest first.
        clock: The present one.
        wanted: Power that may be taken, as a share of that of the highest step.
        since: Seconds since the last change; a step is kept for a while.
    """
    if since < _PATIENCE:
        return clock
    place = max((place for place, step in enumerate(clocks) if step <= clock), default=0)
    if place + 1 < len(clocks) and wanted > power_share(clocks[place], clocks[-1]):
        return clocks[place + 1]
    if place and wanted < _BELOW * power_share(clocks[place - 1], clocks[-1]):
        return clocks[place - 1]
    return clocks[place]


class Ladder:
    """Sets the highest clock of a Rockchip NPU.

    Args:
        sysroot: Root of `/sys`.
        cache: Folder for the note of what stood there before.

    Attributes:
        clocks: The steps in Hz, lowest first.
        clock: The present one.

    Raises:
        Unavailable: There is no such NPU, it shows no steps, or this user may not set them.
    """

    def __init__(self, sysroot: Path, cache: Path) -> None:
        restore(sysroot, cache)
        folder, frequency = devfreq_folder(sysroot), npu_frequency(sysroot)
        if folder is None or frequency is None or len(frequency.steps) < 2 or not frequency.limit:
            raise Unavailable("the kernel shows no steps of an NPU's clock", fix="leave frequency=False")
        self.clocks = frequency.steps
        self.clock = self._before = frequency.limit
        self._file = folder / "max_freq"
        self._note = _note(cache)
        if self._note.exists():
            raise Unavailable(
                "another governor sets the NPU's clock already",
                fix=f"use one governor with frequency=True at a time; if there is no other, remove {self._note}",
            )
        if not os.access(self._file, os.W_OK):
            raise Unavailable(
                "the NPU's clock may be set by root alone",
                fix=f"run as root, or let this user write it: sudo chmod a+w {self._file}",
            )
        self._climbed = 0.0
        self._open = True
        atexit.register(self.close)

    @property
    def share(self) -> float:
        """Of the power at the highest clock that the NPU takes at the present one, 0 to 1."""
        return power_share(self.clock, self.clocks[-1])

    def climb(self, duty: float, now: float) -> None:
        """Set the clock that makes the most of a duty at the highest one, unless it was changed a moment ago.

        Args:
            duty: That was granted, 0 to 1.
            now: Seconds.

        Raises:
            Unavailable: It could not be written.
        """
        chosen = next_step(self.clocks, self.clock, duty, now - self._climbed)
        if chosen != self.clock:
            self.set(chosen)
            self._climbed = now

    def set(self, clock: int) -> None:
        """Have the kernel go no higher than this step, nor higher than stood there before.

        Raises:
            Unavailable: It could not be written.
        """
        clock = min(clock, self._before)
        if not self._open or clock == self.clock:
            return
        try:
            if clock != self._before:
                _OPEN.add(self._note)
                _write_note(self._note, self._file, self._before, clock)
            self._file.write_text(f"{clock}\n")
            if clock == self._before:
                self._note.unlink(missing_ok=True)
                _OPEN.discard(self._note)
        except OSError as error:
            raise Unavailable(f"the NPU's clock could not be set: {error.strerror}") from None
        self.clock = clock

    def close(self) -> None:
        """Set it back."""
        if self._open:
            try:
                self.set(self._before)
            except Unavailable as error:
                _log.warning("%s; it is left at %.0f MHz", error.problem, self.clock / 1e6)
            self._open = False
            atexit.unregister(self.close)


def restore(sysroot: Path, cache: Path) -> int | None:
    """Set back what a process that was killed has left behind.

    A limit that somebody else has set since is left alone.

    Returns:
        The limit that stands again, Hz; None where nothing was left behind.
    """
    note = _note(cache)
    try:
        content = json.loads(note.read_text())
        file, before, left, owner = (
            Path(content["file"]),
            int(content["before"]),
            int(content["set"]),
            int(content["pid"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("the note of an NPU's clock at %s cannot be read (%s) and is removed", note, error)
        with contextlib.suppress(OSError):
            note.unlink()
        return None
    folder = devfreq_folder(sysroot)
    ours = note in _OPEN
    if folder is None or file != folder / "max_freq" or ours or (owner != os.getpid() and _alive(owner, content)):
        return None
    try:
        restored = sysfs.integer_or_none(file) == left
        if restored:
            file.write_text(f"{before}\n")
            _log.info("the NPU's clock was left at %.0f MHz; it may go to %.0f MHz again", left / 1e6, before / 1e6)
        note.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("the NPU's clock was left at %.0f MHz and cannot be set back: %s", left / 1e6, error.strerror)
        return None
    return before if restored else None


def _note(cache: Path) -> Path:
    return cache / "thermal" / "npu_clock.json"


def _write_note(note: Path, file: Path, before: int, clock: int) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "file": str(file),
        "before": before,
        "set": clock,
        "pid": os.getpid(),
        "boot": _boot(),
        "at": time.time(),
    }
    whole = note.with_suffix(f".{os.getpid()}")
    whole.write_text(json.dumps(content))
    whole.replace(note)


def _boot() -> str:
    """Of this start of the machine: numbers of processes are given anew with each."""
    return sysfs.text_or(Path("/proc/sys/kernel/random/boot_id"))


def _alive(process: int, note: Mapping[str, object]) -> bool:
    if note.get("boot") != _boot():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
