"""A line of timings per job, as users of EZ RKNN Async know it, to stderr or a file.

`HETERO_RKNN_PERF=1` (or `ZTU_EZRKNN_ASYNC_PRINT_PERF=1`) writes to stderr, `HETERO_RKNN_PERF=FILE` appends to a file.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from hetero.errors import OptionError
from hetero_rknn.drivers.contract import Timing

VARIABLE = "HETERO_RKNN_PERF"
_PEER_VARIABLE = "ZTU_EZRKNN_ASYNC_PRINT_PERF"
_ON = {"1", "true", "on", "yes"}
_OFF = {"", "0", "false", "off", "no"}


class PerfLog:
    """Where the lines go.

    Args:
        path: The file to append to; None for stderr.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1) if path is not None else None
        except OSError as error:
            raise OptionError(
                f"{VARIABLE} names {path}, which cannot be written: {error.strerror}",
                fix=f"name a file that can be written, or set {VARIABLE}=1 for stderr",
            ) from error

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> PerfLog | None:
        """The log that the environment asks for; None when it asks for none.

        Raises:
            OptionError: It names a file that cannot be written.
        """
        wanted = environ.get(VARIABLE, "")
        if wanted.lower() in _ON or environ.get(_PEER_VARIABLE, "").lower() in _ON:
            return cls(None)
        return None if wanted.lower() in _OFF else cls(Path(wanted).expanduser())

    def write(self, task: int, core: str, timing: Timing) -> None:
        """Add the line of a job."""
        parts = {
            "set_input_us": timing.set_input,
            "infer_us": timing.infer,
            "copy_output_us": timing.copy_output,
            "total_us": timing.total,
        }
        times = " ".join(f"{name}={round(seconds * 1e6)}" for name, seconds in parts.items())
        line = f"[hetero_rknn_perf] task_id={task} thread_id={threading.get_ident()} core_id={core} {times}\n"
        with self._lock:
            (self._file or sys.stderr).write(line)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
