"""Makes the picture in docs/telemetry.md: python docs/examples/timeline.py docs/images/timeline.png

A machine with an NPU of two cores, which is made up here and marked as simulated, and a CPU. The NPU is lost in the
middle of the work, the CPU takes over, and after a pause and a canary the NPU is used again. Nothing is drawn by hand:
the picture shows the records of the run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import hetero
from hetero.backend import Array, Artifact, Backend, Call, Device, Executable, Program, TensorSpec
from hetero.errors import DeviceLost
from hetero.telemetry.trace import Trace

F32 = np.dtype(np.float32)
STARTED = time.perf_counter()
LOST = (0.4, 0.5)


def program(name: str, milliseconds: float) -> Program:
    """y = 2 x, which takes an NPU core so long and the CPU three times as long."""
    spec = (TensorSpec("x", F32, ("n",)),), (TensorSpec("y", F32, ("n",)),)
    return Program(name, *spec, artifacts=(Artifact("example", payload=milliseconds / 1e3),))


class Example(Executable):
    def __init__(self, seconds: float, lanes: int, can_be_lost: bool) -> None:
        self.lanes = lanes
        self._seconds = seconds
        self._can_be_lost = can_be_lost

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        time.sleep(self._seconds)
        if self._can_be_lost and LOST[0] < time.perf_counter() - STARTED < LOST[1]:
            raise DeviceLost("the NPU was reset")
        return {"y": inputs["x"] * 2}


class Npu(Backend):
    name = "npu"
    device: ClassVar[Device] = Device("npu", kind="npu", lanes=2, simulated=True)
    slower: ClassVar[float] = 1.0

    def probe(self) -> Sequence[Device]:
        return [self.device]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        seconds = program.artifact("example").payload * self.slower
        return Example(seconds, device.lanes, can_be_lost=device.kind == "npu")


class Cpu(Npu):
    name = "cpu"
    device = Device("cpu", kind="cpu", lanes=1)
    slower = 3.0


def main(files: Sequence[str]) -> None:
    with hetero.Runtime(backends=[Npu, Cpu], plugins=False, learn=False) as rt:
        sessions = [rt.load(program("encoder", 24)), rt.load(program("decoder", 7))]

        def work(session: hetero.Session, count: int) -> None:
            for _ in session.map([np.ones(8, np.float32)] * count, in_flight=6):
                pass

        threads = [threading.Thread(target=work, args=pair) for pair in zip(sessions, (70, 160), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trace = Trace(rt.records)
    for file in files:
        trace.write(file)


if __name__ == "__main__":
    main(sys.argv[1:])
