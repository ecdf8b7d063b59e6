"""Reading one small file of the kernel's: what stands in it, or why it cannot be read."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_WORDS = {
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
    errno.ENOENT: "it is not there any more",
    errno.ENODEV: "its device is gone",
    errno.ENODATA: "the driver has no reading now",
    errno.EAGAIN: "the driver has no reading now",
    errno.EBUSY: "the driver is busy",
    errno.EIO: "the driver cannot reach the sensor",
    errno.ETIMEDOUT: "the sensor does not answer",
}
_NUMBER = re.compile(r"[+-]?\d{1,18}")


class Unreadable(Exception):
    """A file that tells nothing now; the text says why.

    Args:
        why: In words.
        forbidden: This user may not read it, another might.
    """

    def __init__(self, why: str, *, forbidden: bool = False) -> None:
        super().__init__(why)
        self.forbidden = forbidden


def text(file: Path) -> str:
    """What stands in a file, without blanks and NULs around it.

    Raises:
        Unreadable: It cannot be read.
    """
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        why = _WORDS.get(error.errno or 0, error.strerror or str(error))
        raise Unreadable(why, forbidden=isinstance(error, PermissionError)) from None
    except ValueError as error:  # A path with a NUL in it.
        raise Unreadable(str(error)) from None
    return content.strip("\0 \n\t\r")


def text_or(file: Path, otherwise: str = "") -> str:
    """The same, and something else where it cannot be read."""
    try:
        return text(file)
    except Unreadable:
        return otherwise


def integer(file: Path) -> int:
    """The whole number in a file.

    Raises:
        Unreadable: It cannot be read, or holds something else.
    """
    content = text(file)
    if not _NUMBER.fullmatch(content):
        shown = content if len(content) <= 20 else f"{content[:20]}..."
        raise Unreadable(f"it holds {shown!r}, no number" if content else "it is empty")
    return int(content)


def integer_or_none(file: Path) -> int | None:
    """The same, and None where there is none."""
    try:
        return integer(file)
    except Unreadable:
        return None


def entries(folder: Path, pattern: str) -> list[Path]:
    """The entries of a folder that fit a pattern, in the order of their names; none where it cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def asleep(device: Path) -> bool:
    """Whether a device sleeps, as far as its power management tells: reading some sensors would wake it."""
    return text_or(device / "power/runtime_status") in ("suspended", "suspending")
