"""The two backends: what they find, and how they load a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hetero.backend import Artifact, Backend, Device, Executable, Option, Program, Unavailable, Unsupported
from hetero.errors import OptionError
from hetero_cpu import graph_cache
from hetero_cpu.executable import OrtExecutable
from hetero_cpu.failures import load_failure, shorten
from hetero_cpu.kernels import KernelExecutable
from hetero_cpu.library import INSTALL, installed, onnxruntime
from hetero_cpu.processor import processor_name
from hetero_cpu.providers import Provider, find_providers, may_have_providers
from hetero_cpu.sessions import SESSION_OPTIONS, node_counts, open_session, session_options
from hetero_cpu.threads import available_threads

_OTHER_PROVIDERS = (
    "install an onnxruntime with another provider in place of the plain one (onnxruntime-openvino, "
    "onnxruntime-directml, that of AMD's Ryzen AI software, ...), or a plugin beside it (onnxruntime-ep-webgpu, ...)"
)


class CpuBackend(Backend):
    """ONNX Runtime on the CPU, and kernels by their numpy reference. Its device is always there."""

    name = "cpu"
    options: ClassVar[tuple[Option, ...]] = (
        *SESSION_OPTIONS,
        Option("lanes", int, 1, "Calls at once; they share the threads.", minimum=1),
        Option("graph_cache", bool, True, "Keep optimised graphs on disk where that makes loading faster."),
    )

    def probe(self) -> Sequence[Device]:
        """The CPU, whether or not onnxruntime is installed; it is not imported."""
        found = installed()
        properties = {"threads": available_threads(self.host.sysroot), "onnxruntime": found.version if found else None}
        notes = () if found else (f"onnxruntime is not installed, only kernels run here: {INSTALL}",)
        return [
            Device("cpu", kind="cpu", description=processor_name(self.host.sysroot), properties=properties, notes=notes)
        ]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        """See `Backend.load`. Of a program that is both, the ONNX model is taken, else the kernel."""
        values = _with_defaults(self.options, options)
        kinds = [artifact.kind for artifact in program.artifacts]
        if "kernel" in kinds and ("onnx" not in kinds or not installed()):
            return KernelExecutable(program.artifact("kernel"), values["lanes"])
        artifact = program.artifact("onnx")
        try:
            ort = onnxruntime()
        except Unavailable as error:
            raise Unsupported(error.problem, fix=error.fix) from error
        threads = values["threads"] or available_threads(self.host.sysroot)
        try:
            session, graph = self._session(ort, artifact, threads, values)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise load_failure(error, ort.__version__) from error
        details = {
            "onnxruntime": ort.__version__,
            "threads": threads,
            "lanes": values["lanes"],
            "graph": graph,
            "cached": graph == "cache",
        }
        return OrtExecutable(ort, session, values["lanes"], details, bind=True)

    def _session(self, ort: Any, artifact: Artifact, threads: int, values: Mapping[str, Any]) -> tuple[Any, str]:
        level = values["graph_optimization"]

        def build(target: Path | None) -> Any:
            settings = session_options(ort, threads, values["lanes"], values["spinning"], level)
            if target is not None:
                settings.optimized_model_filepath = str(target)
                if artifact.companions:
                    # Else the kept graph would look for the model's external data in its own folder.
                    settings.add_session_config_entry(
                        "session.optimized_model_external_initializers_file_name", "weights.bin"
                    )
            return open_session(ort, artifact.file, settings)

        def reopen(graph: Path) -> Any:
            return open_session(ort, graph, session_options(ort, threads, values["lanes"], values["spinning"], "off"))

        if level == "off" or not values["graph_cache"] or not graph_cache.worth_keeping(artifact):
            return build(None), "not kept"
        key = graph_cache.graph_key(artifact, ort.__version__, level, self.host.sysroot)
        return graph_cache.GraphCache(self.host.cache / "cpu").load(key, reopen, build)


class OrtProvidersBackend(Backend):
    """Every other execution provider of the installed onnxruntime, each a device with its own place in the chain."""

    name = "ort"
    options: ClassVar[tuple[Option, ...]] = (
        *SESSION_OPTIONS,
        Option(
            "provider_options",
            dict,
            None,
            'Options of the providers themselves, by provider: {"openvino": {"device_type": "NPU"}}.',
        ),
        Option(
            "partition",
            str,
            "allow",
            "Whether nodes that the provider does not take may run on the CPU within the session.",
            choices=("allow", "forbid"),
        ),
    )

    _providers: Mapping[str, Provider] = {}

    def probe(self) -> Sequence[Device]:
        """The providers; onnxruntime is imported only where there may be one."""
        found = installed()
        if found is None:
            raise Unavailable("onnxruntime is not installed", fix=INSTALL)
        if not may_have_providers(found):
            raise Unavailable("onnxruntime has only the CPU provider", fix=_OTHER_PROVIDERS)
        ort = onnxruntime()
        providers = {provider.device(ort.__version__): provider for provider in find_providers(ort)}
        if not providers:
            raise Unavailable("onnxruntime has only the CPU provider here", fix=_OTHER_PROVIDERS)
        self._providers = {device.name: provider for device, provider in providers.items()}
        return list(providers)

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        """See `Backend.load`. A session that came up without the provider, or with nothing for it to do, is refused."""
        values = _with_defaults(self.options, options)
        artifact = program.artifact("onnx")
        if any(spec.dtype == object for spec in (*program.inputs, *program.outputs)):
            # No accelerator computes with them, and OpenVINO's plugin, which takes them anyway, corrupts the heap.
            raise Unsupported("strings are for the CPU alone")
        ort = onnxruntime()
        provider = self._providers[device.name]
        threads = values["threads"] or available_threads(self.host.sysroot)
        settings = session_options(ort, threads, 1, values["spinning"], values["graph_optimization"])
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if values["partition"] == "forbid":
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if provider.short == "dml":
            settings.enable_mem_pattern = False  # DirectML's provider refuses sessions with it
        own = _own_options(device, provider, values["provider_options"])
        try:
            session = open_session(ort, artifact.file, settings, provider.name, own, provider.plugin_devices)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            if type(error) is RuntimeError:  # the provider's own start, not the model
                raise Unsupported(f"{provider.name} does not start: {shorten(str(error))}") from error
            raise load_failure(error, ort.__version__) from error
        active, nodes = session.get_providers(), node_counts(session)
        if provider.name not in active:
            raise Unsupported(
                f"{provider.name} did not start, onnxruntime came up with {', '.join(active)} instead",
                fix="check the provider's driver and libraries; onnxruntime tells more on stderr",
            )
        if nodes and not nodes.get(provider.name):
            raise Unsupported(f"{provider.name} takes none of the model's {sum(nodes.values())} nodes")
        details = {"onnxruntime": ort.__version__, "providers": active, "nodes": nodes or "not told by onnxruntime"}
        return OrtExecutable(ort, session, 1, details, bind=False)


def _with_defaults(declared: Sequence[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """None, which a user may write for any option, means the default."""
    chosen = {name: value for name, value in values.items() if value is not None}
    return {option.name: chosen.get(option.name, option.default) for option in declared}


def _own_options(device: Device, provider: Provider, given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What the user gave for a provider, and over it what for the device: `openvino`, `openvino-npu`."""
    own: dict[str, Any] = {}
    for key, values in (given or {}).items():
        if not isinstance(values, Mapping):
            raise OptionError(
                f"provider_options has {key!r}: {values!r}, expected each provider's options under its name",
                fix=f"write {{{provider.short!r}: {{{key!r}: {values!r}}}}}",
            )
    for name in (provider.short, device.name.partition(":")[2]):
        own.update((given or {}).get(name, {}))
    return own
