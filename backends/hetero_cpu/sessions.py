"""Opening an ONNX Runtime session with the providers that were asked for, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hetero.backend import Option
from hetero_cpu.threads import pool_threads

GRAPH_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "off": "ORT_DISABLE_ALL",
}

DEFAULT_SPINNING = 200

SESSION_OPTIONS = (
    Option("threads", int, None, "Threads that compute; by default whole cores within affinity and quota.", minimum=1),
    Option(
        "spinning",
        int,
        DEFAULT_SPINNING,
        "Microseconds that an idle thread spins before it sleeps; 0 is best for the battery.",
        minimum=0,
    ),
    Option("graph_optimization", str, "all", "How far the graph is optimised at load.", choices=tuple(GRAPH_LEVELS)),
)


def session_options(ort: Any, threads: int, lanes: int, spinning: int, level: str) -> Any:
    """ONNX Runtime's SessionOptions.

    Args:
        ort: The module.
        threads: That compute at once, over all lanes.
        lanes: Calls at once.
        spinning: Microseconds; onnxruntime before 1.26 knows no limit and spins on for longer.
        level: One of `GRAPH_LEVELS`.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = pool_threads(threads, lanes)
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, GRAPH_LEVELS[level])
    # What fails is raised and told by hetero; ONNX Runtime would print it too, on stderr.
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spinning))
    return options


def open_session(
    ort: Any,
    path: Path,
    options: Any,
    provider: str | None = None,
    provider_options: Mapping[str, Any] | None = None,
    plugin_devices: Sequence[Any] = (),
) -> Any:
    """An InferenceSession that never falls back to other providers in the middle of things.

    Args:
        ort: The module.
        path: The model.
        options: SessionOptions; a plugin provider's devices are added to them.
        provider: A provider built into onnxruntime besides the CPU's.
        provider_options: The provider's own options.
        plugin_devices: Or the devices of a provider from a plugin library.

    Raises:
        Exception: What ONNX Runtime raises.
    """
    own = {str(key): str(value) for key, value in (provider_options or {}).items()}
    # enable_fallback=0: else onnxruntime prints to stdout, and goes on with the CPU after a failure.
    if plugin_devices:
        options.add_provider_for_devices(list(plugin_devices), own)
        return ort.InferenceSession(str(path), options, enable_fallback=0)
    # The CPU's provider is added by onnxruntime; naming it beside another one rules out `partition="forbid"`.
    providers = [(provider, own)] if provider else ["CPUExecutionProvider"]
    return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def node_counts(session: Any) -> dict[str, int]:
    """Nodes of the model by the provider that they were given to; empty where onnxruntime (before 1.24) cannot tell.

    Needs the session configuration `session.record_ep_graph_assignment_info`.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts
