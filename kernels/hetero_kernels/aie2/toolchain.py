"""The rungs that need AMD's tools: MLIR by the real `aie.iron`, its lowering by aiecc, the cores' code by Peano.

mlir-aie and Peano (llvm-aie) are on no package registry: `iron.INSTALL` installs them from their release pages. Their
places are asked of mlir-aie itself (`aie.utils.config`), as its own compile functions do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hetero.cache import building
from hetero.errors import CompileError, OptionError, Unavailable
from hetero_kernels.aie2.array_design import ArrayDesign
from hetero_kernels.aie2.function import INCLUDE
from hetero_kernels.aie2.iron import INSTALL, real_iron
from hetero_kernels.aie2.manifest import constants, manifest

_MLIR = "design.mlir"
_PEANO_FLAGS = ("--target=aie2-none-unknown-elf", "-std=c++20", "-O2", "-DNDEBUG", "-Wall", "-fstack-usage")


@dataclass(frozen=True)
class Tools:
    """Where AMD's tools are.

    Attributes:
        aiecc: Lowers MLIR to a configuration and instructions.
        peano: The C++ compiler for cores.
        include: Has `aie_api`.
    """

    aiecc: Path
    peano: Path
    include: Path


def generate(design: ArrayDesign) -> str:
    """Rung 4: the MLIR that the real `aie.iron` makes of a design, verified by it.

    Raises:
        Unavailable: mlir-aie is not installed.
        CompileError: It refuses the design.
    """
    iron = real_iron()
    try:
        module = design.program(iron).resolve_program()
        operation = getattr(module, "operation", None)
        if operation is not None:
            operation.verify()
    except Exception as error:
        raise CompileError(
            f"{design.name}: aie.iron refuses the design: {type(error).__name__}: {error}",
            fix="compare design.py with the installed version of mlir-aie",
        ) from error
    return str(module)


def lower(design: ArrayDesign, folder: Path) -> Path:
    """Rung 5: the instructions of a launch, lowered by aiecc; needs no code for the cores.

    Args:
        design: What to lower.
        folder: Where files are written.

    Returns:
        The instructions.

    Raises:
        Unavailable: mlir-aie is not installed.
        CompileError: aiecc refuses the design.
    """
    source = folder / _MLIR
    source.write_text(generate(design), encoding="utf-8")
    target = folder / f"{design.name}.insts.bin"
    _run([str(find_aiecc()), "--get-npu-insts", f"--npu-insts-name={target.name}", source.name], folder)
    return _made(target)


def build(design: ArrayDesign, folder: Path) -> list[Path]:
    """Rung 6: an xclbin, its instructions and its `kernel.toml`. The folder appears whole or not at all.

    Args:
        design: What to build.
        folder: That is made; it must not be there, or be empty.

    Returns:
        The xclbin, the instructions, the manifest, and the files of its constants.

    Raises:
        OptionError: The folder has something in it.
        Unavailable: mlir-aie or Peano is not installed.
        CompileError: One of them refuses the kernel.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OptionError(f"{folder} is there and not empty", fix="name a new folder, or remove it first")
    tools = find_tools()
    if folder.is_dir():
        folder.rmdir()
    names = (f"{design.name}.xclbin", f"{design.name}.insts.bin", "kernel.toml")
    with building(folder) as workspace:
        work = workspace / "work"
        work.mkdir()
        _compile(tools, design, work)
        (work / _MLIR).write_text(generate(design), encoding="utf-8")
        xclbin, instructions = work / names[0], work / names[1]
        line = [str(tools.aiecc), "--get-npu-insts", "--get-xclbin"]
        _run([*line, f"--npu-insts-name={instructions.name}", f"--xclbin-name={xclbin.name}", _MLIR], work)
        for made in (xclbin, instructions):
            _made(made).rename(workspace / made.name)
        (workspace / names[2]).write_text(manifest(design, names[0], names[1]), encoding="utf-8")
        for name, content in constants(design).items():
            (workspace / name).write_bytes(content)
        _remove(work)
    return [folder / name for name in (*names, *constants(design))]


def find_aiecc() -> Path:
    """The compiler driver of the installed mlir-aie.

    Raises:
        Unavailable: It is not installed.
    """
    return _ask("aiecc_path")


def find_tools() -> Tools:
    """All of AMD's tools.

    Raises:
        Unavailable: One of them is not installed; the message names all that are missing.
    """
    found, missing = [], []
    for question, what in (
        ("aiecc_path", "mlir-aie (aiecc)"),
        ("peano_cxx_path", "Peano (llvm-aie)"),
        ("cxx_header_path", "mlir-aie's headers"),
    ):
        try:
            found.append(_ask(question))
        except Unavailable:
            missing.append(what)
    if missing:
        raise Unavailable(
            f"building for the NPU needs AMD's tools, and this machine has no {', no '.join(missing)}",
            fix=f"{INSTALL}; xclbinutil comes with XRT",
        )
    return Tools(*found)


def _ask(question: str) -> Path:
    try:
        from aie.utils import config

        return Path(getattr(config, question)())
    except (ImportError, AttributeError, RuntimeError) as error:
        raise Unavailable(f"mlir-aie cannot say where its tools are: {error}", fix=INSTALL) from error


def _compile(tools: Tools, design: ArrayDesign, work: Path) -> None:
    """The object file that all of a design's functions are in."""
    functions = design.functions
    places = [flag for folder in (tools.include, INCLUDE, design.source.parent) for flag in ("-I", str(folder))]
    line = [
        str(tools.peano),
        *_PEANO_FLAGS,
        *functions[0].flags,
        *places,
        "-c",
        str(design.source),
        "-o",
        f"{design.name}.o",
    ]
    _run(line, work)
    # All of a source's functions together: no chain of calls takes more.
    frame = sum(
        int(entry.split("\t")[1])
        for report in work.glob(f"{design.name}*.su")
        for entry in report.read_text(encoding="utf-8").splitlines()
    )
    if frame > design.stack:
        raise CompileError(
            f"{design.name}: Peano reports a frame of {frame:,} bytes, and the stack has {design.stack:,}",
            fix=f"take --stack {-(-(frame + 256) // 512) * 512}",
        )


def _run(line: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Unavailable(f"{line[0]} cannot be started: {error}", fix=INSTALL) from error
    if done.returncode:
        raise CompileError(
            f"{Path(line[0]).name} failed: {(done.stderr or done.stdout).strip()[-4000:]}",
            fix=f"run it by hand: {' '.join(line)}",
        )


def _made(path: Path) -> Path:
    if not path.is_file() or not path.stat().st_size:
        raise CompileError(
            f"aiecc ended well and made no {path.name}", fix="check that its options are those of the installed version"
        )
    return path


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)
