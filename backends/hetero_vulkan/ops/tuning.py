"""Which way of computing suits a device: a few are measured, once for each device and version of its driver.

What was found is kept in the cache folder, by the name of the way; a name that this version does not know, a damaged
file or another driver means that it is measured anew.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hetero.cache import key_of
from hetero.errors import BackendError, WrongAnswer
from hetero.tensors import Array
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.addresses import can_address
from hetero_vulkan.ops.attention import AttentionTuning, attention, default_attention
from hetero_vulkan.ops.gemm import Tuning, addressed_tuning, can_broadcast, default_tuning, gemm, lists_matrices
from hetero_vulkan.ops.packing import Packed, pack, packed_shape
from hetero_vulkan.ops.tensors import Kind, Tensor
from hetero_vulkan.pipeline_cache import write_whole
from hetero_vulkan.warming import warm_up

if TYPE_CHECKING:
    from hetero_vulkan.buffers import Buffer
    from hetero_vulkan.device import VulkanDevice
    from hetero_vulkan.physical import Physical

_log = logging.getLogger(__name__)

VERSION = 4
"""Of the file, and of what is measured: raised when shaders change."""

BUDGET = 5.0
"""Seconds after which no further way is begun."""

Measure = Callable[["VulkanDevice", list[Dispatch]], float]
"""Seconds that some dispatches take."""

Way = TypeVar("Way")


@dataclass(frozen=True)
class Tunings:
    """What suits a device.

    Attributes:
        gemm: For matrix products.
        half: For those of fp16, where cooperative matrices may be the best.
        attention: For attention.
        seconds: What was measured, by the name of the way; empty when nothing was.
    """

    gemm: Tuning
    attention: AttentionTuning
    seconds: dict[str, float]
    half: Tuning | None = None

    def products(self, values: Kind) -> Tuning:
        """For products of which most of A and B is of a type."""
        return self.half if values == "f16" and self.half else self.gemm


def gemm_ways(physical: Physical) -> dict[str, Tuning]:
    """Ways of multiplying that a device may take, the default first."""
    ways = {"default": default_tuning(physical)}
    if physical.subgroup_operations & 16 and (physical.software or physical.subgroup <= 16):
        ways |= {f"subgroup of {rows} rows": Tuning("subgroup", rows=rows) for rows in (16, 32, 48)}
        if can_address(physical) and can_broadcast(physical):
            ways["subgroup by addresses"] = addressed_tuning(physical)
    for tile, each in (
        ((32, 32, 16), (4, 2)),
        ((64, 64, 16), (4, 4)),
        ((128, 64, 16), (8, 4)),
        ((128, 128, 16), (8, 8)),
    ):
        shared = 4 * tile[2] * (tile[0] + 1 + tile[1])
        invocations = tile[0] // each[0] * (tile[1] // each[1])
        if (
            shared <= physical.limits["maxComputeSharedMemorySize"]
            and invocations <= physical.limits["maxComputeWorkGroupInvocations"]
            and not (physical.software and tile != (64, 64, 16))
        ):
            ways[f"tiles of {tile[0]}x{tile[1]}"] = Tuning("tiles", tile=tile, each=each)
    if lists_matrices(physical):
        ways["cooperative matrices"] = Tuning("matrix")
    return ways


def attention_ways(physical: Physical) -> dict[str, AttentionTuning]:
    """Ways of computing attention, the default first."""
    default = default_attention(physical)
    sizes = ((16, 2), (8, 2), (32, 1), (16, 4))
    ways = {f"{r} rows, {k} keys": AttentionTuning(r, k, default.addressed) for r, k in sizes}
    if can_address(physical):
        other = dataclasses.replace(default, addressed=not default.addressed)
        ways["by addresses" if other.addressed else "not by addresses"] = other
    return {"default": default, **ways}


def tunings(
    device: VulkanDevice, folder: Path | None, *, measure: Measure | None = None, budget: float = BUDGET
) -> Tunings:
    """What suits a device: read from the cache folder, or measured and kept there.

    Args:
        device: The device.
        folder: Where it is kept; None: it is not.
        measure: Measures; None: by the device's own clock, or this machine's.
        budget: Seconds; what was not measured by then is not taken.

    Raises:
        DeviceLost: It was lost meanwhile.
    """
    path = None if folder is None else folder / f"tuning-{_key(device.physical)}.json"
    products = gemm_ways(device.physical)
    attentions = attention_ways(device.physical)
    known = _read(device, path)
    if known is not None and {known["gemm"], known["half"]} <= products.keys() and known["attention"] in attentions:
        return Tunings(products[known["gemm"]], attentions[known["attention"]], {}, products[known["half"]])
    until = device.clock() + budget
    with _Trial(device, measure or measured) as trial:
        best_half, seconds = _best(device, products, trial.gemm, until)
        plain = {name: time_ for name, time_ in seconds.items() if products[name].family != "matrix"}
        best_product = min(plain, key=lambda name: plain[name], default="default")
        best_attention, more = _best(device, attentions, trial.attention, until + budget)
    if path is not None:
        content = {
            "version": VERSION,
            "device": device.physical.name,
            "gemm": best_product,
            "half": best_half,
            "attention": best_attention,
        }
        try:
            write_whole(path, json.dumps(content, indent=1).encode())
        except OSError as error:
            _log.warning("%s: what was measured is not kept: %s", device.name, error)
    times = {f"product, {name}": time_ for name, time_ in seconds.items()}
    times |= {f"attention, {name}": time_ for name, time_ in more.items()}
    return Tunings(products[best_product], attentions[best_attention], times, products[best_half])


def measured(device: VulkanDevice, steps: list[Dispatch]) -> float:
    """The least of four runs, after one that is not counted."""
    timed = device.queues[0].family.timestamp_bits > 0
    times = []
    warm_up(device, steps)
    with device.record(steps, timed=timed) as commands:
        commands.run(60)
        for _ in range(4):
            begun = time.perf_counter()
            commands.run(60)
            times.append(sum(commands.seconds()) if timed else time.perf_counter() - begun)
    return min(times)


class _Trial:
    """A product and an attention, tried in some way: how long it takes, once the answer was found right."""

    _SIZE, _KEYS, _HEAD = 256, 512, 64

    def __init__(self, device: VulkanDevice, measure: Measure) -> None:
        self._device = device
        self._measure = measure
        self._buffers: list[Buffer] = []
        random = np.random.default_rng(0)
        self._a, self._b = random.normal(size=(2, self._SIZE, self._SIZE)).astype(np.float32)
        self._q, self._k, self._v = random.normal(size=(3, 1, 2, self._KEYS, self._HEAD)).astype(np.float32)

    def __enter__(self) -> _Trial:
        return self

    def __exit__(self, *failure: object) -> None:
        for buffer in self._buffers:
            buffer.free()

    def gemm(self, way: Tuning) -> float:
        device, size = self._device, self._SIZE
        kind = np.float16 if way.family == "matrix" else np.float32
        a, b, c = self._put(self._a.astype(kind)), self._put(self._b.astype(kind)), self._empty((size, size))
        right: Tensor | Packed = b
        if way.family == "subgroup":
            # Weights are packed once, so that packing does not count.
            right = Packed(self._empty(packed_shape(device.physical, size, size)), size, size)
            with device.record(pack(device, b, right.tensor)) as commands:
                commands.run(60)
        seconds = self._measure(device, gemm(device, a, right, c, tuning=way))
        self._compare(c, self._a @ self._b, 0.5 if kind is np.float16 else 1e-3)
        return seconds

    def attention(self, way: AttentionTuning) -> float:
        q, k, v = (self._put(x) for x in (self._q, self._k, self._v))
        o = self._empty(self._q.shape)
        seconds = self._measure(self._device, attention(self._device, q, k, v, o, tuning=way))
        scores = np.exp(self._q @ self._k.swapaxes(2, 3) / np.sqrt(self._HEAD))
        self._compare(o, scores / scores.sum(-1, keepdims=True) @ self._v, 1e-4)
        return seconds

    def _put(self, array: Array) -> Tensor:
        tensor = self._empty(array.shape, array.nbytes)
        tensor.buffer.write(array)
        return Tensor(tensor.buffer, array.shape, "f16" if array.dtype == np.float16 else "f32")

    def _empty(self, shape: tuple[int, ...], nbytes: int = 0) -> Tensor:
        buffer = self._device.buffer(max(nbytes, 4 * int(np.prod(shape))))
        self._buffers.append(buffer)
        return Tensor(buffer, shape)

    def _compare(self, answer: Tensor, expected: Array, most: float) -> None:
        error = float(np.abs(answer.buffer.read(np.float32, answer.shape) - expected).max())
        if not error <= most:
            raise WrongAnswer(f"an error of {error:g}, expected at most {most:g}")


def _best(
    device: VulkanDevice, ways: dict[str, Way], run: Callable[[Way], float], until: float
) -> tuple[str, dict[str, float]]:
    """The name of the fastest that answers rightly, and all times; the default where none does."""
    seconds: dict[str, float] = {}
    for name, way in ways.items():
        if seconds and device.clock() >= until:
            break
        try:
            seconds[name] = run(way)
        except BackendError as error:
            device.check_alive()
            _log.info("%s: %s is not used: %s", device.name, name, error.problem)
    return min(seconds, key=lambda name: seconds[name], default="default"), seconds


def _read(device: VulkanDevice, path: Path | None) -> dict[str, str] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            return None
        return {name: str(content[name]) for name in ("gemm", "half", "attention")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        note = f"{path.name} cannot be read, so that it is measured anew what suits the device: {error!r}"
        _log.warning("%s: %s", device.name, note)
        device.notes.append(note)
        return None


def _key(physical: Physical) -> str:
    device = str(physical.uuid or f"{physical.vendor}:{physical.model}:{physical.name}")
    driver = (physical.driver, physical.driver_info, str(physical.driver_version))
    return key_of(device, *driver, str(physical.subgroup))
