"""A core's C++ on this machine: compiled unmodified against the stand-in `aie_api`, and called through ctypes.

The library is kept in the cache folder under a key of everything that goes into it. A call copies its buffers to
aligned memory between guards, so that what a core would not survive (a write past the end, a load that is not aligned,
a lane out of range) is an error here instead of a lucky answer.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from hetero.cache import building, cache_dir, key_of
from hetero.errors import CompileError, InputError, OptionError, Unavailable, WrongAnswer
from hetero_kernels.aie2.function import INCLUDE, STAND_IN, Buffer, CoreFunction

CompilerName = Literal["g++", "clang"]
COMPILERS: tuple[CompilerName, ...] = get_args(CompilerName)

# -std as the kernels are compiled for a core.
_FLAGS = ("-std=c++20", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared")
_HIDDEN = ("-fvisibility=hidden", "-fstack-usage")
_LIBRARY = "kernel.so"
_GUARD = 64
_PATTERN = 0x5C
_ALIGNMENT = 64


def compiler(name: str) -> list[str]:
    """The command of a C++ compiler.

    Args:
        name: `g++`, or `clang`: `clang++`, else the one in the PyPI package `ziglang`.

    Raises:
        OptionError: Another name.
        Unavailable: It is not installed.
    """
    if name not in COMPILERS:
        raise OptionError(f"there is no compiler {name!r}", fix=f"take one of {', '.join(COMPILERS)}")
    found = shutil.which("g++" if name == "g++" else "clang++")
    if found:
        return [found]
    if name == "clang" and importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++"]
    missing = "g++ is not installed" if name == "g++" else "neither clang++ nor the package ziglang is installed"
    raise Unavailable(
        f"the kernel cannot be compiled for this machine: {missing}",
        fix="apt install g++" if name == "g++" else 'pip install "hetero[simulator]", or apt install clang',
    )


@dataclass(frozen=True)
class HostKernel:
    """A core's function, compiled for this machine.

    Attributes:
        function: What was compiled.
        library: The shared library.
        frame: Bytes of stack that the compiler reports for all functions of the source together; None when it reports
            nothing (ziglang does not). The stand-in keeps vectors in memory that a core keeps in registers.
    """

    function: CoreFunction
    library: Path
    frame: int | None

    def __call__(self, *arrays: Any, fresh: bool = True) -> None:
        """Run the function once.

        Args:
            arrays: One for each buffer, of its dtype and number of elements, C-contiguous. What the function writes is
                written into them.
            fresh: Rounding and saturation are as after a reset of the core; else as the last call in this thread left
                them.

        Raises:
            InputError: An array does not fit its buffer.
            WrongAnswer: The function wrote outside of its buffers or into one that it may only read, or did what the
                stand-in does not forgive.
        """
        buffers = self.function.buffers
        if len(arrays) != len(buffers):
            raise InputError(
                f"{self.function.name} takes {len(buffers)} buffers ({', '.join(b.name for b in buffers)}), "
                f"got {len(arrays)}"
            )
        library = ctypes.CDLL(str(self.library))
        library.hetero_stand_in_fault.restype = ctypes.c_char_p
        guarded = [_Guarded(buffer, array) for buffer, array in zip(buffers, arrays, strict=True)]
        if fresh:
            library.hetero_stand_in_reset()
        getattr(library, self.function.name)(*(ctypes.c_void_p(place.address) for place in guarded))
        fault = library.hetero_stand_in_fault()
        if fault:
            raise WrongAnswer(f"{self.function.name}: {fault.decode()}", fix=f"mend {self.function.source.name}")
        for place in guarded:
            place.give_back(self.function)


class _Guarded:
    """One buffer of a call, between two guards."""

    def __init__(self, buffer: Buffer, array: Any) -> None:
        if array.dtype != buffer.dtype or array.size != buffer.elements or not array.flags.c_contiguous:
            raise InputError(
                f"buffer {buffer.name!r}: got {array.dtype} {list(array.shape)}"
                f"{'' if array.flags.c_contiguous else ' (not contiguous)'}, expected {buffer.dtype} "
                f"{list(buffer.shape)}"
            )
        self._buffer, self._array = buffer, array
        self._memory = np.full(buffer.size + 2 * _GUARD + _ALIGNMENT, _PATTERN, np.uint8)
        self._start = _GUARD + -(self._memory.ctypes.data + _GUARD) % _ALIGNMENT
        self.address = self._memory.ctypes.data + self._start
        if buffer.role != "out":
            self._inside()[:] = array.reshape(-1).view(np.uint8)

    def _inside(self) -> Any:
        return self._memory[self._start : self._start + self._buffer.size]

    def give_back(self, function: CoreFunction) -> None:
        name = self._buffer.name
        before, after = self._memory[: self._start], self._memory[self._start + self._buffer.size :]
        if (before != _PATTERN).any() or (after != _PATTERN).any():
            raise WrongAnswer(
                f"{function.name} wrote outside of its buffer {name!r} of {self._buffer.size} bytes",
                fix=f"mend {function.source.name}",
            )
        given = self._array.reshape(-1).view(np.uint8)
        if self._buffer.role == "in":
            if (self._inside() != given).any():
                raise WrongAnswer(f"{function.name} wrote into its input {name!r}", fix=f"mend {function.source.name}")
        else:
            given[:] = self._inside()


def build(function: CoreFunction, compiler_name: str = "g++", cache: Path | None = None) -> HostKernel:
    """Compile a core's function for this machine, or take it from the cache.

    Args:
        function: What to compile.
        compiler_name: `g++` or `clang`.
        cache: Where libraries are kept; by default the folder `aie2` of hetero's cache.

    Raises:
        OptionError: There is no such compiler.
        Unavailable: The compiler is not installed.
        CompileError: It refuses the source.
    """
    command = compiler(compiler_name)
    headers = sorted([*STAND_IN.rglob("*.hpp"), *INCLUDE.rglob("*.hpp")])
    beside = sorted(path for path in function.source.parent.glob("*.hpp"))
    key = key_of(
        *command,
        _version(command),
        *_FLAGS,
        *function.flags,
        *(p.read_text(encoding="utf-8") for p in (function.source, *headers, *beside)),
    )
    folder = (cache or cache_dir() / "aie2") / f"{function.name}-{key}"
    if not folder.is_dir():
        with building(folder) as workspace:
            _compile(command, function, workspace / _LIBRARY)
    return HostKernel(function, folder / _LIBRARY, _frame(folder))


def _compile(command: list[str], function: CoreFunction, target: Path) -> None:
    places = [flag for folder in (STAND_IN, INCLUDE, function.source.parent) for flag in ("-I", str(folder))]
    flags = [*_FLAGS, *_HIDDEN, *function.flags]
    line = [*command, *flags, *places, "-c", str(function.source), "-o", str(target.with_suffix(".o"))]
    # A kernel calls nothing of C++ and little of C, which is in this process; ziglang would build both libraries first.
    bare = ["-nostdlib"] if "ziglang" in command else []
    link = [*command, "-shared", *bare, str(target.with_suffix(".o")), "-o", str(target)]
    for step in (line, link):
        # Beside its output, so that compilers that write their reports to the working folder write them there.
        done = subprocess.run(step, capture_output=True, text=True, check=False, cwd=target.parent)
        if done.returncode:
            raise CompileError(
                f"{function.source.name} does not compile with {' '.join(command)}:\n"
                f"{(done.stderr or done.stdout).strip()[-4000:]}",
                fix="mend the source; the stand-in for aie_api has integers, and the names that kernels here use",
            )


def _version(command: list[str]) -> str:
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return done.stdout


def _frame(folder: Path) -> int | None:
    """The sum over all functions: none of them is recursive, so that no chain of calls takes more."""
    lines = [line for report in folder.glob("*.su") for line in report.read_text(encoding="utf-8").splitlines()]
    # The two hooks for the host are not part of the kernel.
    own = [line for line in lines if "hetero_stand_in_" not in line.split("\t")[0]]
    return sum(int(line.split("\t")[1]) for line in own) if lines else None
