"""The backend: what it finds, and how it loads a program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hetero.backend import Artifact, Device, Executable, Host, Option, Program, Unavailable, Unsupported
from hetero.errors import OptionError
from hetero_rknn import finite, measure, simulated
from hetero_rknn.drivers.contract import Driver
from hetero_rknn.executable import RknnExecutable, Variant
from hetero_rknn.model_file import ModelTensor, check_model, check_signature, read_model_file
from hetero_rknn.pacing import Pacing
from hetero_rknn.perf import PerfLog
from hetero_rknn.placement import Placement, place
from hetero_rknn.platforms import PLATFORMS, Platform, platform_named, platform_of
from hetero_rknn.system import system_report
from hetero_rknn.toolkit import pc
from hetero_rknn.toolkit.backend import CompilingBackend

if TYPE_CHECKING:
    from hetero.simulation import ThermalSimulator

DEVICE = "rknn"

_TOOLKIT = "hetero compile MODEL.onnx --target {target} -o BUNDLE/"


class RknnBackend(CompilingBackend):
    """Rockchip's NPU, all of its cores as the lanes of one device."""

    name = "rknn"
    simulates: ClassVar[tuple[str, ...]] = (*(platform.name for platform in PLATFORMS), pc.MACHINE)
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "core_mask",
            (str, int),
            None,
            "Cores that work on one job together: auto (the runtime chooses), 0, 1, 2, 0_1, 0_1_2, all.",
            per_call=True,
        ),
        Option(
            "schedule",
            (str, int, tuple),
            None,
            'Cores that work on a job each: 0, "0,1,2" or [0, 0, 1], where repeats are weights.',
        ),
        Option("tp_mode", (str, int), None, "core_mask by the name that EZ RKNN Async gives it."),
        Option(
            "placement",
            str,
            None,
            "measure: try a context a core against one over all cores, on the model itself, and keep the quicker.",
            choices=("measure",),
        ),
        Option("threads_per_core", int, 1, "Contexts a core; a second one hides the copying.", minimum=1),
        Option(
            "order",
            str,
            "dynamic",
            "dynamic: the next free core takes the next job. static: jobs go round the schedule.",
            choices=("dynamic", "static"),
        ),
        Option("enable_pacing", bool, False, "Begin no more jobs than the NPU can end; what comes too soon waits."),
        Option("disable_dup_context", bool, False, "Give each context its own copy of the weights (driver capi)."),
        Option(
            "driver",
            str,
            "auto",
            "lite: rknnlite.api.RKNNLite. capi: librknnrt.so itself. auto: capi where it is there.",
            choices=("auto", "lite", "capi"),
        ),
        Option(
            "on_nonfinite",
            str,
            "rerun",
            "An answer with NaN or infinity: run the request on the next device, raise, or pass it on.",
            choices=finite.CHOICES,
        ),
        *pc.OPTIONS,
    )

    @classmethod
    def thermal_simulator(cls) -> ThermalSimulator:
        """The boards with their heat and their time."""
        from hetero.testing.thermal.modelled import BoardSimulator

        return BoardSimulator()

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._simulated: simulated.SimulatedDrivers | None = None

    @property
    def simulators(self) -> Sequence[simulated.Simulated]:
        """The simulators in use, for tests: hangs in them have to be ended."""
        return self._simulated.simulators if self._simulated is not None else ()

    def probe(self) -> Sequence[Device]:
        """The NPU of this board, or a simulated one, or the toolkit's simulator, where the user asked for that."""
        named = [platform_named(name) for name in self.host.simulate]
        devices = [self._simulated_device(platform) for platform in named if platform is not None][:1]
        on_pc = pc.probe(self.host)
        if on_pc is not None:
            devices.append(on_pc)
        return devices or [self._real_device()]

    def _real_device(self) -> Device:
        report = system_report(self.host)
        if report.platform is None:
            soc = report.properties.get("soc")
            raise Unavailable(
                f"no Rockchip SoC with an NPU that hetero knows: {soc}" if soc else "this is no Rockchip board",
                fix="to try it without a board: HETERO_SIMULATE=rk3588",
            )
        if not (report.library or self._has_lite()):
            raise Unavailable(
                f"the {report.platform.title} has an NPU, but neither librknnrt.so nor rknn-toolkit-lite2 is installed",
                fix="install Rockchip's librknnrt.so as /usr/lib/librknnrt.so, or pip install rknn-toolkit-lite2",
            )
        return Device(
            DEVICE,
            kind="npu",
            description=f"Rockchip {report.platform.title} NPU, {_cores(report.platform)}",
            lanes=report.platform.cores,
            properties=report.properties,
            notes=report.notes,
        )

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        """See `Backend.load`. What can be told from files is checked before the vendor's runtime is touched."""
        values = {
            option.name: option.default if options.get(option.name) is None else options[option.name]
            for option in self.options
        }
        if device.name == pc.DEVICE:
            return pc.load(program, device, values, self.host)
        platform = self._platform(device)
        placements = _placements(platform, values)
        paths = self._files(program, device, platform)
        driver, why = self._driver(device, platform, values)
        version = driver.library_version or self._library_version(device)
        variants = [self._variant(path, program, platform, version) for path in paths]
        perf = PerfLog.of(self.host.environ)
        details = {
            "driver": f"{driver.name} ({why})",
            "librknnrt": version or "unknown",
            "model": f"for {variants[0].model.platform}, toolkit {variants[0].model.version or 'unknown'}",
        }
        notes = [note for variant in variants for note in variant.notes]
        if notes:
            details["notes"] = "; ".join(notes)
        if len(variants) > 1:
            details["shapes"] = "; ".join(str(variant.shapes) for variant in variants)

        def make(placement: Placement) -> RknnExecutable:
            pacing = Pacing(len({slot.core for slot in placement.slots})) if values["enable_pacing"] else None
            return RknnExecutable(
                driver,
                variants,
                program,
                platform,
                placement,
                on_nonfinite=values["on_nonfinite"],
                pacing=pacing,
                perf=perf,
                details=details,
            )

        if len(placements) == 1:
            return make(next(iter(placements.values())))
        makes: dict[str, Callable[[], Executable]] = {
            name: functools.partial(make, placement) for name, placement in placements.items()
        }
        winner, executable, results = measure.quickest(makes, variants[0].model)
        told = "; ".join(f"{name}: {result}" for name, result in results.items())
        executable.details = {
            **executable.details,
            "measured": told + (" (modelled times)" if device.simulated else ""),
            "chosen": winner,
        }
        return executable

    def trial_artifacts(self) -> Sequence[Artifact]:
        """The trial for each SoC, as Rockchip's toolkit has compiled it."""
        folder = Path(__file__).parent / "trial"
        return [Artifact("rknn", path, path.suffixes[0][1:]) for path in sorted(folder.glob("trial.*.rknn"))]

    def _simulated_device(self, platform: Platform) -> Device:
        npu = simulated.described(self.host, platform)
        return Device(
            DEVICE,
            kind="npu",
            description=f"simulated Rockchip {platform.title} NPU, {_cores(platform)}",
            lanes=platform.cores,
            simulated=True,
            properties={"soc": platform.title, "simulation": npu.to_text(), "librknnrt": npu.library_version},
            notes=("simulated: answers come from ONNX Runtime, times are modelled",),
        )

    def _platform(self, device: Device) -> Platform:
        soc = platform_named(str(device.properties["soc"])) if device.simulated else platform_of(self.host)
        if soc is None:
            raise Unavailable("the board's SoC can no longer be told")
        return soc

    def _library_version(self, device: Device) -> str | None:
        """Of a `librknnrt` that tells its own only when a model is open."""
        if device.simulated:
            return str(device.properties["librknnrt"])
        return system_report(self.host).library_version

    def _files(self, program: Program, device: Device, platform: Platform) -> list[Path]:
        if device.simulated:
            return simulated.stand_ins(program, platform, self.host.cache / "rknn" / "simulated")
        found = [
            artifact.file
            for artifact in program.artifacts
            if artifact.kind == "rknn" and artifact.target in (None, *platform.targets)
        ]
        if not found:
            others = sorted({str(a.target) for a in program.artifacts if a.kind == "rknn"})
            has = f"it has .rknn files for {', '.join(others)}" if others else "it has no .rknn file"
            raise Unsupported(
                f"{program.name!r} is not compiled for the {platform.title}: {has}",
                fix=_TOOLKIT.format(target=platform.target),
            )
        return found

    def _variant(self, path: Path, program: Program, platform: Platform, version: str | None) -> Variant:
        model = read_model_file(path)
        notes = check_model(model, platform, version)
        converted = check_signature(model, program.inputs, program.outputs)
        dtypes = {spec.name: spec.dtype for spec in (*program.inputs, *program.outputs)}

        def known(tensor: ModelTensor) -> ModelTensor:
            """The tensor with the program's dtype where the file does not tell its own."""
            return tensor if tensor.dtype_known else replace(tensor, dtype=dtypes.get(tensor.name, tensor.dtype))

        inputs, outputs = tuple(map(known, model.inputs)), tuple(map(known, model.outputs))
        return Variant(path, replace(model, inputs=inputs, outputs=outputs), converted, notes)

    def _driver(self, device: Device, platform: Platform, values: Mapping[str, Any]) -> tuple[Driver, str]:
        """The way into the runtime, and why this one."""
        wanted = values["driver"]
        alone = values["disable_dup_context"]
        makes: dict[str, Callable[[], Driver]]
        if device.simulated:
            if self._simulated is None:
                npu = simulated.described(self.host, platform)
                self._simulated = simulated.SimulatedDrivers(npu, self.host.cache / "rknn")
            drivers = self._simulated
            makes = {"capi": lambda: drivers.capi(disable_dup_context=alone), "lite": drivers.lite}
        else:
            makes = {"capi": lambda: _capi(self.host.environ, alone), "lite": _lite}
        if wanted != "auto":
            return makes[wanted](), "asked for"
        try:
            return makes["capi"](), "librknnrt.so is there: one copy of the weights, no copies of the tensors"
        except Unavailable as error:
            return makes["lite"](), f"librknnrt.so cannot be used: {error.problem}"

    def _has_lite(self) -> bool:
        import importlib.util

        try:
            return importlib.util.find_spec("rknnlite") is not None
        except (ImportError, ValueError):
            return False


