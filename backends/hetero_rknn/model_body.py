"""The few things of a `.rknn` file's body that its JSON does not say: the graph's own types, and its operators.

The body is a flatbuffer with the identifier `RKNN`. Its schema is not published; what is used here was found in files
of rknn-toolkit2 2.2.0 to 2.5.0 and agrees with the schema that the rknncli project worked out. In the root table, slot
2 is the list of graphs (slot 1 of which lists nodes, slot 1 of which is the operator's name); slot 3 is a text, a
Python literal with the original dtype, shape and layout of every input and output; slots 12 and 13 say how the NPU
wants the inputs and leaves the outputs. A file that has none of this is still a good file; one whose offsets lead out
of it is damaged.
"""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_IDENTIFIER = b"RKNN"
_LONGEST_TEXT = 1 << 20
_MOST_ITEMS = 1 << 16

_GRAPHS, _ATTRIBUTES, _INPUTS, _OUTPUTS = 2, 3, 12, 13
_NODES, _OPERATOR = 1, 1


class Damaged(Exception):
    """An offset that leads out of the body, or a length that is absurd."""


@dataclass(frozen=True)
class Body:
    """What was found; every part may be empty.

    Attributes:
        attributes: By tensor name: `dtype`, `shape`, `layout`, `mean`, `std`, `rgb2bgr` of the original graph.
        dynamic_shapes: By tensor name: all shapes that the file was compiled for.
        native: By tensor name: `dtype` and `layout` on the NPU.
        operators: The names of the operators in use.
    """

    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dynamic_shapes: Mapping[str, Any] = field(default_factory=dict)
    native: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()


def read_body(body: memoryview) -> Body:
    """Read what is there.

    Args:
        body: Of the whole body; only a few pages of it are touched.

    Raises:
        Damaged: It calls itself a flatbuffer of RKNN, and is broken.
    """
    if bytes(body[4:8]) != _IDENTIFIER:
        return Body()
    try:
        buffer = _Flatbuffer(body)
        root = buffer.root()
        described = _literal(buffer.text(root, _ATTRIBUTES))
        native: dict[str, Mapping[str, Any]] = {}
        for slot in (_INPUTS, _OUTPUTS):
            native |= _tables(_json(buffer.text(root, slot)))
        operators = {
            buffer.text(node, _OPERATOR)
            for graph in buffer.tables(root, _GRAPHS)
            for node in buffer.tables(graph, _NODES)
        }
    except struct.error:
        raise Damaged("an offset leads out of the file") from None
    return Body(
        _tables(described.get("attrs")),
        _mapping(described.get("dynamic_shapes")),
        native,
        frozenset(operators - {""}),
    )


class _Flatbuffer:
    """Enough of the format to follow tables, lists of tables and texts; see flatbuffers.dev, "Internals"."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def root(self) -> int:
        return self._offset(0)

    def text(self, table: int, slot: int) -> str:
        """A text field, empty where there is none."""
        at = self._field(table, slot)
        if at is None:
            return ""
        at = self._offset(at)
        length = self._number("<I", at)
        if length > _LONGEST_TEXT or at + 4 + length > len(self._content):
            raise Damaged(f"a text of {length} bytes")
        return bytes(self._content[at + 4 : at + 4 + length]).decode("utf-8", "replace")

    def tables(self, table: int, slot: int) -> Iterator[int]:
        """Where the tables of a list field are."""
        at = self._field(table, slot)
        if at is None:
            return
        at = self._offset(at)
        count = self._number("<I", at)
        if count > _MOST_ITEMS:
            raise Damaged(f"a list of {count} items")
        for item in range(count):
            yield self._offset(at + 4 + 4 * item)

    def _field(self, table: int, slot: int) -> int | None:
        entries = table - self._number("<i", table)
        entry = 4 + 2 * slot
        if entry >= self._number("<H", entries):
            return None
        offset = self._number("<H", entries + entry)
        return table + offset if offset else None

    def _offset(self, at: int) -> int:
        """The place that the offset stored at `at` leads to."""
        return at + self._number("<I", at)

    def _number(self, form: str, at: int) -> int:
        # struct counts a negative offset from the end, where a damaged file must not lead.
        if at < 0:
            raise Damaged("an offset leads out of the file")
        return int(struct.unpack_from(form, self._content, at)[0])


def _literal(text: str) -> dict[str, Any]:
    """Some entries of a Python dictionary that was written with `str`.

    Entry by entry, since those that nobody asked for may hold a `nan` or an `inf`, which are no literals. Anything
    unexpected is no entry: the text is a private matter of the toolkit's and may change.
    """
    try:
        tree = ast.parse(text.strip() or "{}", mode="eval").body
        if not isinstance(tree, ast.Dict):
            return {}
        return {
            str(key.value): ast.literal_eval(value)
            for key, value in zip(tree.keys, tree.values, strict=True)
            if isinstance(key, ast.Constant) and key.value in ("attrs", "dynamic_shapes")
        }
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return {}


def _json(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return {str(name): entry for name, entry in value.items()} if isinstance(value, dict) else {}


def _tables(value: Any) -> dict[str, Mapping[str, Any]]:
    """The entries of a dictionary that are dictionaries themselves."""
    return {name: entry for name, entry in _mapping(value).items() if isinstance(entry, dict)}
