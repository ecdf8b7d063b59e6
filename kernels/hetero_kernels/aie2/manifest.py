"""The `kernel.toml` of a design, as the XRT backend reads it (docs: kernels), and the files beside it."""

from __future__ import annotations

from hetero.kernel_manifest import KernelManifest, constant_name
from hetero_kernels.aie2.array_design import ArrayDesign

XCLBIN_KERNEL = "MLIR_AIE"
"""What aiecc calls the kernel in an xclbin."""


def manifest(design: ArrayDesign, xclbin: str, instructions: str) -> str:
    """The text of a `kernel.toml`.

    Args:
        design: What was built. Its constants are in files of their own beside the manifest: see `constants`.
        xclbin: The file's name, beside the manifest.
        instructions: Likewise.
    """
    return KernelManifest(
        name=XCLBIN_KERNEL,
        logical=design.name,
        description=design.kernel.title,
        xclbin=xclbin,
        instructions=instructions,
        columns=design.columns,
        rows=design.rows,
        worker=design.worker,
        tiles_per_launch=design.tiles,
        joined=design.joined,
        buffers=design.arguments,
    ).text()


def constants(design: ArrayDesign) -> dict[str, bytes]:
    """The files beside a manifest that hold what is the design's own, by name."""
    return {
        constant_name(design.name, argument.name): argument.content.tobytes()
        for argument in design.arguments
        if argument.content is not None
    }
