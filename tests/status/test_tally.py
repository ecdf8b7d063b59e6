"""The counts of a session: exact, whoever counts and looks at the same time."""

from __future__ import annotations

import threading

import pytest

from hetero.scheduler.tally import RECENT, Tally
from hetero.telemetry.records import Attempt, Record, Records
from hetero.thermal.steering import Decision


def record(*outcomes: str, error: str | None = None) -> Record:
    made = Record("p")
    made.attempts = [Attempt(f"d{place}", "run", outcome) for place, outcome in enumerate(outcomes)]  # type: ignore[arg-type]
    made.error = error
    return made


def test_no_request_is_lost_or_counted_twice_by_many_threads_and_lookers() -> None:
    tally = Tally(Records(10))
    stop = threading.Event()
    seen: list[int] = []

    def look() -> None:
        while not stop.is_set():
            seen.append(tally.ended)

    def add(number: int) -> None:
        for place in range(500):
            tally.add(record("failed", "ok") if (place + number) % 5 == 0 else record("ok"))

    lookers = [threading.Thread(target=look) for _ in range(2)]
    adders = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in (*lookers, *adders):
        thread.start()
    for thread in adders:
        thread.join()
    stop.set()
    for thread in lookers:
        thread.join()
    assert tally.ended == 2000
    assert tally.fell_back == 400
    assert max(seen, default=0) <= 2000


@pytest.mark.parametrize(
    ("made", "counted"),
    [
        (record("ok"), {}),
        (record("failed", "ok"), {"fell_back": 1}),
        (record("failed", error="AllDevicesFailed: x"), {"fell_back": 1, "failed": 1}),
        (record(error="QueueFull: x"), {"failed": 1}),
        (record("cancelled", error="CancelledError: "), {"fell_back": 1, "cancelled": 1}),
        (record(error="DeadlineExceeded: x"), {"too_late": 1}),
    ],
)
def test_each_outcome_is_counted_as_what_it_is(made: Record, counted: dict[str, int]) -> None:
    tally = Tally(Records(10))
    tally.add(made)
    names = ("failed", "cancelled", "too_late", "fell_back", "decided")
    assert {name: getattr(tally, name) for name in names} == dict.fromkeys(names, 0) | counted
    assert tally.ended == 1


def test_a_request_that_heat_has_touched_is_kept_though_it_was_answered() -> None:
    tally = Tally(Records(10))
    warm = record("ok")
    warm.heat.append(Decision("d0", "pace", "hot"))
    tally.add(warm)
    tally.add(record("ok"))
    assert list(tally.heated) == [warm]
    assert tally.decided == 1


def test_the_records_get_every_request_and_the_tally_keeps_only_the_last_ones() -> None:
    records = Records(RECENT + 10)
    tally = Tally(records)
    for _ in range(RECENT + 5):
        tally.add(record("ok"))
    assert len(records) == RECENT + 5
    assert len(tally.recent) == RECENT
