"""What a `.rknn` file is made of: magic, lengths, a body and a description in JSON. And what is none.

The layout, found in files of rknn-toolkit2 2.2.0 to 2.5.0 and agreeing with what others found::

    0   RKNN and four zeros          (CYPTRKNN: encrypted)
    8   u64  format version          6 since toolkit 1.5.2
    16  u64  length of the body
    64  the body: weights and commands (from 24 in format 1)
        u64  length of the JSON
        the JSON: target_platform, version, norm_tensor (names and shapes), graph (which of them are in and out)
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hetero.errors import ProgramInvalid, ProgramNotFound
from hetero_rknn.model_body import Body, Damaged, read_body

_MAGIC = b"RKNN\0\0\0\0"
_ENCRYPTED = b"CYPTRKNN"
_LONGEST_JSON = 16 << 20
_AGAIN = "compile it again (hetero compile MODEL.onnx --target SOC), or copy it again"

# What a file begins with that is not one; protobuf's first field of an ONNX model is its IR version.
_FOREIGN = (
    (re.compile(rb"\s*<"), "a web page or XML"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the file itself"),
    (re.compile(rb"\x08[\x01-\x20]"), "an ONNX model"),
    (re.compile(rb"PK\x03\x04"), "a zip archive or a PyTorch model"),
    (re.compile(rb"....TFL3", re.DOTALL), "a TensorFlow Lite model"),
)


@dataclass(frozen=True)
class Container:
    """The parts of a file, each as it is: nothing of the description has been checked but that it is a JSON object.

    Attributes:
        path: The file.
        format_version: Such as 6.
        description: The JSON.
        body: What the body adds to it.
    """

    path: Path
    format_version: int
    description: Mapping[str, Any]
    body: Body


def read_container(path: Path) -> Container:
    """Take a file apart; the weights are not read.

    Raises:
        ProgramNotFound: There is no such file.
        ProgramInvalid: It is empty, truncated, damaged, encrypted, or something else altogether.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path)
    except FileNotFoundError:
        raise ProgramNotFound(f"{path} is not there") from None
    except OSError as error:
        raise ProgramInvalid(f"{path} cannot be read: {error.strerror or error}") from None


def damaged(path: Path, reason: str) -> ProgramInvalid:
    """The error for a file whose contents contradict each other."""
    return ProgramInvalid(f"{path} is damaged: {reason}", fix=_AGAIN)


def _read(file: BinaryIO, path: Path) -> Container:
    header = file.read(64)
    if not header:
        raise ProgramInvalid(f"{path} is empty", fix=_AGAIN)
    if not header.startswith(_MAGIC):
        raise _foreign(header, path)
    if len(header) < 24:
        raise _truncated(path, len(header), 24)
    format_version, length = struct.unpack_from("<QQ", header, 8)
    size = file.seek(0, 2)
    start = 64 if format_version > 1 else 24
    if start + length + 8 > size:
        raise _truncated(path, size, start + length + 8)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        (described,) = struct.unpack_from("<Q", content, start + length)
        if start + length + 8 + described > size:
            raise _truncated(path, size, start + length + 8 + described)
        if described > _LONGEST_JSON:
            raise damaged(path, f"its description is said to have {described} bytes")
        text = content[start + length + 8 : start + length + 8 + described]
        with memoryview(content) as view, view[start : start + length] as body:
            try:
                found = read_body(body)
            except Damaged as error:
                raise damaged(path, str(error)) from None
    return Container(path, format_version, _parse(text, path), found)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        described = json.loads(text.rstrip(b"\0"))
    except (ValueError, RecursionError):
        raise damaged(path, "its description is no JSON") from None
    if not isinstance(described, dict):
        raise damaged(path, "its description is no JSON object")
    return described


def _foreign(header: bytes, path: Path) -> ProgramInvalid:
    if header.startswith(_ENCRYPTED):
        return ProgramInvalid(
            f"{path} is an encrypted RKNN model: its inputs and outputs cannot be checked",
            fix="use the model as it was before export_encrypted_rknn_model",
        )
    if _MAGIC.startswith(header):
        return _truncated(path, len(header), 24)
    kind = next((kind for pattern, kind in _FOREIGN if pattern.match(header)), f"something that begins {header[:8]!r}")
    fix = "compile it: hetero compile MODEL.onnx --target SOC" if "ONNX" in kind else _AGAIN
    return ProgramInvalid(f"{path} is no RKNN model, but {kind}", fix=fix)


def _truncated(path: Path, size: int, needed: int) -> ProgramInvalid:
    return ProgramInvalid(f"{path} is truncated or damaged: {size} bytes, expected {needed} or more", fix=_AGAIN)
