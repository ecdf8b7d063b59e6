"""What is simulated: the platform, how long its jobs take, and what goes wrong on it.

One description for both simulators; `to_text` is the form in which the C library takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from hetero.errors import OptionError

Fault = Literal["fail", "timeout", "lost", "hang", "nan", "garbage"]
"""What a run may do instead of answering.

`fail`: -1 from the C call, None from the Python class. `timeout`, `lost`: the codes -2 and -3. `hang`: it never
returns (until `release_hangs`). `nan`: one output element is not a number. `garbage`: an answer that is wrong.
"""


@dataclass(frozen=True)
class SimulatedNpu:
    """A simulated NPU.

    Attributes:
        platform: `rk3588`, `rk3576`, `rk3566`, ...
        job_seconds: Modelled time of a job on one core, slept in real time while the core is held; None adds nothing to
            what ONNX Runtime takes.
        speedup: Factor by which 1, 2 and 3 cores together are faster on one job.
        slowness: Factor on the time of each core's jobs; 1 for cores beyond its end.
        spread: How uneven jobs are: each takes 1 - spread to 1 + spread times `job_seconds`, drawn from `seed`.
        fp16: Outputs go through half precision, where large values overflow to inf, as on the chip.
        faults: Share of the runs with each fault, drawn from `seed`.
        hung_core: This core hangs for good in every job once it has done `hung_after` of them; None for no core.
        hung_after: See `hung_core`.
        seed: Of the draws.
        library_version: What the runtime says it is.
        driver_version: What the kernel driver says it is.
    """

    platform: str = "rk3588"
    job_seconds: float | None = None
    speedup: tuple[float, ...] = (1.0, 1.2, 1.26)
    slowness: tuple[float, ...] = ()
    spread: float = 0.0
    fp16: bool = False
    faults: Mapping[Fault, float] = field(default_factory=dict)
    hung_core: int | None = None
    hung_after: int = 0
    seed: int = 0
    library_version: str = "2.3.2"
    driver_version: str = "0.9.8"

    def to_text(self) -> str:
        """The description as `key=value` pairs parted by `;`; lists by `,`; times in whole microseconds."""
        pairs = {
            "platform": self.platform,
            "job_us": "" if self.job_seconds is None else str(round(self.job_seconds * 1e6)),
            "speedup": ",".join(f"{factor:g}" for factor in self.speedup),
            "slowness": ",".join(f"{factor:g}" for factor in self.slowness),
            "spread": f"{self.spread:g}",
            "fp16": str(int(self.fp16)),
            "faults": ",".join(f"{kind}:{share:g}" for kind, share in self.faults.items()),
            "hung_core": "" if self.hung_core is None else str(self.hung_core),
            "hung_after": str(self.hung_after),
            "seed": str(self.seed),
            "library_version": self.library_version,
            "driver_version": self.driver_version,
        }
        return ";".join(f"{key}={value}" for key, value in pairs.items())

    @classmethod
    def from_text(cls, text: str, *, platform: str) -> SimulatedNpu:
        """Read what `to_text` writes, or any part of it.

        Args:
            text: `job_us=20000;faults=nan:0.01`; empty for nothing out of the ordinary.
            platform: Where the text names none.

        Raises:
            OptionError: A key or a value that cannot be read.
        """
        npu = cls(platform=platform)
        for pair in filter(None, (part.strip() for part in text.split(";"))):
            key, _, value = pair.partition("=")
            try:
                npu = replace(npu, **_read(key.strip(), value.strip()))
            except (KeyError, ValueError):
                raise OptionError(
                    f"a simulated NPU cannot be described by {pair!r}",
                    fix=f"write key=value; keys: {', '.join(_READERS)}; faults: {', '.join(get_args(Fault))}",
                ) from None
        return npu


def _read(key: str, value: str) -> dict[str, Any]:
    name, reader = _READERS[key]
    if not value:
        return {} if name not in ("job_seconds", "hung_core") else {name: None}
    return {name: reader(value)}


def _factors(text: str) -> tuple[float, ...]:
    return tuple(float(factor) for factor in text.split(","))


def _faults(text: str) -> dict[Fault, float]:
    shares: dict[Fault, float] = {}
    for part in text.split(","):
        kind, _, share = part.partition(":")
        if kind not in get_args(Fault) or not 0 <= float(share) <= 1:
            raise ValueError(part)
        shares[cast(Fault, kind)] = float(share)
    return shares


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "platform": ("platform", str),
    "job_us": ("job_seconds", lambda text: int(text) / 1e6),
    "speedup": ("speedup", _factors),
    "slowness": ("slowness", _factors),
    "spread": ("spread", float),
    "fp16": ("fp16", lambda text: bool(int(text))),
    "faults": ("faults", _faults),
    "hung_core": ("hung_core", int),
    "hung_after": ("hung_after", int),
    "seed": ("seed", int),
    "library_version": ("library_version", str),
    "driver_version": ("driver_version", str),
}
