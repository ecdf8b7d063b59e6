"""What several cases of the kit share: hammering executables from threads, looking at devices, making bad models."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hetero.backend import Backend, Call, Device, Ticket
from hetero.errors import Unavailable, Unsupported
from hetero.program import Artifact, Program
from hetero.tensors import Array, TensorSpec
from hetero.testing.harness import Loaded, complain, probe, told
from hetero.testing.programs import onnx_program

F32 = np.dtype(np.float32)

CALLS = 24


def check_probe(backend: Backend, limit: float) -> None:
    """Devices, or Unavailable with a reason and a fix."""
    try:
        devices = probe(backend, limit)
    except Unavailable as error:
        if not error.problem.strip() or not error.fix.strip():
            complain(
                "Unavailable has a reason, and in `fix` what the user can do",
                f"reason {error.problem!r}, fix {error.fix!r}",
                'raise Unavailable("no driver", fix="modprobe ...")',
            )
        return
    if not devices:
        complain("probe() gives devices or raises Unavailable", "an empty list", "raise Unavailable(reason, fix=...)")


def fault_of(device: Device, backend: str) -> str:
    """What is wrong with the description of a device; empty when nothing is."""
    rules = {
        f"is called {device.name!r}, expected {backend!r} or {backend + ':...'!r}": (
            device.name == backend or device.name.startswith(f"{backend}:")
        ),
        f"has the kind {device.kind!r}, expected npu, gpu or cpu": device.kind in ("npu", "gpu", "cpu"),
        f"has lanes = {device.lanes!r}, expected an int, at least 1": type(device.lanes) is int and device.lanes >= 1,
        f"has rank = {device.rank!r}, expected an int, at least 0": type(device.rank) is int and device.rank >= 0,
        f"has the description {device.description!r}, expected a text": isinstance(device.description, str),
        f"has properties {device.properties!r}, expected a mapping from texts": (
            isinstance(device.properties, Mapping) and all(isinstance(key, str) for key in device.properties)
        ),
        f"has notes {device.notes!r}, expected a tuple of texts": (
            isinstance(device.notes, tuple) and all(isinstance(note, str) for note in device.notes)
        ),
    }
    return next((f"it {fault}" for fault, holds in rules.items() if not holds), "")


def check_apart(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Outputs lie in memory of their own."""
    named = [*((f"output {name!r}", array) for name, array in outputs.items())]
    for (one, first), (other, second) in itertools.combinations(named, 2):
        if np.shares_memory(first, second):
            complain("each output has memory of its own", f"{one} and {other} share theirs", "copy one of them")
    for (one, first), (name, second) in itertools.product(named, inputs.items()):
        if np.shares_memory(first, second):
            complain(
                "outputs have memory of their own", f"{one} is the caller's input {name!r}", "give a copy: array.copy()"
            )


def hammer(executables: Sequence[Loaded], limit: float) -> None:
    """Call executables from more threads than they have lanes, each call with data of its own, and check every answer.

    As in the scheduler, a call holds a lane of its executable that no other has at that time.
    """
    free: list[queue.SimpleQueue[int]] = []
    for loaded in executables:
        free.append(queue.SimpleQueue())
        for lane in range(loaded.executable.lanes):
            free[-1].put(lane)
    # What each call is given and has to answer is made before: the time in the threads is then the backend's.
    count = 2 * max(len(executables), *(loaded.executable.lanes for loaded in executables))
    seeds = range(count * CALLS)
    feeds = [[loaded.feed(seed) for seed in seeds] for loaded in executables]
    start = threading.Barrier(count)
    answers: queue.SimpleQueue[tuple[int, int, Mapping[str, Array] | BaseException]] = queue.SimpleQueue()

    def work(thread: int) -> None:
        start.wait()
        for turn in range(CALLS):
            which, seed = (thread + turn) % len(executables), thread * CALLS + turn
            lane = free[which].get()
            try:
                answers.put((which, seed, executables[which].call(feeds[which][seed], Call(lane))))
            except BaseException as error:
                answers.put((which, seed, error))
            finally:
                free[which].put(lane)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(count)]
    interval = sys.getswitchinterval()
    # Threads that change places often find what is shared and should not be.
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 2 * limit
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    finally:
        sys.setswitchinterval(interval)
    if any(thread.is_alive() for thread in threads):
        complain("calls at once come back", f"{count} threads have not ended", "look for locks that are taken twice")
    _judge(executables, answers, count)


def _judge(
    executables: Sequence[Loaded],
    answers: queue.SimpleQueue[tuple[int, int, Mapping[str, Array] | BaseException]],
    count: int,
) -> None:
    when = f"from {count} threads at once: keep what a call needs in one object for each lane (call.lane)"
    while not answers.empty():
        which, seed, answer = answers.get()
        if isinstance(answer, Unsupported):
            continue
        if isinstance(answer, BaseException):
            complain(f"calls are answered {when.partition(':')[0]}", told(answer), when.partition(": ")[2])
        executables[which].compare(seed, answer, when)


def until_done(ticket: Ticket) -> None:
    """Poll as the scheduler does, with a pause that lets the device work."""
    while not ticket.done():
        time.sleep(1e-4)


def poll(ticket: Ticket, count: int) -> None:
    """Ask a ticket so often whether it is done."""
    for _ in range(count):
        ticket.done()


def cancelled(loaded: Loaded, call: Call, errors: list[Exception]) -> None:
    """A run that may be cancelled: its answer is right, or its error is noted."""
    try:
        loaded.compare(1, loaded.call(loaded.feed(1), call))
    except Exception as error:
        errors.append(error)


def bad_model(fault: str, folder: Path) -> Program:
    """An ONNX model that no runtime can run: `unknown-op`, or `damaged-file` (the bytes are no model)."""
    make = onnx_program("bad", [("Frobnicate", "x", "y")], {"x": (F32, (4,))}, {"y": (F32, (4,))})
    program = make(folder)
    if fault == "damaged-file":
        program.artifact("onnx").file.write_bytes(b"\x08\x08garbage" * 20)
    return program


def unknown_program() -> Program:
    """A program with an artifact of a kind that no backend knows."""
    x, y = (TensorSpec(name, F32, (4,)) for name in "xy")
    return Program("unknown", (x,), (y,), (Artifact("conformance-kit", name="unknown"),))