def _capi(environ: Mapping[str, str], disable_dup_context: bool) -> Driver:
    from hetero_rknn.drivers.capi import CapiDriver

    library = environ.get("HETERO_RKNN_LIBRARY")
    return CapiDriver(Path(library) if library else None, disable_dup_context=disable_dup_context)


def _lite() -> Driver:
    from hetero_rknn.drivers.lite import LiteDriver

    return LiteDriver()


def _cores(platform: Platform) -> str:
    return f"{platform.cores} core{'s' if platform.cores > 1 else ''}"


def _placements(platform: Platform, values: Mapping[str, Any]) -> dict[str, Placement]:
    """The placement that the user asked for; several by name, where they are to be measured."""
    put = functools.partial(place, platform, threads_per_core=values["threads_per_core"], order=values["order"])
    chosen = {name: values[name] for name in ("core_mask", "schedule", "tp_mode") if values[name] is not None}
    if values["placement"] is None:
        return {"": put(**chosen)}
    if chosen:
        raise OptionError(
            f"options rknn.placement=measure and rknn.{next(iter(chosen))} were both given",
            fix="leave the choice to the measurement, or make it yourself",
        )
    if platform.cores == 1:
        return {"": put()}
    return {"a context a core": put(), "one over all cores": put(core_mask="all")}
