"""A driver whose every step a test decides: contexts that add their slot's number, and the ways in which that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hetero.backend import Array, Artifact, Program, TensorSpec
from hetero_rknn.drivers.contract import Context, Driver, Timing
from hetero_rknn.executable import RknnExecutable, Variant
from hetero_rknn.model_file import ModelFile, ModelTensor
from hetero_rknn.placement import place
from hetero_rknn.platforms import platform_named

F32 = np.dtype(np.float32)
RK3588 = platform_named("rk3588")
assert RK3588 is not None

PROGRAM = Program(
    "double",
    inputs=(TensorSpec("x", F32, ("n",)),),
    outputs=(TensorSpec("y", F32, ("n",)),),
    artifacts=(Artifact("fake", name="double"),),
)


def variant(size: int) -> Variant:
    tensors = (ModelTensor("x", F32, (size,)),), (ModelTensor("y", F32, (size,)),)
    return Variant(Path(f"{size}.rknn"), ModelFile("rk3588", "2.3.2", 6, *tensors))


class FakeContext(Context):
    def __init__(self, driver: FakeDriver, mask: int) -> None:
        self.driver = driver
        self.mask = mask
        self.inside = 0
        self.closed = 0
        self.runs = 0

    def run(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        assert not self.closed, "run after close"
        with self.driver.lock:
            self.inside += 1
            assert self.inside == 1, "two threads in one context"
        try:
            timing.set_input, timing.infer, timing.copy_output = 1e-3, 20e-3, 2e-3
            self.runs += 1
            return self.driver.on_run(self, inputs)
        finally:
            with self.driver.lock:
                self.inside -= 1

    def set_mask(self, mask: int) -> bool:
        if self.driver.moves:
            self.mask = mask
        return self.driver.moves

    def duplicate(self, mask: int) -> Context:
        return self.driver.made(mask)

    def close(self) -> None:
        self.closed += 1


class FakeDriver(Driver):
    name = "capi"
    library_version = "2.3.2"
    kernel_driver_version = "0.9.8"

    def __init__(self, *, moves: bool = True) -> None:
        self.moves = moves
        self.lock = threading.Lock()
        self.contexts: list[FakeContext] = []
        self.opened: list[str] = []
        self.on_run: Callable[[FakeContext, Sequence[Array]], list[Array]] = lambda context, inputs: [inputs[0] * 2]

    def made(self, mask: int) -> FakeContext:
        context = FakeContext(self, mask)
        self.contexts.append(context)
        return context

    def open(self, path: Path, model: ModelFile, mask: int) -> Context:
        self.opened.append(path.name)
        return self.made(mask)

    def executable(
        self, *, sizes: Sequence[int] = (2,), placing: dict[str, object] | None = None, **more: object
    ) -> RknnExecutable:
        return RknnExecutable(
            self,
            [variant(size) for size in sizes],
            PROGRAM,
            RK3588,
            place(RK3588, **(placing or {})),  # type: ignore[arg-type]
            **more,  # type: ignore[arg-type]
        )
