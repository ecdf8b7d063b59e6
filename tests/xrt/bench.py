"""A Runtime of a simulated NPU and the CPU, for tests of the whole backend."""

from __future__ import annotations

from typing import Any

import hetero
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_xrt.backend import XrtBackend
from tests.xrt.machine import KERNEL, REFERENCES


class Bench:
    """A Runtime of a simulated NPU and the CPU, with a clock for the NPU that runs by polls."""

    def __init__(self, host: hetero.Host, poll: float = 1e-3, **phoenix: Any) -> None:
        self.clock = ControlledClock(poll_seconds=poll)
        self.x = simulated_pyxrt(SimulatedPhoenix(**phoenix), kernels=REFERENCES, clock=self.clock)
        self.npu = self.x.npu
        environ = {"HETERO_SIM_XRT": SimulatedPhoenix(**phoenix).to_text()}
        self.host = hetero.Host(environ=environ, sysroot=host.sysroot, cache=host.cache, simulate=("phoenix",))
        self.runtime = hetero.Runtime(backends=[self.backend, CpuBackend], plugins=False, host=self.host, learn=False)

    def backend(self, host: hetero.Host) -> XrtBackend:
        return XrtBackend(host, pyxrt=self.x, clock=self.clock.now)

    def load(self, program: Any = None, **options: Any) -> hetero.Session:
        own = {name: options.pop(name) for name in list(options) if name in ("timeout", "pipeline", "kernels")}
        return self.runtime.load(program or get(KERNEL).program(), options={"xrt": own}, **options)

    def check_clean(self) -> None:
        self.runtime.close()
        report = self.npu.finish()
        assert report.misuse == {}
        assert report.crashes == ()
