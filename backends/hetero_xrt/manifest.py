"""`kernel.toml`: what a compiled kernel takes, in which order, and how tiles are laid out in its buffers.

An xclbin does not tell this, and a wrong order or size is no error on an NPU but a wrong answer. Version 1::

    [kernel]
    format = 1
    name = "MLIR_AIE"                       # in the xclbin
    logical = "attention_i8_64x64"          # the kernel that it computes
    target = "npu1"                         # the generation of NPU that it was built for
    xclbin = "attention_i8_64x64.xclbin"    # beside this file
    instructions = "attention_i8_64x64.insts.bin"
    opcode = 3                              # optional
    columns = 4                             # of the array that it takes
    rows = 1                                # optional: cores of a column that work on tiles
    worker = "core"                         # optional: who works on one tile: a core, a "column", the whole "array"
    tiles_per_launch = 64                   # in all columns together

    [batch]                                 # optional: how tiles become launches
    order = "columns"                       # or "interleaved": tile i goes to column i modulo columns
    fill = "zeros"                          # or "repeat": what fills a launch that is not full
    tiles = "stacked"                       # or "joined": a tile is several entries of the leading dimension

    [[argument]]                            # every buffer, in the kernel's order; data begins at 3
    index = 3
    name = "in"
    role = "in"                             # "in", "out", "inout", "weight", "scratch", "constant"
    layout = "packed"                       # optional: [column][tile][tensors]; or "separate": one column's tiles
    column = 0                              # for "separate"
    group = 65536                           # optional: what kernel.group_id(index) is to answer
    file = "kernel.matrices.bin"            # of a "constant": its content, beside this file
    pieces = 4                              # optional: a tile is dealt out in so many, each with a part of every tensor
    padding = 60                            # optional: bytes behind each piece
    tensors = [                             # of one tile, one behind the other; of the whole where there are no tiles
        { name = "q", dtype = "int8", shape = [64, 64] },
        { name = "gamma", dtype = "int8", shape = [256], shared = true },   # the same in every tile
        { name = "w", dtype = "int8", shape = [64, 256], axis = 1 },        # pieces are cut along that dimension
        { name = "keys", dtype = "int32", shape = [1], repeated = true },   # not cut: every piece has it
    ]
"""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from hetero.errors import ArtifactMissing, BundleError, ProgramInvalid
from hetero_xrt.arguments import Argument, Layout, Role, Tensor
from hetero_xrt.xclbin import XclbinFile, read_xclbin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FIRST_DATA_ARGUMENT", "MANIFEST", "Argument", "Batch", "Manifest", "Tensor", "read_manifest"]

MANIFEST = "kernel.toml"
FORMAT = 1
FIRST_DATA_ARGUMENT = 3
"""Before the data come the opcode, the instructions and their number of words."""

_MOST = {"npu1": (4, 4)}
"""Columns and rows of the generations of NPUs that this reads manifests for."""

Order = Literal["columns", "interleaved"]
Fill = Literal["zeros", "repeat"]
Tiles = Literal["stacked", "joined"]
Worker = Literal["core", "column", "array"]


@dataclass(frozen=True)
class Batch:
    """How tiles become launches.

    Attributes:
        order: `columns`: the first tiles of a launch go to the first column, the next ones to the next; `interleaved`:
            tile i goes to column i modulo columns.
        fill: What fills a launch that is not full.
        tiles: `stacked`: a tile is one entry of the logical kernel's leading dimension; `joined`: as many as the tile's
            first dimension says.
    """

    order: Order = "columns"
    fill: Fill = "zeros"
    tiles: Tiles = "stacked"


