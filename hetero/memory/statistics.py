"""What is known about a pool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PoolStatistics:
    """A pool at one moment. Bytes are those of the pool's sizes, which requests are rounded up to.

    Attributes:
        name: `host`, or the device's name.
        in_use_bytes: Of buffers that somebody has, or whose arrays somebody looks at.
        idle_bytes: Kept for the next request.
        high_water_bytes: The most that were in use at once.
        limit_bytes: What the two may come to together; None for no limit.
        buffers: How many are in use.
        hits: Requests that were served with memory that was there.
        misses: Requests for which memory had to be allocated.
    """

    name: str
    in_use_bytes: int
    idle_bytes: int
    high_water_bytes: int
    limit_bytes: int | None
    buffers: int
    hits: int
    misses: int

    def __str__(self) -> str:
        limit = "" if self.limit_bytes is None else f" of {self.limit_bytes}"
        return (
            f"{self.name}: {self.in_use_bytes}{limit} bytes in use in {self.buffers} buffers (at most "
            f"{self.high_water_bytes}), {self.idle_bytes} idle; {self.hits} hits, {self.misses} misses"
        )
