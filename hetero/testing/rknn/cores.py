"""The simulated NPU's cores for simulators in Python: who has which, what a job's time is, and what goes wrong in it.

Draws, queueing and modelled times are those of the C library (`librknnrt/npu.c`), so that one `SimulatedNpu` means the
same behind both of the vendor's interfaces.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from hetero.testing.rknn.npu import Fault, SimulatedNpu

_FAMILIES = {"rk3588s": "rk3588", "rk3568": "rk3566"}
_WORD = (1 << 64) - 1


def family(platform: str) -> str:
    """The name that all platforms have which run the same models."""
    return _FAMILIES.get(platform.lower(), platform.lower())


def core_count(platform: str) -> int:
    """How many NPU cores a platform has."""
    return 3 if family(platform).startswith("rk3588") else 2 if family(platform) == "rk3576" else 1


@dataclass(frozen=True)
class Job:
    """A job that has its cores.

    Attributes:
        cores: Which.
        number: Of all jobs, from 0.
        fault: What goes wrong with it; None for nothing.
        started: When it got its cores, by the clock of `Cores`, in seconds.
        modelled: How long it is to hold them, in seconds.
    """

    cores: frozenset[int]
    number: int
    fault: Fault | None
    started: float
    modelled: float


class Cores:
    """The cores of one simulated NPU; for any thread.

    A core has one job at a time. Whoever waits for several cores is not overtaken by those that came later.

    Args:
        npu: What is simulated.
        sleep: Spends modelled time.
        clock: Against which modelled time is held; in seconds.

    Attributes:
        npu: What is simulated.
        number: How many jobs began.
        jobs: How many each core has begun.
        running: Jobs that hold cores now.
        peak: The most jobs at once.
        hung: Jobs that hang now.
    """

    def __init__(self, npu: SimulatedNpu, *, sleep: Callable[[float], object], clock: Callable[[], float]) -> None:
        self.npu = npu
        self.jobs: Counter[int] = Counter()
        self.running = self.peak = self.hung = 0
        self._sleep, self._clock = sleep, clock
        self._changed = threading.Condition()
        self._waiting: deque[tuple[frozenset[int], bool]] = deque()
        self._busy: frozenset[int] = frozenset()
        self.number = 0
        self._hangs_released = False

    @property
    def waiting(self) -> int:
        """Jobs that wait for cores now."""
        return len(self._waiting)

    def configure(self, npu: SimulatedNpu) -> None:
        """Simulate something else from the next job on; counts of jobs start again at 0, and hangs hang again."""
        with self._changed:
            self.npu = npu
            self.jobs.clear()
            self.peak = self.number = 0
            self._hangs_released = False

    def release_hangs(self) -> None:
        """End every hang; nothing hangs again before the next `configure`."""
        with self._changed:
            self._hangs_released = True
            self._changed.notify_all()

    def acquire(self, cores: frozenset[int], every: bool) -> Job:
        """Wait for all of the cores, or for one of them.

        Returns:
            The job, which holds its cores until `release`.
        """
        asked = (cores, every)
        with self._changed:
            self._waiting.append(asked)
            try:
                got = self._changed.wait_for(lambda: self._obtainable(asked))
            finally:
                # By identity: two that ask for the same are two.
                self._waiting = deque(other for other in self._waiting if other is not asked)
            self._busy |= got
            job = Job(got, self.number, self._drawn(got), self._clock(), self._modelled(got))
            self.number += 1
            self.jobs.update(got)
            self.running += 1
            self.peak = max(self.peak, self.running)
            self._changed.notify_all()
        return job

    def spend(self, job: Job) -> None:
        """Let what is left of the job's time pass; a hang passes with `release_hangs`."""
        if job.fault == "hang":
            with self._changed:
                self.hung += 1
                self._changed.wait_for(lambda: self._hangs_released)
                self.hung -= 1
            return
        left = job.started + job.modelled - self._clock()
        if job.modelled > 0 and left > 0:
            self._sleep(left)

    def release(self, job: Job) -> None:
        """Give the cores back."""
        with self._changed:
            self._busy -= job.cores
            self.running -= 1
            self._changed.notify_all()

    def _obtainable(self, asked: tuple[frozenset[int], bool]) -> frozenset[int]:
        """What may be taken now: cores that an earlier one waits for by name are not to be had."""
        cores, every = asked
        reserved: frozenset[int] = frozenset()
        for earlier in self._waiting:
            if earlier is asked:
                break
            reserved |= earlier[0] if earlier[1] else frozenset()
        idle = cores - self._busy - reserved
        if every:
            return idle if idle == cores else frozenset()
        return frozenset(sorted(idle)[:1])

    def _drawn(self, cores: frozenset[int]) -> Fault | None:
        npu, released = self.npu, self._hangs_released
        if npu.hung_core in cores and not released and self.jobs[npu.hung_core or 0] >= npu.hung_after:
            return "hang"
        chance = (_mixed((npu.seed * 0x100000001B3 + self.number) & _WORD) >> 11) / 2**53
        for fault in get_args(Fault):
            chance -= npu.faults.get(fault, 0.0)
            if chance < 0:
                return None if fault == "hang" and released else fault
        return None

    def _modelled(self, cores: frozenset[int]) -> float:
        npu = self.npu
        if npu.job_seconds is None:
            return 0.0
        slowest = max(npu.slowness[core] if core < len(npu.slowness) else 1.0 for core in cores)
        # As in the library, factors that are not given are those of the default.
        factors = (*npu.speedup, *SimulatedNpu.speedup[len(npu.speedup) :])
        return npu.job_seconds * slowest / factors[len(cores) - 1]


def _mixed(x: int) -> int:
    """SplitMix64's output function (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)
