"""What the vendor's errors mean: each as an error of hetero, with what to do about it.

pyxrt raises RuntimeError with the driver's words for everything but wrong calls.
"""

from __future__ import annotations

from hetero.errors import BackendError, DeviceLost, DeviceTimeout, ExecutionError, OutOfMemory, Unavailable

EXHAUSTED = "as many contexts are open on the NPU as it can have"

_KNOWN: tuple[tuple[tuple[str, ...], type[BackendError], str, str], ...] = (
    (
        ("CREATE_HWCTX",),
        Unavailable,
        EXHAUSTED,
        "close other programs that use the NPU (`xrt-smi examine -r aie-partitions`), or other sessions of this one",
    ),
    (
        ("err=-13", "Permission denied"),
        Unavailable,
        "this user may not open the NPU",
        "join the group of /dev/accel/accel0: sudo usermod -aG render $USER, then log in again",
    ),
    (
        ("mmap(", "err=-11", "err=-12"),
        OutOfMemory,
        "the limit of locked memory is too low for the NPU's buffers, or memory is used up",
        "put `* - memlock unlimited` into /etc/security/limits.d/99-npu.conf and log in again (`ulimit -l` shows it)",
    ),
    (
        ("No such device with index",),
        Unavailable,
        "XRT finds no NPU",
        "load the driver (sudo modprobe amdxdna), and see whether `xrt-smi examine` lists the NPU",
    ),
    (
        ("err=-19", "No such device"),
        DeviceLost,
        "the NPU went away",
        "`sudo dmesg | grep amdxdna` tells why; reload the driver: sudo modprobe -r amdxdna; sudo modprobe amdxdna",
    ),
)


def translated(error: Exception, doing: str) -> BackendError:
    """A vendor's error as one of hetero's.

    Args:
        error: As pyxrt raised it.
        doing: What was being done, for the message: `making a context`.
    """
    words = str(error).strip()
    for signs, kind, meaning, fix in _KNOWN:
        if any(sign in words for sign in signs):
            return kind(f"{doing}: {meaning} ({words})", fix=fix)
    return ExecutionError(f"{doing}: {words or type(error).__name__}")


def exhausted(error: BackendError) -> bool:
    """Whether there are no more contexts to be had."""
    return EXHAUSTED in error.problem


def ended_in(state: str, kernel: str) -> BackendError:
    """The error of a run that ended in another state than COMPLETED.

    Args:
        state: Its name, without `ERT_CMD_STATE_`.
        kernel: The kernel's name.
    """
    if state == "TIMEOUT":
        return DeviceTimeout(
            f"{kernel}: the driver killed a launch at its limit (2 s as a rule)",
            fix="build the kernel for fewer tiles a launch; where it happens now and then: `sudo dmesg | grep amdxdna`",
        )
    if state == "NORESPONSE":
        return DeviceTimeout(f"{kernel}: the NPU gave no response", fix="`sudo dmesg | grep amdxdna` may tell why")
    return ExecutionError(
        f"{kernel}: a launch ended in the state {state}", fix="`sudo dmesg | grep amdxdna` tells more"
    )
