"""Constants of modelled machines, each with where it comes from.

Read in kernels' sources and device trees: the steps of the sensors (0.923 C), the NPU's cap (800 MHz from 85 C, lifted
5 C below), the GPU's 2.15 W. **Assumed**, nobody has published them: every thermal resistance and time constant, the
NPU's 3.0 W with 0.5 W of the host, idle watts, hotspots, voltages, rates of items, lags and noise of sensors, and the
laptop's 2.3 C/W. A result that depends on one of them holds for machines like it.
"""

from __future__ import annotations

import math

from hetero.testing.thermal.plant import Build

RK3588 = Build("RK3588, heatsink")
"""7.5 C/W to the air (assumed)."""

RK3588_SEALED = Build("RK3588, sealed box", board_resistance=8.0, board_seconds=200.0)
"""10 C/W (assumed)."""

RK3588_BARE = Build("RK3588, bare", board_resistance=17.0, board_seconds=60.0, idle_watts=1.2)
"""19 C/W (assumed); idle less, as boards without a heatsink are small."""

RK3576 = Build("RK3576, heatsink", npu_watts=2.6, npu_rate=90.0, gpu_watts=1.6, board_resistance=7.0)
"""As the RK3588, with smaller units (assumed)."""

RK3568 = Build(
    "RK3568, bare",
    board_resistance=20.0,
    die_resistance=3.0,
    board_seconds=80.0,
    idle_watts=1.2,
    npu_watts=0.9,
    host_watts=0.4,
    gpu_watts=0.8,
    cpu_watts=2.2,
    npu_rate=15.0,
    gpu_rate=3.0,
    cpu_rate=3.0,
    clocks=(200, 300, 400, 600, 700, 800, 900),
    volts=(0.85, 0.85, 0.85, 0.85, 0.875, 0.925, 0.975),
    hotspots=(0.8, 0.8, 0.8),
    npu_sensor=False,
    cap_at=math.inf,
)
"""One core of 0.9 W (assumed); the SoC's zone speaks for it, and nothing caps its clock."""

PHOENIX = Build(
    "Phoenix laptop",
    die_resistance=0.9,
    board_resistance=1.4,
    die_seconds=3.0,
    board_seconds=60.0,
    hotspots=(0.2, 0.2, 0.4),
    idle_watts=6.0,
    npu_watts=2.0,
    gpu_watts=15.0,
    cpu_watts=20.0,
    host_watts=1.0,
    npu_rate=100.0,
    gpu_rate=160.0,
    cpu_rate=60.0,
    clocks=(1600.0,),
    volts=(0.8,),
    sensor_step=0.125,
    sensor_noise=0.4,
    npu_sensor=False,
    cap_at=math.inf,
    fights_at=95.0,
)
"""2.3 C/W to the air with its fan (assumed); k10temp tells eighths of a degree (read)."""
