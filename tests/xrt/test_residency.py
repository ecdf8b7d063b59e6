"""Weights that stay on the NPU: copied once, apart for each set, bounded, and gone when they are let go of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hetero
from hetero.backend import Call
from hetero.errors import ExecutionError, OutOfMemory
from hetero.scheduler.polling import run_polled
from hetero.tensors import Array
from hetero.testing.xrt.stand_in import write_stand_in
from hetero_kernels import get
from hetero_xrt import simulated
from hetero_xrt.executable import TileTicket
from hetero_xrt.layout import Tiles
from hetero_xrt.reading import read_manifest
from hetero_xrt.weights import ResidentWeights, Weights
from tests.xrt.npu import Laptop, still

GEMM = "gemm_i8_i32_128x64"
SIZE = 128 * 64


def int8(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape, dtype=np.int8)


class Products:
    """A product's kernel on a simulated NPU, and sets of weights for it."""

    def __init__(self, folder: Path, *, limit: int = 1 << 20, tiles: int = 4, in_flight: int = 2, **phoenix: Any):
        self.laptop = Laptop(folder, **phoenix)
        self.laptop.flow.weights = ResidentWeights(limit)
        self.kernel = get(GEMM)
        program = self.kernel.program()
        manifest = read_manifest(write_stand_in(folder / "k", program, 4, tiles, tile_rows=64, weights="argument"))
        self.tiles = Tiles(manifest, program)
        self.key, self.pool = self.laptop.cache.get(
            manifest, self.tiles, program.identity, contexts=1, in_flight=in_flight, strict=True
        )
        self.arrays = [int8(128, 64, seed=100 + number) for number in range(8)]
        self.sets = [Weights({"w": array}, stays=True) for array in self.arrays]

    def start(self, a: Array, weights: Weights) -> TileTicket:
        return TileTicket(self.pool, self.tiles, {"a": a}, weights, Call(0), 10.0, None)

    def run(self, a: Array, weights: Weights) -> Array:
        ticket = self.start(a, weights)
        while not ticket.done():
            pass
        return ticket.result()["c"]

    def check(self, rows: int, number: int, seed: int = 0) -> None:
        a = int8(rows, 128, seed=seed)
        expected = self.kernel.reference(a=a, w=self.arrays[number])["c"]
        np.testing.assert_array_equal(self.run(a, self.sets[number]), expected)


