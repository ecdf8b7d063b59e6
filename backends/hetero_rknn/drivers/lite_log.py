"""What Rockchip's Python package does to `logging`, undone, and what it says there, heard.

rknn-toolkit-lite2 2.5.0 replaces the tables of level names when it is imported: `INFO` becomes `I`, names that programs
added are gone, `logger.setLevel("INFO")` raises. Its errors are no exceptions but lines on its own logger.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = "acuityLogger"
"""The package's logger. It has a handler for stderr, and does not propagate."""

# Of two names of one level, the later is the one that is printed.
_STANDARD = {
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "NOTSET": logging.NOTSET,
}
_LETTERS = frozenset("CEWID")
_lock = threading.Lock()


@contextmanager
def logging_kept() -> Iterator[None]:
    """Afterwards `logging` has its level names, and the root logger the handlers and the level that it had before.

    Names that the program added are kept. Where Rockchip's letters stand already, because the program imported the
    package itself, they go too.
    """
    root, module = logging.getLogger(), vars(logging)
    with _lock:
        # No public call lists the names before Python 3.11, and none removes one.
        names, levels = dict(module["_levelToName"]), dict(module["_nameToLevel"])
        handlers, level = root.handlers[:], root.level
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            own = {number: name for number, name in names.items() if name not in _LETTERS}
            module["_levelToName"] = {number: name for name, number in _STANDARD.items()} | own
            module["_nameToLevel"] = _STANDARD | {name: n for name, n in levels.items() if name not in _LETTERS}


class Words:
    """What the package said during one call, on one thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """Its errors on one line: of a traceback, the exception; without what it says whenever something fails."""
        said = [line for line in self.lines if not line.startswith("Catch exception ")] or self.lines
        return "; ".join(dict.fromkeys(said))

    @property
    def code(self) -> str:
        """The name of an error code among it, as in `rknn_api.h`; empty for none."""
        found = re.findall(r"RKNN_ERR_[A-Z_]+", " ".join(self.lines))
        return found[-1] if found else ""


class Listener(logging.Handler):
    """Hears what the package logs, each thread its own; stays on the package's logger. A process has one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._here = threading.local()

    @contextmanager
    def listening(self) -> Iterator[Words]:
        """Collects what this thread's calls say."""
        # Programs that reconfigure logging take handlers off loggers that they do not know.
        logger = logging.getLogger(LOGGER)
        if self not in logger.handlers:
            logger.addHandler(self)
        words = self._here.words = Words()
        try:
            yield words
        finally:
            del self._here.words

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line, where this thread listens."""
        words: Words | None = getattr(self._here, "words", None)
        if words is None:
            return
        lines = [line for line in record.getMessage().splitlines() if line.strip()]
        if lines and lines[0].startswith("Traceback "):
            # The exception stands after the frames, which are indented.
            lines = lines[-1:]
        words.lines += [re.sub(r"^(Exception: )?(E )?", "", line.strip()) for line in lines]


listener = Listener()
