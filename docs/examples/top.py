"""A program to look at with `hetero top`: a modelled RK3588 board gets as warm as the work of its NPU makes it.

    hetero top -- python docs/examples/top.py --seconds 60

The NPU is a simulated one that sleeps for a while in each call, and now and then is lost; nothing here is measured.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hetero
from hetero.errors import DeviceLost
from hetero.program import Artifact, Program
from hetero.tensors import Array, TensorSpec
from hetero.testing.thermal.machine import ThermalMachine

SPEED = 5.0
F32 = np.dtype(np.float32)
MODEL = Program("encoder", (TensorSpec("x", F32, ("n",)),), (TensorSpec("y", F32, ("n",)),), (Artifact("sleep"),))


class Sleeper(hetero.Backend):
    """A device that takes its time and answers rightly, but for every `lost_after`th call."""

    seconds = 0.02
    lost_after = 0
    device: hetero.Device

    def probe(self) -> Sequence[hetero.Device]:
        return [self.device]

    def load(self, program: Program, device: hetero.Device, options: Mapping[str, Any]) -> hetero.Executable:
        return Sleeping(self, device.lanes)


class Sleeping(hetero.Executable):
    def __init__(self, backend: Sleeper, lanes: int) -> None:
        self.lanes = lanes
        self._backend = backend

    def run(self, inputs: Mapping[str, Array], call: hetero.Call) -> Mapping[str, Array]:
        time.sleep(self._backend.seconds)
        if self._backend.lost_after and call.number % self._backend.lost_after == self._backend.lost_after - 1:
            raise DeviceLost("the NPU was reset")
        return {"y": inputs["x"] * 2}


class Npu(Sleeper):
    name = "rknn"
    lost_after = 900
    device = hetero.Device("rknn", "npu", "three cores that sleep", lanes=3, simulated=True)


class Cpu(Sleeper):
    name = "cpu"
    seconds = 0.08
    device = hetero.Device("cpu", "cpu", "one that sleeps longer", simulated=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0)
    end = time.monotonic() + arguments.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        board = ThermalMachine(Path(folder), "rk3588", ambient=44.0)
        board.duty[0] = 1.0
        board.advance(300)  # it has been at work before
        host = hetero.Host(sysroot=Path(folder))
        over = threading.Event()
        with hetero.Runtime(backends=[Npu, Cpu], plugins=False, host=host, learn=False, monitor=True) as runtime:
            session = runtime.load(MODEL)

            def heat_up() -> None:
                while not over.wait(0.5):
                    board.duty[0] = runtime.status().devices[0].load
                    board.advance(0.5 * SPEED)

            thread = threading.Thread(target=heat_up)
            thread.start()
            for _ in session.map(requests(end), in_flight=10):
                pass
            over.set()
            thread.join()


def requests(end: float) -> Iterator[Array]:
    x = np.ones(8, np.float32)
    while time.monotonic() < end:
        yield x


if __name__ == "__main__":
    main()
