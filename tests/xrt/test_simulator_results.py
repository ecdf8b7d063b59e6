"""What the simulator computes is the kernels' exact references, in every layout, and only what was synced is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError
from hetero.kernel_manifest import TileTensor
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.design import Design, DesignArgument
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import read_image, write_design, write_stand_in, xclbin_of
from hetero_kernels import get

from .machine import Machine, attention, attention_tiles


@pytest.mark.parametrize("layout", ["packed", "separate"])
@pytest.mark.parametrize(("columns", "rows", "tiles"), [(4, 1, 4), (4, 4, 16), (1, 1, 1), (2, 1, 6)])
def test_attention_is_exact_in_every_layout(tmp_path: Path, layout: Any, columns: int, rows: int, tiles: int) -> None:
    machine = Machine(tmp_path, columns=columns, rows=rows, tiles_per_launch=tiles, layout=layout)
    work = attention_tiles(tiles)
    buffers = machine.buffers(work)
    run = machine.call(buffers)
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    outputs = [
        machine.read(buffer)
        for buffer, argument in zip(buffers, machine.design.arguments, strict=True)
        if argument.role == "out"
    ]
    np.testing.assert_array_equal(np.concatenate(outputs).reshape(tiles, 64, 64), attention(work))
    assert machine.misuse() == {}
    assert machine.npu.report().tiles == tiles


def test_matmul_is_exact(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "matmul_i8_64x64", tiles_per_launch=8)
    work = np.random.default_rng(1).integers(-128, 128, (8, 2, 64, 64), dtype=np.int8)
    buffers = machine.buffers(work)
    machine.call(buffers).wait()
    expected = get("matmul_i8_64x64")(np.ascontiguousarray(work[:, 0]), np.ascontiguousarray(work[:, 1]))["c"]
    np.testing.assert_array_equal(machine.read(buffers[1]).reshape(8, 64, 64), expected)


def test_gelu_is_exact_with_tiles_of_many_elements(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gelu_i8")
    work = np.random.default_rng(2).integers(-128, 128, (4, 4096), dtype=np.int8)
    buffers = machine.buffers(work)
    machine.call(buffers).wait()
    np.testing.assert_array_equal(machine.read(buffers[1]), get("gelu_i8")(work.reshape(-1))["y"])


@pytest.mark.parametrize("tile_rows", [None, 16])
def test_layernorm_takes_its_weights_from_each_tile(tmp_path: Path, tile_rows: int | None) -> None:
    machine = Machine(tmp_path, "layernorm_i8_256", tile_rows=tile_rows)
    rng = np.random.default_rng(3)
    rows = tile_rows or 1
    x = rng.integers(-128, 128, (4, rows, 256), dtype=np.int8)
    # A tile's own weights count, as on the NPU: the last tile has others.
    gamma, beta = rng.integers(-128, 128, (2, 4, 256), dtype=np.int8)
    gamma[:3], beta[:3] = gamma[0], beta[0]
    packed = np.concatenate([x.reshape(4, -1), gamma, beta], axis=1)
    buffers = machine.buffers(packed)
    machine.call(buffers).wait()
    expected = [get("layernorm_i8_256")(x[i], gamma[i], beta[i])["y"] for i in range(4)]
    np.testing.assert_array_equal(machine.read(buffers[1]).reshape(4, rows, 256), np.stack(expected))


def test_layernorm_takes_its_weights_from_an_argument(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "layernorm_i8_256", tile_rows=8, weights="argument")
    assert [argument.role for argument in machine.design.arguments] == ["in", "weight", "out"]
    rng = np.random.default_rng(4)
    x = rng.integers(-128, 128, (32, 256), dtype=np.int8)
    weights = rng.integers(-128, 128, (2, 256), dtype=np.int8)
    buffers = [machine.buffer(3, x), machine.buffer(4, weights), machine.buffer(5)]
    machine.call(buffers).wait()
    expected = get("layernorm_i8_256")(x, weights[0], weights[1])["y"]
    np.testing.assert_array_equal(machine.read(buffers[2]).reshape(32, 256), expected)


def test_references_are_found_through_plugins(tmp_path: Path) -> None:
    write_stand_in(tmp_path, "gelu_i8", 1, 1)
    x = simulated_pyxrt(clock=ControlledClock())
    device = x.device(0)
    xclbin = x.xclbin(str(tmp_path / "gelu_i8.xclbin"))
    device.register_xclbin(xclbin)
    assert x.kernel(x.hw_context(device, xclbin.get_uuid()), "MLIR_AIE").group_id(3) % 65536 == 0


def test_a_kernel_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no installed plugin knows a kernel 'attention_f32'"):
        write_stand_in(tmp_path, "attention_f32")


@pytest.mark.parametrize(("columns", "rows", "tiles"), [(5, 1, 5), (4, 1, 6), (0, 1, 1), (1, 5, 5), (2, 2, 2)])
def test_a_stand_in_that_no_array_could_hold_is_an_error(tmp_path: Path, columns: int, rows: int, tiles: int) -> None:
    with pytest.raises(OptionError):
        write_stand_in(tmp_path, get("gelu_i8").program(), columns, tiles, rows=rows)


def test_a_missing_sync_to_the_device_shows_as_stale_data(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    old, new = attention_tiles(4, 0), attention_tiles(4, 1)
    source, target = machine.buffers(old)
    np.copyto(np.frombuffer(source.map(), np.int8), new.reshape(-1))
    machine.call([source, target]).wait()
    np.testing.assert_array_equal(machine.read(target).reshape(4, 64, 64), attention(old))
    assert machine.misuse() == {"stale_input": 1}


def test_a_missing_sync_from_the_device_shows_as_stale_data(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    buffers = machine.buffers(attention_tiles(4))
    machine.call(buffers).wait()
    assert not np.frombuffer(buffers[1].map(), np.int8).any()
    assert machine.read(buffers[1]).any()


def test_part_of_a_buffer_can_be_synced(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    work = attention_tiles(4)
    buffers = machine.buffers(work)
    machine.call(buffers).wait()
    buffers[1].sync(machine.from_device, 4096, 8192)
    seen = buffers[1].read(16384, 0).reshape(4, 64, 64)
    np.testing.assert_array_equal(seen[2], attention(work)[2])
    assert not seen[[0, 1, 3]].any()


def test_a_run_reads_what_another_left_on_the_device(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "gelu_i8", tiles_per_launch=4)
    x = np.arange(4 * 4096).astype(np.int8)
    first, second, third = machine.buffer(3, x), machine.buffer(4), machine.buffer(4)
    runs = [machine.call([first, second]), machine.call([second, third])]
    assert all(run.wait() is machine.states.ERT_CMD_STATE_COMPLETED for run in runs)
    gelu = get("gelu_i8")
    np.testing.assert_array_equal(machine.read(third), gelu(gelu(x)["y"])["y"])
    assert machine.misuse() == {"unwritten_input": 1}, "its launch was before the first had ended"


def test_the_compiled_order_is_all_inputs_then_all_outputs(tmp_path: Path) -> None:
    """With in and out interleaved, as the first programs for this kernel had it, every output comes back zero."""
    machine = Machine(tmp_path, layout="separate")
    work = attention_tiles(4)
    buffers = machine.buffers(work)
    inputs, outputs = buffers[:4], buffers[4:]
    interleaved = [buffer for pair in zip(inputs, outputs, strict=True) for buffer in pair]
    assert machine.call(interleaved).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert not any(machine.read(output).any() for output in outputs)
    assert machine.misuse() == {"argument_size": 2, "unwritten_input": 2}


def test_two_inputs_of_a_design_are_not_interchangeable(tmp_path: Path) -> None:
    machine = Machine(tmp_path, layout="separate", columns=2, tiles_per_launch=2)
    work = attention_tiles(2)
    a, b, out_a, out_b = machine.buffers(work)
    machine.call([b, a, out_a, out_b]).wait()
    np.testing.assert_array_equal(machine.read(out_a).reshape(64, 64), attention(work)[1])


def test_a_stand_in_is_the_same_for_the_same_design_only(tmp_path: Path) -> None:
    program = get("gelu_i8").program()
    for folder, tiles in (("a", 4), ("b", 4), ("c", 8)):
        write_stand_in(tmp_path / folder, program, tiles_per_launch=tiles)
    a, b, c = (
        [(tmp_path / folder / name).read_bytes() for name in ("gelu_i8.xclbin", "gelu_i8.insts.bin")]
        for folder in "abc"
    )
    assert a == b
    assert a[0] != c[0]
    assert a[1] != c[1]


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@settings(deadline=None, max_examples=40)
@given(
    columns=st.integers(1, 4),
    per_column=st.integers(1, 3),
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    separate=st.booleans(),
    seed=st.integers(0, 9),
)
def test_packing_and_unpacking_are_each_others_inverse(
    tmp_path_factory: pytest.TempPathFactory, columns: int, per_column: int, shapes: Any, separate: bool, seed: int
) -> None:
    """A kernel that copies gives back every byte in its place in every layout; and a design survives its file."""
    tiles = columns * per_column
    ins = tuple(TileTensor(f"x{i}", "int16", shape) for i, shape in enumerate(shapes))
    outs = tuple(TileTensor(f"y{i}", "int16", shape) for i, shape in enumerate(shapes))
    places = range(columns) if separate else [None]
    arguments = [("in", ins, place) for place in places] + [("out", outs, place) for place in places]
    design = Design(
        "copy",
        tuple(DesignArgument(3 + i, f"a{i}", role, t, place) for i, (role, t, place) in enumerate(arguments)),
        columns,
        tiles,
    )
    folder = tmp_path_factory.mktemp("copy")
    write_design(folder, design)
    image = read_image((folder / "copy.xclbin").read_bytes())
    assert image is not None
    assert image.design == design
    assert (folder / "copy.insts.bin").read_bytes() == image.instructions
    assert xclbin_of(image.design) == (folder / "copy.xclbin").read_bytes()
    rng = np.random.default_rng(seed)
    contents = {a.index: rng.integers(0, 256, design.size_of(a), np.uint8) for a in design.arguments if a.role == "in"}
    answers = design.compute(contents, lambda **inputs: {f"y{name[1:]}": array for name, array in inputs.items()})
    for source, (index, target) in zip(contents.values(), sorted(answers.items()), strict=True):
        np.testing.assert_array_equal(target, source, err_msg=f"argument {index}")
