"""Stand-in files for a simulated NPU: an xclbin with a valid header, an instruction file, and a `kernel.toml`.

The container is as XRT's `xclbin.h` has it (`struct axlf`): a header, section headers, sections. A stand-in holds the
sections that tools read for its shape, and its design in USER_METADATA; it holds no code for an NPU.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hetero.errors import OptionError
from hetero.kernel_manifest import (
    FIRST_DATA_ARGUMENT,
    KERNEL_TOML,
    Fill,
    KernelManifest,
    Layout,
    Order,
    Role,
    TileTensor,
    constant_name,
)
from hetero.program import Program
from hetero.tensors import TensorSpec
from hetero.testing.xrt.design import Design, DesignArgument
from hetero.testing.xrt.kernels import kernel_program

PLATFORM = "hetero_simulated_npu1"

_AXLF = struct.Struct("<8si28s256sQ")
_HEADER = struct.Struct("<QQQHBBHH16s64s16s16sI4x")
_SECTION = struct.Struct("<I16s4xQQ")
_PARTITION = struct.Struct("<B3xII4xQQH6xII72xIII52x")
_IP = struct.Struct("<IIQ64s")
_TRANSACTION = struct.Struct("<BBBBBB2xII")
_WRITE = struct.Struct("<III")
_BLOCK_WRITE = struct.Struct("<III")
_WAIT = struct.Struct("<IIII")
# Of a shim: out of the array, and into it.
_TASK_QUEUES = (0x1D204, 0x1D214)
_IP_LAYOUT, _USER_METADATA, _AIE_PARTITION = 8, 16, 32
_DPU_KERNEL = 7
_DPU_PROPERTIES = 1 | 0x901 << 16

# Multiply-adds of a tile, for modelled time; a kernel that is not here counts one for each output element.
_MULTIPLY_ADDS = {"attention_i8_64x64": 2 * 64**3, "matmul_i8_64x64": 64**3}
# Families of kernels with tiles of their own: rows to a product, and whole heads, which a column's cores share.
_GEMM = re.compile(r"gemm_i8_i\d+_(\d+)x(\d+)")
_HEADS = re.compile(r"attention_i8_exact_(\d+)")
_ROWS, _GEMM_ROWS, _HEAD_SIZE, _BLOCK_SIDE = 4, 64, 64, 64


@dataclass(frozen=True)
class Image:
    """A stand-in xclbin as the simulator loads it.

    Attributes:
        uuid: Its identity.
        design: What it computes.
        instructions: What its instruction file has to hold.
    """

    uuid: str
    design: Design
    instructions: bytes


def write_stand_in(
    folder: Path,
    kernel: str | Program,
    columns: int = 4,
    tiles_per_launch: int = 4,
    layout: Layout = "packed",
    *,
    rows: int = 1,
    tile_rows: int | None = None,
    weights: Literal["tile", "argument"] = "tile",
    serial: bool = False,
    order: Order = "columns",
    fill: Fill = "zeros",
) -> Path:
    """Write the stand-in files of a kernel.

    Args:
        folder: Where; made if it is not there.
        kernel: A kernel's name that an installed plugin knows, or its program.
        columns: Columns that it takes.
        tiles_per_launch: In all columns together.
        layout: `packed`: one input and one output buffer, `[column][tile][tensors]`; `separate`: a buffer for each
            column, all inputs first, then all outputs.
        rows: Cores of a column that share its tiles.
        tile_rows: A tile is so many entries of the inputs' leading dimension, joined; None: one entry, or 4096 for
            a kernel that works element by element.
        weights: Where inputs without a leading dimension go: into each tile, or into an argument of their own.
        serial: The design waits for each column before the next begins, as the first ones did.
        order: How the manifest deals tiles to columns.
        fill: How the manifest fills a launch that is not full.

    Returns:
        The `kernel.toml`.

    Raises:
        OptionError: No plugin knows the kernel, or the numbers do not fit.
    """
    program = kernel_program(kernel) if isinstance(kernel, str) else kernel
    design = _designed(program, columns, tiles_per_launch, layout, rows, tile_rows, weights, serial)
    return write_design(folder, design, order=order, fill=fill)


def write_usual(folder: Path, program: Program, columns: int) -> Path:
    """Write the stand-in files of a kernel in the form that suits it; arguments and errors as for `usual_design`.

    Returns:
        The `kernel.toml`.
    """
    return write_design(folder, usual_design(program, columns))


def usual_design(program: Program, columns: int) -> Design:
    """The design that suits a kernel: all columns, and as many tiles as it has use for.

    A product of rows and a matrix takes 64 rows a tile, a tile a core, and its weights in an argument of their own;
    attention over all keys a head a tile, which the cores of a column share, in pieces of 64 queries and of 64 keys.
    Others take a tile a column. Buffers lie as those of the designs in `hetero_kernels`.

    Args:
        program: The kernel's.
        columns: Columns that it takes.

    Raises:
        OptionError: The numbers do not fit.
    """
    if _GEMM.fullmatch(program.name):
        product = _designed(program, columns, columns * _ROWS, "packed", _ROWS, _GEMM_ROWS, "argument", serial=False)
        return replace(product, arguments=_product_buffers(product), worker="array")
    whole = _designed(program, columns, columns, "packed", 1, None, "tile", serial=False)
    if _HEADS.fullmatch(program.name):
        return replace(whole, arguments=_attention_buffers(whole), worker="column")
    return whole


def _product_buffers(design: Design) -> tuple[DesignArgument, ...]:
    """Weights with what belongs to the channels are in pieces of 64 channels, each of whole blocks of 64 x 64."""
    given, weights, answers = design.arguments
    if len(weights.tensors) == 1:
        return design.arguments
    matrix, *about = weights.tensors
    channels = matrix.shape[1]
    dealt = tuple(t if t.shape == (channels,) else replace(t, repeated=True) for t in about)
    pieces = channels // _BLOCK_SIDE
    tensors = (replace(matrix, axis=1), *dealt)
    used = sum(tensor.dealt(pieces).part_size for tensor in tensors)
    return given, replace(weights, tensors=tensors, pieces=pieces, padding=-used % _BLOCK_SIDE**2), answers


def _attention_buffers(design: Design) -> tuple[DesignArgument, ...]:
    """Queries with their temperatures and the number of keys, in whole strips of 8 rows; keys with their values."""
    given, answers = design.arguments
    by_name = {tensor.name: tensor for tensor in given.tensors}
    pieces = by_name["q"].shape[0] // _BLOCK_SIDE
    queries = (by_name["q"], by_name["temperature"], replace(by_name["keys"], repeated=True))
    used = sum(tensor.dealt(pieces).part_size for tensor in queries)
    pairs = (by_name["k"], by_name["v"])
    return (
        replace(given, name="queries", tensors=queries, pieces=pieces, padding=-used % (8 * _BLOCK_SIDE)),
        replace(given, index=given.index + 1, name="keys", tensors=pairs, pieces=pieces),
        replace(answers, index=answers.index + 1),
    )


def write_design(folder: Path, design: Design, *, order: Order = "columns", fill: Fill = "zeros") -> Path:
    """Write the stand-in files of a design: `KERNEL.xclbin`, `KERNEL.insts.bin` and `kernel.toml`.

    Returns:
        The `kernel.toml`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    xclbin, instructions = folder / f"{design.kernel}.xclbin", folder / f"{design.kernel}.insts.bin"
    xclbin.write_bytes(xclbin_of(design))
    instructions.write_bytes(instructions_of(design))
    for argument in design.arguments:
        if argument.content:
            (folder / constant_name(design.kernel, argument.name)).write_bytes(bytes.fromhex(argument.content))
    manifest = KernelManifest(
        name=design.name,
        logical=design.kernel,
        xclbin=xclbin.name,
        instructions=instructions.name,
        columns=design.columns,
        rows=design.rows,
        worker=design.worker,
        tiles_per_launch=design.tiles_per_launch,
        joined=design.joined,
        buffers=design.arguments,
        order=order,
        fill=fill,
        opcode=design.opcode,
        comment="A stand-in for a simulated NPU: the xclbin beside it holds no code.",
    )
    written = folder / KERNEL_TOML
    written.write_text(manifest.text(), encoding="utf-8")
    return written


