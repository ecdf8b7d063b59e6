"""The names of AMD's IRON (`aie.iron` of mlir-aie) that designs use, in one place: its interface changes often.

A design takes them as an `Iron`, so that the same code runs on the real thing and on the stand-in of `simulate`.
Written against mlir-aie 1.4.4 (August 2026): `Runtime(sequence, [types..., handles...])`, `handle.fill` and `drain`
inside the sequence, `TaskGroup().finish()`, `Program(device, runtime, workers=[...]).resolve_program()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hetero.errors import Unavailable

MLIR_AIE = "1.4.4"
"""The version of mlir-aie that the names below are those of."""

INSTALL = (
    "python -m pip install mlir_aie llvm-aie "
    f"-f https://github.com/Xilinx/mlir-aie/releases/expanded_assets/v{MLIR_AIE} "
    "-f https://github.com/Xilinx/llvm-aie/releases/expanded_assets/nightly"
)
"""How mlir-aie and Peano are installed: they are on no package registry, but on their projects' release pages."""


@dataclass(frozen=True)
class Iron:
    """What a design builds with.

    Attributes:
        Kernel: `Kernel(name, object_file, [types])`: a function for a core.
        ObjectFifo: `ObjectFifo(type, depth=, name=, dims_to_stream=)`.
        Worker: `Worker(function, fn_args=[...], stack_size=)`: what one core does, for ever.
        Runtime: `Runtime(sequence, [types..., handles...])`: what the host's side does.
        TaskGroup: Transfers that are awaited together, by `finish()`.
        Program: `Program(device, runtime, workers=[...])`.
        TensorAccessPattern: `TensorAccessPattern(dimensions, offset, sizes, strides)`.
        device: The whole Phoenix array, four columns.
        Buffer: `Buffer(type, initial_value=, name=)`: memory of one core, handed to its worker.
        Tile: `Tile(column, row)`: where a split or a join takes place; row 1 has the memory tiles.
        range_: `range` in a core's function, as a loop and not as its turns written out.
    """

    Kernel: Any
    ObjectFifo: Any
    Worker: Any
    Runtime: Any
    TaskGroup: Any
    Program: Any
    TensorAccessPattern: Any
    device: Any
    Buffer: Any
    Tile: Any
    range_: Any


def real_iron() -> Iron:
    """The installed mlir-aie.

    Raises:
        Unavailable: It is not installed, or has not the names of the version that designs are written for.
    """
    try:
        from aie.helpers.taplib import TensorAccessPattern
        from aie.iron import Buffer, Kernel, ObjectFifo, Program, Runtime, TaskGroup, Worker
        from aie.iron.controlflow import range_
        from aie.iron.device import NPU1, Tile
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "aie"
        raise Unavailable(
            "mlir-aie is not installed, which generates the NPU's configuration"
            if missing
            else f"the installed mlir-aie is not version {MLIR_AIE}, which the designs are written for: {error}",
            fix=INSTALL,
        ) from error
    return Iron(
        Kernel, ObjectFifo, Worker, Runtime, TaskGroup, Program, TensorAccessPattern, NPU1, Buffer, Tile, range_
    )
