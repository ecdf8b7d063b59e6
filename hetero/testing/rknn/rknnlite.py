"""A simulated `rknnlite.api`: the vendor's class RKNNLite, on twin files, computed by ONNX Runtime.

It answers, refuses and logs as rknn-toolkit-lite2 2.5.0 does, which was watched running against a stand-in library:
nothing raises, errors are logged and returned as -1 or None; every output is float32; importing it breaks the level
names of `logging`; calls leave cyclic garbage behind; one object used by several threads at once answers wrongly.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
import types
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hetero.errors import OptionError
from hetero.testing.rknn.cores import Cores
from hetero.testing.rknn.npu import SimulatedNpu
from hetero.testing.rknn.rknnlite_runtime import Machine, Refused, Runtime, parts

if TYPE_CHECKING:
    from collections.abc import Iterator


LOGGER = "acuityLogger"
"""Name of the logger that the vendor's package logs to; it does not propagate."""

Counter = Literal[
    "objects", "sessions", "misuse", "jobs", "jobs_0", "jobs_1", "jobs_2", "running", "peak", "waiting", "hung"
]
"""What is counted.

Alive now: `objects` with a runtime that was not released; `sessions`, one a model.
Since the last configuration: `jobs` and those on each core; `peak`, the most jobs at once; `misuse`, calls that met
another thread's in one object. At this moment: jobs `running`, `waiting` for a core, `hung`.
"""

_LETTERS = {"C": logging.CRITICAL, "E": logging.ERROR, "W": logging.WARNING, "I": logging.INFO, "D": logging.DEBUG}
_LEFTOVERS = 14


class SimulatedModule(types.ModuleType):
    """What stands in for the module `rknnlite.api`: its class, and what tests need beside it.

    Making one breaks the level names of `logging`, as importing the vendor's does.

    Args:
        npu: What is simulated.
        sleep: Spends modelled time; takes seconds.
        clock: What modelled time is held against, in seconds.
        stale_outputs: After a run that failed, hand out the outputs of the run before.

    Attributes:
        RKNNLite: The vendor's class. All its objects share this machine.
        cores: The machine's cores.
    """

    RKNNLite: type[SimulatedRKNNLite]

    def __init__(
        self,
        npu: SimulatedNpu,
        *,
        sleep: Callable[[float], object],
        clock: Callable[[], float],
        stale_outputs: bool = False,
    ) -> None:
        super().__init__("rknnlite.api", "Simulated by hetero: times are modelled.")
        self.cores = Cores(npu, sleep=sleep, clock=clock)
        self._machine = Machine(self.cores, _logger(), stale_outputs=stale_outputs)
        self.RKNNLite = type("RKNNLite", (SimulatedRKNNLite,), {"machine": self._machine})
        _break_level_names()

    def configure(self, npu: SimulatedNpu) -> None:
        """Simulate something else from the next job on; counts of what happened start again at 0."""
        self._machine.misuse = 0
        self.cores.configure(npu)

    def release_hangs(self) -> None:
        """End every hang; nothing hangs again before the next `configure`."""
        self.cores.release_hangs()

    def counter(self, name: Counter) -> int:
        """What was counted.

        Raises:
            OptionError: That is not counted.
        """
        cores = self.cores
        counts: dict[str, int] = {
            "objects": len(self._machine.runtimes),
            "sessions": len(self._machine.sessions),
            "misuse": self._machine.misuse,
            "jobs": cores.number,
            **{f"jobs_{core}": cores.jobs[core] for core in range(3)},
            "running": cores.running,
            "peak": cores.peak,
            "waiting": cores.waiting,
            "hung": cores.hung,
        }
        if name not in counts:
            raise OptionError(f"the simulated RKNNLite has no counter {name!r}", fix=f"take one of {', '.join(counts)}")
        return counts[name]


def simulated_rknnlite(
    npu: SimulatedNpu,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
    stale_outputs: bool = False,
) -> SimulatedModule:
    """A simulated machine with the vendor's Python interface.

    Args:
        npu: What is simulated.
        sleep: Spends modelled time, while the cores are held; takes seconds.
        clock: What modelled time is held against, in seconds: what computing took counts into a job's time.
        stale_outputs: After a run that failed, hand out the outputs of the run before. Nobody says that the vendor's
            library does not, and its class asks for them in any case.

    Returns:
        To be used as the module `rknnlite.api`.
    """
    return SimulatedModule(npu, sleep=sleep, clock=clock, stale_outputs=stale_outputs)


