"""The worker as a process: questions, answers, its death."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hetero.errors import DeviceLost, ExecutionError, Unavailable
from hetero.tensors import Array
from hetero_rknn.toolkit import worker as script
from hetero_rknn.toolkit.words import reason

#: Names of working folders in a `scratch` folder begin with it; with its dot they are no entries of the cache.
SCRATCH_PREFIX = ".work-"

_LEAVE = 5.0  # seconds to end by itself when its stdin is closed


class ToolkitFailed(ExecutionError):
    """The toolkit refused or failed.

    Args:
        problem: In its own words.
        stage: What it was doing: `load`, `build`.
        log: What it printed.
    """

    def __init__(self, problem: str, stage: str, log: Path) -> None:
        super().__init__(f"rknn-toolkit2 failed to {stage}: {problem} (log: {log})")
        self.words = problem
        self.stage = stage
        self.log = log


class Worker:
    """A process in the toolkit's environment. For one thread at a time; `close` for any.

    Args:
        python: The environment's interpreter.
        log: Where everything goes that the toolkit prints.
        scratch: A folder in which a working folder is made, and removed at the end.

    Raises:
        Unavailable: It cannot be started.
    """

    def __init__(self, python: Path, log: Path, scratch: Path | None = None) -> None:
        self.log = log
        # Kept open: later workers, of any process, remove the oldest logs.
        self._printed = log.open("a+b", buffering=0)
        self.folder = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX if scratch else "hetero-rknn-", dir=scratch))
        self._files = 0
        self._closing = threading.Lock()
        # Nothing of the environment may lead Python elsewhere; the rest, such as sizes of thread pools, is the user's.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # Nothing is ever written to this pipe: that it was closed is how the worker hears of this process's death.
        listening, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [str(python), "-I", str(Path(script.__file__)), str(listening)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                cwd=self.folder,
                pass_fds=(listening,),
                env=environ,
                text=True,
                encoding="utf-8",
                # Ctrl-C is for this process, which then ends the worker in order.
                start_new_session=True,
            )
        except OSError as error:
            self._printed.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lifeline)
            raise Unavailable(f"the toolkit's interpreter {python} cannot be started: {error}") from error
        finally:
            os.close(listening)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(leave=kind is None)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, question: str, on_stage: Callable[[str], None] = lambda stage: None, **arguments: Any) -> Any:
        """Have the worker do something, and wait for it; see `worker.Models` for what it can.

        Raises:
            ToolkitFailed: It refused or failed, in its own words.
            DeviceLost: The process died.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("made with pipes")
        try:
            printed_before = os.fstat(self._printed.fileno()).st_size
            self._process.stdin.write(json.dumps({"ask": question, **arguments}) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                answer = json.loads(line)
                if "ok" in answer:
                    return answer["ok"]
                if "failed" in answer:
                    printed = self.printed(printed_before)
                    raise ToolkitFailed(reason(answer["failed"], printed), answer["stage"], self.log)
                on_stage(answer["stage"])
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and self.alive:
                raise  # no broken pipe: a defect of ours
        raise self._lost()

    def try_toolkit(self) -> Mapping[str, str]:
        """Import the toolkit, and tell its version and others.

        Raises:
            Unavailable: The environment is no good.
        """
        try:
            versions: Mapping[str, str] = self.ask("hello")
        except (ToolkitFailed, DeviceLost) as error:
            raise Unavailable(
                f"rknn-toolkit2 cannot be imported in its environment: {error.problem}",
                fix="`hetero cache rm rknn-toolkit2` has it made anew; or mend the one that HETERO_RKNN_TOOLKIT names",
            ) from None
        return versions

    def save(self, arrays: Mapping[str, Array]) -> dict[str, str]:
        """Write arrays into the working folder, for the worker: file names by the arrays' names."""
        files = self.names(arrays)
        for name, array in arrays.items():
            np.save(self.folder / files[name], array)
        return files

    def names(self, names: Any) -> dict[str, str]:
        """New file names in the working folder."""
        files = {}
        for name in names:
            self._files += 1
            files[name] = f"{self._files}.npy"
        return files

    def take(self, file: str) -> Array:
        """Read an array that the worker wrote, and remove the file."""
        path = self.folder / file
        array: Array = np.load(path, allow_pickle=False)
        path.unlink()
        return array

    def forget(self, files: Mapping[str, str]) -> None:
        """Remove files of `save`."""
        for file in files.values():
            with contextlib.suppress(FileNotFoundError):
                (self.folder / file).unlink()

    def printed(self, since: int = 0) -> str:
        """What the toolkit has printed, from a place in the log on."""
        size = os.fstat(self._printed.fileno()).st_size
        # The worker appends through the same open file, whose place stays untouched.
        return os.pread(self._printed.fileno(), max(0, size - since), since).decode(errors="replace")

    def close(self, leave: bool = True) -> None:
        """End the process, at once or when it has finished, and remove the working folder. Bounded."""
        with self._closing:
            if leave and self._process.stdin is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_LEAVE)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                # A thread that still reads ends on its own: the other end is gone.
                if pipe is not None:
                    with contextlib.suppress(OSError, ValueError):
                        pipe.close()
            shutil.rmtree(self.folder, ignore_errors=True)
            if self._lifeline >= 0:
                os.close(self._lifeline)
                self._lifeline = -1
            self._printed.close()

    def kill(self) -> None:
        """End the process at once; a question that waits for its answer raises DeviceLost."""
        self._process.kill()

    def _lost(self) -> DeviceLost:
        code = self._process.wait()
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            hint = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
        else:
            how, hint = f"ended with exit code {code}", ""
        return DeviceLost(f"the process of rknn-toolkit2 {how}{hint} (log: {self.log})")
