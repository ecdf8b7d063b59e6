"""The NPU's power mode, told and set by `xrt-smi`, in the words of the version that is installed.

| XRT | how |
|---|---|
| 2.18 and later | `xrt-smi configure --device BDF --pmode default, powersaver, balanced, performance, turbo` |
| 2.17 | `--performance DEFAULT, POWERSAVER, BALANCED, PERFORMANCE` |
| 2.16 | `--performance DEFAULT, LOW, MEDIUM, HIGH` |

Only root may set it. The mode now is in `xrt-smi examine -r platform --format JSON`.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hetero.backend import ExecutionError, Host, Unavailable

TOOL = "xrt-smi"
PLACE = "opt/xilinx/xrt/bin"
SECONDS = 10.0
"""That one call of the tool may take."""

# Clocks of the NPU's controller and of its array in MHz, on Phoenix.
_MEANINGS = {
    "default": "the driver chooses: 847/1600 MHz while something runs",
    "powersaver": "400/800 MHz",
    "balanced": "600/1024 MHz",
    "performance": "847/1600 MHz",
    "turbo": "847/1600 MHz, clocks always on; only while no program has the NPU open",
}

_SINCE_2_18 = {mode: mode for mode in _MEANINGS}
_IN_2_17 = {mode: mode.upper() for mode in ("default", "powersaver", "balanced", "performance")}
_IN_2_16 = {"default": "DEFAULT", "powersaver": "LOW", "balanced": "MEDIUM", "performance": "HIGH"}
_OLDEST = (2, 16)

_VERSION = re.compile(r"^\s*(?:XRT\s+)?Version\s*:\s*(\d+)\.(\d+)", re.IGNORECASE | re.MULTILINE)


class Tool:
    """`xrt-smi` as it is installed on a machine.

    Args:
        host: The machine.
        seconds: That a call may take.
    """

    def __init__(self, host: Host, seconds: float = SECONDS) -> None:
        self._host = host
        self._seconds = seconds

    @functools.cached_property
    def path(self) -> Path | None:
        """Where it is: on PATH, or where AMD's packages put it; None when it is nowhere."""
        # With an empty PATH, `which` would look on its own.
        found = shutil.which(TOOL, path=self._host.environ.get("PATH") or os.devnull)
        if found is None:
            found = shutil.which(TOOL, path=str(self._host.sysroot / PLACE))
        return Path(found) if found is not None else None

    @functools.cached_property
    def version(self) -> tuple[int, int]:
        """XRT's version.

        Raises:
            Unavailable: There is no tool, or it does not say.
        """
        text = self.ask("--version")
        found = _VERSION.search(text)
        if found is None:
            raise Unavailable(
                f"`{TOOL} --version` does not tell a version: {_shown(text)}", fix="install XRT's package again"
            )
        return int(found[1]), int(found[2])

    def ask(self, *arguments: str) -> str:
        """What the tool writes.

        Raises:
            Unavailable: There is none, it cannot be started, or it takes too long.
            ExecutionError: It says that it failed.
        """
        if self.path is None:
            raise Unavailable(
                f"{TOOL} is neither on PATH nor in /{PLACE}", fix="install XRT's package (xrt-base or libxrt)"
            )
        try:
            done = subprocess.run(
                [str(self.path), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._seconds,
                env=dict(self._host.environ),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                f"{TOOL} {arguments[0]} has not ended within {self._seconds:g} s",
                fix="look for what hangs: `sudo dmesg | grep amdxdna`",
            ) from error
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be started: {error.strerror}", fix="install XRT again") from error
        written = (done.stdout + b"\n" + done.stderr).decode(errors="replace")
        # Some versions end with 0 all the same.
        if done.returncode or re.search(r"^\s*ERROR:", written, re.MULTILINE):
            raise ExecutionError(f"{TOOL} {arguments[0]}: {_reason(written) or f'exit code {done.returncode}'}")
        return written

    def report(self, name: str, bdf: str) -> dict[str, Any]:
        """A report on a device; errors as for `ask`."""
        with tempfile.TemporaryDirectory() as folder:
            # The tool writes reports to files only, and to none that is there already.
            file = Path(folder) / "report.json"
            self.ask("examine", "--device", bdf, "-r", name, "--format", "JSON", "-o", str(file))
            try:
                content = json.loads(file.read_text(encoding="utf-8", errors="replace"))
                device: dict[str, Any] = content["devices"][0]
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                raise ExecutionError(f"{TOOL} examine -r {name} wrote no report that can be read: {error}") from error
        return device


class XrtPower:
    """The power mode of one NPU.

    Args:
        tool: `xrt-smi`.
        bdf: The NPU's address on the PCI bus.
    """

    def __init__(self, tool: Tool, bdf: str) -> None:
        self._tool = tool
        self._bdf = bdf

    @property
    def modes(self) -> Mapping[str, str]:
        """See `PowerControl.modes`: none where the version that is installed cannot set them."""
        try:
            return {mode: _MEANINGS[mode] for mode in self._words()}
        except (Unavailable, ExecutionError):
            return {}

    def read(self) -> str:
        """See `PowerControl.read`."""
        self._words()
        platforms = self._tool.report("platform", self._bdf).get("platforms")
        try:
            told = str(platforms[0]["status"]["power_mode"]).lower()  # type: ignore[index]
        except (KeyError, IndexError, TypeError) as error:
            raise ExecutionError(f"{TOOL} tells no power mode of {self._bdf}") from error
        if told in _MEANINGS:
            return told
        words = {word.lower(): mode for mode, word in self._words().items()}
        if told not in words:
            raise ExecutionError(f"{TOOL} tells a power mode {told!r}, which hetero does not know")
        return words[told]

    def set(self, mode: str) -> None:
        """See `PowerControl.set`."""
        words = self._words()
        option = "--pmode" if self._tool.version >= (2, 18) else "--performance"
        try:
            self._tool.ask("configure", "--device", self._bdf, option, words[mode])
        except ExecutionError as error:
            raise self._explained(error, mode) from error
        now = self.read()
        if now != mode:
            raise self._explained(ExecutionError(f"the NPU stays in the mode {now}"), mode)

    def _words(self) -> Mapping[str, str]:
        """The tool's words for the modes."""
        if self._tool.version < _OLDEST:
            version = ".".join(map(str, self._tool.version))
            raise Unavailable(
                f"the {TOOL} of XRT {version} knows no power modes", fix="upgrade XRT to 2.18 or later (2.16 has some)"
            )
        return {(2, 16): _IN_2_16, (2, 17): _IN_2_17}.get(self._tool.version, _SINCE_2_18)

    def _explained(self, error: ExecutionError, mode: str) -> ExecutionError | Unavailable:
        if os.geteuid() != 0:
            return Unavailable(
                f"the power mode {mode} was refused to a user who is not root: {error.problem}",
                fix=f"sudo hetero power --mode {mode}",
            )
        if mode == "turbo":
            return ExecutionError(
                f"turbo was refused: {error.problem}",
                fix="close every program that has the NPU open (`hetero doctor` lists them), then set it again",
            )
        return ExecutionError(
            f"the power mode {mode} was refused: {error.problem}", fix="`sudo dmesg | grep amdxdna` may tell why"
        )


def _reason(written: str) -> str:
    """The tool's line that tells what is wrong; before and behind it comes help."""
    lines = [line.strip() for line in written.splitlines()]
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    return "; ".join(line for line in errors if line) or _shown(written)


def _shown(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "nothing")
    return line[:200]
