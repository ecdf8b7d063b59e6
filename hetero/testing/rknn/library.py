"""A simulated `librknnrt.so`: compiled from the C source beside this module, configured, and watched.

The library has the vendor's own entry points, so whatever uses Rockchip's C interface runs on it: hetero's driver and
other people's programs. It computes with ONNX Runtime's shared library, which `HETERO_SIM_ORT` names, and reads what it
simulates from `HETERO_SIM_RKNN` or from `SimulatedLibrary.configure`. One process has one simulated NPU.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

from hetero.cache import building, key_of
from hetero.errors import OptionError, Unavailable
from hetero.testing.rknn.npu import SimulatedNpu

SOURCE = Path(__file__).parent / "librknnrt"
NAME = "librknnrt.so"

Counter = Literal[
    "contexts",
    "sessions",
    "mems",
    "outputs",
    "misuse",
    "orphans",
    "jobs",
    "jobs_0",
    "jobs_1",
    "jobs_2",
    "running",
    "peak",
    "waiting",
    "hung",
    "hangs",
]
"""What the library counts.

Alive now: `contexts`; `sessions`, one a copy of the weights; `mems` and `outputs` that were not given back.
Since the last configuration: `jobs` and those on each core; `peak`, the most jobs at once; `misuse`, calls that met
another thread's in one context; `orphans`, contexts destroyed before their duplicates; `hangs`.
At this moment: jobs `running`, `waiting` for a core, `hung`.
"""

_FLAGS = ("-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")
_LIBRARIES = ("-ldl", "-lpthread", "-lm")


def built_library(cache: Path) -> Path:
    """The compiled library; built when the cache has none of this source for this machine.

    Args:
        cache: Folder for it; may be shared by processes that build at the same time.

    Raises:
        Unavailable: There is no C compiler, or it refuses the source.
    """
    sources = sorted(path for path in SOURCE.iterdir() if path.suffix in (".c", ".h"))
    key = key_of(platform.system(), platform.machine(), *_FLAGS, *(path.read_text() for path in sources))
    folder = cache / f"librknnrt-{key}"
    if not folder.is_dir():
        command = compiler()
        with building(folder) as workspace:
            _compile(command, [path for path in sources if path.suffix == ".c"], workspace / NAME)
    return folder / NAME


def compiler() -> list[str]:
    """The command of a C compiler: `cc`, `gcc` or `clang`, or the one in the package `ziglang`.

    Raises:
        Unavailable: There is none.
    """
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise Unavailable(
        "the simulated librknnrt.so has to be compiled, and there is no C compiler (cc, gcc, clang, ziglang)",
        fix='pip install "hetero[simulator]", or install gcc',
    )


def onnxruntime_library() -> Path:
    """ONNX Runtime's shared library with its C interface, inside the installed package.

    Raises:
        Unavailable: The package is not installed, or has no such library.
    """
    spec = importlib.util.find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if found := sorted(Path(folder, "capi").glob("libonnxruntime.so*")):
            return found[0]
    raise Unavailable(
        "the simulated librknnrt.so computes with libonnxruntime.so, which "
        + ("the installed onnxruntime does not contain" if spec else "is not installed"),
        fix='pip install --upgrade "onnxruntime>=1.19"',
    )


def environment(npu: SimulatedNpu | None = None) -> dict[str, str]:
    """The variables that another program needs to run on the library.

    Args:
        npu: What it simulates.

    Raises:
        Unavailable: There is no ONNX Runtime to compute with.
    """
    return {"HETERO_SIM_ORT": str(onnxruntime_library()), "HETERO_SIM_RKNN": (npu or SimulatedNpu()).to_text()}


class SimulatedLibrary:
    """The library loaded into this process, with what tests need beside the vendor's entry points.

    Args:
        path: From `built_library`.

    Raises:
        Unavailable: There is no ONNX Runtime to compute with.
    """

    def __init__(self, path: Path) -> None:
        # The library asks the environment when it first computes; what a user chose there stays.
        os.environ.setdefault("HETERO_SIM_ORT", str(onnxruntime_library()))
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.hetero_sim_configure.argtypes = [ctypes.c_char_p]
        self._library.hetero_sim_counter.argtypes = [ctypes.c_char_p]
        self._library.hetero_sim_release_hangs.restype = None

    def configure(self, npu: SimulatedNpu) -> None:
        """Simulate this from the next job on; counts of what happened start again at 0.

        Raises:
            OptionError: The description is not allowed.
        """
        if self._library.hetero_sim_configure(npu.to_text().encode()) != 0:
            raise OptionError(
                f"the simulated NPU cannot be as described: {npu}", fix="see SimulatedNpu for what is allowed"
            )

    def counter(self, name: Counter) -> int:
        """What the library counted.

        Raises:
            OptionError: It does not count that.
        """
        value: int = self._library.hetero_sim_counter(name.encode())
        if value < 0:
            known = ", ".join(get_args(Counter))
            raise OptionError(f"the simulated library has no counter {name!r}", fix=f"take one of {known}")
        return value

    def release_hangs(self) -> None:
        """End every hang; nothing hangs again before the next `configure`."""
        self._library.hetero_sim_release_hangs()


def _compile(command: list[str], sources: list[Path], target: Path) -> None:
    line = [*command, *_FLAGS, *map(str, sources), "-o", str(target), *_LIBRARIES]
    try:
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"the C compiler cannot be started: {error}", fix=f"check {command[0]}") from error
    if done.returncode:
        raise Unavailable(
            f"the simulated librknnrt.so does not compile: {(done.stderr or done.stdout).strip()[-2000:]}",
            fix=f"check that {' '.join(command)} can compile and link C11 for this machine",
        )
