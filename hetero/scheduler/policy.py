"""The order in which devices are considered for a program, and the choice among them for a request."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from hetero.backend import Device
from hetero.errors import OptionError

if TYPE_CHECKING:
    from hetero.scheduler.request import Request

Owned = tuple[str, Device]
"""A device with its backend's name."""

T = TypeVar("T")
C = TypeVar("C", bound="View")


def default_chain(found: Iterable[Owned]) -> list[Owned]:
    """Every device by rank: NPUs, GPUs, the CPU."""
    return sorted(found, key=lambda owned: (owned[1].rank, owned[1].name))


def named(name: str, candidates: Sequence[T], names: Sequence[tuple[str, str]]) -> list[T]:
    """What a name that a user gave means: the device of that name, else every device of the backend of that name.

    Args:
        name: A device's or a backend's.
        candidates: What to choose from.
        names: Backend and device of each candidate.
    """
    exact = [c for c, (_, device) in zip(candidates, names, strict=True) if device == name]
    return exact or [c for c, (backend, _) in zip(candidates, names, strict=True) if backend == name]


def pick(wanted: str | Sequence[str], candidates: Sequence[T], names: Sequence[tuple[str, str]]) -> list[T]:
    """The candidates that `device=` names, in the order in which it names them.

    Args:
        wanted: One name or several; each a device's or a backend's.
        candidates: What to choose from.
        names: Backend and device of each candidate.

    Raises:
        OptionError: A name that none of them has.
    """
    picked: list[T] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        chosen = named(name, candidates, names)
        if not chosen:
            listed = ", ".join(device for _, device in names) or "none"
            import difflib

            near = difflib.get_close_matches(name, {part for each in names for part in each}, n=1)
            raise OptionError(
                f"device={name!r} is none of the candidates here: {listed}",
                fix=(f"did you mean {near[0]!r}? " if near else "")
                + "`hetero devices` lists what is here, and what is not and why",
            )
        picked += [candidate for candidate in chosen if candidate not in picked]
    return picked


class View(Protocol):
    """What a policy sees of a candidate."""

    name: str

    @property
    def idle(self) -> bool:
        """It has a free lane, whatever heat says."""

    @property
    def headroom(self) -> float:
        """How much of it heat lets work: 1 for all, 0 where nothing may begin."""

    def admits(self, request: Request) -> bool:
        """Whether heat lets the request begin on it now. A choice that it does not is dealt with as `on_hot` says."""

    def held(self, request: Request) -> float:
        """Seconds for which heat would hold the request back on it; infinite where nothing may begin."""

    def expected(self, request: Request) -> float | None:
        """Seconds that the request is expected to take on it, learned from earlier runs; None when nothing is known."""

    def wait(self, now: float) -> float | None:
        """Seconds until its next lane is expected to be free; None when nothing is known."""

    def runs(self, request: Request) -> int:
        """How many runs of the request's shapes were seen on it."""

    def joules(self, request: Request) -> float | None:
        """Energy that the request is expected to take on it, measured or else declared; None when unknown."""

    @property
    def watts(self) -> float | None:
        """Power it takes at work, declared by its backend; None when it is not."""


class Policy(Protocol):
    """Chooses where a request runs: asked when it arrives, and again when a device fails or recovers.

    Attributes:
        name: For `explain()`.
        prefers_first: A first candidate that is idle is always taken.
        helps_out: A device with nothing to do takes what is planned for another, where it would end sooner.
        uses_all: Every candidate is loaded at once, not only the first and the standby.
    """

    name: str
    prefers_first: bool
    helps_out: bool
    uses_all: bool

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """The candidate to run on: at once when it has a free lane, else the request waits for it.

        Args:
            request: What is to run.
            options: Healthy candidates in the chain's order.
            now: Seconds, on the scheduler's clock.

        Returns:
            One of `options`; None to wait for whichever is free first.
        """


