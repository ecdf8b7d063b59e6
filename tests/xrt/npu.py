"""A simulated NPU as the backend's own modules meet it: no step of a launch is a test's."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import Call
from hetero.scheduler.polling import run_polled
from hetero.tensors import Array
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.npu import Npu
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get
from hetero_xrt.executable import TileExecutable
from hetero_xrt.flow import Flow
from hetero_xrt.manifest import Manifest
from hetero_xrt.pool import PoolCache
from hetero_xrt.reading import read_manifest
from tests.xrt.machine import KERNEL, REFERENCES

POLL = 1e-4


def still(seconds: float) -> None:
    """A poll's pause: the controlled clock goes on by the poll itself."""


class Laptop:
    """One simulated NPU and the flow on it."""

    def __init__(self, folder: Path, *, poll: float = POLL, **phoenix: Any) -> None:
        self.folder = folder
        self.clock = ControlledClock(poll_seconds=poll)
        self.x: types.ModuleType = simulated_pyxrt(SimulatedPhoenix(**phoenix), kernels=REFERENCES, clock=self.clock)
        self.npu: Npu = self.x.npu
        self.flow = Flow(self.x, self.clock.now)
        self.cache = PoolCache(self.flow)
        self.written = 0

    def manifest(self, kernel: str = KERNEL, **shape: Any) -> Manifest:
        self.written += 1
        return read_manifest(write_stand_in(self.folder / f"k{self.written}", get(kernel).program(), **shape))

    def load(self, manifest: Manifest, **options: Any) -> TileExecutable:
        return TileExecutable(self.cache, manifest, get(manifest.logical).program(), **options)

    def check_clean(self) -> None:
        """Nothing was done that the vendor's library does not forgive."""
        report = self.npu.finish()
        assert report.misuse == {}
        assert report.crashes == ()


def inputs_of(kernel: str, count: int, seed: int = 0) -> dict[str, Array]:
    """Random inputs from the whole range of their dtypes, with `count` entries in each symbolic dimension."""
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.integers(
            np.iinfo(spec.dtype).min,
            np.iinfo(spec.dtype).max,
            [size if isinstance(size, int) else count for size in spec.shape or ()],
            dtype=spec.dtype,
            endpoint=True,
        )
        for spec in get(kernel).inputs
    }


def run(executable: TileExecutable, inputs: dict[str, Array], call: Call | None = None) -> dict[str, Array]:
    return dict(run_polled(executable, inputs, call or Call(0), sleep=still))


def check(
    executable: TileExecutable, count: int = 3, kernel: str = KERNEL, seed: int = 0, call: Call | None = None
) -> None:
    """The answer is the reference's in every bit."""
    inputs = inputs_of(kernel, count, seed)
    before = {name: array.copy() for name, array in inputs.items()}
    answer = run(executable, inputs, call)
    expected = get(kernel).reference(**before)
    assert answer.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(answer[name], array, strict=True)
    for name, array in before.items():
        np.testing.assert_array_equal(inputs[name], array)


def edited(manifest: Manifest, *edits: tuple[str, str]) -> Manifest:
    """A manifest with texts replaced, each of which must be there."""
    text = manifest.path.read_text()
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    manifest.path.write_text(text)
    return read_manifest(manifest.path)
