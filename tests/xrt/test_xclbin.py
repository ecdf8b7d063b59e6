"""The header of an xclbin is read right, and what is no whole xclbin is refused before the vendor's library sees it."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import ProgramInvalid
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get
from hetero_xrt.xclbin import read_xclbin

# Offsets of struct axlf, from XRT's xclbin.h, written out here once more so that reader and writer are both held to it.
LENGTH, VERSION, PLATFORM, UUID, COUNT, SECTIONS = 304, 328, 352, 416, 448, 456
AIE_PARTITION, COLUMN_WIDTH = 32, 32


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("xclbin")
    write_stand_in(folder, get("gelu_i8").program(), columns=2, tiles_per_launch=2)
    return (folder / "gelu_i8.xclbin").read_bytes()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "x.xclbin"
    path.write_bytes(content)
    return path


def section(content: bytes, kind: int) -> tuple[int, int, int]:
    """Offset of its header, of its content, and its size."""
    (count,) = struct.unpack_from("<I", content, COUNT)
    for header in range(SECTIONS, SECTIONS + 40 * count, 40):
        if struct.unpack_from("<I", content, header)[0] == kind:
            offset, size = struct.unpack_from("<QQ", content, header + 24)
            return header, offset, size
    raise AssertionError(kind)


def test_a_header_is_read(tmp_path: Path, whole: bytes) -> None:
    found = read_xclbin(written(tmp_path, whole))
    assert found.uuid.replace("-", "") == whole[UUID : UUID + 16].hex()
    assert found.platform == "hetero_simulated_npu1"
    assert found.version == (2, 23, 0)
    assert [entry.name for entry in found.sections] == ["IP_LAYOUT", "USER_METADATA", "AIE_PARTITION"]
    assert all(entry.offset % 8 == 0 for entry in found.sections)
    assert (found.columns, found.start_columns) == (2, (1, 2, 3))
    assert found.kernels == ("MLIR_AIE",)
    _, offset, size = section(whole, AIE_PARTITION)
    assert (found.sections[2].offset, found.sections[2].size) == (offset, size)
    assert struct.unpack_from("<H", whole, offset + COLUMN_WIDTH) == (2,)
    assert struct.unpack_from("<Q", whole, LENGTH) == (len(whole),)


def test_what_an_xclbin_does_not_say_is_none(tmp_path: Path, whole: bytes) -> None:
    content = bytearray(whole)
    struct.pack_into("<I", content, COUNT, 0)
    found = read_xclbin(written(tmp_path, bytes(content)))
    assert (found.sections, found.columns, found.start_columns, found.kernels) == ((), None, (), ())


def test_sections_of_unknown_kinds_are_kept(tmp_path: Path, whole: bytes) -> None:
    content = bytearray(whole)
    header, _, _ = section(whole, AIE_PARTITION)
    struct.pack_into("<I", content, header, 777)
    assert read_xclbin(written(tmp_path, bytes(content))).sections[2].name == "SECTION_777"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"xclb", "ends after 4 bytes"),
        (b"\x7fELF\x02\x01\x01\0", "is no xclbin"),
        (b"xclbin0\0", "is no xclbin"),
        (b"xclbin2\0", "truncated"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(ProgramInvalid, match=told) as caught:
        read_xclbin(written(tmp_path, content))
    assert str(tmp_path) in caught.value.problem
    assert caught.value.fix


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramInvalid, match="cannot be read"):
        read_xclbin(tmp_path / "none.xclbin")


@settings(deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, whole: bytes, share: float) -> None:
    with pytest.raises(ProgramInvalid):
        read_xclbin(written(tmp_path_factory.mktemp("cut"), whole[: int(share * len(whole))]))


@pytest.mark.parametrize("length", [0, SECTIONS + 3 * 40 - 1])
def test_a_length_that_leaves_no_room_for_the_headers_is_refused(tmp_path: Path, whole: bytes, length: int) -> None:
    content = bytearray(whole)
    struct.pack_into("<Q", content, LENGTH, length)
    with pytest.raises(ProgramInvalid, match=f"claims {length} bytes"):
        read_xclbin(written(tmp_path, bytes(content)))


def test_a_section_beyond_the_end_is_refused(tmp_path: Path, whole: bytes) -> None:
    content = bytearray(whole)
    header, offset, _ = section(whole, AIE_PARTITION)
    struct.pack_into("<Q", content, header + 32, len(whole) - offset + 1)
    with pytest.raises(ProgramInvalid, match="AIE_PARTITION that ends at"):
        read_xclbin(written(tmp_path, bytes(content)))


def test_a_section_that_is_too_short_is_refused(tmp_path: Path, whole: bytes) -> None:
    content = bytearray(whole)
    header, _, _ = section(whole, AIE_PARTITION)
    struct.pack_into("<Q", content, header + 32, 40)
    with pytest.raises(ProgramInvalid, match="AIE_PARTITION of 40 bytes, too short"):
        read_xclbin(written(tmp_path, bytes(content)))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_headers_never_do_worse_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    # Anything but this error is a crash of the reader.
    with contextlib.suppress(ProgramInvalid):
        read_xclbin(written(tmp_path_factory.mktemp("damaged"), bytes(content)))
