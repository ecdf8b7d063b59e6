"""What is simulated: the version of XRT, the NPU's limits, how long its work takes, and what goes wrong on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast, get_args

from hetero.errors import OptionError

Fault = Literal["error", "abort", "timeout", "hang", "lost", "garbage"]
"""What a launch may do instead of answering.

`error`, `abort`: it ends in that state. `timeout`: the driver kills it at its limit. `hang`: it never ends (until
`release_hangs`), the NPU is wedged. `lost`: the device goes away with it, and every later call fails. `garbage`: it
completes, and the answer is wrong.
"""

OLDEST, NEWEST = (2, 13), (2, 23)


@dataclass(frozen=True)
class SimulatedPhoenix:
    """A simulated Phoenix NPU with its driver and XRT. All times are modelled.

    Attributes:
        xrt: XRT's version, 2.13 to 2.23; decides what the module has.
        devices: How many NPUs XRT finds, 0 or 1.
        permitted: The user may open the device's node.
        memlock_bytes: Limit of locked memory, which buffers count against; None for no limit.
        columns: Columns of the partition.
        contexts: How many contexts the device has at most.
        queue: How many commands may be in flight in a context; the next submit blocks with the GIL held.
        context_seconds: To make a context.
        dispatch_seconds: Cost of one launch.
        list_dispatch_seconds: Cost of one launch in a runlist.
        switch_seconds: Cost of loading another xclbin into a column.
        call_seconds: For which each call that enters the driver (device, sync, read, write, submit) holds the GIL.
        command_limit: Seconds after which the driver kills a command.
        timing: `tile`: every tile takes `tile_seconds`, but for designs with tiles of another size, which are timed by
            `cycles`: from the size of the work, see `modelled`.
        tile_seconds: See `timing`. Columns and rows work on tiles at the same time.
        clock_mhz: Of the array, for `cycles`.
        utilisation: Share of the array's peak rate that a kernel reaches, for `cycles`.
        faults: Share of the launches with each fault, drawn from `seed`.
        hung_column: Every launch that uses this column hangs once the column has done `hung_after`; None for none.
        hung_after: See `hung_column`.
        real_crashes: Where the vendor's library takes the process down, do so too (SIGABRT), in place of raising
            SimulatedCrash.
        seed: Of all draws.
    """

    xrt: str = "2.20"
    devices: int = 1
    permitted: bool = True
    memlock_bytes: int | None = None
    columns: int = 4
    contexts: int = 6
    queue: int = 4
    context_seconds: float = 0.035
    dispatch_seconds: float = 130e-6
    list_dispatch_seconds: float = 43e-6
    switch_seconds: float = 2.81e-3
    call_seconds: float = 0.0
    command_limit: float = 2.0
    timing: Literal["tile", "cycles"] = "tile"
    tile_seconds: float = 2.85e-3
    clock_mhz: float = 1600.0
    utilisation: float = 0.35
    faults: Mapping[Fault, float] = field(default_factory=dict)
    hung_column: int | None = None
    hung_after: int = 0
    real_crashes: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        version = _version(self.xrt)
        if not OLDEST <= version <= NEWEST:
            raise OptionError(
                f"XRT {self.xrt} is not simulated",
                fix=f"choose one from {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}",
            )
        if self.devices not in (0, 1):
            raise OptionError(f"{self.devices} simulated NPUs: a laptop has one", fix="set devices to 0 or 1")
        if sum(self.faults.values()) > 1:
            raise OptionError(f"the shares of the faults add up to {sum(self.faults.values()):g}, more than 1")

    @property
    def version(self) -> tuple[int, int]:
        """XRT's version as numbers."""
        return _version(self.xrt)

    def to_text(self) -> str:
        """The description as `key=value` pairs parted by `;`; times in microseconds, faults parted by `,`."""
        return ";".join(
            f"{key}={'' if value is None else write(value)}"
            for key, (name, write, _) in _KEYS.items()
            for value in (getattr(self, name),)
        )

    @classmethod
    def from_text(cls, text: str) -> SimulatedPhoenix:
        """Read what `to_text` writes, or any part of it.

        Args:
            text: `tile_us=900;faults=hang:0.01`; empty for nothing out of the ordinary.

        Raises:
            OptionError: A key or a value that cannot be read.
        """
        changes: dict[str, Any] = {}
        for pair in filter(None, (part.strip() for part in text.split(";"))):
            key, _, value = (part.strip() for part in pair.partition("="))
            try:
                name, _, read = _KEYS[key]
                if value or name == "faults":
                    changes[name] = read(value)
                elif name in _OPTIONAL:
                    changes[name] = None
                else:
                    raise ValueError(pair)
            except (KeyError, ValueError):
                raise OptionError(
                    f"a simulated Phoenix cannot be described by {pair!r}",
                    fix=f"write key=value; keys: {', '.join(_KEYS)}; faults: {', '.join(get_args(Fault))}",
                ) from None
        return replace(cls(), **changes)


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise OptionError(f"XRT's version is {text!r}", fix="write it like 2.20")
    return int(major), int(minor)


def _faults(text: str) -> dict[Fault, float]:
    shares: dict[Fault, float] = {}
    for part in filter(None, text.split(",")):
        kind, _, share = part.partition(":")
        if kind not in get_args(Fault) or not 0 <= float(share) <= 1:
            raise ValueError(part)
        shares[cast(Fault, kind)] = float(share)
    return shares


def _timing(text: str) -> str:
    if text not in ("tile", "cycles"):
        raise ValueError(text)
    return text


_Key = tuple[str, Callable[[Any], str], Callable[[str], Any]]


def _key(name: str, kind: str) -> tuple[str, _Key]:
    if name == "faults":
        return name, (name, lambda shares: ",".join(f"{kind}:{share:g}" for kind, share in shares.items()), _faults)
    if name == "timing":
        return name, (name, str, _timing)
    if kind == "float" and name not in ("clock_mhz", "utilisation"):
        # Microseconds, to a tenth of a nanosecond: so that no modelled time changes on its way through the text.
        key = f"{name.removesuffix('_seconds')}_us"
        return key, (name, lambda seconds: f"{seconds * 1e6:.10g}", lambda text: float(text) / 1e6)
    readers: dict[str, Callable[[str], Any]] = {
        "str": str,
        "float": float,
        "bool": lambda text: bool(int(text)),
        "int": int,
        "int | None": int,
    }
    return name, (name, (lambda flag: str(int(flag))) if kind == "bool" else str, readers[kind])


_KEYS: dict[str, _Key] = dict(_key(entry.name, str(entry.type)) for entry in fields(SimulatedPhoenix))
_OPTIONAL = {entry.name for entry in fields(SimulatedPhoenix) if str(entry.type).endswith("| None")}
