"""What is read of a shader, and that a broken one is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import ProgramInvalid, ProgramNotFound
from hetero_kernels import vulkan as kernels
from hetero_vulkan.spirv import Constant, Member, read_shader


def test_bindings_constants_and_push_constants_have_the_sources_names() -> None:
    add, transpose = read_shader(kernels.spirv("add")), read_shader(kernels.spirv("transpose"))
    assert add.bindings == ((0, True), (1, True), (2, False))
    assert add.constants == {"local_size_x": Constant(0, "I", 1)}
    assert add.push == {"count": Member(0, "I")}
    assert add.local_size == ("local_size_x", 1, 1)
    assert transpose.constants == {"TILE": Constant(0, "I", 16)}
    assert transpose.push == {"rows": Member(0, "I"), "columns": Member(4, "I")}
    assert transpose.local_size == ("TILE", "TILE", 1)
    assert (add.entry, add.push_bytes, transpose.push_bytes) == ("main", 4, 8)


def test_halves_of_addresses_are_no_push_constants_of_the_caller_s() -> None:
    plain, addressed = (read_shader(kernels.spirv(f"gemm_subgroup_{way}")) for way in ("wide", "address"))
    assert plain.addresses == {}
    assert addressed.push == plain.push
    assert addressed.addresses == {0: plain.push_bytes, 1: plain.push_bytes + 8}
    assert addressed.push_bytes == plain.push_bytes + 16
    assert addressed.features - plain.features == {"bufferDeviceAddress"}
    apart = addressed.code.replace(b"address_1_high", b"address_0_last").replace(b"address_0_high", b"address_1_high")
    with pytest.raises(ProgramInvalid):
        read_shader(apart)


def test_what_a_device_must_have_is_read_from_the_shader() -> None:
    assert read_shader(kernels.spirv("add")).subgroup_operations == 0
    # Basic, arithmetic, shuffle.
    assert read_shader(kernels.spirv("selftest_subgroup")).subgroup_operations == 1 | 4 | 16


@pytest.mark.parametrize("name", kernels.names())
def test_every_shader_can_be_read(name: str) -> None:
    shader = read_shader(kernels.spirv(name))
    assert shader.bindings
    assert any(not reads for _, reads in shader.bindings), "it writes nothing"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**32 - 1), st.integers(0, 500))
def test_a_broken_shader_is_refused_or_read_but_nothing_else(word: int, value: int, keep: int) -> None:
    code = bytearray(kernels.spirv("add"))
    at = 4 * (word % (len(code) // 4))
    code[at : at + 4] = value.to_bytes(4, "little")
    for broken in (bytes(code), bytes(code[: 4 * keep])):
        with contextlib.suppress(ProgramInvalid):
            read_shader(broken)


@pytest.mark.parametrize("code", [b"", b"no SPIR-V at all, but long enough to be one", bytes(64)])
def test_what_is_no_spirv_is_refused(code: bytes) -> None:
    with pytest.raises(ProgramInvalid, match="no SPIR-V"):
        read_shader(code)


def test_an_unknown_shader_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ProgramNotFound, match="no shader 'ad'") as caught:
        kernels.spirv("ad")
    assert "add" in caught.value.fix
