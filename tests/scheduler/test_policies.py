"""Policies and the board together, in simulated time: no device idles while it could help, and order is kept."""

from __future__ import annotations

import heapq
import random
from typing import Any

import numpy as np
import pytest

from hetero.backend import Call
from hetero.errors import ClosedError, QueueFull
from hetero.scheduler.board import Board
from hetero.scheduler.lanes import Lanes
from hetero.scheduler.policy import Chain, Efficiency, Exploring, Fastest, Policy, Throughput
from hetero.scheduler.request import Request
from hetero.telemetry.records import Record


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """A candidate as the board and the policies see it, whose runs take a known time."""

    def __init__(self, name: str, speed: float, clock: Clock, lanes: int = 1, known: bool = True) -> None:
        self.name = name
        self.speed = speed
        self.lanes = Lanes(clock)
        self.lanes.prepare(lanes, ())
        self.lanes.open()
        self.free = self.lanes.free
        self.take = self.lanes.take
        self.begins = lambda call: None
        self.pace = None
        self.paced = 0.0
        self.usable = True
        self.known = known
        self.watts: float | None = None
        self.heat = None
        self.hot = self.stopped = False
        self.headroom = 1.0
        self.wait_for_heat = 0.0
        self.measured: float | None = None
        self.backlog = 0.0
        self.ends: list[float] = []
        self.done: list[Request] = []
        self._clock = clock

    @property
    def idle(self) -> bool:
        return bool(self.free)

    def admits(self, request: Request) -> bool:
        return self.wait_for_heat <= 0

    def held(self, request: Request) -> float:
        return self.wait_for_heat

    def seconds(self, request: Request) -> float:
        return float(request.inputs["x"].size) / self.speed

    def runs(self, request: Request) -> int:
        return len(self.done)

    def expected(self, request: Request) -> float | None:
        return self.seconds(request) if self.known else None

    def joules(self, request: Request) -> float | None:
        if self.measured is not None:
            return self.measured * request.inputs["x"].size
        seconds = self.expected(request)
        return None if self.watts is None or seconds is None else self.watts * seconds

    def wait(self, now: float) -> float | None:
        return max(0.0, min(self.ends) - now) + self.backlog if self.ends else None


class Simulation:
    """Devices work through requests; time jumps from end to end."""

    def __init__(self, policy: Policy, speeds: list[float], lanes: int = 1, **board: Any) -> None:
        self.clock = Clock()
        self.workers = [Worker(f"d{i}", speed, self.clock, lanes) for i, speed in enumerate(speeds)]
        self.board = Board(policy, clock=self.clock, **board)
        self._events: list[tuple[float, int, Worker, Call]] = []
        self._count = 0

    def request(self, size: int = 1, priority: int = 0) -> Request:
        made = Request(
            {"x": np.zeros(size, np.int8)},
            Record("p"),
            tuple(self.workers),  # type: ignore[arg-type]
            arrived=self.clock.now,
            priority=priority,
        )

        def assigned(worker: Any, call: Call) -> None:
            end = self.clock.now + worker.seconds(made)
            worker.ends.append(end)
            worker.done.append(made)
            self._count += 1
            heapq.heappush(self._events, (end, self._count, worker, call))

        made.assigned = assigned
        return made

    def send(self, size: int = 1, priority: int = 0) -> Request:
        request = self.request(size, priority)
        taken = self.board.take(request)
        if taken is not None:
            assert request.assigned is not None
            request.assigned(*taken)
        else:
            self.board.enter(request, wait=0)
        return request

    def run(self) -> float:
        while self._events:
            self.clock.now, _, worker, call = heapq.heappop(self._events)
            worker.ends.remove(self.clock.now)
            self.board.give_back(worker, call)  # type: ignore[arg-type]
        return self.clock.now


def test_throughput_uses_all_devices_to_within_three_percent_of_their_sum() -> None:
    simulation = Simulation(Throughput(), [1, 2, 4, 8], max_waiting=10_000)
    for _ in range(3000):
        simulation.send()
    makespan = simulation.run()
    assert 3000 / makespan >= 0.97 * 15
    assert [len(worker.done) for worker in simulation.workers] == pytest.approx([200, 400, 800, 1600], rel=0.05)


def test_fastest_is_within_five_percent_of_the_best_makespan_on_mixed_sizes() -> None:
    rng = random.Random(1)
    sizes = [rng.choice([1, 2, 5, 10]) for _ in range(400)]
    simulation = Simulation(Fastest(), [1, 2, 4, 8], max_waiting=10_000)
    for size in sizes:
        simulation.send(size)
    bound = sum(sizes) / 15  # no schedule ends before the work divided by all the speed there is
    assert simulation.run() <= 1.05 * bound


def test_fastest_leaves_a_slow_device_alone_when_waiting_for_a_quick_one_is_quicker() -> None:
    simulation = Simulation(Fastest(), [1, 100])
    for _ in range(5):
        simulation.send()
    simulation.run()
    assert [len(worker.done) for worker in simulation.workers] == [0, 5]


def test_chain_stays_on_the_first_device_while_that_is_no_slower_than_the_next() -> None:
    simulation = Simulation(Chain(), [10, 1])
    for _ in range(5):
        simulation.send()
    simulation.run()
    assert [len(worker.done) for worker in simulation.workers] == [5, 0]


