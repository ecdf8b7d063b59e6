"""What heat does to requests: which device takes one that the policy gave to a hot device, and when.

A policy chooses as if nothing were hot, or looks at `View.admits`; what becomes of its choice is decided here, by the
governor: it runs, waits for its turn (`pace`), goes elsewhere (`steer`), or waits until a device that is stopped may
work again. Each choice goes into the request's record, with its reason. Where every device is stopped the CPU answers:
its kernel slows it down by itself.

Who leaves a stopped device at once for one on the same chip keeps it hot, and so stopped. Hence requests wait for the
first seconds of a stop, unless a deadline presses or the other device does more with a joule. A stop that outlasts
them has another cause than their work: from then on nobody waits for its end who has somewhere else to go.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hetero.backend import Call
from hetero.thermal.steering import Decision, Worth, elsewhere

if TYPE_CHECKING:
    from hetero.scheduler.candidate import Candidate
    from hetero.scheduler.costs import Shapes
    from hetero.scheduler.outlook import Outlook
    from hetero.scheduler.request import Request
    from hetero.thermal.governor import Governor

SHORTEST = 1e-3
"""Seconds: a request that heat holds back is looked at again after so many, at the earliest."""

_BASES = 64

# Seconds; how long shorter calls take says more of the host than of the device's heat.
_QUICK = 1e-3


class Heat:
    """One device's heat, as a candidate has it: may a call begin, and the governor is told of calls, once each.

    Args:
        governor: Decides.
        device: The device's name.
        patience: As `ThermalSettings.patience`.

    Attributes:
        admission: What the governor grants.
        inside: The calls that have begun, and when: written to directly on the shortest way.
        guesses: No sensor has told anything of it: `answered` is to be called.
    """

    def __init__(self, governor: Governor, device: str, patience: float = 0.0) -> None:
        self.governor = governor
        self.patience = patience
        self._device = device
        self.admission = governor.pace(device)
        self.inside: dict[Call, float] = {}
        self._told: dict[Call, list[float]] = {}
        self._reserved: dict[Call, float] = {}
        self._bases: dict[Shapes, float] = {}
        self.guesses = governor.guesses(device) is not None
        self.admission.read(self)

    @property
    def hot(self) -> bool:
        """Heat takes something away from the device."""
        return self.admission.duty < 1.0

    @property
    def headroom(self) -> float:
        """How much of it may work, 0 to 1."""
        return self.admission.duty

    @property
    def stopped(self) -> bool:
        """Nothing may begin on it."""
        return self.admission.duty <= 0

    @property
    def due_in(self) -> float:
        """Seconds until a call may begin; infinite at a stop."""
        return self.admission.due_in()

    def patient(self, now: float) -> float:
        """Seconds for which requests still wait for it at its present stop before others take them over."""
        since = self.admission.stopped_at
        return 0.0 if since is None else max(0.0, since + self.patience - now)

    def explain(self) -> str:
        """What heat takes away from the device now, and why; empty for nothing."""
        if not self.hot:
            return ""
        return f"heat leaves {self.headroom:.0%} of it: {self.governor.why(self._device)}"

    def began(self, call: Call, now: float) -> None:
        """A lane was taken, and a call begins on it."""
        # Without a lock, for most calls: a lane has one call at a time, and who ends it is told by the dictionary.
        self.inside[call] = now
        if self.admission.duty < 1.0:
            self._reserved[call] = self.admission.reserve()

    def ended(self, call: Call, seconds: float) -> None:
        """The call on a lane has ended, was given up for hung, or has not begun after all; only the first is told."""
        if self.inside.pop(call, None) is None:  # in one step, whoever else comes here in this moment
            return
        try:
            told = self._told[call]
        except KeyError:
            told = self._told[call] = [0.0, 0]
        told[0] += seconds
        told[1] += 1
        if self._reserved or self.admission.duty < 1.0:
            self.admission.spend(seconds - self._reserved.pop(call, 0.0))

    def worked(self, now: float) -> tuple[float, float, int]:
        """See `hetero.thermal.admission.Meter`."""
        running = sum(max(0.0, now - begun) for begun in self.inside.copy().values())
        told = list(self._told.copy().values())
        return running, sum(seconds for seconds, _ in told), int(sum(calls for _, calls in told))

    def answered(self, shapes: Shapes, seconds: float, usual: float | None) -> None:
        """A call was answered: where no sensor speaks, that is what the heat is guessed from.

        Args:
            shapes: Of its inputs.
            seconds: That it took.
            usual: What such calls take as a rule by now. The first that is known stays the measure: what a device
                that grows slower takes as a rule grows with it.
        """
        if usual is None or usual < _QUICK:
            return
        drift = self.governor.guesses(self._device)
        if drift is None:
            self.guesses = False  # a sensor has come
            return
        base = self._bases.get(shapes)
        if base is None:
            if len(self._bases) >= _BASES:
                return
            base = self._bases[shapes] = usual
        drift.ran(seconds / base if base > 0 else 0.0)


def is_urgent(request: Request, candidate: Outlook, due_in: float, now: float) -> bool:
    """Whether the request's deadline would be missed if it waited for its turn on a device that heat paces."""
    by = request.answer_by
    return by is not None and now + due_in + (candidate.expected(request) or 0.0) > by


