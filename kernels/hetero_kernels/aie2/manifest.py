"""The `kernel.toml` of a design, as the XRT backend reads it (docs: kernels)."""

from __future__ import annotations

import json

from hetero_kernels.aie2.array_design import ArrayDesign, HostArgument, TileTensor

FIRST_DATA_ARGUMENT = 3
"""Before the data come the opcode, the instructions and their number of words."""

XCLBIN_KERNEL = "MLIR_AIE"
"""What aiecc calls the kernel in an xclbin."""


def manifest(design: ArrayDesign, xclbin: str, instructions: str) -> str:
    """The text of a `kernel.toml`; its strings are written as JSON, which TOML reads alike.

    Args:
        design: What was built. Its constants are in files of their own beside the manifest: see `constants`.
        xclbin: The file's name, beside the manifest.
        instructions: Likewise.
    """
    lines = [
        "[kernel]",
        "format = 1",
        f"name = {json.dumps(XCLBIN_KERNEL)}",
        f"logical = {json.dumps(design.name)}",
        f"description = {json.dumps(design.kernel.title)}",
        'target = "npu1"',
        f"xclbin = {json.dumps(xclbin)}",
        f"instructions = {json.dumps(instructions)}",
        f"columns = {design.geometry.columns}",
        f"rows = {design.geometry.rows}",
        f"worker = {json.dumps(design.worker)}",
        f"tiles_per_launch = {design.tiles}",
        "",
        "[batch]",
        'order = "columns"',
        'fill = "zeros"',
        f"tiles = {json.dumps('joined' if design.joined else 'stacked')}",
    ]
    for place, argument in enumerate(design.arguments):
        lines += [
            "",
            "[[argument]]",
            f"index = {FIRST_DATA_ARGUMENT + place}",
            f"name = {json.dumps(argument.name)}",
            f"role = {json.dumps(argument.role)}",
        ]
        if argument.column is not None:
            lines += ['layout = "separate"', f"column = {argument.column}"]
        if argument.content is not None:
            lines.append(f"file = {json.dumps(constant_name(design, argument))}")
        if argument.pieces > 1:
            lines.append(f"pieces = {argument.pieces}")
        if argument.padding:
            lines.append(f"padding = {argument.padding}")
        lines += ["tensors = [", *(f"    {_tensor(tensor)}," for tensor in argument.tensors), "]"]
    return "\n".join(lines) + "\n"


def constants(design: ArrayDesign) -> dict[str, bytes]:
    """The files beside a manifest that hold what is the design's own, by name."""
    return {
        constant_name(design, argument): argument.content.tobytes()
        for argument in design.arguments
        if argument.content is not None
    }


def constant_name(design: ArrayDesign, argument: HostArgument) -> str:
    """The name of a constant's file."""
    return f"{design.name}.{argument.name}.bin"


def _tensor(tensor: TileTensor) -> str:
    parts = [
        f"name = {json.dumps(tensor.name)}",
        f"dtype = {json.dumps(tensor.dtype)}",
        f"shape = {json.dumps(list(tensor.shape))}",
    ]
    if tensor.shared:
        parts.append("shared = true")
    if tensor.axis:
        parts.append(f"axis = {tensor.axis}")
    if tensor.repeated:
        parts.append("repeated = true")
    return "{ " + ", ".join(parts) + " }"
