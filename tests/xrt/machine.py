"""A simulated laptop with a stand-in kernel, and the steps of a launch one by one, so that a test can leave one out."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np

from hetero.tensors import Array
from hetero.testing.xrt.clock import Clock, ControlledClock
from hetero.testing.xrt.design import Design
from hetero.testing.xrt.npu import Npu
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import read_image, write_stand_in
from hetero_kernels import get, names

KERNEL = "attention_i8_64x64"
REFERENCES = {name: get(name).reference for name in names()}


class Machine:
    """One simulated machine with one stand-in, opened as XRT 2.16 and later are.

    Attributes:
        x: The module.
        npu: The machine behind it.
        design: What the stand-in computes.
    """

    def __init__(
        self, folder: Path, kernel: str = KERNEL, *, clock: Clock | None = None, open_it: bool = True, **options: Any
    ) -> None:
        known = set(SimulatedPhoenix.__dataclass_fields__) - {"columns"}  # these are the stand-in's
        described = {key: options.pop(key) for key in list(options) if key in known}
        self.x: types.ModuleType = simulated_pyxrt(
            SimulatedPhoenix(**described), kernels=REFERENCES, clock=clock or ControlledClock()
        )
        self.npu: Npu = self.x.npu
        self.folder = folder
        write_stand_in(folder, get(kernel).program(), **options)
        self.xclbin_path = str(folder / f"{kernel}.xclbin")
        image = read_image(Path(self.xclbin_path).read_bytes())
        assert image is not None
        self.design: Design = image.design
        self.words = np.frombuffer((folder / f"{kernel}.insts.bin").read_bytes(), np.uint32)
        self.to_device = self.x.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE
        self.from_device = self.x.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
        self.states = self.x.ert_cmd_state
        if open_it:
            self.device = self.x.device(0)
            self.xclbin = self.x.xclbin(self.xclbin_path)
            self.device.register_xclbin(self.xclbin)
            self.kernel = self.open()
            self.instructions = self.instruction_buffer()

    def open(self) -> Any:
        """A kernel in a context of its own."""
        return self.x.kernel(self.x.hw_context(self.device, self.xclbin.get_uuid()), "MLIR_AIE")

    def instruction_buffer(self, *, sync: bool = True) -> Any:
        bo = self.x.bo(self.device, self.words.nbytes, self.x.bo.cacheable, self.kernel.group_id(1))
        bo.write(self.words, 0)
        if sync:
            bo.sync(self.to_device)
        return bo

    def buffer(self, index: int, content: Array | None = None, *, sync: bool = True, group: int | None = None) -> Any:
        """A buffer for an argument, with a content that is synced."""
        argument = self.design.arguments[index - 3]
        group = self.kernel.group_id(index) if group is None else group
        bo = self.x.bo(self.device, self.design.size_of(argument), self.x.bo.host_only, group)
        if content is not None:
            np.copyto(np.frombuffer(bo.map(), np.uint8), content.reshape(-1).view(np.uint8))
            if sync:
                bo.sync(self.to_device)
        return bo

    def buffers(self, tiles: Array) -> list[Any]:
        """Buffers for all arguments of a design with tiles of packed inputs: `[tiles, bytes]`."""
        shared = iter(np.split(tiles, self.design.columns))
        made = []
        for argument in self.design.arguments:
            if argument.role == "in":
                content = tiles if argument.column is None else next(shared)
                made.append(self.buffer(argument.index, content))
            else:
                made.append(self.buffer(argument.index))
        return made

    def call(self, buffers: list[Any], kernel: Any = None) -> Any:
        return (kernel or self.kernel)(3, self.instructions, len(self.words), *buffers)

    def read(self, buffer: Any) -> Array:
        """What the device wrote, as int8."""
        buffer.sync(self.from_device)
        return np.frombuffer(buffer.map(), np.int8).copy()

    def misuse(self) -> dict[str, int]:
        return dict(self.npu.report().misuse)


def context_of(machine: Machine) -> Any:
    """A context of the machine's xclbin."""
    return machine.x.hw_context(machine.device, machine.xclbin.get_uuid())


def fill(machine: Machine, run: Any, buffers: list[Any]) -> Any:
    """The run, with every argument set one by one."""
    for index, argument in enumerate([3, machine.instructions, len(machine.words), *buffers]):
        run.set_arg(index, argument)
    return run


def attention_tiles(count: int, seed: int = 0) -> Array:
    """Random packed inputs of the attention kernel: int8 `[count, 3, 64, 64]`."""
    return np.random.default_rng(seed).integers(-128, 128, (count, 3, 64, 64), dtype=np.int8)


def attention(tiles: Array) -> Array:
    """The exact answer: int8 `[count, 64, 64]`."""
    return get(KERNEL)(*(np.ascontiguousarray(tiles[:, i]) for i in range(3)))["o"]