def instructions_of(design: Design) -> bytes:
    """The stand-in for a design's instructions: as unlike for two designs as hashes are.

    A transaction as compilers write it, with as much in it as tells the order of things: for each column transfers in
    and out, and a wait; a serial design waits for a column before the next one's transfers begin.
    """
    seed = hashlib.sha256(design.to_json().encode()).digest()
    pushes = [
        [_WRITE.pack(0, column << 25 | queue, column) for queue in _TASK_QUEUES] for column in range(design.columns)
    ]
    waits = [_WAIT.pack(0x80, _WAIT.size, column << 16, 1 << 16 | 1 << 8) for column in range(design.columns)]
    if design.serial:
        order = [step for column in range(design.columns) for step in (*pushes[column], waits[column])]
    else:
        order = [*(step for each in pushes for step in each), *waits]
    steps = [_BLOCK_WRITE.pack(1, 0x1D000, _BLOCK_WRITE.size + len(seed)) + seed, *order]
    size = _TRANSACTION.size + sum(map(len, steps))
    return _TRANSACTION.pack(1, 0, 3, 6, design.columns, 1, len(steps), size) + b"".join(steps)


def xclbin_of(design: Design) -> bytes:
    """The bytes of a stand-in xclbin."""
    name = f"{design.name}:stand_in".encode()
    sections = [
        (_IP_LAYOUT, struct.pack("<i4x", 1) + _IP.pack(_DPU_KERNEL, _DPU_PROPERTIES, 0, name)),
        (_USER_METADATA, design.to_json().encode()),
        (_AIE_PARTITION, _partition(design.columns)),
    ]
    body, headers = bytearray(), bytearray()
    begin = _AXLF.size + _HEADER.size + len(sections) * _SECTION.size
    for kind, content in sections:
        body += bytes(-(begin + len(body)) % 8)
        headers += _SECTION.pack(kind, b"stand_in", begin + len(body), len(content))
        body += content
    identity = hashlib.sha256(design.to_json().encode()).digest()[:16]
    axlf = _AXLF.pack(b"xclbin2", -1, b"\xff" * 28, bytes(256), 0)
    header = _HEADER.pack(
        begin + len(body), 0, 0, 0, 2, 23, 0, 0, bytes(16), PLATFORM.encode(), identity, b"", len(sections)
    )
    return bytes(axlf + header + headers + body)


