"""The drivers on a simulated NPU: the same code, on simulators behind the vendor's two interfaces."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Protocol

from hetero.backend import Host, Program, Unsupported
from hetero.cache import key_of
from hetero.errors import HeteroError
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers.contract import Driver
from hetero_rknn.platforms import Platform

VARIABLE = "HETERO_SIM_RKNN"


def described(host: Host, platform: Platform) -> SimulatedNpu:
    """What is simulated: as the environment has it (`HETERO_SIM_RKNN=job_us=20000;faults=nan:0.01`), else no faults.

    Raises:
        OptionError: The description cannot be read.
    """
    return SimulatedNpu.from_text(host.environ.get(VARIABLE, ""), platform=platform.target)


class Simulated(Protocol):
    """What both simulators have beside the vendor's interface."""

    def release_hangs(self) -> None:
        """End every hang."""


class SimulatedDrivers:
    """The drivers on one simulated NPU, which all programs share, each made when it is first asked for.

    Args:
        npu: What is simulated.
        cache: Folder in which the simulated library is built.

    Attributes:
        simulators: Those behind the drivers so far.
    """

    def __init__(self, npu: SimulatedNpu, cache: Path) -> None:
        self.simulators: list[Simulated] = []
        self._npu = npu
        self._cache = cache
        self._lock = threading.Lock()
        self._module: Any = None
        self._library: Path | None = None

    def lite(self) -> Driver:
        """The driver `lite` on a simulated `rknnlite.api`."""
        from hetero.testing.rknn.rknnlite import simulated_rknnlite
        from hetero_rknn.drivers.lite import LiteDriver

        with self._lock:
            if self._module is None:
                self._module = simulated_rknnlite(self._npu)
                self.simulators.append(self._module)
        return LiteDriver(self._module)

    def capi(self, *, disable_dup_context: bool) -> Driver:
        """The driver `capi` on the simulated `librknnrt.so`; there is one such NPU in a process.

        Raises:
            Unavailable: It cannot be compiled here: the reason and the fix.
        """
        from hetero.testing.rknn.library import SimulatedLibrary, built_library
        from hetero_rknn.drivers.capi import CapiDriver

        with self._lock:
            if self._library is None:
                library = SimulatedLibrary(built_library(self._cache))
                library.configure(self._npu)
                self._library = library.path
                self.simulators.append(library)
        return CapiDriver(self._library, disable_dup_context=disable_dup_context)


def stand_ins(program: Program, platform: Platform, cache: Path) -> list[Path]:
    """Files that a simulator can compute, one for each `.rknn` of the program, or one made of its ONNX model.

    A simulator computes with the ONNX model, whatever the `.rknn` holds; header, names and shapes are the `.rknn`'s.

    Raises:
        Unsupported: There is no ONNX model, or one without fixed shapes.
    """
    from hetero.compiling.shapes import buckets_of
    from hetero.testing.rknn import twin

    onnx = program.artifact("onnx")
    compiled = [
        artifact
        for artifact in program.artifacts
        if artifact.kind == "rknn" and artifact.target in (None, *platform.targets)
    ]
    made: list[Path] = []
    cache.mkdir(parents=True, exist_ok=True)
    try:
        for artifact in compiled:
            path = cache / f"{key_of(artifact.digest, onnx.digest)}.rknn"
            if not path.is_file():
                twin.imitate(artifact.file, onnx.file, path)
            made.append(path)
        if not compiled:
            path = cache / f"{key_of(onnx.digest, platform.target, repr(sorted(program.sizes.items())))}.rknn"
            if not path.is_file():
                twin.write_twin(onnx.file, path, platform=platform.target, shapes=buckets_of(program)[0])
            made.append(path)
    except HeteroError as error:
        raise Unsupported(f"no stand-in for a simulated NPU: {error.problem}", fix=error.fix) from error
    return made
