"""What a package of kernels can do for `hetero kernels`: list them, check them, build them for a device.

`hetero` itself knows no kernel. A plugin gives an object of `KernelTools` by its hook `hetero_kernel_tools`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

State = Literal["passed", "failed", "not here"]


@dataclass(frozen=True)
class KernelEntry:
    """What there is of one kernel, or of a family of kernels whose sizes are in their names.

    Attributes:
        name: As in `rt.load(name)`; of a family the pattern: `gemm_i8_i32_{K}x{N}`.
        title: A few words.
        source: Its source for the device's cores is there.
        design: Its design for the whole array is there.
        compiled: The folder with its compiled form, when one is found.
        limits: What it does not do, or was not tried.
        usual: Of a family: the names of the sizes that models in wide use have; the first stands for the others.
    """

    name: str
    title: str
    source: bool
    design: bool
    compiled: Path | None
    limits: str
    usual: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """It is the kernel of that name, or of its family by the pattern of the name."""
        pattern = re.sub(r"\\\{\w+\\\}", "[0-9]+", re.escape(self.name))
        return re.fullmatch(pattern, name) is not None


@dataclass(frozen=True)
class Rung:
    """One check of a kernel.

    Attributes:
        number: 1 is the first.
        title: What is checked.
        state: `not here`: this machine has not what it takes.
        detail: What was found, or what is missing.
        fix: What to do about it.
    """

    number: int
    title: str
    state: State
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Size:
    """How much of the array a kernel takes, and how much work a launch is; None means what its design says.

    Attributes:
        columns: Of the array.
        rows: Cores of a column.
        tiles_per_core: That each core works on in one launch.
        layout: How tiles lie in the host's buffers.
        stack: Bytes of a core's stack.
        full: Checks are on the kernel's own size, however long they take; else on a small one that stands for it.
    """

    columns: int | None = None
    rows: int | None = None
    tiles_per_core: int | None = None
    layout: str | None = None
    stack: int | None = None
    full: bool = False


class KernelTools(Protocol):
    """The tools of one package of kernels for one kind of device."""

    target: str
    """The kind of device: `npu1`."""

    rungs: Sequence[tuple[int, str]]
    """Number and title of every check, in order."""

    compilers: Sequence[str]
    """For this machine, by name; the first is the usual one."""

    def kernels(self, folders: Sequence[Path]) -> Sequence[KernelEntry]:
        """The kernels; compiled ones are looked for in these folders, one folder a kernel."""

    def verify(self, name: str, rungs: Sequence[int], compiler: str, size: Size) -> Iterator[Rung]:
        """Check one kernel, rung by rung; a rung that fails is no error, and the next ones still run.

        Raises:
            ProgramNotFound: There is no such kernel.
            OptionError: There is no such rung or compiler, or the size is not possible.
        """

    def build(self, name: str, folder: Path, size: Size) -> Sequence[Path]:
        """Build one kernel for the device; the folder appears whole or not at all.

        Returns:
            The files.

        Raises:
            ProgramNotFound: There is no such kernel.
            OptionError: The size is not possible, or the folder is not empty.
            Unavailable: The device's compilers are not installed.
            CompileError: They refuse the kernel.
        """