def read_image(content: bytes) -> Image | None:
    """The image in a file's bytes; None when it is shorter than it says, which the vendor's reader does not survive.

    Raises:
        RuntimeError: It is no xclbin, or no stand-in.
    """
    if len(content) < _AXLF.size + _HEADER.size:
        return None
    if not content.startswith(b"xclbin2\0"):
        raise RuntimeError("Invalid xclbin")
    header = _HEADER.unpack_from(content, _AXLF.size)
    if header[0] > len(content):
        return None
    for index in range(header[-1]):
        kind, _, offset, size = _SECTION.unpack_from(content, _AXLF.size + _HEADER.size + index * _SECTION.size)
        if kind == _USER_METADATA:
            design = Design.from_json(content[offset : offset + size].decode())
            return Image(str(uuid.UUID(bytes=header[10])), design, instructions_of(design))
    raise RuntimeError("simulated XRT: this xclbin is no stand-in: hetero.testing.xrt.stand_in makes one")


def _partition(columns: int) -> bytes:
    # The array has 5 columns, of which the first has no DMA to the host.
    starts = range(1, 6 - columns)
    name = b"QoS\0"
    tail = _PARTITION.size
    return (
        _PARTITION.pack(0, tail + 2 * len(starts), 2048, 0, 0, columns, len(starts), tail, 0, 0, tail + 2 * len(starts))
        + struct.pack(f"<{len(starts)}H", *starts)
        + name
    )


def _designed(
    program: Program,
    columns: int,
    tiles_per_launch: int,
    layout: str,
    rows: int,
    tile_rows: int | None,
    weights: str,
    serial: bool,
) -> Design:
    if not 1 <= columns <= 4 or not 1 <= rows <= 4 or tiles_per_launch < 1 or tiles_per_launch % (columns * rows):
        raise OptionError(
            f"{tiles_per_launch} tiles a launch in {columns} columns of {rows} rows: expected 1 to 4 columns and rows, "
            "and as many tiles for each core",
            fix=f"take a multiple of {max(columns, 1) * max(rows, 1)} tiles",
        )
    lead = {spec.shape[0] for spec in program.inputs if spec.shape and not isinstance(spec.shape[0], int)}
    if tile_rows is None and any(
        spec.shape and len(spec.shape) == 1 and spec.shape[0] in lead for spec in program.inputs
    ):
        tile_rows = 4096

    def tensor(spec: TensorSpec) -> TileTensor:
        shape: Sequence[Any] = spec.shape or ()
        shared = not shape or shape[0] not in lead
        tile = tuple(shape) if shared else tuple(shape[1:]) if tile_rows is None else (tile_rows, *shape[1:])
        return TileTensor(spec.name, spec.dtype.name, tile, shared)

    inputs, outputs = [tensor(spec) for spec in program.inputs], [tensor(spec) for spec in program.outputs]
    own = [TileTensor(t.name, t.dtype, t.shape) for t in inputs if t.shared] if weights == "argument" else []
    tiled = [t for t in inputs if not (own and t.shared)]
    groups: list[tuple[str, Role, list[TileTensor]]] = [("in", "in", tiled), ("out", "out", outputs)]
    if own:
        groups.insert(1, ("weights", "weight", own))
    arguments: list[DesignArgument] = []
    for name, role, tensors in groups:
        places = [None] if layout == "packed" or role == "weight" else list(range(columns))
        for column in places:
            label = name if column is None else f"{name}{column}"
            index = FIRST_DATA_ARGUMENT + len(arguments)
            arguments.append(DesignArgument(index, label, role, tuple(tensors), column))
    return Design(
        program.name,
        tuple(arguments),
        columns,
        tiles_per_launch,
        rows,
        joined=tile_rows is not None,
        serial=serial,
        **work_of(program.name, outputs),
    )


def work_of(kernel: str, outputs: Sequence[TileTensor]) -> dict[str, Any]:
    """What a design says of the size of its work, for modelled time: `multiply_adds` and `by_cycles`.

    Args:
        kernel: Its name.
        outputs: Of one tile.
    """
    if gemm := _GEMM.fullmatch(kernel):
        return {"multiply_adds": outputs[0].shape[0] * int(gemm[1]) * int(gemm[2]), "by_cycles": True}
    if heads := _HEADS.fullmatch(kernel):
        return {"multiply_adds": 2 * int(heads[1]) ** 2 * _HEAD_SIZE // _ROWS, "by_cycles": True}
    return {"multiply_adds": _MULTIPLY_ADDS.get(kernel, sum(math.prod(tensor.shape) for tensor in outputs))}
