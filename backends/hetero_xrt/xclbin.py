"""The header of an xclbin, read without the vendor's library, which an empty or truncated file can crash.

The container is `struct axlf` of XRT's `xclbin.h`: magic, signature, header, section headers, sections; little-endian.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hetero.errors import ProgramInvalid

MAGIC = b"xclbin2\0"

# m_magic, m_signature_length, reserved, m_keyBlock, m_uniqueId
_AXLF = struct.Struct("<8s i 28s 256s Q")
# m_length, m_timeStamp, m_featureRomTimeStamp, version (patch, major, minor), m_mode, m_actionMask, m_interface_uuid,
# m_platformVBNV, uuid, m_debug_bin, m_numSections
_HEADER = struct.Struct("<QQQ HBB HH 16s 64s 16s 16s I 4x")
# m_sectionKind, m_sectionName, m_sectionOffset, m_sectionSize
_SECTION = struct.Struct("<I 16s 4x QQ")
# m_type, properties, m_base_address, m_name
_IP = struct.Struct("<II Q 64s")
# column_width, then the array start_columns: size, offset. Before them in aie_partition lie 32 bytes.
_PARTITION = struct.Struct("<32x H 6x II")

_MOST_SECTIONS = 0x10000
_SECTION_NAMES = {
    0: "BITSTREAM",
    2: "EMBEDDED_METADATA",
    6: "MEM_TOPOLOGY",
    7: "CONNECTIVITY",
    8: "IP_LAYOUT",
    14: "BUILD_METADATA",
    15: "KEYVALUE_METADATA",
    16: "USER_METADATA",
    18: "PDI",
    25: "AIE_METADATA",
    26: "ASK_GROUP_TOPOLOGY",
    27: "ASK_GROUP_CONNECTIVITY",
    31: "VENDER_METADATA",
    32: "AIE_PARTITION",
    33: "IP_METADATA",
    35: "AIE_TRACE_METADATA",
}
_IP_LAYOUT, _AIE_PARTITION = 8, 32


@dataclass(frozen=True)
class Section:
    """One section of an xclbin.

    Attributes:
        kind: The number in the file.
        name: XRT's name of the kind, or `SECTION_` and the number.
        offset: Of its content in the file.
        size: Of its content, in bytes.
    """

    kind: int
    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class XclbinFile:
    """What the header of an xclbin says.

    Attributes:
        path: The file.
        uuid: Its identity, with dashes.
        platform: What it was built for, as its builder wrote it; often empty.
        version: Of the tool that wrote it.
        sections: In the order of the file.
        columns: Columns of the array that it takes; None when it does not say.
        start_columns: Columns that it may begin at; empty when it does not say.
        kernels: Names of its kernels; empty when it does not say.
    """

    path: Path
    uuid: str
    platform: str
    version: tuple[int, int, int]
    sections: tuple[Section, ...]
    columns: int | None
    start_columns: tuple[int, ...]
    kernels: tuple[str, ...]


def read_xclbin(path: Path) -> XclbinFile:
    """What the header of a file says.

    Raises:
        ProgramInvalid: It is no xclbin, or not a whole one.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as error:
        raise ProgramInvalid(
            f"{path} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from None


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = path.stat().st_size

    def read(self) -> XclbinFile:
        magic = self._file.read(len(MAGIC))
        if not magic:
            raise self._wrong("is empty")
        if magic != MAGIC:
            if magic and MAGIC.startswith(magic):
                raise self._wrong(f"ends after {len(magic)} bytes")
            raise ProgramInvalid(
                f"{self._path} is no xclbin: it begins with {magic!r}, expected {MAGIC!r}",
                fix="name the .xclbin that the kernel's build made (not its .pdi, .elf or instructions)",
            )
        length, _, _, patch, major, minor, _, _, _, platform, identity, _, count = self._unpack(_HEADER, _AXLF.size)
        if length > self._size:
            raise self._wrong(f"is truncated: it has {self._size} bytes of {length}")
        if count > _MOST_SECTIONS:
            raise self._wrong(f"claims {count} sections, more than there can be")
        start = _AXLF.size + _HEADER.size
        if start + count * _SECTION.size > length:
            raise self._wrong(f"claims {length} bytes, too few for its {count} section headers")
        sections = tuple(self._section(start + index * _SECTION.size, length) for index in range(count))
        columns, start_columns = self._partition(sections)
        return XclbinFile(
            path=self._path,
            uuid=str(uuid.UUID(bytes=identity)),
            platform=_text(platform),
            version=(major, minor, patch),
            sections=sections,
            columns=columns,
            start_columns=start_columns,
            kernels=self._kernels(sections),
        )

    def _section(self, offset: int, length: int) -> Section:
        kind, _, begin, size = self._unpack(_SECTION, offset)
        name = _SECTION_NAMES.get(kind, f"SECTION_{kind}")
        if begin + size > length:
            raise self._wrong(f"has a section {name} that ends at {begin + size}, beyond its {length} bytes")
        return Section(kind, name, begin, size)

    def _partition(self, sections: tuple[Section, ...]) -> tuple[int | None, tuple[int, ...]]:
        section = next((section for section in sections if section.kind == _AIE_PARTITION), None)
        if section is None:
            return None, ()
        width, count, offset = self._unpack(_PARTITION, section.offset, section)
        starts = self._unpack(struct.Struct(f"<{min(count, _MOST_SECTIONS)}H"), section.offset + offset, section)
        return width, starts

    def _kernels(self, sections: tuple[Section, ...]) -> tuple[str, ...]:
        section = next((section for section in sections if section.kind == _IP_LAYOUT), None)
        if section is None:
            return ()
        (count,) = self._unpack(struct.Struct("<i"), section.offset, section)
        entries = [
            self._unpack(_IP, section.offset + 8 + index * _IP.size, section)
            for index in range(min(max(count, 0), _MOST_SECTIONS))
        ]
        # An instance is named KERNEL:INSTANCE.
        return tuple(dict.fromkeys(_text(entry[-1]).partition(":")[0] for entry in entries))

    def _unpack(self, form: struct.Struct, offset: int, section: Section | None = None) -> tuple[Any, ...]:
        if section is not None and offset + form.size > section.offset + section.size:
            raise self._wrong(f"has a section {section.name} of {section.size} bytes, too short for what it holds")
        self._file.seek(offset)
        content = self._file.read(form.size)
        if len(content) < form.size:
            raise self._wrong(f"is truncated: it has {self._size} bytes, and its header goes on beyond them")
        return form.unpack(content)

    def _wrong(self, problem: str) -> ProgramInvalid:
        return ProgramInvalid(
            f"{self._path} {problem}", fix="copy or build the xclbin again; `xclbinutil --info --input FILE` shows one"
        )


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "replace")
