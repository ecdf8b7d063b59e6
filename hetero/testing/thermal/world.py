"""Modelled time for real threads: a machine whose clock moves only while everybody waits for it.

Calls of a Runtime run in threads of their own. On a modelled device a call is a *job*: it waits until the device has
done its work, at the speed that the device has meanwhile, and heats the machine for as long. Whoever owns the world
moves the clock to the next event once nothing is left to do at this moment, and ends one job at a time. So a simulated
half hour is over in seconds, and what comes of it does not depend on how busy the computer is that computes it.

The scheme is that of a discrete-event simulation with blocked threads as its processes (as in SimPy, whose processes
are generators).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from hetero.testing.thermal.machine import ThermalMachine
from hetero.testing.thermal.plant import STEP, Floats

_NEARLY = 1e-9

PATIENCE = 60.0
"""Real seconds without any progress after which a world gives up: a thread hangs."""


class _Job:
    __slots__ = ("ended", "left", "part", "share")

    def __init__(self, part: int, share: float, seconds: float) -> None:
        self.part = part
        self.share = share
        self.left = seconds
        self.ended = threading.Event()


class World:
    """The clock of a modelled machine, and the work on it.

    `work` may be called in any thread; everything else by the one that owns the world. Calling the world gives its
    time, so that it can be a Runtime's clock.

    Args:
        machine: What is heated. Its own clock follows, step by step.

    Attributes:
        machine: As given.
        under_way: How many requests there are at this moment, waiting ones included; whoever makes one counts it here
            with `begins`.
        waiting: Tells how many of them wait for a device, for `settle`.
    """

    def __init__(self, machine: ThermalMachine) -> None:
        self.machine = machine
        self.under_way = 0
        self.waiting: Callable[[], int] = lambda: 0
        self._now = 0.0
        self._steps = 0
        self._jobs: list[_Job] = []
        self._used = np.zeros(3)
        self._taken = np.zeros(3)
        self._speeds = machine.speeds
        self._changed = threading.Condition(threading.Lock())
        self._stopped = False

    def __call__(self) -> float:
        """Seconds of its own time."""
        return self._now

    @property
    def jobs(self) -> int:
        """How many jobs there are now."""
        return len(self._jobs)

    def work(self, part: int, seconds: float, lanes: int = 1) -> None:
        """Work on a device; returns when that is done, in the world's time.

        Args:
            part: `NPU`, `GPU` or `CPU`, as the plant counts them.
            seconds: That it takes at the device's full speed. While the kernel slows it down it takes longer.
            lanes: How many such jobs are the whole device.
        """
        job = _Job(part, 1.0 / lanes, seconds)
        with self._changed:
            if self._stopped:
                return
            self._jobs.append(job)
            self._changed.notify_all()
        job.ended.wait()

    def begins(self) -> None:
        """One more request is under way."""
        with self._changed:
            self.under_way += 1

    def ends(self) -> None:
        """A request is over; for any thread."""
        with self._changed:
            self.under_way -= 1
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait, in real time, until every request that is under way has a job or waits for a device.

        Raises:
            RuntimeError: Nothing moves any more.
        """
        with self._changed:
            # A request that begins to wait tells nobody: the time-out is for that.
            for _ in range(round(PATIENCE / 0.0005)):
                if len(self._jobs) + self.waiting() == self.under_way:
                    return
                self._changed.wait(0.0005)
            raise RuntimeError(
                f"{self.under_way} requests are under way, but {len(self._jobs)} are at work and {self.waiting()} wait"
            )

    def end_one(self) -> bool:
        """End the job that is due first, if one is due now.

        Returns:
            Whether there was one.
        """
        with self._changed:
            due = next((job for job in self._jobs if job.left <= _NEARLY), None)
            if due is None:
                return False
            self._jobs.remove(due)
        due.ended.set()
        return True

    def next_event(self) -> float:
        """When the next job ends or the machine's next step is due, whichever comes first."""
        with self._changed:
            ends = [self._now + job.left / self._speeds[job.part] for job in self._jobs]
        return min(*ends, self._boundary) if ends else self._boundary

    def move_to(self, when: float) -> None:
        """Let time pass up to the next event at most: devices work, and heat the machine.

        Args:
            when: Seconds on this clock; what lies before now is now.
        """
        with self._changed:
            passed = max(0.0, min(when, self._boundary) - self._now)
            for job in self._jobs:
                job.left -= passed * self._speeds[job.part]
                self._used[job.part] += passed * job.share
            self._now += passed
            if self._boundary - self._now > _NEARLY:
                return
            self._now = self._boundary
            self._steps += 1
            duty = np.minimum(1.0, self._used / STEP)
            self._taken += self._used
            self._used[:] = 0.0
        self.machine.duty = [float(share) for share in duty]
        self.machine.advance(STEP)
        self._speeds = self.machine.speeds

    def taken(self) -> Floats:
        """Seconds that the NPU, the GPU and the CPU have worked since this was asked last, up to the last step."""
        taken, self._taken = self._taken, np.zeros(3)
        return taken

    def stop(self) -> None:
        """End every job at once, and let no other begin."""
        with self._changed:
            self._stopped = True
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.ended.set()

    @property
    def _boundary(self) -> float:
        return (self._steps + 1) * STEP