class SimulatedRKNNLite:
    """The vendor's class. Not to be made by itself: `simulated_rknnlite` makes one bound to a machine.

    Nothing here raises: errors are logged and returned as -1 or None.
    """

    NPU_CORE_AUTO = 0
    NPU_CORE_0 = 1
    NPU_CORE_1 = 2
    NPU_CORE_2 = 4
    NPU_CORE_0_1 = 3
    NPU_CORE_0_1_2 = 7
    NPU_CORE_ALL = 0xFFFF

    machine: ClassVar[Machine]

    def __init__(self, verbose: bool = False, verbose_file: str | None = None) -> None:
        self.verbose = verbose
        self.rknn_log = self.machine.log
        self.rknn_log.warning("rknn-toolkit-lite2 version: %s", self.machine.cores.npu.library_version)
        self.rknn_data: bytes | None = None
        self.rknn_runtime: Runtime | None = None

    def load_rknn(self, path: str, key_path: str | None = None) -> int:
        """Read a file, whatever it holds: 0, or -1 where there is none."""
        if not path or not os.path.exists(path):
            self.rknn_log.error("Invalid RKNN model path: %s", path or None)
            return -1
        with self._caught(f"Catch exception when loading RKNN model [{path}]!") as failed:
            self.rknn_data = Path(path).read_bytes()
            if key_path is not None:
                raise OSError("encrypted models are not simulated")
        return -1 if failed else 0

    def init_runtime(
        self, target: str | None = None, device_id: str | None = None, async_mode: bool = False, core_mask: int = 0
    ) -> int:
        """Open the model: 0, or -1. As with the vendor's, a refused mask leaves a runtime that works on any core."""
        if self.rknn_data is None:
            self.rknn_log.error("Model is not loaded yet, this interface should be called after load_rknn!")
            return -1
        self.release()
        with self._caught("Catch exception when init runtime!") as failed:
            if target is not None:
                raise Exception("Unsupported run platform: Linux aarch64")
            self.rknn_runtime = Runtime(self.machine)
            self.rknn_runtime.build_graph(self.rknn_data)
        if failed:
            return -1
        assert self.rknn_runtime is not None
        if not self.rknn_runtime.set_core_mask(core_mask):
            self.rknn_log.error("Catch exception when set npu core mode.")
            return -1
        return 0

    def inference(
        self,
        inputs: Any,
        data_type: Any = None,
        data_format: Any = None,
        inputs_pass_through: Any = None,
        get_frame_id: bool = False,
        reuse_outputs: bool = False,
    ) -> list[Any] | None:
        """Run: the outputs, all float32, or None."""
        runtime = self.rknn_runtime
        if runtime is None:
            self.rknn_log.error("Runtime environment is not inited, please call init_runtime to init it first!")
            return None
        _leave_garbage()
        with runtime.used():
            with self._caught("Catch exception when setting inputs.") as failed:
                if inputs_pass_through is not None and any(inputs_pass_through):
                    raise Exception("inputs_pass_through is not simulated")
                runtime.set_inputs(inputs, data_type, data_format)
            if failed:
                return None
            with self._caught("Catch exception when running RKNN model.") as failed:
                runtime.run(get_frame_id)
            if failed:
                return None
            outputs: list[Any] = []
            with self._caught("Catch exception when getting outputs.") as failed:
                outputs = runtime.get_outputs(get_frame_id, reuse_outputs=reuse_outputs)
        if failed:
            return None
        return [*outputs, 0] if get_frame_id else outputs

    def get_sdk_version(self) -> str | None:
        """The versions of the runtime and of the kernel's driver, in the vendor's frame; None before `init_runtime`."""
        if self.rknn_runtime is None:
            self.rknn_log.error("Runtime environment is not inited, please call init_runtime to init it first!")
            return None
        rule, npu = "=" * 46, self.machine.cores.npu
        return f"{rule}\nRKNN VERSION:\n  API: {npu.library_version} (simulated)\n  DRV: {npu.driver_version}\n{rule}\n"

    def list_support_target_platform(self, rknn_model: str | None = None) -> OrderedDict[str, list[str]] | None:
        """The platforms that a model runs on, or all of them."""
        if rknn_model is None:
            return OrderedDict(support_target_platform=["RK3566", "RK3568", "RK3588", "RK3562", "RK3576"])
        if not os.path.exists(rknn_model):
            self.rknn_log.error("The model %s does not exist.", rknn_model)
            return None
        try:
            _, platforms = parts(Path(rknn_model).read_bytes())
        except Refused:
            return None
        return OrderedDict(support_target_platform=[platform.upper() for platform in platforms])

    def list_devices(self) -> tuple[list[str], list[str]]:
        """Boards that hang on this machine: none."""
        return [], []

    def release(self) -> None:
        """Close the model; calling it again does nothing."""
        if self.rknn_runtime is not None:
            self.rknn_runtime.release()
            self.rknn_runtime = None

    @contextmanager
    def _caught(self, message: str) -> Iterator[list[bool]]:
        """Logs an exception in place of raising it; the list is not empty then."""
        failed: list[bool] = []
        try:
            yield failed
        except Exception:
            failed.append(True)
            self.rknn_log.error(message)
            self.rknn_log.error(traceback.format_exc())


def _leave_garbage() -> None:
    """Objects that hold one another, as the vendor's class leaves some behind in every call (14 were counted)."""
    ring: list[dict[str, Any]] = [{} for _ in range(_LEFTOVERS)]
    for index, item in enumerate(ring):
        item["next"] = ring[index - 1]


def _break_level_names() -> None:
    """What importing the vendor's package does: only its own letters are left, names that programs added included."""
    vars(logging)["_levelToName"] = {level: letter for letter, level in _LETTERS.items()}
    vars(logging)["_nameToLevel"] = dict(_LETTERS)


def _logger() -> logging.Logger:
    """The vendor's logger: everything goes to its handlers, of which its own shows warnings, and none to the root's."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
    return logger
