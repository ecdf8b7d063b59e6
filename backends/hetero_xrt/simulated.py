"""A simulated Phoenix: the same flow, on the simulator behind the vendor's interface, with stand-ins for xclbins."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hetero.backend import Host, Program, Unsupported
from hetero.cache import key_of
from hetero.errors import OptionError
from hetero.kernel_manifest import KERNEL_TOML, TileTensor
from hetero_xrt.finding import kernel_name
from hetero_xrt.manifest import Batch, Manifest
from hetero_xrt.reading import read_manifest

if TYPE_CHECKING:
    from hetero.testing.xrt.design import Design
    from hetero.testing.xrt.phoenix import SimulatedPhoenix

# The simulator is imported where it is asked for: who has an NPU, or none, does not wait for it.

MACHINE = "phoenix"
GENERATION = "npu1"
VARIABLE = "HETERO_SIM_XRT"


def described(host: Host) -> SimulatedPhoenix:
    """What is simulated: as the environment has it (`HETERO_SIM_XRT=tile_us=900;faults=hang:0.01`), else no faults.

    Raises:
        OptionError: The description cannot be read.
    """
    from hetero.testing.xrt.phoenix import SimulatedPhoenix

    return SimulatedPhoenix.from_text(host.environ.get(VARIABLE, ""))


def module(host: Host) -> ModuleType:
    """A `pyxrt` of a machine of its own."""
    from hetero.testing.xrt.pyxrt import simulated_pyxrt

    return simulated_pyxrt(described(host))


def stand_in(program: Program, found: Manifest | None, columns: int, cache: Path) -> Manifest:
    """A compiled kernel that the simulator can run.

    Args:
        program: The kernel's.
        found: Its real one, whose buffers, columns and tiles the stand-in then has; None: all columns, a tile each.
        columns: That the NPU has.
        cache: Folder for stand-ins.

    Raises:
        Unsupported: Nobody knows what the kernel computes.
    """
    from hetero.testing.xrt.stand_in import instructions_of, usual_design, write_design, xclbin_of

    if found is not None and _is_stand_in(found.xclbin.path):
        return found
    name = found.logical if found is not None else kernel_name(program)
    if name is None or not any(callable(getattr(a.payload, "reference", None)) for a in program.artifacts):
        raise Unsupported(
            f"a simulated NPU cannot compute {program.name!r}: it has no kernel with a reference",
            fix="add an artifact of kind kernel to its bundle, or run it on the NPU itself",
        )
    try:
        design = usual_design(program, columns) if found is None else _design(found)
    except OptionError as error:
        raise Unsupported(f"no stand-in for {name!r}: {error.problem}", fix=error.fix) from error
    batch = Batch() if found is None else found.batch
    # By the bytes too, which another version of the simulator may write otherwise.
    parts = design.to_json(), xclbin_of(design).hex(), instructions_of(design).hex(), str(batch)
    folder = cache / f"{name}-{key_of(*parts)[:16]}"
    if not (folder / KERNEL_TOML).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache))
        try:
            write_design(made, design, order=batch.order, fill=batch.fill)
            # Another process may have been quicker; both made the same.
            os.rename(made, folder)
        except OSError:
            if not (folder / KERNEL_TOML).is_file():
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return read_manifest(folder)


def _is_stand_in(path: Path) -> bool:
    from hetero.testing.xrt.stand_in import read_image

    try:
        return read_image(path.read_bytes()) is not None
    except (RuntimeError, ValueError, KeyError, TypeError):  # the last three: metadata that is somebody else's
        return False


def _design(manifest: Manifest) -> Design:
    """What a real kernel would compute, with the buffers that its manifest describes."""
    from hetero.testing.xrt.design import Design, DesignArgument
    from hetero.testing.xrt.stand_in import work_of

    arguments = tuple(
        DesignArgument(
            argument.index,
            argument.name,
            argument.role,
            tuple(TileTensor(t.name, t.dtype.name, t.shape, t.shared, t.axis, t.repeated) for t in argument.tensors),
            argument.column,
            argument.pieces,
            argument.padding,
            argument.file.read_bytes().hex() if argument.file is not None else "",
        )
        for argument in manifest.arguments
    )
    return Design(
        manifest.logical,
        arguments,
        manifest.columns,
        manifest.tiles_per_launch,
        # What is said of the size of a tile's work is each core's part, where a column's cores share it.
        1 if manifest.worker == "column" else manifest.rows,
        manifest.name,
        manifest.opcode,
        joined=manifest.batch.tiles == "joined",
        worker=manifest.worker,
        **work_of(manifest.logical, [t for a in arguments if a.role in ("out", "inout") for t in a.tensors]),
    )
