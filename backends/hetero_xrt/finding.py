"""Where the compiled kernel of a program is: in its bundle, or in a folder with one folder a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hetero.backend import Artifact, Program, Unsupported
from hetero.errors import ProgramError
from hetero.kernel_manifest import KERNEL_TOML
from hetero_xrt.manifest import Manifest
from hetero_xrt.reading import read_manifest

VARIABLE = "HETERO_XRT_KERNELS"


def kernel_name(program: Program) -> str | None:
    """The name of the kernel that a program is; None when it is none."""
    return next((a.name for a in program.artifacts if a.kind == "kernel" and a.name), None)


def find_kernel(program: Program, generation: str | None, folders: Sequence[Path]) -> Manifest | None:
    """The compiled kernel of a program.

    Args:
        program: A bundle with an `xclbin` artifact, or a kernel by its name.
        generation: Of the NPU.
        folders: Each with one folder a kernel, the first that has it counts.

    Returns:
        None when there is none.

    Raises:
        Unsupported: There is one, and it is broken or for another NPU. Other devices may well run the program.
    """
    for artifact in program.artifacts_of("xclbin"):
        if artifact.target in (None, generation):
            return _checked(_in_bundle(artifact), generation)
    name = kernel_name(program)
    for folder in folders if name else ():
        place = folder / str(name)
        if place.is_dir():
            manifest = _checked(place / KERNEL_TOML, generation)
            if manifest.logical != name:
                raise Unsupported(
                    f"{manifest.path} describes {manifest.logical!r}, not {name!r}",
                    fix=f"put it into {folder / manifest.logical}, or mend kernel.logical",
                )
            return manifest
    return None


def missing(program: Program, folders: Sequence[Path]) -> Unsupported:
    """The refusal of a program without a compiled kernel."""
    name = kernel_name(program)
    if name is None and program.artifacts_of("onnx"):
        return Unsupported(
            f"{program.name!r} is an ONNX model, of which the NPU runs products and attention with compiled kernels, "
            f"and neither the option kernels nor {VARIABLE} names a folder with such",
            fix=f"build the kernels (docs: xrt, Whisper's encoder), then set {VARIABLE}=FOLDER",
        )
    if name is None:
        has = ", ".join(sorted({artifact.kind for artifact in program.artifacts}))
        return Unsupported(
            f"{program.name!r} is no compiled kernel: it has {has}, and this device runs xclbins",
            fix="add an artifact of kind xclbin to its bundle (docs: xrt)",
        )
    places = ", ".join(str(folder) for folder in folders) or f"neither the option kernels nor {VARIABLE} names a folder"
    return Unsupported(
        f"there is no xclbin for {name!r} ({places})",
        fix=f"build one, and put it with its {KERNEL_TOML} into FOLDER/{name}; then set {VARIABLE}=FOLDER (docs: xrt)",
    )


def _in_bundle(artifact: Artifact) -> Path:
    return artifact.companions.get("manifest", artifact.file.parent / KERNEL_TOML)


def _checked(path: Path, generation: str | None) -> Manifest:
    try:
        manifest = read_manifest(path)
    except ProgramError as error:
        # Broken for this device alone: the program has its exact answer elsewhere.
        raise Unsupported(error.problem, fix=error.fix) from error
    if manifest.target != generation:
        raise Unsupported(
            f"{path} is built for {manifest.target}, the NPU is {generation or 'one that hetero does not know'}",
            fix="build the kernel for this NPU",
        )
    return manifest
