"""A hundred thousand requests over four simulated devices that crash, hang, lie and refuse: nothing lost, nothing left.

Faults are drawn from the request's number and the device's name, so that a failing run can be run again; time is a
counter that the test advances.
"""

from __future__ import annotations

import collections
import concurrent.futures
import gc
import os
import random
import threading
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Call
from tests.fakes import DOUBLE, FakeBackend, fake

REQUESTS = 100_000
CALLERS = 4


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Hangs:
    """Runs that hang, let go by the test a while later."""

    def __init__(self) -> None:
        self.events: collections.deque[threading.Event] = collections.deque()
        self.count = 0

    def hang(self) -> None:
        event = threading.Event()
        self.count += 1
        self.events.append(event)
        assert event.wait(120)

    def release(self, keep: int = 0) -> None:
        while len(self.events) > keep:
            self.events.popleft().set()


def chaotic(name: str, kind: str, lanes: int, hangs: Hangs) -> type[FakeBackend]:
    def run(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        x = inputs["x"]
        draw = zlib.crc32(f"{name}{float(x[0])}".encode()) % 2000
        if draw < 4:
            raise errors.DeviceLost("reset")
        if draw < 20:
            raise OSError("vendor error -1")
        if draw < 50:
            raise errors.Unsupported("not this shape")
        if draw < 54:
            return {"y": (x * 2).astype(np.float64)}
        if draw < 58:
            return {"y": x * 3}
        if draw < 64:
            hangs.hang()
        return {"y": x * 2}

    return fake(name, kind=kind, lanes=lanes, run=run, simulated=True)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.parametrize("policy", ["chain", "throughput"])
def test_every_request_ends_in_exactly_one_outcome(make_runtime: Callable[..., hetero.Runtime], policy: str) -> None:
    gc.collect()
    threads_before, files_before = set(threading.enumerate()), open_files()
    clock, hangs = Clock(), Hangs()
    devices = [chaotic("a", "npu", 3, hangs), chaotic("b", "npu", 1, hangs), chaotic("g", "gpu", 2, hangs)]
    runtime = make_runtime(*devices, fake("c", kind="cpu", lanes=4), clock=clock, keep_records=REQUESTS + 1)
    session = runtime.load(DOUBLE, policy=policy, verify=1, timeout=5.0, max_waiting=64, canary=False)
    outcomes: list[list[str]] = [[] for _ in range(CALLERS)]
    stop = threading.Event()

    def pass_time() -> None:
        while not stop.is_set():
            clock.now += 0.05
            runtime.timers.run_due()
            hangs.release(keep=3)
            stop.wait(0.0005)

    def caller(number: int) -> None:
        rng = random.Random(number)
        pending: collections.deque[tuple[int, concurrent.futures.Future[Array]]] = collections.deque()

        def collect() -> None:
            sent, future = pending.popleft()
            try:
                y = future.result(60)
            except concurrent.futures.CancelledError:
                outcomes[number].append("cancelled")
            except errors.DeadlineExceeded:
                outcomes[number].append("late")
            else:
                assert y.tolist() == [2.0 * sent, 2.0], "an answer that is another request's, or wrong"
                outcomes[number].append("answered")

        for i in range(number, REQUESTS // 2, CALLERS):
            deadline = 0.001 if rng.random() < 0.01 else None
            x = np.array([i, 1], np.float32)
            pending.append((i, session.submit(x, priority=rng.randrange(3), deadline=deadline)))
            if rng.random() < 0.02:
                pending[rng.randrange(len(pending))][1].cancel()
            while len(pending) >= 32:
                collect()
        while pending:
            collect()

    clockwork = threading.Thread(target=pass_time)
    clockwork.start()
    with concurrent.futures.ThreadPoolExecutor(CALLERS) as callers:
        for done in [callers.submit(caller, number) for number in range(CALLERS)]:
            done.result()
    stop.set()
    clockwork.join()
    hangs.release()

    counted = collections.Counter(outcome for one in outcomes for outcome in one)
    assert sum(counted.values()) == REQUESTS // 2
    assert counted["answered"] > 0.9 * REQUESTS // 2
    assert counted["cancelled"] > 0
    assert counted["late"] > 0
    assert hangs.count > 0
    runtime.close()
    records = list(runtime.records)
    assert len(records) == REQUESTS // 2
    assert len({record.id for record in records}) == REQUESTS // 2
    assert sum(record.error is None for record in records) == counted["answered"]
    assert all(record.attempts[-1].outcome == "ok" for record in records if record.error is None)
    board = session._dispatcher.board
    assert board.waiting == 0
    for backend in devices:
        for executable in backend.made:
            assert executable.closed == 1
            assert executable.most_inside <= backend.lanes
    assert set(threading.enumerate()) <= threads_before
    assert open_files() <= files_before
