"""Rockchip NPUs through RKNN: RK3588, RK3576, RK3566/68/62.

| module | subject |
|---|---|
| `backend` | the Backend class: what `probe` finds, what `load` does |
| `platforms` | the SoCs, their cores and masks, and which of them this machine is |
| `system` | what the system tells: driver, library, nodes, frequency, load |
| `model_file` | the header of a `.rknn` file, and whether it fits the board and the program |
| `placement` | which contexts are opened on which cores |
| `measure` | trying placements on the real model |
| `executable` | running a model: slots, contexts, orders |
| `pacing`, `finite`, `perf` | holding jobs back; NaN and infinity; a line of timings per job |
| `drivers/` | the two ways into the vendor's runtime |
| `simulated` | the same drivers on the simulators of `hetero.testing.rknn` |
| `toolkit/` | compiling, and the vendor's simulator on a PC |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetero.plugins import hookimpl

if TYPE_CHECKING:
    from hetero.backend import Backend


@hookimpl
def hetero_backend() -> type[Backend]:
    """The backend of this package."""
    from hetero_rknn.backend import RknnBackend

    return RknnBackend
