"""The `kernel.toml` of a design, as the XRT backend reads it (docs: kernels)."""

from __future__ import annotations

import json

from hetero_kernels.aie2.column_map import ColumnMap, Geometry, TileTensor

FIRST_DATA_ARGUMENT = 3
"""Before the data come the opcode, the instructions and their number of words."""

XCLBIN_KERNEL = "MLIR_AIE"
"""What aiecc calls the kernel in an xclbin."""


def manifest(design: ColumnMap, geometry: Geometry, xclbin: str, instructions: str) -> str:
    """The text of a `kernel.toml`; its strings are written as JSON, which TOML reads alike.

    Args:
        design: What was built.
        geometry: How large.
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
        f"columns = {geometry.columns}",
        f"rows = {geometry.rows}",
        f"tiles_per_launch = {geometry.tiles}",
        "",
        "[batch]",
        'order = "columns"',
        'fill = "zeros"',
        f"tiles = {json.dumps('joined' if design.joined else 'stacked')}",
    ]
    for place, argument in enumerate(design.arguments(geometry)):
        lines += [
            "",
            "[[argument]]",
            f"index = {FIRST_DATA_ARGUMENT + place}",
            f"name = {json.dumps(argument.name)}",
            f"role = {json.dumps(argument.role)}",
        ]
        if argument.column is not None:
            lines += ['layout = "separate"', f"column = {argument.column}"]
        lines += ["tensors = [", *(f"    {_tensor(tensor)}," for tensor in argument.tensors), "]"]
    return "\n".join(lines) + "\n"


def _tensor(tensor: TileTensor) -> str:
    parts = [
        f"name = {json.dumps(tensor.name)}",
        f"dtype = {json.dumps(tensor.dtype)}",
        f"shape = {json.dumps(list(tensor.shape))}",
    ]
    return "{ " + ", ".join([*parts, "shared = true"] if tensor.shared else parts) + " }"