def test_chain_spills_when_waiting_costs_more_than_the_next_device() -> None:
    simulation = Simulation(Chain(), [1, 5])
    first, second = simulation.send(), simulation.send()
    simulation.run()
    assert [worker.done for worker in simulation.workers] == [[first], [second]]


def test_chain_spills_to_a_free_device_when_nothing_is_known() -> None:
    simulation = Simulation(Chain(), [1, 1])
    for worker in simulation.workers:
        worker.known = False
    first, second = simulation.send(), simulation.send()
    simulation.run()
    assert [worker.done for worker in simulation.workers] == [[first], [second]]


@pytest.mark.parametrize("policy", [Chain(), Fastest(), Throughput()])
def test_every_request_runs_exactly_once_in_order_of_arrival(policy: Policy) -> None:
    simulation = Simulation(policy, [3.0], lanes=2)
    sent = [simulation.send() for _ in range(50)]
    simulation.run()
    assert simulation.workers[0].done == sent


def test_a_higher_priority_goes_first_and_waiting_long_enough_outweighs_it() -> None:
    simulation = Simulation(Throughput(), [1])
    running, low = simulation.send(), simulation.send()
    high = simulation.send(priority=1)
    simulation.run()
    assert simulation.workers[0].done == [running, high, low]
    simulation.workers[0].done.clear()
    running, old = simulation.send(), simulation.send()
    simulation.clock.now += 1.5
    young = simulation.send(priority=1)
    simulation.run()
    assert simulation.workers[0].done == [running, old, young]


def test_the_queue_is_bounded_by_number_and_by_bytes() -> None:
    simulation = Simulation(Throughput(), [1], max_waiting=2)
    for _ in range(3):
        simulation.send()
    with pytest.raises(QueueFull, match="2 requests"):
        simulation.send()
    assert simulation.board.waiting == 2
    by_bytes = Simulation(Throughput(), [1], max_waiting_bytes=10)
    by_bytes.send()
    by_bytes.send(100)  # larger than the bound, but alone
    with pytest.raises(QueueFull, match="100 bytes"):
        by_bytes.send(1)


def test_one_who_leaves_is_not_served_and_makes_room() -> None:
    simulation = Simulation(Throughput(), [1], max_waiting=1)
    simulation.send()
    waiting = simulation.send()
    assert simulation.board.leave(waiting)
    assert not simulation.board.leave(waiting)
    simulation.send()
    simulation.run()
    assert waiting not in simulation.workers[0].done
    assert len(simulation.workers[0].done) == 2


def test_closing_turns_everybody_away() -> None:
    simulation = Simulation(Throughput(), [1])
    simulation.send()
    waiting = simulation.send()
    assert simulation.board.close("closed") == [waiting]
    with pytest.raises(ClosedError, match="closed"):
        simulation.send()


def test_a_candidate_that_has_failed_a_request_is_not_offered_to_it_again() -> None:
    simulation = Simulation(Throughput(), [8, 1])
    request = simulation.request()
    request.tried.add(simulation.workers[0])  # type: ignore[arg-type]
    taken = simulation.board.take(request)
    assert taken is not None
    assert taken[0].name == "d1"


def test_efficiency_takes_the_least_energy_and_not_the_quickest() -> None:
    simulation = Simulation(Efficiency(), [10, 2])
    simulation.workers[0].watts, simulation.workers[1].watts = 30.0, 3.0
    for _ in range(5):
        simulation.send()
    simulation.run()
    assert [len(worker.done) for worker in simulation.workers] == [0, 5]


def test_efficiency_believes_what_was_measured_and_not_what_was_declared() -> None:
    simulation = Simulation(Efficiency(), [10, 2])
    simulation.workers[0].watts, simulation.workers[1].watts = 30.0, 3.0
    simulation.workers[0].measured = 0.5
    for _ in range(5):
        simulation.send()
    simulation.run()
    assert [len(worker.done) for worker in simulation.workers] == [5, 0]


def test_efficiency_tries_a_device_of_declared_power_first_and_one_of_unknown_energy_never() -> None:
    simulation = Simulation(Efficiency(), [10, 2, 5])
    simulation.workers[1].measured = 0.1
    simulation.workers[2].watts = 1.0
    simulation.workers[2].known = False
    first = simulation.send()
    simulation.run()
    simulation.workers[2].known = True
    second = simulation.send()
    simulation.run()
    assert [worker.done for worker in simulation.workers] == [[], [second], [first]]


def test_efficiency_spends_more_where_the_deadline_needs_it() -> None:
    simulation = Simulation(Efficiency(), [10, 2])
    simulation.workers[0].watts, simulation.workers[1].watts = 30.0, 3.0
    request = simulation.request()
    request.deadline = 0.2
    taken = simulation.board.take(request)
    assert taken is not None
    assert taken[0].name == "d0"


def test_exploring_sends_its_share_where_the_least_is_known() -> None:
    draws = iter([0.5, 0.01, 0.5])
    simulation = Simulation(Exploring(Fastest(), 0.05, lambda: next(draws)), [10, 1])
    for _ in range(3):
        simulation.send()
        simulation.run()
    assert [len(worker.done) for worker in simulation.workers] == [2, 1]
