"""Reading a `kernel.toml`: every key and every file that it names is checked; `manifest` says what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from hetero.errors import ArtifactMissing, ProgramInvalid
from hetero.kernel_manifest import FIRST_DATA_ARGUMENT, FORMAT, KERNEL_TOML, Fill, Layout, Order, Role, Worker
from hetero.toml_checks import TomlChecks, read_toml
from hetero_xrt.arguments import Argument, Tensor
from hetero_xrt.manifest import Batch, Manifest, Tiles
from hetero_xrt.xclbin import read_xclbin

_MOST = {"npu1": (4, 4)}
"""Columns and rows of the generations of NPUs that this reads manifests for."""


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
        path = path / KERNEL_TOML
    try:
        content = read_toml(path)
    except OSError as error:
        raise ArtifactMissing(
            f"{path} cannot be read: {error.strerror}", fix=f"put a {KERNEL_TOML} beside the xclbin (docs: kernels)"
        ) from None
    return _Reader(path, content).read()


class _Reader(TomlChecks):
    """The content of one `kernel.toml`."""

    docs = "kernels"

    def read(self) -> Manifest:
        self.keys("the top level", self.content, {"kernel", "batch", "argument"})
        head = self.table("[kernel]", self.content.get("kernel"))
        known = {"format", "name", "logical", "target", "xclbin", "instructions", "opcode", "columns", "rows"}
        self.keys("[kernel]", head, {*known, "tiles_per_launch", "description", "worker"})
        if head.get("format") != FORMAT:
            raise self.wrong(f"kernel.format is {head.get('format')!r}, expected {FORMAT}", "upgrade hetero")
        target = self.choice("kernel.target", head.get("target"), tuple(_MOST))
        most_columns, most_rows = _MOST[target]
        columns = self.number("kernel.columns", head.get("columns"), 1, most_columns)
        rows = self.number("kernel.rows", head.get("rows", 1), 1, most_rows)
        tiles = self.number("kernel.tiles_per_launch", head.get("tiles_per_launch"), 1)
        worker = cast(Worker, self.choice("kernel.worker", head.get("worker", "core"), get_args(Worker)))
        sharing = {"core": columns * rows, "column": columns, "array": 1}[worker]
        if tiles % sharing:
            raise self.wrong(
                f"kernel.tiles_per_launch is {tiles}, which {columns} columns of {rows} rows cannot share evenly",
                f"write the number that the kernel was built for, a multiple of {sharing}",
            )
        arguments = self._arguments(columns)
        manifest = Manifest(
            path=self.path,
            name=self.text("kernel.name", head.get("name")),
            logical=self.text("kernel.logical", head.get("logical")),
            target=target,
            xclbin=read_xclbin(self.file("kernel.xclbin", head.get("xclbin"))),
            instructions=self._instructions(self.file("kernel.instructions", head.get("instructions"))),
            opcode=self.number("kernel.opcode", head.get("opcode", 3), 0),
            columns=columns,
            rows=rows,
            tiles_per_launch=tiles,
            arguments=arguments,
            batch=self._batch(),
            worker=worker,
        )
        if worker == "array" and (manifest.batch.order != "columns" or any(a.column is not None for a in arguments)):
            raise self.wrong(
                "all columns work on each tile, so that none has tiles of its own",
                'take `order`, `layout` and `column` out, or `worker = "array"`',
            )
        self._agree(manifest)
        return manifest

    def _batch(self) -> Batch:
        table = self.table("[batch]", self.content.get("batch", {}))
        self.keys("[batch]", table, {"order", "fill", "tiles"})
        return Batch(
            cast(Order, self.choice("batch.order", table.get("order", "columns"), get_args(Order))),
            cast(Fill, self.choice("batch.fill", table.get("fill", "zeros"), get_args(Fill))),
            cast(Tiles, self.choice("batch.tiles", table.get("tiles", "stacked"), get_args(Tiles))),
        )

    def _arguments(self, columns: int) -> tuple[Argument, ...]:
        tables = self.tables("argument")
        arguments = tuple(self._argument(f"argument {i}", entry, columns) for i, entry in enumerate(tables, 1))
        indices = [argument.index for argument in arguments]
        expected = list(range(FIRST_DATA_ARGUMENT, FIRST_DATA_ARGUMENT + len(arguments)))
        if indices != expected:
            raise self.wrong(
                f"the arguments have the indices {indices}, expected {expected}",
                "name every buffer of the kernel once, in the order of the compiled design "
                "(all inputs before the outputs, as a rule): data begins at 3",
            )
        self.unique("argument", [argument.name for argument in arguments])
        for role, what in (("in", "input"), ("out", "output")):
            if not any(argument.role in (role, "inout") for argument in arguments):
                raise self.wrong(f"no argument has the role {role!r}", f"name the kernel's {what} buffers")
        for roles in (("in", "inout", "weight"), ("out", "inout")):
            self._covered(roles, arguments, columns)
        return arguments

    def _argument(self, where: str, entry: Mapping[str, Any], columns: int) -> Argument:
        known = {"index", "name", "role", "layout", "column", "group", "tensors", "pieces", "padding", "file"}
        self.keys(where, entry, known)
        name = self.text(f"{where}: name", entry.get("name"))
        where = f"{where} ({name})"
        role = cast(Role, self.choice(f"{where}: role", entry.get("role"), get_args(Role)))
        layout = cast(Layout, self.choice(f"{where}: layout", entry.get("layout", "packed"), get_args(Layout)))
        column = None
        if layout == "separate":
            column = self.number(f"{where}: column", entry.get("column"), 0, columns - 1)
            if role in ("weight", "scratch", "constant"):
                raise self.wrong(f"{where}: a {role} holds no tiles, so that it has no layout", "take `layout` out")
        elif "column" in entry:
            raise self.wrong(f"{where}: a packed buffer holds every column", "take `column` out")
        tensors = entry.get("tensors")
        if not isinstance(tensors, list) or not tensors or not all(isinstance(tensor, dict) for tensor in tensors):
            raise self.wrong(
                f"{where}: tensors is {tensors!r}, expected a list of tables",
                'write tensors = [{ name = "x", dtype = "int8", shape = [64, 64] }]',
            )
        argument = Argument(
            index=self.number(f"{where}: index", entry.get("index"), 0),
            name=name,
            role=role,
            tensors=tuple(self._tensor(f"{where}: tensor {i}", tensor, role) for i, tensor in enumerate(tensors, 1)),
            layout=layout,
            column=column,
            group=self.number(f"{where}: group", entry["group"], 0) if "group" in entry else None,
            pieces=self.number(f"{where}: pieces", entry.get("pieces", 1), 1),
            padding=self.number(f"{where}: padding", entry.get("padding", 0), 0),
            file=self._constant(where, entry, role),
        )
        self._divisible(where, argument)
        return argument

    def _constant(self, where: str, entry: Mapping[str, Any], role: Role) -> Path | None:
        if role == "constant":
            return self.file(f"{where}: file", entry.get("file"))
        if "file" in entry:
            raise self.wrong(f"{where}: a buffer of role {role!r} has no content of its own", "take `file` out")
        return None

    def _divisible(self, where: str, argument: Argument) -> None:
        for tensor in argument.tensors:
            if not tensor.dealt(argument.pieces).possible:
                raise self.wrong(
                    f"{where}: {argument.pieces} pieces cannot share dimension {tensor.axis} of {tensor.name!r}, "
                    f"{list(tensor.shape)}, evenly",
                    "write the pieces that the kernel was built for, the `axis`, or `repeated = true`",
                )
            if tensor.repeated and argument.role in ("out", "inout"):
                raise self.wrong(f"{where}: the output {tensor.name!r} is repeated", "take `repeated` out")
        if argument.file is not None and argument.file.stat().st_size != argument.tile_size:
            raise ProgramInvalid(
                f"{argument.file} has {argument.file.stat().st_size:,} bytes, and {self.path} says "
                f"{argument.tile_size:,}",
                fix="copy or build it again, with the kernel.toml that belongs to it",
            )

    def _tensor(self, where: str, entry: Mapping[str, Any], role: Role) -> Tensor:
        self.keys(where, entry, {"name", "dtype", "shape", "shared", "axis", "repeated"})
        try:
            dtype = np.dtype(self.text(f"{where}: dtype", entry.get("dtype")))
        except TypeError:
            raise self.wrong(f"{where}: dtype {entry['dtype']!r} is unknown", 'use a numpy name: "int8"') from None
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
            raise self.wrong(f"{where}: shape is {shape!r}, expected a list of sizes above 0", "write [64, 64]")
        shared = entry.get("shared", False)
        if not isinstance(shared, bool) or (shared and role != "in"):
            raise self.wrong(
                f"{where}: shared is {shared!r}",
                'only a tensor of an "in" argument can be shared; a weight is by itself',
            )
        repeated = entry.get("repeated", False)
        if not isinstance(repeated, bool):
            raise self.wrong(f"{where}: repeated is {repeated!r}", "write true or false")
        axis = self.number(f"{where}: axis", entry.get("axis", 0), 0)
        return Tensor(self.text(f"{where}: name", entry.get("name")), dtype, tuple(shape), shared, axis, repeated)

    def _covered(self, roles: tuple[str, ...], arguments: Sequence[Argument], columns: int) -> None:
        """Every tensor of these roles must be there once: in a packed buffer, or in one buffer for each column."""
        places: dict[str, list[tuple[Tensor, Argument]]] = {}
        for argument in arguments:
            for tensor in argument.tensors if argument.role in roles else ():
                places.setdefault(tensor.name, []).append((tensor, argument))
        for name, found in places.items():
            if len({tensor for tensor, _ in found}) > 1:
                raise self.wrong(f"tensor {name!r} is not the same in all its arguments", "give it one dtype and shape")
            held = Counter(argument.column for _, argument in found)
            if held != Counter([None]) and held != Counter(range(columns)):
                buffers = ", ".join(argument.name for _, argument in found)
                raise self.wrong(
                    f"tensor {name!r} is in {buffers}, expected one packed buffer, or one for each of the columns",
                    "name one argument for each column, or take `layout` and `column` out",
                )

    def _agree(self, manifest: Manifest) -> None:
        """What the xclbin says of itself must be what is written here."""
        told = manifest.xclbin
        if told.columns is not None and told.columns != manifest.columns:
            raise self.wrong(
                f"kernel.columns is {manifest.columns}, but {told.path.name} was built for {told.columns}",
                f"write columns = {told.columns}, or name the xclbin that this file describes",
            )
        if told.kernels and manifest.name not in told.kernels:
            raise self.wrong(
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
