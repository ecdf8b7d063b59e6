"""A hundred thousand requests over four simulated devices that crash, hang, lie, refuse and dawdle, by every door.

Each ends in exactly one outcome, answers are the askers' own, in order where that was promised, and nothing is left.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from tests.fakes import DOUBLE
from tests.scheduler.chaos import Traces, World, accelerator, processor

DOORS = 44_000
BATCHED = 12_000
CLOSED = 44_000
TIMEOUT = 10.0

Make = Callable[..., hetero.Runtime]
Outcomes = collections.Counter[str]


def devices(world: World) -> list[Any]:
    return [
        accelerator(world, "a", "npu", 3, units=("core0", "core1", "core2"), interruptible=True),
        accelerator(world, "b", "npu", 1, slow=0.1),
        accelerator(world, "g", "gpu", 2),
        processor(world, "c", 2),
    ]


def item(number: int, rows: int = 2) -> np.ndarray[Any, Any]:
    return np.full(rows, number, np.float32)


def right(number: int, answer: Any) -> None:
    assert np.all(answer == 2 * number), "an answer that is another request's, or wrong"


def outcome_of(number: int, future: concurrent.futures.Future[Any]) -> str:
    try:
        right(number, future.result(60))
    except (concurrent.futures.CancelledError, asyncio.CancelledError):
        return "cancelled"
    except errors.DeadlineExceeded:
        return "late"
    except errors.QueueFull:
        return "full"
    except errors.ClosedError:
        return "closed"
    return "answered"


def submitting(session: hetero.Session, numbers: Iterable[int], seed: int) -> Outcomes:
    """Deadlines, priorities, cancelled futures; up to 32 under way."""
    rng, counted = random.Random(seed), Outcomes()
    pending: collections.deque[tuple[int, concurrent.futures.Future[Any]]] = collections.deque()
    for number in numbers:
        deadline = 0.001 if rng.random() < 0.01 else 30.0 if rng.random() < 0.05 else None
        try:
            future = session.submit(item(number), priority=rng.randrange(3), deadline=deadline)
        except (errors.QueueFull, errors.ClosedError) as error:
            counted["full" if isinstance(error, errors.QueueFull) else "refused"] += 1
            continue
        pending.append((number, future))
        if rng.random() < 0.02:
            pending[rng.randrange(len(pending))][1].cancel()
        while len(pending) >= 32:
            counted[outcome_of(*pending.popleft())] += 1
    for one in pending:
        counted[outcome_of(*one)] += 1
    return counted


def calling(session: hetero.Session, numbers: Iterable[int], seed: int) -> Outcomes:
    counted = Outcomes()
    for number in numbers:
        right(number, session(item(number)))
        counted["answered"] += 1
    return counted


def into_buffers(session: hetero.Session, numbers: Iterable[int], seed: int) -> Outcomes:
    """Into memory of the Runtime's pool, which is given back each time."""
    counted = Outcomes()
    for number in numbers:
        with session._runtime.buffer(2) as out:
            right(number, session.submit(item(number), out=out).result(60))
        counted["answered"] += 1
    return counted


def mapping(session: hetero.Session, numbers: Iterable[int], seed: int) -> Outcomes:
    listed = list(numbers)
    half = len(listed) // 2
    answers = [float(answer[0]) for answer in session.map(map(item, listed[:half]), in_flight=12)]
    assert answers == [2.0 * number for number in listed[:half]], "in the items' order"
    answers = [float(answer[0]) for answer in session.map(map(item, listed[half:]), in_flight=12, ordered=False)]
    assert sorted(answers) == [2.0 * number for number in listed[half:]]
    return Outcomes(answered=len(listed))


def awaiting(session: hetero.Session, numbers: Iterable[int], seed: int) -> Outcomes:
    """Tasks of an event loop, some of which are cancelled."""
    rng, counted = random.Random(seed), Outcomes()

    async def one(number: int) -> None:
        task = asyncio.ensure_future(session.arun(item(number)))
        if rng.random() < 0.02:
            await asyncio.sleep(0)
            task.cancel()
        try:
            right(number, await task)
        except asyncio.CancelledError:
            counted["cancelled"] += 1
        else:
            counted["answered"] += 1

    async def all_of_them() -> None:
        for start in range(0, len(listed), 16):
            await asyncio.gather(*map(one, listed[start : start + 16]))

    listed = list(numbers)
    asyncio.run(all_of_them())
    return counted


def run_all(jobs: Iterable[Callable[[], Outcomes]]) -> Outcomes:
    listed = list(jobs)
    with concurrent.futures.ThreadPoolExecutor(len(listed)) as callers:
        done = [callers.submit(job) for job in listed]
        return sum((one.result() for one in done), Outcomes())


