"""Runtimes on a simulated board: the backend's real code, over either driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import hetero
from hetero.backend import Host
from hetero.cache import cache_dir
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_cpu.backend import CpuBackend
from hetero_rknn.backend import RknnBackend
from tests.rknn.sim_models import simulated_library

DRIVERS = ("capi", "lite")


@contextmanager
def on_board(
    driver: str,
    npu: SimulatedNpu | None = None,
    *,
    environ: dict[str, str] | None = None,
    rknn: dict[str, Any] | None = None,
    **runtime: Any,
) -> Iterator[hetero.Runtime]:
    """A Runtime with a simulated NPU and the CPU; what hangs in it is let go at the end."""
    pytest.importorskip("onnxruntime")
    if driver != "lite":
        simulated_library()  # skips where it cannot be built
    npu = npu or SimulatedNpu()
    host = Host(
        environ={"HETERO_SIM_RKNN": npu.to_text(), **(environ or {})},
        cache=cache_dir() / "simulators",
        simulate=(npu.platform,),
    )
    made = hetero.Runtime(
        backends=[RknnBackend, CpuBackend],
        plugins=False,
        host=host,
        options={"rknn": {"driver": driver, **(rknn or {})}},
        learn=False,
        **runtime,
    )
    try:
        yield made
    finally:
        release_hangs(made)
        made.close()


def release_hangs(runtime: hetero.Runtime) -> None:
    """End every hang of the simulated NPU."""
    backend = runtime.backends["rknn"]
    assert isinstance(backend, RknnBackend)
    for simulator in backend.simulators:
        simulator.release_hangs()
