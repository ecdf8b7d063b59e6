"""Every error that hetero raises.

::

    HeteroError                       what was wrong; `fix` says what to do about it
    ├── InputError (ValueError)           arrays that do not fit the program's inputs
    ├── OptionError (ValueError)          an option, a device name or a setting that is not known or not allowed
    ├── ClosedError (RuntimeError)        a Runtime or Session was used after it was closed (or in a forked child)
    ├── ProgramError                      the thing to run cannot be used, on any device
    │   ├── ProgramNotFound                   nothing is there under that path or name
    │   ├── ProgramInvalid                    a file that is truncated, foreign, unsafe or of a wrong version
    │   ├── BundleError                       a `hetero.toml` that breaks the format
    │   └── ArtifactMissing                   a bundle names a file that is not there, or has none of the wanted kind
    ├── BackendError                      raised by backends; the scheduler goes on to the next device
    │   ├── Unavailable                       the device, its driver or its library is not here
    │   ├── Unsupported                       this device cannot run this program, or these shapes
    │   └── ExecutionError                    a call on a device failed
    │       ├── DeviceLost                        the device went away (reset, crash, unplugged)
    │       ├── DeviceTimeout                     the device did not answer in time
    │       ├── OutOfMemory                       the device has not enough memory for this call
    │       ├── WrongAnswer                       the device answered, and wrongly
    │       └── NonFiniteOutput                   NaN or infinity where the device's precision is too small
    ├── DispatchError                     no device gave an answer; `attempts` holds what was tried
    │   ├── AllDevicesFailed                  every candidate failed or refused
    │   └── FallbackForbidden                 the first candidate failed and fallback="forbid" was set
    ├── CompileError                      a compiler refuses a model, or what it made answers wrongly
    ├── QueueFull                         more requests wait than may; nothing was started
    ├── DeadlineExceeded (TimeoutError)   the answer came too late, or the request was not started in time
    ├── PluginError                       a plugin broke the contract
    ├── AudioError                        audio that cannot be read
    └── ModelError                        a speech model that cannot be found, verified or converted

Bad input is the caller's to mend and never counts against a device; a `BackendError` does, and moves the request on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hetero.telemetry.records import Attempt


class HeteroError(Exception):
    """Base of every error of hetero.

    Args:
        problem: What was wrong and what was expected, one sentence or two.
        fix: What the reader can do next; empty when there is nothing to do.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.fix}" if self.fix else self.problem


class InputError(HeteroError, ValueError):
    """Arrays that do not fit the program's inputs."""


class OptionError(HeteroError, ValueError):
    """An option, a device name or a setting that is not known or not allowed."""


class ClosedError(HeteroError, RuntimeError):
    """A Runtime or Session was used after it was closed, or in a child process made by fork."""


class ProgramError(HeteroError):
    """The thing to run cannot be used on any device."""


class ProgramNotFound(ProgramError):
    """Nothing is there under that path or name."""


class ProgramInvalid(ProgramError):
    """A program file that is truncated, foreign, unsafe or of a wrong version."""


class BundleError(ProgramError):
    """A `hetero.toml` that breaks the format."""


class ArtifactMissing(ProgramError):
    """A bundle names a file that is not there, or holds no artifact of the wanted kind."""


class BackendError(HeteroError):
    """Raised by backends; the scheduler notes it and goes on to the next device."""


class Unavailable(BackendError):
    """The device, its driver or its library is not here. Say why, and the `fix`."""


class Unsupported(BackendError):
    """This device cannot run this program, or not with these shapes. No fault of the device."""


class ExecutionError(BackendError):
    """A call on a device failed."""


class DeviceLost(ExecutionError):
    """The device went away: reset, crashed, unplugged."""


class DeviceTimeout(ExecutionError):
    """The device did not answer in time."""


class OutOfMemory(ExecutionError):
    """The device has not enough memory for this call."""


class WrongAnswer(ExecutionError):
    """The device answered, and wrongly."""


class NonFiniteOutput(ExecutionError):
    """An answer with NaN or infinity in it, from a device of small range: half precision ends at 65504.

    What overflows is the program with this input, so it is no failure of the device.

    Args:
        problem: As for every error.
        final: The caller is to get this error; else the request goes on to the next device.
        fix: As for every error.
    """

    def __init__(self, problem: str, *, final: bool = False, fix: str = "") -> None:
        super().__init__(problem, fix=fix)
        self.final = final


class DispatchError(HeteroError):
    """No device gave an answer.

    Args:
        problem: What was asked for.
        attempts: Every device that was tried or passed over, in order, with the reason.
        fix: What the reader can do next.
    """

    def __init__(self, problem: str, attempts: Sequence[Attempt] = (), *, fix: str = "") -> None:
        super().__init__(problem, fix=fix)
        self.attempts = tuple(attempts)

    def __str__(self) -> str:
        lines = [self.problem, *(f"  - {attempt}" for attempt in self.attempts)]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


class AllDevicesFailed(DispatchError):
    """Every candidate failed or refused."""


class FallbackForbidden(DispatchError):
    """The first candidate failed, and the caller had set fallback="forbid"."""


class CompileError(HeteroError):
    """A vendor's compiler refuses a model or fails, or what it made is too far from ONNX Runtime's answers."""


class QueueFull(HeteroError):
    """More requests wait than may. Nothing of this one was started."""


class DeadlineExceeded(HeteroError, TimeoutError):
    """The request's deadline passed before an answer was there."""


class PluginError(HeteroError):
    """A plugin broke the contract of `hetero.backend`."""


class AudioError(HeteroError):
    """Audio that cannot be read."""


class ModelError(HeteroError):
    """A speech model that cannot be found, verified or converted."""