class Chain:
    """The first of the chain that has a lane; waits for a busy one where that is expected to be quicker."""

    name = "chain"
    prefers_first = True
    helps_out = True
    uses_all = False

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `Policy.choose`."""
        best: tuple[float, C] | None = None  # the busy candidate that would finish first
        for candidate in options:
            cost = candidate.expected(request)
            if candidate.idle:
                return best[1] if best is not None and cost is not None and best[0] <= cost else candidate
            wait = candidate.wait(now)
            if cost is not None and wait is not None and (best is None or wait + cost < best[0]):
                best = (wait + cost, candidate)
        return best[1] if best is not None else None


class Fastest:
    """The earliest predicted finish, what heat makes it wait included.

    A device of which nothing is known is tried first, so that something is.
    """

    name = "fastest"
    prefers_first = False
    helps_out = True
    uses_all = True

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `Policy.choose`."""
        best: tuple[float, C] | None = None
        for candidate in options:
            cost, wait = candidate.expected(request), _wait(candidate, request, now)
            if candidate.idle and cost is None and candidate.admits(request):
                return candidate
            if cost is not None and wait is not None and (best is None or wait + cost < best[0]):
                best = (wait + cost, candidate)
        return best[1] if best is not None else None


class Throughput:
    """Whoever is free takes the next request; among several, the quickest.

    No device is idle while a request waits, but for heat.
    """

    name = "throughput"
    prefers_first = False
    helps_out = True
    uses_all = True

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `Policy.choose`."""
        idle = [candidate for candidate in options if candidate.idle and candidate.admits(request)]
        return min(idle, key=lambda candidate: candidate.expected(request) or 0.0, default=None)


class Efficiency:
    """The least energy among those that can keep the deadline: measured joules, else declared watts times seconds.

    A device of unknown energy cannot be compared: it is taken only when no device of known energy is there. One with
    declared power that has not run yet is tried first, so that its seconds are known.
    """

    name = "efficiency"
    prefers_first = False
    helps_out = False
    uses_all = True

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `Policy.choose`."""
        left = None if request.deadline is None else request.deadline - now
        best: tuple[float, C] | None = None
        for candidate in options:
            cost, wait = candidate.expected(request), _wait(candidate, request, now)
            joules = candidate.joules(request)
            if joules is None:
                if cost is None and candidate.watts is not None and candidate.idle:
                    return candidate
                continue
            in_time = left is None or (cost is not None and wait is not None and wait + cost <= left)
            if in_time and (best is None or joules < best[0]):
                best = (joules, candidate)
        return best[1] if best is not None else _FASTEST.choose(request, options, now)


class Exploring:
    """Another policy, except for a share of requests that go to the idle device of which the least is known.

    Args:
        policy: The other one.
        share: Between 0 and 1.
        draw: Uniform in [0, 1), for tests.
    """

    uses_all = True

    def __init__(self, policy: Policy, share: float, draw: Callable[[], float] = random.random) -> None:
        self.name = policy.name
        self.prefers_first = False
        self.helps_out = policy.helps_out
        self._policy = policy
        self._share = share
        self._draw = draw

    def choose(self, request: Request, options: Sequence[C], now: float) -> C | None:
        """See `Policy.choose`."""
        if self._draw() < self._share:
            idle = [candidate for candidate in options if candidate.idle and candidate.admits(request)]
            if idle:
                return min(idle, key=lambda candidate: candidate.runs(request))
        return self._policy.choose(request, options, now)


def _wait(candidate: View, request: Request, now: float) -> float | None:
    """Seconds until the request could begin on a device; None when nothing is known."""
    wait = 0.0 if candidate.idle else candidate.wait(now)
    return None if wait is None else max(wait, candidate.held(request))


_FASTEST = Fastest()
POLICIES: dict[str, Policy] = {policy.name: policy for policy in (Chain(), _FASTEST, Throughput(), Efficiency())}


def find_policy(policy: str | Policy, known: Mapping[str, Policy]) -> Policy:
    """A policy by name, or as it is.

    Raises:
        OptionError: There is none of that name, or what was given is none.
    """
    if isinstance(policy, str):
        if policy not in known:
            raise OptionError(f"the policy {policy!r} is not known", fix=f"known: {', '.join(known)}")
        return known[policy]
    if not callable(getattr(policy, "choose", None)):
        raise OptionError(f"policy is {policy!r}, expected a name or an object with `choose`")
    return policy
