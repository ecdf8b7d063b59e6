"""Doors, and what happens when they close: nothing hangs, nothing is used after it was freed."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Call
from tests.fakes import DOUBLE, Failing, double, fake, raises

Make = Callable[..., hetero.Runtime]

X = np.arange(4, dtype=np.float32)


def test_all_doors_give_the_same_answer(make_runtime: Make) -> None:
    session = make_runtime(fake("n", lanes=2)).load(DOUBLE)
    answers = [
        session(X),
        session({"x": X}),
        session.run(X).value,
        session.submit(X).result(),
        asyncio.run(session.arun(X)),
    ]
    answers += list(session.map([X]))
    for answer in answers:
        np.testing.assert_array_equal(answer, X * 2)


def test_an_event_loop_stays_live_during_a_run(make_runtime: Make) -> None:
    release = threading.Event()

    def wait(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        assert release.wait(10)
        return double(inputs, call)

    session = make_runtime(fake("n", run=wait)).load(DOUBLE)

    async def main() -> Array:
        task = asyncio.ensure_future(session.arun(X))
        await asyncio.sleep(0)
        release.set()  # only reached when the loop was not blocked by the run
        return await task  # type: ignore[no-any-return]

    np.testing.assert_array_equal(asyncio.run(main()), X * 2)


def test_a_runtime_forgets_a_session_that_was_closed_though_somebody_holds_it(make_runtime: Make) -> None:
    runtime = make_runtime(fake("n"))
    closed, hangs, used = (runtime.load(DOUBLE) for _ in range(3))
    assert set(runtime._sessions.all()) == {closed, hangs, used}
    assert closed.close()
    over = hangs._candidates[0].lanes.take()  # a call that has not ended
    assert over is not None
    assert not hangs.close(timeout=0)
    assert runtime._sessions.all() == [used]
    runtime.close()
    assert runtime._sessions.all() == []


def test_map_keeps_order_and_takes_items_lazily(make_runtime: Make) -> None:
    taken = 0

    def items() -> Iterator[Array]:
        nonlocal taken
        for i in range(20):
            taken += 1
            yield np.full(3, i, np.float32)

    session = make_runtime(fake("n", lanes=2)).load(DOUBLE)
    results = session.map(items(), in_flight=4)
    first = next(results)
    assert taken == 4
    rest = list(results)
    assert [int(y[0]) for y in [first, *rest]] == [2 * i for i in range(20)]


def test_map_raises_in_its_turn_and_cancels_what_was_not_begun(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=Failing(2, OSError("gone")))).load(DOUBLE)
    results = session.map([X] * 10, in_flight=1)
    for _ in range(2):
        np.testing.assert_array_equal(next(results), X * 2)
    with pytest.raises(errors.AllDevicesFailed):
        next(results)


def test_map_refuses_a_useless_bound(make_runtime: Make) -> None:
    with pytest.raises(errors.OptionError, match="in_flight is 0"):
        next(make_runtime(fake("n")).load(DOUBLE).map([X], in_flight=0))


def test_bad_input_is_refused_before_a_future_is_made(make_runtime: Make) -> None:
    session = make_runtime(fake("n")).load(DOUBLE)
    with pytest.raises(errors.InputError):
        session.submit(X.astype(np.float64))


def test_close_frees_each_executable_once_and_later_use_says_so(make_runtime: Make) -> None:
    backend = fake("n")
    runtime = make_runtime(backend)
    session = runtime.load(DOUBLE)
    runtime.close()
    runtime.close()
    assert backend.made[0].closed == 1
    for use in (
        lambda: session(X),
        lambda: session.submit(X),
        lambda: next(session.map([X])),
        lambda: runtime.load(DOUBLE),
    ):
        with pytest.raises(errors.ClosedError):
            use()


def test_close_waits_for_the_running_call_and_turns_waiting_ones_away(make_runtime: Make) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        entered.set()
        assert release.wait(10)
        return double(inputs, call)

    backend = fake("n", run=slow)
    runtime = make_runtime(backend)
    session = runtime.load(DOUBLE)
    running = session.submit(X)
    assert entered.wait(10)
    waiting = session.submit(X)
    closer = threading.Thread(target=runtime.close)
    closer.start()
    release.set()
    closer.join(10)
    assert not closer.is_alive()
    np.testing.assert_array_equal(running.result(10), X * 2)
    assert backend.made[0].closed == 1
    outcome = waiting.exception(10) if not waiting.cancelled() else None
    assert outcome is None or isinstance(outcome, errors.ClosedError)


def test_a_hung_call_does_not_hang_close(make_runtime: Make) -> None:
    entered, release = threading.Event(), threading.Event()

    def hang(inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        entered.set()
        release.wait(30)
        return double(inputs, call)

    backend = fake("n", run=hang)
    runtime = make_runtime(backend)
    future = runtime.load(DOUBLE).submit(X)
    assert entered.wait(10)
    runtime.close(timeout=0.01)
    assert backend.made[0].closed == 0, "what a call is still using is not freed"
    assert isinstance(future.exception(10), errors.ClosedError), "nor does it hang whoever waits for its answer"
    release.set()


def test_an_executable_whose_close_fails_does_not_stop_the_others(make_runtime: Make) -> None:
    bad, good = fake("n"), fake("c", kind="cpu")
    runtime = make_runtime(bad, good)
    session = runtime.load(DOUBLE)
    bad.made[0].close = raises(OSError("driver says no"))
    runtime.close()
    assert session.device is None
    assert good.made[0].closed == 1


def test_a_session_that_is_dropped_frees_its_executables(make_runtime: Make) -> None:
    backend = fake("n")
    runtime = make_runtime(backend)
    session = runtime.load(DOUBLE)
    del session
    gc.collect()
    assert backend.made[0].closed == 1


def test_a_load_that_fails_frees_what_was_loaded(make_runtime: Make) -> None:
    first = fake("n")
    runtime = make_runtime(first, fake("c", kind="cpu", load=raises(errors.ProgramInvalid("broken"))))
    with pytest.raises(errors.ProgramInvalid):
        runtime.load(DOUBLE)
    assert first.made[0].closed == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_and_ends_cleanly() -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np, hetero
from hetero import errors
from tests.fakes import DOUBLE, fake
runtime = hetero.Runtime(backends=[fake("n")], plugins=False)
session = runtime.load(DOUBLE)
session.submit(np.zeros(1, np.float32)).result()
child = os.fork()
if child == 0:
    for use in (lambda: session(np.zeros(1, np.float32)), lambda: runtime.load(DOUBLE)):
        try:
            use()
        except errors.ClosedError as error:
            assert "fork" in str(error), error
        else:
            os._exit(3)
    runtime.close()
    fresh = hetero.Runtime(backends=[fake("n")], plugins=False)
    fresh.load(DOUBLE)(np.zeros(1, np.float32))
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert session(np.ones(1, np.float32))[0] == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_leaving_the_interpreter_without_close_is_clean() -> None:
    code = """
import numpy as np, hetero
from tests.fakes import DOUBLE, fake
class Loud(fake("n")):
    def close(self): print("backend closed")
runtime = hetero.Runtime(backends=[Loud], plugins=False)
session = runtime.load(DOUBLE)
session.submit(np.zeros(1, np.float32))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "backend closed\n", "")


def test_errors_survive_pickling_with_fix_and_attempts(make_runtime: Make) -> None:
    session = make_runtime(fake("n", run=raises(OSError("gone")))).load(DOUBLE)
    with pytest.raises(errors.AllDevicesFailed) as caught:
        session(X)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert [str(a) for a in copy.attempts] == [str(a) for a in caught.value.attempts]