def nothing_left(runtime: hetero.Runtime, sessions: list[hetero.Session], backends: list[Any], traces: Traces) -> None:
    """Everything given back, once; call it after all hangs were let go."""
    runtime.close()
    for session in sessions:
        assert session._dispatcher.board.waiting == 0
        for candidate in session._candidates:
            assert not candidate.free, "every lane came back and was withdrawn"
    for backend in backends:
        assert backend.made
        for executable in backend.made:
            assert executable.closed == 1
            assert executable.inside == 0
            assert executable.most_inside <= backend.lanes
    for pool in runtime.memory:
        assert pool.in_use_bytes == 0
        assert pool.buffers == 0
    traces.nothing_left()


def answered_by(records: Iterable[Any]) -> collections.Counter[str]:
    return collections.Counter(record.device for record in records if record.error is None)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("policy", ["chain", "throughput"])
def test_every_request_by_every_door_ends_in_exactly_one_outcome(make_runtime: Make, policy: str) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    total = DOORS // 2
    runtime = make_runtime(*backends, clock=world.clock, keep_records=total + 1, learn=False)
    session = runtime.load(DOUBLE, policy=policy, verify=1, timeout=TIMEOUT, max_waiting=64, canary=False)
    for candidate in session._candidates:
        candidate.load()
    doors = [submitting, submitting, calling, mapping, awaiting, into_buffers]
    with world.passing(runtime):
        counted = run_all(
            lambda door=door, place=place: door(session, range(place, total, len(doors)), place)  # type: ignore[misc]
            for place, door in enumerate(doors)
        )
    world.let_go()
    assert counted.total() == total
    assert counted["answered"] > 0.9 * total
    assert counted["cancelled"] > 0
    assert counted["late"] > 0
    assert set(counted) <= {"answered", "cancelled", "late"}
    assert world.hangs >= 40
    nothing_left(runtime, [session], backends, traces)
    records = list(runtime.records)
    assert len(records) == len({record.id for record in records}) == total
    # An answer that comes in the moment of a cancelled task's end may stand in the record, and the task be cancelled.
    assert 0 <= sum(record.error is None for record in records) - counted["answered"] <= counted["cancelled"]
    assert all(record.attempts[-1].outcome == "ok" for record in records if record.error is None)
    shares = answered_by(records)
    assert all(shares[device] >= 0.02 * total for device in ("a", "b", "g", "c")), shares
    reasons = {attempt.reason for record in records for attempt in record.attempts}
    assert any("core" in reason and "no answer within" in reason for reason in reasons)


def test_requests_that_share_launches_get_their_own_rows_and_a_full_queue_says_so(make_runtime: Make) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = make_runtime(*backends, clock=world.clock, keep_records=BATCHED + 1, learn=False)
    session = runtime.load(
        DOUBLE,
        policy="throughput",
        verify=1,
        timeout=TIMEOUT,
        canary=False,
        batch=8,
        batch_delay=0.05,
        max_waiting=24,
        on_full="raise",
    )
    with world.passing(runtime):
        counted = run_all(
            lambda place=place: submitting(session, range(place, BATCHED, 4), place)  # type: ignore[misc]
            for place in range(4)
        )
    world.let_go()
    assert counted.total() == BATCHED
    assert counted["answered"] > BATCHED // 10
    assert counted["full"] > 0
    assert set(counted) <= {"answered", "cancelled", "late", "full"}
    nothing_left(runtime, [session], backends, traces)
    records = list(runtime.records)
    assert len({record.id for record in records}) == len(records)


@pytest.mark.usefixtures("untraced")
def test_sessions_and_the_runtime_closed_in_the_middle_of_it_leave_nobody_waiting(make_runtime: Make) -> None:
    traces, world = Traces(), World()
    backends = devices(world)
    runtime = make_runtime(*backends, clock=world.clock, keep_records=CLOSED + 1, learn=False)
    sessions = [
        runtime.load(DOUBLE, policy=policy, verify=1, timeout=TIMEOUT, max_waiting=64, canary=False)
        for policy in ("chain", "throughput", "fastest")
    ]
    parts = [(session, number) for number, session in enumerate(sessions) for _ in range(2)]
    share = CLOSED // len(parts)

    def close() -> None:
        for quarter, session in enumerate(sessions[:2], 1):
            while world.ended < quarter * CLOSED // 4:
                threading.Event().wait(0.001)
            session.close(timeout=0.0)
        while world.ended < 3 * CLOSED // 4:
            threading.Event().wait(0.001)
        runtime.timers.close()
        for session in sessions:
            session.close(timeout=0.0)

    closer = threading.Thread(target=close)
    with world.passing(runtime):
        closer.start()
        counted = run_all(
            lambda place=place, session=session: submitting(  # type: ignore[misc]
                session, range(place * share, (place + 1) * share), place
            )
            for place, (session, _) in enumerate(parts)
        )
        closer.join()
    world.let_go()
    assert counted.total() == share * len(parts)
    assert set(counted) <= {"answered", "cancelled", "late", "closed", "refused"}
    assert counted["answered"] > 0
    assert counted["closed"] > 0
    assert counted["refused"] > 0
    runtime.close()
    records = list(runtime.records)
    assert len(records) == len({record.id for record in records}) == counted.total() - counted["refused"]
    assert set(threading.enumerate()) >= traces._threads - {closer}