def copies_to_device(products: Products, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of every sync to the device from now on."""
    sizes: list[int] = []
    original = products.laptop.x.bo.sync

    def counted(self: Any, direction: Any, *rest: Any) -> None:
        if direction is products.laptop.flow.to_device:
            sizes.append(rest[0])
        original(self, direction, *rest)

    monkeypatch.setattr(products.laptop.x.bo, "sync", counted)
    return sizes


def test_a_set_is_copied_and_synced_once_however_often_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = Products(tmp_path)
    sizes = copies_to_device(products, monkeypatch)
    for seed in range(3):
        for number in range(4):
            products.check(700, number, seed)
    assert sizes.count(SIZE) == 4, "once for each set"
    assert products.laptop.flow.weights.count == 4
    assert products.laptop.flow.weights.nbytes == 4 * SIZE
    products.laptop.check_clean()


@settings(max_examples=40, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 600)), min_size=1, max_size=12),
    limit=st.sampled_from([0, SIZE, 3 * SIZE, 1 << 20]),
    in_flight=st.integers(1, 4),
    drops=st.sets(st.integers(0, 11)),
)
def test_whatever_goes_and_comes_back_each_launch_reads_its_own_weights(
    tmp_path_factory: pytest.TempPathFactory,
    calls: list[tuple[int, int]],
    limit: int,
    in_flight: int,
    drops: set[int],
) -> None:
    products = Products(tmp_path_factory.mktemp("sets"), limit=limit, in_flight=in_flight)
    for turn, (number, rows) in enumerate(calls):
        products.check(rows, number, turn)
        assert products.laptop.flow.weights.nbytes <= max(limit, SIZE)
        if turn in drops:
            products.pool.drop(products.sets[number])
    products.laptop.check_clean()


def test_requests_with_different_weights_are_in_flight_together(tmp_path: Path) -> None:
    products = Products(tmp_path, poll=1e-5)
    a = int8(256, 128)
    first, second = products.start(a, products.sets[0]), products.start(a, products.sets[1])
    while not (first.done() and second.done()):
        pass
    for ticket, weights in ((first, 0), (second, 1)):
        expected = products.kernel.reference(a=a, w=products.arrays[weights])["c"]
        np.testing.assert_array_equal(ticket.result()["c"], expected)
    assert products.laptop.npu.report().peak_in_flight == 2
    products.laptop.check_clean()


def test_a_set_that_is_dropped_is_gone_from_the_device(tmp_path: Path) -> None:
    products = Products(tmp_path)
    before = products.laptop.npu.memory.locked
    for number in range(4):
        products.check(600, number)
    assert products.laptop.npu.memory.locked == before + 4 * SIZE
    for weights in products.sets:
        products.pool.drop(weights)
    assert products.laptop.npu.memory.locked == before
    assert products.laptop.flow.weights.nbytes == 0


def test_a_set_that_is_dropped_while_a_launch_reads_it_is_gone_when_that_has_landed(tmp_path: Path) -> None:
    products = Products(tmp_path)
    before = products.laptop.npu.memory.locked
    ticket: TileTicket | None = products.start(int8(64, 128), products.sets[0])
    products.pool.drop(products.sets[0])
    assert products.laptop.npu.memory.locked == before + SIZE, "held by the launch"
    del ticket
    products.sets.clear()
    products.laptop.clock.advance(10)
    product = Weights({"w": products.arrays[1]}, stays=True)
    products.run(int8(64, 128), product)
    products.pool.drop(product)
    assert products.laptop.npu.memory.locked == before
    products.laptop.check_clean()


def test_the_limit_of_locked_memory_lets_the_least_used_set_go(tmp_path: Path) -> None:
    probe = Products(tmp_path / "probe")
    room = probe.laptop.npu.memory.locked + 2 * SIZE
    products = Products(tmp_path, memlock_bytes=room, in_flight=1 + 1)
    for number in (0, 1, 2, 3, 0):
        products.check(600, number)
    assert products.laptop.flow.weights.count == 2
    products.laptop.check_clean()


def test_a_set_that_finds_no_room_at_all_is_an_error_of_its_request(tmp_path: Path) -> None:
    probe = Products(tmp_path / "probe")
    products = Products(tmp_path, memlock_bytes=probe.laptop.npu.memory.locked + SIZE // 2)
    with pytest.raises(OutOfMemory, match="locked memory"):
        products.run(int8(64, 128), products.sets[0])
    assert products.pool.idle, "the launch is free again"


def test_a_context_that_goes_takes_its_weights_along(tmp_path: Path) -> None:
    products = Products(tmp_path)
    products.check(64, 0)
    products.laptop.cache.release(products.key)
    products.laptop.cache.close()
    del products.pool
    assert products.laptop.flow.weights.count == 0
    assert products.laptop.npu.memory.locked == 0


def test_a_failed_launch_leaves_the_weights_where_they_are(tmp_path: Path) -> None:
    products = Products(tmp_path)
    products.check(64, 0)
    products.laptop.npu.force("error")
    with pytest.raises(ExecutionError):
        products.run(int8(64, 128), products.sets[0])
    products.check(64, 0, seed=1)
    assert products.laptop.flow.weights.count == 1
    products.laptop.check_clean()


def test_weights_of_a_graph_cannot_be_written_to() -> None:
    weights = Weights({"w": int8(4, 4)}, stays=True)
    with pytest.raises(ValueError, match="read-only"):
        weights.arrays["w"][0] = 1


def test_weights_that_a_user_hands_in_may_change_from_call_to_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = Products(tmp_path)
    executable = products.laptop.load(products.tiles.manifest)
    sizes = copies_to_device(products, monkeypatch)
    a, w = int8(1500, 128), int8(128, 64)
    for turn in range(3):
        w[:] = int8(128, 64, seed=turn)
        answer = run_polled(executable, {"a": a, "w": w}, Call(0), sleep=still)["c"]
        np.testing.assert_array_equal(answer, products.kernel.reference(a=a, w=w)["c"])
    assert products.laptop.flow.weights.count == 0, "nothing of it stays"
    assert sizes.count(SIZE) == 3 * 2, "in each call once for each of the two launches, which do six rounds"
    products.laptop.check_clean()


def test_a_product_is_run_by_its_name_with_weights_like_any_other_input(tmp_path: Path) -> None:
    with hetero.Runtime(chain=["xrt", "cpu"], simulate="phoenix") as runtime:
        product = runtime.load(GEMM, fallback="forbid", device="xrt")
        a, w = int8(1000, 128), int8(128, 64)
        np.testing.assert_array_equal(product(a, w), get(GEMM)(a, w)["c"])
        assert {record.device for record in runtime.records} == {"xrt"}


def test_a_product_s_stand_in_takes_sixteen_tiles_of_64_rows_and_its_time_goes_by_its_size(tmp_path: Path) -> None:
    manifest = simulated.stand_in(get(GEMM).program(), None, 4, tmp_path)
    assert (manifest.columns, manifest.rows, manifest.tiles_per_launch) == (4, 4, 16)
    assert [argument.role for argument in manifest.arguments] == ["in", "weight", "out"]
    seconds = {}
    for name in ("gemm_i8_i32_384x384", "gemm_i8_i32_384x1536"):
        laptop = Laptop(tmp_path / name, poll=0.0)
        executable = laptop.load(simulated.stand_in(get(name).program(), None, 4, tmp_path))
        depth, channels = map(int, name.rsplit("_", 1)[1].split("x"))
        ticket = executable.start({"a": int8(1024, depth), "w": int8(depth, channels)}, Call(0))
        laptop.clock.advance(1)
        assert ticket.done()
        seconds[name] = max(laptop.npu.report().busy_seconds) - laptop.npu.phoenix.dispatch_seconds
    assert seconds["gemm_i8_i32_384x1536"] == pytest.approx(4 * seconds["gemm_i8_i32_384x384"], rel=0.05)