def is_last_resort(request: Request, candidate: Outlook) -> bool:
    """Whether it may run on a device though that is stopped: a CPU, and every other one that could take it is too."""
    return candidate.kind == "cpu" and all(
        other.stopped for other in request.candidates if other.usable and other not in request.tried
    )


def admits(request: Request, candidate: Outlook, now: float) -> bool:
    """Whether heat lets a request begin on a device now."""
    heat = candidate.heat
    if heat is None or not heat.hot:
        return True
    if heat.stopped:
        return is_last_resort(request, candidate)
    due_in = heat.due_in
    return due_in <= 0 or is_urgent(request, candidate, due_in, now)


def settle(request: Request, chosen: Candidate, options: Sequence[Candidate], now: float) -> tuple[Candidate, bool]:
    """What becomes of a request that a policy gave to a device from which heat takes something away.

    Args:
        request: What is to run.
        chosen: The policy's choice.
        options: Those that could take it, the chosen one among them, in the chain's order.
        now: Seconds, on the scheduler's clock.

    Returns:
        The device that takes it, and whether it has to wait there for heat.
    """
    heat = chosen.heat
    if heat is None or not heat.hot:
        return chosen, False
    due_in = heat.due_in
    pressed = 0 < due_in < math.inf and is_urgent(request, chosen, due_in, now)
    others = [candidate for candidate in options if candidate is not chosen and not candidate.stopped]
    ready = [candidate for candidate in others if admits(request, candidate, now)]
    if ready or not heat.stopped:
        others = ready  # to wait elsewhere would be no better than to wait here
    others.sort(key=lambda candidate: not candidate.idle)
    decision = _decide(request, chosen, heat, others, pressed)
    if heat.stopped and _is_patient(request, chosen, heat, others, now):
        why = heat.governor.why(chosen.name)
        told = f"{why}; waits for it to cool down in the first {heat.patience:g} s, as others would heat the chip too"
        note(request, Decision(chosen.name, "stop", told), now)
        return chosen, True
    if decision.action == "stop":
        resort = next((candidate for candidate in options if is_last_resort(request, candidate)), None)
        if resort is not None:
            here = resort is chosen
            told = f"{decision.reason}; {resort.name} is the last resort, which its kernel slows down by itself"
            note(request, Decision(chosen.name, "run" if here else "steer", told, "" if here else resort.name), now)
            return resort, False
    elif decision.action == "steer":
        note(request, decision, now)
        taker = next(candidate for candidate in others if candidate.name == decision.to)
        return taker, hold(request, [taker], now)
    elif decision.action == "run":
        if pressed:
            note(request, decision, now)
        return chosen, False
    note(request, decision, now)
    return chosen, True


