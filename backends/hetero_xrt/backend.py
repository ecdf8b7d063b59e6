"""The backend: what it finds, and how it loads a kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, get_args

from hetero.backend import Backend, Check, Device, Host, Option, PowerControl, Program, Unavailable
from hetero.errors import OptionError
from hetero_xrt import simulated
from hetero_xrt.checks import checks_of, good_kernels
from hetero_xrt.executable import Pipeline, TileExecutable
from hetero_xrt.finding import VARIABLE, find_kernel, kernel_name, missing
from hetero_xrt.flow import MOST_IN_FLIGHT, Flow
from hetero_xrt.graph import GraphExecutable
from hetero_xrt.pool import PoolCache
from hetero_xrt.power import Tool, XrtPower
from hetero_xrt.system import system_report, title_of

DEVICE = "xrt"
COLUMNS = 4
"""Of the partition that kernels get on a Phoenix."""


class XrtBackend(Backend):
    """AMD's NPU behind XRT.

    Args:
        host: The machine.
        pyxrt: The vendor's module, for tests; None for the one that is installed, or a simulated one.
        clock: Seconds, for time-outs.
    """

    name = "xrt"
    simulates: ClassVar[tuple[str, ...]] = (simulated.MACHINE,)
    options: ClassVar[tuple[Option, ...]] = (
        Option("kernels", str, None, f"Folder with one folder a compiled kernel; else {VARIABLE}."),
        Option(
            "pipeline",
            str,
            "auto",
            "contexts: several contexts of a kernel that takes few columns. auto: as many of them as can be had. "
            "threads: a pool of four threads. off: one launch at a time.",
            choices=get_args(Pipeline),
        ),
        Option("contexts", int, None, "Contexts, where the kernel leaves columns free for several.", minimum=1),
        Option("in_flight", int, 2, "Launches in each context at once; a second one hides the copying.", minimum=1),
        Option("timeout", float, 10.0, "Seconds after which a launch is given up.", minimum=0.001),
        Option(
            "keep_float", tuple, (), "Of an ONNX model: names of nodes that stay in float32; * and ? stand for any."
        ),
        Option(
            "activation_bits",
            int,
            16,
            "Of an ONNX model: 8, or 16 as two int8 numbers: twice the work in products, and several times nearer.",
            choices=(8, 16),
        ),
        Option(
            "smoothing",
            str,
            "off",
            "Of an ONNX model: on makes channels of activations and weights alike before they become int8.",
            choices=("off", "on"),
        ),
        Option("threads", int, None, "Of an ONNX model: threads of the host's part; else one a core.", minimum=1),
        Option("statistics", str, None, "Of an ONNX model: an .npz with its largest activations, for smoothing."),
    )

    def __init__(
        self, host: Host, *, pyxrt: ModuleType | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(host)
        self._module = pyxrt
        self._clock = clock
        self._lock = threading.Lock()
        self._caches: dict[bool, PoolCache] = {}

    def probe(self) -> Sequence[Device]:
        """The NPU of this laptop, or a simulated one where the user asked for that."""
        if simulated.MACHINE in self.host.simulate:
            return [self._simulated_device()]
        report = system_report(self.host)
        if report.node is None:
            raise Unavailable(
                "no AMD NPU: the kernel shows none under /sys/class/accel",
                fix="load the driver (sudo modprobe amdxdna; in Linux from 6.14 on) and enable the NPU (IPU) in the "
                "firmware's set-up; to try it without a laptop: HETERO_SIMULATE=phoenix",
            )
        if not report.module:
            raise Unavailable(
                f"there is an AMD NPU ({report.name}), but this Python cannot import pyxrt", fix=report.module_fix
            )
        return [
            Device(
                DEVICE,
                kind="npu",
                description=f"AMD {title_of(report.generation)} NPU, {COLUMNS} columns",
                lanes=COLUMNS,
                properties={"generation": report.generation, **report.properties},
                notes=report.notes,
            )
        ]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> TileExecutable | GraphExecutable:
        """See `Backend.load`. What can be told from files is checked before the vendor's library is touched."""
        values = {
            option.name: option.default if options.get(option.name) is None else options[option.name]
            for option in self.options
        }
        if values["in_flight"] > MOST_IN_FLIGHT:
            raise OptionError(
                f"option xrt.in_flight is {values['in_flight']}, expected 1 to {MOST_IN_FLIGHT}: one more would block",
                fix=f"set it to {MOST_IN_FLIGHT} or less",
            )
        named = values["kernels"] or self.host.environ.get(VARIABLE)
        folders = [Path(named).expanduser()] if named else []
        generation = device.properties["generation"]
        manifest = find_kernel(program, generation, folders)
        details = {"times": "modelled"} if device.simulated else {}
        if manifest is None and kernel_name(program) is None and program.artifacts_of("onnx"):
            if not folders and not device.simulated:
                raise missing(program, folders)
            return self._graph(program, device, values, details)
        if device.simulated and (manifest is not None or kernel_name(program) is not None):
            manifest = simulated.stand_in(program, manifest, device.lanes, self.host.cache / "xrt" / "simulated")
        if manifest is None:
            raise missing(program, folders)
        return TileExecutable(
            self._cache(device),
            manifest,
            program,
            pipeline=values["pipeline"],
            columns=device.lanes,
            contexts=values["contexts"],
            in_flight=values["in_flight"],
            timeout=values["timeout"],
            details=details,
        )

    def _graph(
        self, program: Program, device: Device, values: Mapping[str, Any], details: Mapping[str, Any]
    ) -> GraphExecutable:
        """An ONNX program; its kernels are loaded as those that are run by name, each in one context."""
        from hetero_xrt.onnx_program import load_onnx

        settings = {**values, "contexts": 1, "pipeline": "off" if values["pipeline"] == "off" else "auto"}

        def load(name: str) -> TileExecutable:
            import hetero_kernels

            kernel = self.load(hetero_kernels.get(name).program(), device, settings)
            assert isinstance(kernel, TileExecutable)
            return kernel

        return load_onnx(program, load, values, details)

    def checks(self) -> Sequence[Check]:
        """See `Backend.checks`: the system, and the kernels of the folder that the environment names."""
        return checks_of(self.host)

    def trial_programs(self) -> Sequence[str]:
        """See `Backend.trial_programs`."""
        return good_kernels(self.host)

    def power(self, device: Device) -> PowerControl | None:
        """See `Backend.power`: by the vendor's tool; a simulated NPU has no modes."""
        bdf = None if device.simulated else system_report(self.host).bdf
        return XrtPower(Tool(self.host), bdf) if bdf is not None else None

    def close(self) -> None:
        """See `Backend.close`."""
        for cache in self._caches.values():
            cache.close()
        self._caches.clear()

    def _cache(self, device: Device) -> PoolCache:
        with self._lock:
            cache = self._caches.get(device.simulated)
            if cache is None:
                module = self._module or (simulated.module(self.host) if device.simulated else _pyxrt())
                cache = self._caches[device.simulated] = PoolCache(Flow(module, self._clock))
            return cache

    def _simulated_device(self) -> Device:
        phoenix = simulated.described(self.host)
        return Device(
            DEVICE,
            kind="npu",
            description=f"simulated AMD Phoenix NPU, {phoenix.columns} columns",
            lanes=phoenix.columns,
            simulated=True,
            properties={
                "generation": simulated.GENERATION,
                "simulation": phoenix.to_text(),
                "XRT": f"{phoenix.xrt} (simulated)",
            },
            notes=("simulated: answers come from the kernels' references, times are modelled",),
        )


def _pyxrt() -> ModuleType:
    import importlib

    try:
        return importlib.import_module("pyxrt")
    except ImportError as error:
        raise Unavailable(
            f"pyxrt cannot be imported: {error}",
            fix="use the pyxrt of the XRT that is installed, with the Python that it was built for; "
            "source /opt/xilinx/xrt/setup.sh sets the paths",
        ) from error
