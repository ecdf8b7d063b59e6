"""What a driver is: the one shape that both ways into Rockchip's runtime have.

A driver opens a model into contexts. A context is one instance of the model on the NPU, bound to a core mask, and is
used by one thread at a time; several contexts run at once, on cores of their own or sharing one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from hetero.backend import Array
from hetero_rknn.model_file import ModelFile


class Timing:
    """Where the time of one job went, in seconds.

    Attributes:
        set_input: Handing over the inputs, layout changes and cache flushes included.
        infer: In the NPU, waiting for its turn there included.
        copy_output: Fetching the outputs.
    """

    __slots__ = ("copy_output", "infer", "set_input")

    def __init__(self) -> None:
        self.set_input = 0.0
        self.infer = 0.0
        self.copy_output = 0.0

    @property
    def total(self) -> float:
        """All three."""
        return self.set_input + self.infer + self.copy_output


class Context(ABC):
    """One instance of a model. For one thread at a time; made and closed by any.

    Attributes:
        mask: The vendor's core mask it runs with: 0 for the driver's own choice, else bits 1, 2 and 4 for cores 0, 1
            and 2, or 0xffff for all.
        notes: What did not go as it should, for `explain()`.
    """

    mask: int = 0
    notes: tuple[str, ...] = ()

    @abstractmethod
    def run(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        """Run once.

        Args:
            inputs: One C-contiguous array per input of the model, in its order, in the dtype and the layout of the
                *original* graph (NCHW for images); the driver changes the layout where the vendor wants another.
            timing: Filled in.

        Returns:
            One array per output in the model's order, in the dtype and layout of the original graph; nobody writes to
            them later.

        Raises:
            ExecutionError: With the vendor's own message; `DeviceTimeout`, `DeviceLost`, `OutOfMemory` where its code
                says so.
            Unsupported: The vendor refuses the input.
        """

    @abstractmethod
    def set_mask(self, mask: int) -> bool:
        """Move to other cores.

        Returns:
            Whether the vendor's runtime can do that; if not, the context is as it was, and another one has to be
            opened.
        """

    @abstractmethod
    def duplicate(self, mask: int) -> Context:
        """One more instance on the given cores, sharing the weights where the vendor's runtime can."""

    @abstractmethod
    def close(self) -> None:
        """Free it. Calling it again does nothing."""


class Driver(ABC):
    """A way into Rockchip's runtime.

    Attributes:
        name: `lite` or `capi`.
        zero_copy: Inputs and outputs live in memory that the NPU reads and writes itself.
    """

    name: ClassVar[Literal["lite", "capi"]]
    zero_copy: ClassVar[bool] = False

    @property
    @abstractmethod
    def library_version(self) -> str | None:
        """Version of `librknnrt`, such as `2.3.2`; None when it cannot be told before a model is open."""

    @property
    @abstractmethod
    def kernel_driver_version(self) -> str | None:
        """Version of the kernel's rknpu driver, such as `0.9.8`; None when this way cannot tell."""

    @abstractmethod
    def open(self, path: Path, model: ModelFile, mask: int) -> Context:
        """Open a model.

        Args:
            path: The `.rknn` file.
            model: Its parsed header; the platform and the version were checked before.
            mask: The vendor's core mask; it exists on this platform.

        Raises:
            Unsupported: The runtime refuses this model: a wrong SoC, a version it does not read, a mask.
            ExecutionError: It failed otherwise.
        """
