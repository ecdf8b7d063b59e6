"""Asking the units of a device their canary: at load, and before one that was set aside is trusted again."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable

from hetero.backend import Call
from hetero.errors import DeviceTimeout
from hetero.scheduler.lanes import Lanes, Unit
from hetero.scheduler.reasons import reason_of

_log = logging.getLogger(__name__)

Ask = Callable[[Call], None]
"""Runs the canary on a lane; raises what the run raised, or WrongAnswer."""


def ask_units(lanes: Lanes, ask: Ask, patience: float | None, late: Callable[[Call], None], device: str) -> list[Call]:
    """Have each unit answer the canary at load; those that do not are set aside while others do.

    Args:
        lanes: None of them is free yet.
        ask: Runs the canary.
        patience: Seconds that each canary may take; None for as long as it takes.
        late: Called with the lane of a canary that was given up, when that has ended after all.
        device: Its name, for the log.

    Returns:
        The lanes in which a canary hangs.

    Raises:
        Exception: What the first unit raised, when none answered.
    """
    failures: dict[Unit, Exception] = {}
    busy: list[Call] = []
    for unit in lanes.units:
        call = next(call for call in lanes.calls if call.lane in unit.lanes)
        try:
            _within(patience, functools.partial(ask, call), functools.partial(late, call))
        except Exception as error:
            failures[unit] = error
            if isinstance(error, DeviceTimeout):
                busy.append(call)
    if len(failures) == len(lanes.units):
        raise next(iter(failures.values()))
    for unit, failure in failures.items():
        _log.warning("%s: %s did not answer the canary and is set aside: %s", device, unit.name, failure)
        lanes.shut(unit, failure, f"the canary failed: {reason_of(failure)}")
    return busy


def ask_again(lanes: Lanes, unit: Unit, ask: Ask, give_back: Callable[[Call], None]) -> bool:
    """Have a unit that is set aside answer the canary, and tell its breaker how it went.

    A lane is taken like any other; when none is free, those inside are still at work and the pause begins anew.

    Returns:
        Whether the unit has recovered.
    """
    call = lanes.take_of(unit)
    if call is None:
        unit.breaker.failed(DeviceTimeout("no lane is free"), unit.breaker.reason)
        return False
    try:
        ask(call)
    except Exception as error:
        unit.breaker.failed(error, reason_of(error))
        return False
    else:
        lanes.recovered(unit)
        return True
    finally:
        give_back(call)


def _within(patience: float | None, work: Callable[[], None], late: Callable[[], None]) -> None:
    """Do something that may hang.

    Args:
        patience: Seconds that it may take; None for as long as it takes, in this thread.
        work: What to do.
        late: Called when it ends after all, in its thread.

    Raises:
        DeviceTimeout: It took longer.
        Exception: Whatever `work` raised.
    """
    if patience is None:
        work()
        return
    lock, ended, given_up = threading.Lock(), threading.Event(), False
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failure.append(error)
        with lock:
            ended.set()
            if not given_up:
                return
        late()

    threading.Thread(target=run, name="hetero-canary", daemon=True).start()
    ended.wait(patience)
    with lock:
        given_up = not ended.is_set()
    if given_up:
        raise DeviceTimeout(f"no answer within {patience:g} s")
    if failure:
        raise failure[0]