@dataclass(frozen=True)
class Manifest:
    """A compiled kernel, ready to be loaded: what was read was checked.

    Attributes:
        path: The `kernel.toml`.
        name: Of the kernel in the xclbin.
        logical: The kernel that it computes.
        target: The generation of NPU that it was built for.
        xclbin: What the header of the xclbin says.
        instructions: The instruction file.
        opcode: The kernel's first argument.
        columns: Of the array that it takes.
        rows: Cores of a column that work on tiles.
        tiles_per_launch: In all columns together.
        arguments: In order of index.
        batch: How tiles become launches.
        worker: Who works on one tile: a core, the cores of a column together, or all of them.
    """

    path: Path
    name: str
    logical: str
    target: str
    xclbin: XclbinFile
    instructions: Path
    opcode: int
    columns: int
    rows: int
    tiles_per_launch: int
    arguments: tuple[Argument, ...]
    batch: Batch
    worker: Worker = "core"

    @property
    def tiles_per_column(self) -> int:
        """Tiles that each column works on in one launch."""
        return self.tiles_per_launch // self.columns

    def size_of(self, argument: Argument) -> int:
        """Bytes of an argument's buffer."""
        if not argument.tiled:
            return argument.tile_size
        return argument.tile_size * (self.tiles_per_launch if argument.layout == "packed" else self.tiles_per_column)

    def launches(self, tiles: int) -> int:
        """Launches that so many tiles take."""
        return -(-tiles // self.tiles_per_launch)


def read_manifest(path: Path) -> Manifest:
    """Read and check a `kernel.toml`, and the files that it names.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        BundleError: It breaks the format; the message names the key.
        ArtifactMissing: A file that it names is not there.
        ProgramInvalid: A file that it names is not what it says.
    """
    if path.is_dir():
        path = path / MANIFEST
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactMissing(
            f"{path} cannot be read: {error.strerror}", fix=f"put a {MANIFEST} beside the xclbin (docs: kernels)"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid TOML: {error}", fix="mend the line that the message names") from None
    return _Reader(path, content).read()


class _Reader:
    """The content of one `kernel.toml`; every refusal names the file and the key."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path = path
        self._content = content

    def read(self) -> Manifest:
        self._keys("the top level", self._content, {"kernel", "batch", "argument"})
        head = self._table("[kernel]", self._content.get("kernel"))
        known = {"format", "name", "logical", "target", "xclbin", "instructions", "opcode", "columns", "rows"}
        self._keys("[kernel]", head, {*known, "tiles_per_launch", "description", "worker"})
        if head.get("format") != FORMAT:
            raise self._wrong(f"kernel.format is {head.get('format')!r}, expected {FORMAT}", "upgrade hetero")
        target = self._choice("kernel.target", head.get("target"), tuple(_MOST))
        most_columns, most_rows = _MOST[target]
        columns = self._number("kernel.columns", head.get("columns"), 1, most_columns)
        rows = self._number("kernel.rows", head.get("rows", 1), 1, most_rows)
        tiles = self._number("kernel.tiles_per_launch", head.get("tiles_per_launch"), 1)
        worker = cast(Worker, self._choice("kernel.worker", head.get("worker", "core"), get_args(Worker)))
        sharing = {"core": columns * rows, "column": columns, "array": 1}[worker]
        if tiles % sharing:
            raise self._wrong(
                f"kernel.tiles_per_launch is {tiles}, which {columns} columns of {rows} rows cannot share evenly",
                f"write the number that the kernel was built for, a multiple of {sharing}",
            )
        arguments = self._arguments(columns)
        manifest = Manifest(
            path=self._path,
            name=self._text("kernel.name", head.get("name")),
            logical=self._text("kernel.logical", head.get("logical")),
            target=target,
            xclbin=read_xclbin(self._file("kernel.xclbin", head.get("xclbin"))),
            instructions=self._instructions(self._file("kernel.instructions", head.get("instructions"))),
            opcode=self._number("kernel.opcode", head.get("opcode", 3), 0),
            columns=columns,
            rows=rows,
            tiles_per_launch=tiles,
            arguments=arguments,
            batch=self._batch(),
            worker=worker,
        )
        if worker == "array" and (manifest.batch.order != "columns" or any(a.column is not None for a in arguments)):
            raise self._wrong(
                "all columns work on each tile, so that none has tiles of its own",
                'take `order`, `layout` and `column` out, or `worker = "array"`',
            )
        self._agree(manifest)
        return manifest

    def _batch(self) -> Batch:
        table = self._table("[batch]", self._content.get("batch", {}))
        self._keys("[batch]", table, {"order", "fill", "tiles"})
        return Batch(
            cast(Order, self._choice("batch.order", table.get("order", "columns"), get_args(Order))),
            cast(Fill, self._choice("batch.fill", table.get("fill", "zeros"), get_args(Fill))),
            cast(Tiles, self._choice("batch.tiles", table.get("tiles", "stacked"), get_args(Tiles))),
        )

    def _arguments(self, columns: int) -> tuple[Argument, ...]:
        tables = self._content.get("argument", [])
        if not isinstance(tables, list) or not all(isinstance(entry, dict) for entry in tables):
            raise self._wrong("argument is no list of tables", "write [[argument]]")
        arguments = tuple(self._argument(f"argument {i}", entry, columns) for i, entry in enumerate(tables, 1))
        indices = [argument.index for argument in arguments]
        expected = list(range(FIRST_DATA_ARGUMENT, FIRST_DATA_ARGUMENT + len(arguments)))
        if indices != expected:
            raise self._wrong(
                f"the arguments have the indices {indices}, expected {expected}",
                "name every buffer of the kernel once, in the order of the compiled design "
                "(all inputs before the outputs, as a rule): data begins at 3",
            )
        self._unique("argument", [argument.name for argument in arguments])
        for role, what in (("in", "input"), ("out", "output")):
            if not any(argument.role in (role, "inout") for argument in arguments):
                raise self._wrong(f"no argument has the role {role!r}", f"name the kernel's {what} buffers")
        for roles in (("in", "inout", "weight"), ("out", "inout")):
            self._covered(roles, arguments, columns)
        return arguments

    def _argument(self, where: str, entry: Mapping[str, Any], columns: int) -> Argument:
        known = {"index", "name", "role", "layout", "column", "group", "tensors", "pieces", "padding", "file"}
        self._keys(where, entry, known)
        name = self._text(f"{where}: name", entry.get("name"))
        where = f"{where} ({name})"
        role = cast(Role, self._choice(f"{where}: role", entry.get("role"), get_args(Role)))
        layout = cast(Layout, self._choice(f"{where}: layout", entry.get("layout", "packed"), get_args(Layout)))
        column = None
        if layout == "separate":
            column = self._number(f"{where}: column", entry.get("column"), 0, columns - 1)
            if role in ("weight", "scratch", "constant"):
                raise self._wrong(f"{where}: a {role} holds no tiles, so that it has no layout", "take `layout` out")
        elif "column" in entry:
            raise self._wrong(f"{where}: a packed buffer holds every column", "take `column` out")
        tensors = entry.get("tensors")
        if not isinstance(tensors, list) or not tensors or not all(isinstance(tensor, dict) for tensor in tensors):
            raise self._wrong(
                f"{where}: tensors is {tensors!r}, expected a list of tables",
                'write tensors = [{ name = "x", dtype = "int8", shape = [64, 64] }]',
            )
        argument = Argument(
            index=self._number(f"{where}: index", entry.get("index"), 0),
            name=name,
            role=role,
            tensors=tuple(self._tensor(f"{where}: tensor {i}", tensor, role) for i, tensor in enumerate(tensors, 1)),
            layout=layout,
            column=column,
            group=self._number(f"{where}: group", entry["group"], 0) if "group" in entry else None,
            pieces=self._number(f"{where}: pieces", entry.get("pieces", 1), 1),
            padding=self._number(f"{where}: padding", entry.get("padding", 0), 0),
            file=self._constant(where, entry, role),
        )
        self._divisible(where, argument)
        return argument

    def _constant(self, where: str, entry: Mapping[str, Any], role: Role) -> Path | None:
        if role == "constant":
            return self._file(f"{where}: file", entry.get("file"))
        if "file" in entry:
            raise self._wrong(f"{where}: a buffer of role {role!r} has no content of its own", "take `file` out")
        return None

    def _divisible(self, where: str, argument: Argument) -> None:
        for tensor in argument.tensors:
            if not tensor.dealt(argument.pieces).possible:
                raise self._wrong(
                    f"{where}: {argument.pieces} pieces cannot share dimension {tensor.axis} of {tensor.name!r}, "
                    f"{list(tensor.shape)}, evenly",
                    "write the pieces that the kernel was built for, the `axis`, or `repeated = true`",
                )
            if tensor.repeated and argument.role in ("out", "inout"):
                raise self._wrong(f"{where}: the output {tensor.name!r} is repeated", "take `repeated` out")
        if argument.file is not None and argument.file.stat().st_size != argument.tile_size:
            raise ProgramInvalid(
                f"{argument.file} has {argument.file.stat().st_size:,} bytes, and {self._path} says "
                f"{argument.tile_size:,}",
                fix="copy or build it again, with the kernel.toml that belongs to it",
            )

    def _tensor(self, where: str, entry: Mapping[str, Any], role: Role) -> Tensor:
        self._keys(where, entry, {"name", "dtype", "shape", "shared", "axis", "repeated"})
        try:
            dtype = np.dtype(self._text(f"{where}: dtype", entry.get("dtype")))
        except TypeError:
            raise self._wrong(f"{where}: dtype {entry['dtype']!r} is unknown", 'use a numpy name: "int8"') from None
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
            raise self._wrong(f"{where}: shape is {shape!r}, expected a list of sizes above 0", "write [64, 64]")
        shared = entry.get("shared", False)
        if not isinstance(shared, bool) or (shared and role != "in"):
            raise self._wrong(
                f"{where}: shared is {shared!r}",
                'only a tensor of an "in" argument can be shared; a weight is by itself',
            )
        repeated = entry.get("repeated", False)
        if not isinstance(repeated, bool):
            raise self._wrong(f"{where}: repeated is {repeated!r}", "write true or false")
        axis = self._number(f"{where}: axis", entry.get("axis", 0), 0)
        return Tensor(self._text(f"{where}: name", entry.get("name")), dtype, tuple(shape), shared, axis, repeated)

    def _covered(self, roles: tuple[str, ...], arguments: Sequence[Argument], columns: int) -> None:
        """Every tensor of these roles must be there once: in a packed buffer, or in one buffer for each column."""
        places: dict[str, list[tuple[Tensor, Argument]]] = {}
        for argument in arguments:
            for tensor in argument.tensors if argument.role in roles else ():
                places.setdefault(tensor.name, []).append((tensor, argument))
        for name, found in places.items():
            if len({tensor for tensor, _ in found}) > 1:
                raise self._wrong(
                    f"tensor {name!r} is not the same in all its arguments", "give it one dtype and shape"
                )
            held = Counter(argument.column for _, argument in found)
            if held != Counter([None]) and held != Counter(range(columns)):
                buffers = ", ".join(argument.name for _, argument in found)
                raise self._wrong(
                    f"tensor {name!r} is in {buffers}, expected one packed buffer, or one for each of the columns",
                    "name one argument for each column, or take `layout` and `column` out",
                )

    def _agree(self, manifest: Manifest) -> None:
        """What the xclbin says of itself must be what is written here."""
        told = manifest.xclbin
        if told.columns is not None and told.columns != manifest.columns:
            raise self._wrong(
                f"kernel.columns is {manifest.columns}, but {told.path.name} was built for {told.columns}",
                f"write columns = {told.columns}, or name the xclbin that this file describes",
            )
        if told.kernels and manifest.name not in told.kernels:
            raise self._wrong(
                f"kernel.name is {manifest.name!r}, but {told.path.name} has {', '.join(told.kernels)}",
                f"write name = {told.kernels[0]!r}",
            )

    def _instructions(self, path: Path) -> Path:
        size = path.stat().st_size
        if not size or size % 4:
            raise ProgramInvalid(
                f"{path} has {size} bytes: expected a whole number of 32-bit instruction words",
                fix="name the binary instructions (insts.bin), not their text form, and copy or build them again",
            )
        return path

    def _file(self, where: str, value: Any) -> Path:
        text = self._text(where, value)
        folder = self._path.parent
        path = folder / text
        if Path(text).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            raise self._wrong(f"{where}: {text!r} lies outside the folder", f"keep it beside {self._path.name}")
        if not path.is_file():
            raise ArtifactMissing(
                f"{self._path}: {where} names {text!r}, which is not there", fix=f"put it into {folder}"
            )
        return path

    def _unique(self, what: str, names: Sequence[str]) -> None:
        for name, count in Counter(names).items():
            if count > 1:
                raise self._wrong(f"{what} {name!r} is there {count} times", "give each a name of its own")

    def _number(self, where: str, value: Any, least: int, most: int | None = None) -> int:
        if type(value) is not int or value < least or (most is not None and value > most):
            found = "missing" if value is None else repr(value)
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise self._wrong(
                f"{where} is {found}, expected an integer {limits}", "write what the kernel was built for"
            )
        return value

    def _choice(self, where: str, value: Any, choices: tuple[str, ...]) -> str:
        if value not in choices:
            found = "missing" if value is None else repr(value)
            raise self._wrong(f"{where} is {found}", f"write one of {', '.join(map(repr, choices))}")
        return str(value)

    def _table(self, where: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(f"{where} is {'missing' if value is None else 'no table'}", "see docs: kernels")
        return value

    def _text(self, where: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            found = "missing" if value is None else repr(value)
            raise self._wrong(f"{where} is {found}, expected a text", "see docs: kernels")
        return value

    def _keys(self, where: str, table: Mapping[str, Any], known: set[str]) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
                raise self._wrong(f"{where} has the unknown key {key!r}", hint)

    def _wrong(self, problem: str, fix: str) -> BundleError:
        return BundleError(f"{self._path}: {problem}", fix=fix)
