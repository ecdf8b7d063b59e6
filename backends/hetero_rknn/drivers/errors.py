"""Rockchip's error codes, in hetero's errors."""

from __future__ import annotations

from hetero.backend import DeviceLost, DeviceTimeout, ExecutionError, OutOfMemory, Unsupported
from hetero.errors import HeteroError

_UPDATE = "update librknnrt.so and the kernel's rknpu driver, or convert the model with the toolkit of their version"

# Name, class, what to do. The names are those of rknn_api.h, misspellings included: they are what a search finds.
_CODES: dict[int, tuple[str, type[HeteroError], str]] = {
    -1: ("RKNN_ERR_FAIL", ExecutionError, "look for rknpu in the kernel's log: dmesg | grep -i rknpu"),
    -2: ("RKNN_ERR_TIMEOUT", DeviceTimeout, "look for rknpu in the kernel's log: dmesg | grep -i rknpu"),
    -3: ("RKNN_ERR_DEVICE_UNAVAILABLE", DeviceLost, "check that /dev/dri or /dev/rknpu is there and may be opened"),
    -4: ("RKNN_ERR_MALLOC_FAIL", OutOfMemory, "open fewer contexts, or smaller models"),
    -5: ("RKNN_ERR_PARAM_INVALID", ExecutionError, ""),
    -6: ("RKNN_ERR_MODEL_INVALID", Unsupported, _UPDATE),
    -7: ("RKNN_ERR_CTX_INVALID", ExecutionError, ""),
    -8: ("RKNN_ERR_INPUT_INVALID", ExecutionError, ""),
    -9: ("RKNN_ERR_OUTPUT_INVALID", ExecutionError, ""),
    -10: ("RKNN_ERR_DEVICE_UNMATCH", Unsupported, _UPDATE),
    -11: ("RKNN_ERR_INCOMPATILE_PRE_COMPILE_MODEL", Unsupported, _UPDATE),
    -12: ("RKNN_ERR_INCOMPATILE_OPTIMIZATION_LEVEL_VERSION", Unsupported, _UPDATE),
    -13: ("RKNN_ERR_TARGET_PLATFORM_UNMATCH", Unsupported, "convert the model for this SoC (target_platform)"),
}


def name_of(code: int) -> str:
    """The vendor's name of a code, or the code itself for one that rknn_api.h does not list."""
    return _CODES[code][0] if code in _CODES else f"error code {code}"


def code_named(name: str) -> int | None:
    """The code of the vendor's name for it; None for a name that is not in the table."""
    return next((code for code, (known, *_) in _CODES.items() if known == name), None)


def error_of(code: int, doing: str, message: str = "") -> HeteroError:
    """The error for a code that a call of the vendor's runtime returned.

    Args:
        code: Below 0.
        doing: What was called, or what for: `rknn_run`.
        message: What else is known, such as the vendor's own words.

    Returns:
        To be raised: `DeviceTimeout` (-2), `DeviceLost` (-3), `OutOfMemory` (-4), `Unsupported` (-6, -10 to -13: this
        runtime or chip cannot use this model), `ExecutionError` for every other code.
    """
    _, kind, fix = _CODES.get(code, ("", ExecutionError, ""))
    return kind(f"{doing} failed: {name_of(code)} ({code})" + (f": {message}" if message else ""), fix=fix)
