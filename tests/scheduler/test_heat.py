"""Requests for hot devices: they wait their turn, go elsewhere, get through for a deadline, and none is lost."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.backend import Call, Host
from hetero.errors import DeadlineExceeded, ExecutionError
from hetero.testing.thermal.sysroots import Sysroot
from hetero.thermal.admission import Admission
from hetero.thermal.settings import ThermalSettings
from tests.fakes import DOUBLE, double, fake

X = np.array([1, 2], np.float32)
Make = Callable[..., hetero.Runtime]


class Clock:
    """Seconds that a test lets pass; `run` is what a device does, which takes some."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float) -> Callable[[Mapping[str, Any], Call], Mapping[str, Any]]:
        def run(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
            self.now += seconds
            return double(inputs, call)

        return run


class Board:
    """A Runtime with an NPU, a GPU and a CPU that have sensors; tests set what each may do."""

    def __init__(self, make: Make, root: Path, **options: Any) -> None:
        self.clock = Clock()
        Sysroot(root / "root", "rk3588").show(dict.fromkeys(range(4), 40.0))
        thermal = options.pop(
            "thermal", ThermalSettings(on_hot=options.pop("on_hot", "pace"), patience=options.pop("patience", 0.0))
        )
        seconds = options.pop("seconds", 1.0)
        run = self.clock.taking(seconds)
        backends = options.pop("backends", None) or (
            fake("npu", run=run),
            fake("gpu", kind="gpu", run=run),
            fake("cpu", kind="cpu", run=run),
        )
        self.runtime = make(
            *backends,
            host=Host(environ={}, sysroot=root / "root", cache=root / "cache"),
            clock=self.clock,
            learn=False,
            thermal=thermal,
            **options,
        )

    def load(self, **options: Any) -> hetero.Session:
        options = {"canary": False, "explore": 0.0, **options}
        return self.runtime.load(DOUBLE, **options)

    def admission(self, device: str) -> Admission:
        governor = self.runtime.governor
        assert governor is not None
        return governor.pace(device)

    def grant(self, device: str, duty: float, *, spent: bool = True) -> None:
        """Give a device a duty; `spent`: and have it used up all that it may for now."""
        admission = self.admission(device)
        admission.grant(duty)
        if spent and 0 < duty < 1:
            admission._tokens = -duty * admission.lanes  # due in one second

    def tell(self) -> None:
        """As if the governor had looked, without it changing any duty."""
        governor = self.runtime.governor
        assert governor is not None
        governor.ticked()

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.runtime.timers.run_due()


@pytest.fixture
def board(make_runtime: Make, tmp_path: Path) -> Callable[..., Board]:
    return lambda **options: Board(make_runtime, tmp_path, **options)


def answer(future: concurrent.futures.Future[Any]) -> list[float]:
    value: list[float] = future.result(30).tolist()
    return value


def waiting(session: hetero.Session) -> int:
    return session._dispatcher.board.waiting


def is_settled(session: hetero.Session) -> bool:
    """Nothing runs, and whoever waits has a timer that will look at it again: the clock may move on.

    A look at the board as it is between two of its steps: in the midst of one, a worker may have said that there is a
    timer and not have set it yet. A clock that moves on then passes by that timer's time.
    """
    board = session._dispatcher.board
    with board._lock:
        idle = all(
            len(each.free) == len(each.lanes.calls) and (each.heat is None or not each.heat.inside)
            for each in session._candidates
            if each.ready
        )
        return idle and (not board.waiting or bool(board._held))


def until(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(30000):
        if condition():
            return
        event.wait(0.001)
    raise AssertionError("it did not come to that")


def test_a_request_that_is_paced_is_served_when_its_turn_has_come_and_its_record_says_for_how_long(
    board: Callable[..., Board],
) -> None:
    b = board()
    session = b.load()
    b.grant("npu", 0.5)
    future = session.submit(X)
    assert not future.done()
    assert waiting(session) == 1
    b.wait(0.5)
    assert not future.done()
    b.wait(0.6)
    assert answer(future) == [2, 4]
    record = b.runtime.records.last
    assert record is not None
    assert record.device == "npu"
    (decision,) = record.heat
    assert (decision.device, decision.action) == ("npu", "pace")
    assert decision.held == pytest.approx(1.1)
    assert "on_hot='pace' stays and slows down" in decision.reason
    assert record.to_dict()["heat"][0]["held"] == pytest.approx(1.1)


def test_over_time_a_paced_device_works_for_its_share_and_nobody_is_lost(board: Callable[..., Board]) -> None:
    b = board(seconds=0.25, chain=["npu"])
    session = b.load()
    b.grant("npu", 0.25)
    futures = [session.submit(X + i) for i in range(40)]
    begun = b.clock.now
    for _ in range(4000):
        b.wait(0.05)
        until(lambda: is_settled(session))
        if all(future.done() for future in futures):
            break
    assert [answer(future) for future in futures] == [[2 + 2 * i, 4 + 2 * i] for i in range(40)]
    assert 10 / (b.clock.now - begun) == pytest.approx(0.25, rel=0.2)


def test_a_synchronous_call_waits_for_heat(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load()
    b.grant("npu", 0.5)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        result = caller.submit(session.run, X)
        until(lambda: waiting(session) == 1)
        b.wait(1.1)
        assert result.result(30).record.device == "npu"


def test_what_is_stopped_goes_to_the_next_device_and_comes_back(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load(policy="throughput")
    chain = b.load()
    session.close()
    b.grant("npu", 0.0)
    for gpu in (chain.run(X), chain.run(X)):
        assert gpu.record.device == "cpu"  # the GPU is not loaded, the standby is
        (decision,) = gpu.record.heat
        assert (decision.device, decision.action, decision.to) == ("npu", "steer", "cpu")
        assert "nothing may run here" in decision.reason
    b.grant("npu", 1.0)
    back = chain.run(X).record
    assert (back.device, back.heat) == ("npu", [])


def pass_seconds(b: Board, seconds: int) -> None:
    for _ in range(seconds):
        b.wait(1.0)
        b.tell()


@pytest.mark.parametrize("on_hot", ["pace", "auto"])
def test_requests_wait_for_a_device_that_has_just_stopped_and_it_answers_them(
    board: Callable[..., Board], on_hot: str
) -> None:
    b = board(on_hot=on_hot, patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X)
    pass_seconds(b, 9)
    assert waiting(session) == 1
    b.grant("npu", 1.0)
    b.tell()
    record = _record_of(b, future)
    assert record.device == "npu"
    (decision,) = record.heat
    assert decision.action == "stop"
    assert decision.held == pytest.approx(9.0)
    assert "waits for it to cool down in the first 10 s" in decision.reason
    assert "as others would heat the chip too" in decision.reason


def test_a_stop_that_lasts_is_waited_for_once_and_not_by_each_request_again(board: Callable[..., Board]) -> None:
    b = board(patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    first = session.submit(X)
    pass_seconds(b, 6)
    second = session.submit(X)
    pass_seconds(b, 3)
    assert not first.done()
    pass_seconds(b, 2)
    assert [answer(first), answer(second)] == [[2, 4], [2, 4]]
    for record, held in zip(b.runtime.records, (10.0, 4.0), strict=True):
        assert record.device == "cpu"
        assert [(d.action, d.to) for d in record.heat] == [("stop", ""), ("steer", "cpu")]
        assert record.heat[0].held == pytest.approx(held, abs=1.1)
    for _ in range(3):
        assert session.run(X).record.device == "cpu"  # at once
    b.grant("npu", 1.0)
    assert session.run(X).record.device == "npu"
    b.grant("npu", 0.0)
    again = session.submit(X)
    pass_seconds(b, 5)
    assert not again.done()  # another stop
    pass_seconds(b, 6)
    assert _record_of(b, again).device == "cpu"


def test_the_wait_for_a_stop_ends_though_nobody_looks_at_the_temperatures_any_more(board: Callable[..., Board]) -> None:
    b = board(patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X)
    b.wait(9.9)
    assert not future.done()
    b.wait(0.2)
    assert _record_of(b, future).device == "cpu"


def test_where_all_are_stopped_they_get_a_while_to_cool_down_before_the_last_resort_heats_on(
    board: Callable[..., Board],
) -> None:
    b = board(patience=10.0)
    session = b.load()
    for device in ("npu", "gpu", "cpu"):
        b.grant(device, 0.0)
    future = session.submit(X)
    pass_seconds(b, 9)
    assert not future.done()
    pass_seconds(b, 2)
    record = _record_of(b, future)
    assert record.device == "cpu"
    assert "last resort" in record.heat[-1].reason


def test_nobody_waits_for_a_stopped_device_whose_deadline_presses_or_where_another_does_more_with_a_joule(
    board: Callable[..., Board],
) -> None:
    b = board(on_hot="auto", patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    assert _record_of(b, session.submit(X, deadline=9.0)).device == "cpu"
    for candidate in session._candidates:
        candidate.expects.learn_energy(((2,),), {"npu": 2.0, "gpu": 3.0, "cpu": 1.0}[candidate.name], "a meter")
    assert session.run(X).record.device == "cpu"


def test_who_waits_for_a_stop_keeps_the_time_that_the_other_device_takes_until_its_deadline(
    board: Callable[..., Board],
) -> None:
    b = board(patience=10.0, seconds=3.0)
    session = b.load()
    for _ in range(3):
        session.run(X, device="cpu")
    b.grant("npu", 0.0)
    assert _record_of(b, session.submit(X, deadline=12.0)).device == "cpu"
    b.grant("npu", 1.0)
    b.grant("npu", 0.0)
    easy = session.submit(X, deadline=14.0)
    pass_seconds(b, 9)
    assert not easy.done()
    pass_seconds(b, 1)
    assert _record_of(b, easy).device == "cpu"


@pytest.mark.parametrize("options", [{"fallback": "forbid"}, {"device": "npu"}])
def test_who_has_nowhere_else_to_go_is_not_said_to_wait_for_a_while(
    board: Callable[..., Board], options: dict[str, Any]
) -> None:
    b = board(patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X, **options)
    pass_seconds(b, 20)
    assert not future.done()
    b.grant("npu", 1.0)
    b.tell()
    record = _record_of(b, future)
    assert record.device == "npu"
    assert "no other device could take it" in record.heat[0].reason
    assert record.heat[0].held == pytest.approx(20.0)


def test_steered_work_does_not_wait_for_a_stopped_device(board: Callable[..., Board]) -> None:
    b = board(on_hot="steer", patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    assert session.run(X).record.device == "cpu"


def test_the_higher_priority_is_first_when_a_stop_ends_that_was_waited_for(board: Callable[..., Board]) -> None:
    ran: list[float] = []

    def seen(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
        ran.append(float(inputs["x"][0]))
        return double(inputs, call)

    b = board(patience=10.0, backends=(fake("npu", run=seen), fake("cpu", kind="cpu")))
    session = b.load()
    b.grant("npu", 0.0)
    futures = [session.submit(X + priority, priority=priority) for priority in (0, 5, 1)]
    pass_seconds(b, 2)
    assert waiting(session) == 3
    ran.clear()
    b.grant("npu", 1.0)
    b.tell()
    assert [answer(future) for future in futures] == [[2, 4], [12, 14], [4, 6]]
    assert ran[0] == 6.0


def test_who_is_cancelled_or_closed_while_waiting_for_a_stop_heats_nothing(board: Callable[..., Board]) -> None:
    b = board(patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    cancelled, closed = session.submit(X), session.submit(X)
    pass_seconds(b, 3)
    assert cancelled.cancel()
    assert waiting(session) == 1
    session.close()
    with pytest.raises(hetero.errors.ClosedError):
        closed.result(30)
    b.wait(30.0)
    assert [record.device for record in b.runtime.records] == [None, None]
    assert [record.heat[0].held for record in b.runtime.records] == [pytest.approx(3.0)] * 2


def test_a_synchronous_call_waits_for_a_stop_too(board: Callable[..., Board]) -> None:
    b = board(patience=10.0)
    session = b.load()
    b.grant("npu", 0.0)
    with concurrent.futures.ThreadPoolExecutor(1) as caller:
        result = caller.submit(session.run, X)
        until(lambda: waiting(session) == 1)
        b.wait(10.1)
        assert result.result(30).record.device == "cpu"


def test_seconds_of_patience_below_none_are_refused() -> None:
    with pytest.raises(hetero.errors.OptionError, match="0 or more"):
        ThermalSettings(patience=-1.0)
    with pytest.raises(hetero.errors.OptionError, match="0 or more"):
        ThermalSettings(patience=float("nan"))


def test_steer_goes_to_the_next_device_that_takes_it_now(board: Callable[..., Board]) -> None:
    b = board(on_hot="steer")
    chain = b.load()
    chain._dispatcher.load_rest(True)
    b.grant("npu", 0.5)
    assert chain.run(X).record.device == "gpu"
    b.grant("npu", 0.5)
    b.grant("gpu", 0.5)
    record = chain.run(X).record
    assert record.device == "cpu"
    assert [(d.device, d.action, d.to) for d in record.heat] == [("npu", "steer", "cpu")]


@pytest.mark.parametrize(
    ("joules", "went", "said"),
    [
        ({"npu": 2.0, "cpu": 1.0}, "cpu", "cpu takes 1 J for an item, npu 2 J, measured"),
        ({"npu": 1.0, "cpu": 2.0}, "npu", "no other device takes fewer joules"),
        ({"npu": 1.0}, "npu", "cannot compare"),
    ],
)
def test_auto_goes_where_an_item_was_measured_to_take_fewer_joules(
    board: Callable[..., Board], joules: Mapping[str, float], went: str, said: str
) -> None:
    b = board(on_hot="auto")
    session = b.load()
    for candidate in session._candidates:
        if candidate.name in joules:
            candidate.expects.learn_energy(((2,),), joules[candidate.name], "a meter")
    b.grant("npu", 0.5)
    future = session.submit(X)
    b.wait(1.1)
    assert answer(future) == [2, 4]
    record = b.runtime.records.last
    assert record is not None
    assert record.device == went
    assert said in record.heat[0].reason


def test_a_deadline_gets_past_pacing_when_it_would_be_missed(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load()
    session(X)
    session(X)
    b.grant("npu", 0.1)
    b.admission("npu")._tokens = -1.0  # due in ten seconds, and a run takes one
    future = session.submit(X, deadline=5.0)
    record = _record_of(b, future)
    assert record.device == "npu"
    (decision,) = record.heat
    assert (decision.device, decision.action) == ("npu", "run")
    assert "a deadline presses" in decision.reason
    assert b.admission("npu").tokens < -1.0  # what it took is paid for by who comes after


def test_a_deadline_that_waiting_keeps_waits_and_one_that_comes_near_meanwhile_begins(
    board: Callable[..., Board],
) -> None:
    b = board()
    session = b.load()
    session(X)
    session(X)
    b.grant("npu", 0.5)
    easy = session.submit(X, deadline=20.0)
    assert waiting(session) == 1
    b.admission("npu").grant(0.01)  # its turn is now in 50 seconds
    b.wait(0.9)
    assert not easy.done()
    b.wait(0.2)  # it was due now, and sees that it is not
    record = _record_of(b, easy)
    assert record.device == "npu"
    assert [decision.action for decision in record.heat] == ["pace", "run"]
    assert record.heat[0].held == pytest.approx(1.1)


def test_no_deadline_gets_past_a_stop_it_goes_elsewhere(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load()
    b.grant("npu", 0.0)
    record = _record_of(b, session.submit(X, deadline=1.5))
    assert record.device == "cpu"


@pytest.mark.parametrize("options", [{"fallback": "forbid"}, {"device": "npu"}])
def test_where_no_other_device_may_answer_a_stop_lasts_until_the_deadline_whose_error_names_the_heat(
    board: Callable[..., Board], options: dict[str, Any]
) -> None:
    b = board()
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X, deadline=5.0, **options)
    for _ in range(4):
        b.wait(1.0)
        b.tell()
        assert not future.done()
    b.wait(1.1)
    with pytest.raises(DeadlineExceeded, match=r"npu is stopped by heat \(.*no other device could take it") as caught:
        future.result(30)
    assert "hetero thermal" in caught.value.fix
    record = b.runtime.records.last
    assert record is not None
    assert [(d.device, d.action) for d in record.heat] == [("npu", "stop")]
    assert record.heat[0].held == pytest.approx(5.1)
    assert not waiting(session)


def test_without_a_deadline_it_waits_for_the_stop_to_end(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X, fallback="forbid")
    for _ in range(100):
        b.wait(1.0)
        b.tell()
    assert not future.done()
    b.grant("npu", 1.0)
    b.tell()
    record = _record_of(b, future)
    assert record.device == "npu"
    assert record.heat[0].held == pytest.approx(100.0)


@pytest.mark.parametrize("policy", ["chain", "fastest", "throughput", "efficiency"])
def test_where_all_are_stopped_the_cpu_answers_and_the_record_says_that_it_is_the_last_resort(
    board: Callable[..., Board], policy: str
) -> None:
    b = board()
    session = b.load(policy=policy)
    for known in (False, True):
        for device in ("npu", "gpu", "cpu"):
            b.grant(device, 0.0)
        record = session.run(X).record
        assert record.device == "cpu"
        assert "last resort" in record.heat[-1].reason
        for device in ("npu", "gpu", "cpu"):
            b.grant(device, 1.0)
            if not known and policy != "chain":
                session.run(X, device=device)
                session.run(X, device=device)


def test_where_all_are_stopped_and_the_cpu_is_busy_the_request_gets_its_lane_when_that_is_free(
    make_runtime: Make, board: Callable[..., Board]
) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
        inside.set()
        assert go.wait(30)
        return double(inputs, call)

    b = board(backends=(fake("npu"), fake("cpu", kind="cpu", run=slow)))
    session = b.load()
    b.grant("npu", 0.0)
    b.grant("cpu", 0.0)
    first = session.submit(X)
    assert inside.wait(30)
    second = session.submit(X)
    assert waiting(session) == 1
    go.set()
    assert [answer(first), answer(second)] == [[2, 4], [2, 4]]


def test_the_last_resort_is_loaded_where_it_was_not(board: Callable[..., Board]) -> None:
    b = board(chain=["npu", "cpu"])
    session = b.load(standby=False)
    b.grant("npu", 0.0)
    assert session.run(X).record.device == "cpu"


def test_a_stop_that_comes_while_requests_wait_sends_them_elsewhere_also_where_that_is_not_loaded(
    board: Callable[..., Board],
) -> None:
    b = board(chain=["npu", "cpu"])
    session = b.load(standby=False)
    b.grant("npu", 0.5)
    future = session.submit(X)
    assert waiting(session) == 1
    b.grant("npu", 0.0)
    b.tell()
    record = _record_of(b, future)
    assert record.device == "cpu"
    assert [(d.device, d.action) for d in record.heat] == [("npu", "pace"), ("npu", "stop"), ("npu", "steer")]


@pytest.mark.parametrize(("policy", "went"), [("chain", "npu"), ("fastest", "cpu"), ("throughput", "cpu")])
def test_fastest_and_throughput_see_what_heat_makes_wait_and_chain_leaves_that_to_on_hot(
    board: Callable[..., Board], policy: str, went: str
) -> None:
    b = board(chain=["npu", "cpu"], backends=None)
    session = b.load(policy=policy)
    for device in ("npu", "cpu"):
        for _ in range(3):
            session.run(X, device=device)
    b.grant("npu", 0.5)
    future = session.submit(X)
    b.wait(1.1)
    assert _record_of(b, future).device == went


def test_fastest_waits_for_a_hot_device_where_that_is_sooner(board: Callable[..., Board]) -> None:
    b = board(chain=["npu", "cpu"])
    session = b.load(policy="fastest")
    for device, seconds in (("npu", 1.0), ("cpu", 5.0)):
        for _ in range(3):
            session.run(X, device=device)
            candidate = next(c for c in session._candidates if c.name == device)
            for _ in range(10):
                candidate.expects.learn({"x": X}, seconds)
    b.grant("npu", 0.5)
    future = session.submit(X)
    assert waiting(session) == 1
    b.wait(1.1)
    assert _record_of(b, future).device == "npu"


def test_throughput_waits_where_all_are_paced_and_takes_the_first_whose_turn_comes(board: Callable[..., Board]) -> None:
    b = board(chain=["npu", "cpu"])
    session = b.load(policy="throughput")
    b.grant("npu", 0.5)
    b.admission("npu")._tokens = -2.0
    b.grant("cpu", 0.5)
    future = session.submit(X)
    assert waiting(session) == 1
    b.wait(1.1)
    record = _record_of(b, future)
    assert record.device == "cpu"
    assert [(d.device, d.action) for d in record.heat] == [("cpu", "pace")]


def test_a_policy_of_a_users_own_sees_headroom_and_what_is_admitted(board: Callable[..., Board]) -> None:
    seen: list[tuple[str, float, bool, float]] = []

    class Own:
        name = "own"
        prefers_first = False
        helps_out = False
        uses_all = True

        def choose(self, request: Any, options: Any, now: float) -> Any:
            seen.extend((o.name, o.headroom, o.admits(request), o.held(request)) for o in options)
            return options[-1]

    b = board(chain=["npu", "gpu", "cpu"])
    session = b.load(policy=Own(), explore=0.0)
    b.grant("npu", 0.5)
    b.grant("gpu", 0.0)
    assert session.run(X).record.device == "cpu"
    assert seen == [("npu", 0.5, False, 1.0), ("gpu", 0.0, False, float("inf")), ("cpu", 1.0, True, 0.0)]


def test_heat_refuses_nobody_where_a_full_queue_would(board: Callable[..., Board]) -> None:
    b = board()
    session = b.load(on_full="raise")
    b.grant("npu", 0.5)
    future = session.submit(X)
    assert waiting(session) == 1
    b.wait(1.1)
    assert answer(future) == [2, 4]


def test_a_higher_priority_goes_first_when_the_turn_comes(board: Callable[..., Board]) -> None:
    b = board(chain=["npu"])
    session = b.load()
    b.grant("npu", 0.5)
    low = session.submit(X)
    high = session.submit(X + 1, priority=5)
    b.wait(1.1)
    assert answer(high) == [4, 6]
    assert not low.done()
    b.grant("npu", 1.0)
    b.tell()
    assert answer(low) == [2, 4]


def test_batches_wait_for_heat_and_each_member_s_record_says_so(board: Callable[..., Board]) -> None:
    b = board(chain=["npu"])
    session = b.load(batch=2)
    b.grant("npu", 0.5)
    futures = [session.submit(X[:1]), session.submit(X[1:])]
    b.wait(1.1)
    assert [answer(future) for future in futures] == [[2], [4]]
    until(lambda: len(b.runtime.records) == 2)
    for record in b.runtime.records:
        assert [(d.device, d.action) for d in record.heat] == [("npu", "pace")]
        assert record.heat[0].held == pytest.approx(1.1)


def test_a_batch_begins_for_the_first_of_its_members_deadlines_and_names_the_heat_at_a_stop(
    board: Callable[..., Board],
) -> None:
    b = board(chain=["npu"])
    session = b.load(batch=2)
    b.grant("npu", 0.01)
    b.admission("npu")._tokens = -1.0
    futures = [session.submit(X[:1], deadline=5.0), session.submit(X[1:])]
    assert [answer(future) for future in futures] == [[2], [4]]
    b.grant("npu", 0.0)
    stopped = [session.submit(X[:1], deadline=5.0), session.submit(X[1:])]
    b.wait(5.1)
    with pytest.raises(DeadlineExceeded, match="npu is stopped by heat"):
        stopped[0].result(30)
    assert not stopped[1].done()
    b.grant("npu", 1.0)
    b.tell()
    assert answer(stopped[1]) == [4]


def test_without_thermal_nothing_is_governed(make_runtime: Make) -> None:
    runtime = make_runtime(fake("npu"), thermal=False)
    session = runtime.load(DOUBLE)
    assert runtime.governor is None
    assert runtime.thermal is None
    assert all(candidate.heat is None for candidate in session._candidates)
    assert session(X).tolist() == [2, 4]


def test_cancelling_what_heat_holds_back_ends_it(board: Callable[..., Board]) -> None:
    b = board(chain=["npu"])
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X)
    assert future.cancel()
    assert not waiting(session)
    record = b.runtime.records.last
    assert record is not None
    assert record.heat[0].held is not None


def test_closing_the_session_ends_what_heat_holds_back(board: Callable[..., Board]) -> None:
    b = board(chain=["npu"])
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X)
    session.close()
    with pytest.raises(hetero.errors.ClosedError):
        future.result(30)


def test_a_device_that_fails_while_another_is_stopped_waits_for_that_one(board: Callable[..., Board]) -> None:
    failing = fake("cpu", kind="cpu", run=_fails)
    b = board(backends=(fake("npu"), failing))
    session = b.load()
    b.grant("npu", 0.0)
    future = session.submit(X)
    until(lambda: waiting(session) == 1)
    b.tell()
    assert not future.done()
    b.grant("npu", 1.0)
    b.tell()
    assert answer(future) == [2, 4]


def _fails(inputs: Mapping[str, Any], call: Call) -> Mapping[str, Any]:
    raise ExecutionError("broken")


def _record_of(b: Board, future: concurrent.futures.Future[Any]) -> hetero.Record:
    assert answer(future)
    record = b.runtime.records.last
    assert record is not None
    return record
