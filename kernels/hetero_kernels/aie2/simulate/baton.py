"""Threads of which exactly one runs at a time, and the moment at which none of them can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from hetero.errors import WrongAnswer


class Stopped(BaseException):
    """Raised in an actor's wait when the run is over. No Exception, so that no design catches it."""


@dataclass
class Actor:
    """Something that acts on its own: a core, a DMA channel, the host.

    Attributes:
        name: For messages.
        body: What it does.
        ends: The run is over when every actor with this has ended; the others go on for ever.
        time: Its clock, in cycles.
    """

    name: str
    body: Callable[[Actor], None]
    ends: bool = False
    time: float = 0
    ready: Callable[[], bool] | None = None
    waits_for: str = ""
    done: bool = False
    go: threading.Event = field(default_factory=threading.Event)


class Baton:
    """Runs actors one at a time, each until it waits.

    Since only one runs, nothing here needs a lock, and a run is the same every time.
    """

    def __init__(self) -> None:
        self._actors: list[Actor] = []
        self._back = threading.Event()
        self._stopping = False
        self._error: BaseException | None = None

    def add(self, name: str, body: Callable[[Actor], None], ends: bool = False) -> Actor:
        """Add an actor before or during the run."""
        actor = Actor(name, body, ends)
        self._actors.append(actor)
        return actor

    def wait(self, actor: Actor, ready: Callable[[], bool], what: str) -> None:
        """Give way until `ready()`; called by the actor that has the baton."""
        while not ready():
            actor.ready, actor.waits_for = ready, what
            actor.go.clear()
            self._back.set()
            actor.go.wait()
            actor.ready = None
            if self._stopping:
                raise Stopped

    def run(self) -> None:
        """Run until every actor that ends has ended.

        Raises:
            WrongAnswer: All of them wait for each other.
        """
        threads = [threading.Thread(target=self._life, args=(a,), name=a.name, daemon=True) for a in self._actors]
        for thread in threads:
            thread.start()
        try:
            while any(actor.ends and not actor.done for actor in self._actors):
                able = [a for a in self._actors if not a.done and (a.ready is None or a.ready())]
                if not able:
                    raise self._deadlock()
                self._pass_to(able[0])
                # The others get their turn before it gets its next.
                self._actors.remove(able[0])
                self._actors.append(able[0])
                if self._error is not None:
                    raise self._error
        finally:
            self._stopping = True
            for actor in self._actors:
                if not actor.done:
                    self._pass_to(actor)
            for thread in threads:
                thread.join()

    def _pass_to(self, actor: Actor) -> None:
        self._back.clear()
        actor.go.set()
        self._back.wait()

    def _life(self, actor: Actor) -> None:
        actor.go.wait()
        try:
            if not self._stopping:
                actor.body(actor)
        except Stopped:
            pass
        except BaseException as error:
            if self._error is None:
                self._error = error
        finally:
            actor.done = True
            self._back.set()

    def _deadlock(self) -> WrongAnswer:
        waiting = sorted(f"{actor.name} waits for {actor.waits_for}" for actor in self._actors if not actor.done)
        return WrongAnswer(
            "the design comes to a stop, everybody waits:\n  " + "\n  ".join(waiting),
            fix="look for a release that is missing, a FIFO that is not deep enough, or more elements than are sent",
        )