def _is_patient(request: Request, chosen: Candidate, heat: Heat, others: Sequence[Candidate], now: float) -> bool:
    """Whether a request rather waits for a stopped device than to have another one on the chip work for it."""
    left = heat.patient(now)
    if not left or heat.governor.on_hot == "steer" or chosen.kind == "cpu":
        return False
    rest = [each for each in request.candidates if each is not chosen and each not in request.tried]
    if not any(each.usable or each.loadable for each in rest):
        return False  # it waits for as long as it has to
    if request.answer_by is not None:
        longest = max((each.expected(request) or 0.0 for each in rest if each.usable), default=0.0)
        if now + left + longest > request.answer_by:
            return False
    to, _ = elsewhere("auto", _worth(chosen, request), [_worth(other, request) for other in others])
    return not to


def hold(request: Request, devices: Sequence[Candidate], now: float) -> bool:
    """Have a request wait for the first of some devices that heat lets take it; its record says so.

    Returns:
        Whether it has to wait at all.
    """
    if any(admits(request, candidate, now) for candidate in devices):
        return False
    waits = [(candidate.held(request), place) for place, candidate in enumerate(devices)]
    soonest = devices[min(waits)[1]]
    assert soonest.heat is not None
    decision = _decide(request, soonest, soonest.heat, (), pressed=False)
    if decision.action == "run":  # its turn has come in this very moment
        return False
    note(request, decision, now)
    return True


def _decide(request: Request, candidate: Candidate, heat: Heat, others: Sequence[Candidate], pressed: bool) -> Decision:
    here = _worth(candidate, request)
    return heat.governor.decide(
        candidate.name,
        [_worth(other, request) for other in others],
        joules=here.joules,
        measured=here.measured,
        urgent=pressed,
    )


def note(request: Request, decision: Decision, now: float) -> None:
    """Put a choice into the request's record, unless it holds already."""
    told = request.record.heat
    last = next((before for before in reversed(told) if before.device == decision.device), None)
    if last is not None and last.held is None and (last.action, last.to) == (decision.action, decision.to):
        return
    freed(request, now)
    told.append(decision)
    if decision.action in ("pace", "stop"):
        request.held_since = now


def freed(request: Request, now: float) -> None:
    """The request is not held back by heat any more: for how long it was, goes into its record."""
    since, request.held_since = request.held_since, None
    if since is not None:
        told = request.record.heat
        told[-1] = dataclasses.replace(told[-1], held=max(0.0, now - since))


def begins(request: Request, candidate: Candidate, now: float) -> None:
    """A request that waited has its lane: tell how long heat held it back, and where a deadline got it past that."""
    heat = candidate.heat
    if heat is not None and heat.hot and not heat.stopped and request.answer_by is not None and heat.due_in > 0:
        settle(request, candidate, (candidate,), now)
    freed(request, now)


def look_again_in(request: Request, candidate: Candidate, now: float) -> float | None:
    """Seconds after which a request that heat holds back is to be looked at again: its turn, or its deadline's.

    Returns:
        None where that depends on the temperature alone: each of the governor's ticks looks.
    """
    heat = candidate.heat
    if heat is None:
        return None
    if heat.stopped:
        return heat.patient(now) or None  # a sensor's driver may hang, and with it the ticks
    due_in = heat.due_in
    if request.answer_by is not None:
        due_in = min(due_in, request.answer_by - (candidate.expected(request) or 0.0) - now)
    return max(SHORTEST, due_in) if math.isfinite(due_in) else None


def what_held(request: Request) -> str:
    """Why heat holds a request back at this moment, for a message; empty where it does not."""
    if request.held_since is None:
        return ""
    decision = request.record.heat[-1]
    how = "is stopped" if decision.action == "stop" else "is slowed down"
    return f"{decision.device} {how} by heat ({decision.reason})"


def _worth(candidate: Candidate, request: Request) -> Worth:
    energy = candidate.expects.energy(request.shapes)
    return Worth(candidate.name, energy.joules if energy else None, energy is not None and energy.measured)
