"""Mistakes that were made in designs before, each of which a check has to catch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.errors import CompileError, OptionError, WrongAnswer
from hetero_kernels.aie2 import catalogue, checks
from hetero_kernels.aie2.array_design import HostArgument
from hetero_kernels.aie2.column_map import ColumnMap, Geometry
from hetero_kernels.aie2.iron import Iron
from hetero_kernels.aie2.packing import pack
from hetero_kernels.aie2.pattern import unblocked

ATTENTION = catalogue.design("attention_i8_64x64")
GELU = catalogue.design("gelu_i8")


def mutant(design: ColumnMap, **methods: Any) -> ColumnMap:
    """The design with other methods."""
    kind = type("Mutant", (ColumnMap,), methods)
    given = {entry.name: getattr(design, entry.name) for entry in dataclasses.fields(design)}
    made: ColumnMap = kind(**given)
    return made


def with_sequence(write: Callable[..., None]) -> Callable[[ColumnMap, Iron], Any]:
    """A `_sequence` that moves a packed buffer's columns as `write(iron, geometry, load, store)` says."""

    def sequence_of(self: ColumnMap, iron: Iron) -> Any:
        geometry = self.geometry
        columns, tiles = geometry.columns, geometry.tiles_per_column

        def tap(column: int, size: int) -> Any:
            share = tiles * size
            return iron.TensorAccessPattern((share * columns,), column * share, [1, share], [0, 1])

        def sequence(source: Any, target: Any, *handles: Any) -> None:
            def load(column: int, group: Any) -> None:
                handles[column].fill(source, tap=tap(column, self.in_size), group=group)

            def store(column: int, group: Any, to: int | None = None, wait: bool = True) -> None:
                place = tap(column if to is None else to, self.out_size)
                handles[columns + column].drain(target, tap=place, group=group, wait=wait)

            write(iron, columns, load, store)

        return sequence

    return sequence_of


def in_order(iron: Iron, columns: int, load: Any, store: Any) -> None:
    group = iron.TaskGroup()
    for column in range(columns):
        load(column, group)
    for column in range(columns):
        store(column, group)
    group.finish()


def test_the_frame_of_these_mutants_is_right_without_a_mistake(libraries: Path) -> None:
    design = mutant(ATTENTION, _sequence=with_sequence(in_order))
    assert checks.design_runs(design.at(Geometry(4, 1, 4)), cache=libraries).calls == 16


def wait_inside(iron: Iron, columns: int, load: Any, store: Any) -> None:
    for column in range(columns):
        group = iron.TaskGroup()
        load(column, group)
        store(column, group)
        group.finish()


@pytest.mark.parametrize("design", [ATTENTION, GELU], ids=lambda design: design.name)
def test_a_wait_inside_the_loop_over_columns(design: ColumnMap, libraries: Path) -> None:
    with pytest.raises(WrongAnswer, match="the columns work one after the other"):
        checks.design_runs(mutant(design, _sequence=with_sequence(wait_inside)).at(Geometry(4, 1, 4)), cache=libraries)


def test_waiting_in_turn_takes_as_many_times_longer_as_there_are_columns(libraries: Path) -> None:
    right = checks.design_runs(ATTENTION.at(Geometry(4, 1, 4)), cache=libraries).cycles
    with pytest.raises(WrongAnswer, match="modelled cycles") as caught:
        checks.design_runs(
            mutant(ATTENTION, _sequence=with_sequence(wait_inside)).at(Geometry(4, 1, 4)), cache=libraries
        )
    wrong = float(str(caught.value).split(" in ")[1].split(" ")[0].replace(",", ""))
    assert 3.5 < wrong / right < 4.5


def test_a_stack_of_one_kilobyte() -> None:
    with pytest.raises(CompileError, match=r"stack has 1,024 bytes, and attention_i8_64x64 takes 6,144") as refused:
        checks.fits(ATTENTION.at(Geometry(stack=1024)))
    assert "6,144" in refused.value.fix


def interleaved(self: ColumnMap) -> tuple[HostArgument, ...]:
    """What the caller believes: in0, out0, in1, out1, ..."""
    right = ColumnMap.arguments.__get__(self)
    ins, outs = right[: len(right) // 2], right[len(right) // 2 :]
    return tuple(argument for pair in zip(ins, outs, strict=True) for argument in pair)


@pytest.mark.parametrize("design", [ATTENTION, GELU], ids=lambda design: design.name)
def test_arguments_in_turn_instead_of_inputs_first(design: ColumnMap, libraries: Path) -> None:
    """The caller's buffers and roles are in turn, the compiled sequence has all inputs first."""
    right = design.at(Geometry(4, 1, 4, "separate"))

    def program(self: ColumnMap, iron: Iron) -> Any:
        return right.program(iron)

    wrong = mutant(right, arguments=property(interleaved), program=program)
    with pytest.raises(WrongAnswer, match=r"all inputs, then all outputs"):
        checks.design_runs(wrong, cache=libraries)


def swapped(iron: Iron, columns: int, load: Any, store: Any) -> None:
    group = iron.TaskGroup()
    for column in range(columns):
        load(column, group)
    for column in range(columns):
        store(column, group, to={1: 2, 2: 1}.get(column, column))
    group.finish()


def test_two_columns_swapped(libraries: Path) -> None:
    with pytest.raises(WrongAnswer, match=r"values of 'o' differ from the reference"):
        checks.design_runs(mutant(ATTENTION, _sequence=with_sequence(swapped)).at(Geometry(4, 1, 4)), cache=libraries)


def keeps_source(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    function(tile, answer)
    target.release(1)


def keeps_target(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    function(tile, answer)
    source.release(1)


def releases_twice(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    function(tile, answer)
    source.release(1)
    source.release(1)
    target.release(1)


def releases_first(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    source.release(1)
    function(tile, answer)
    target.release(1)


def swaps_arguments(source: Any, target: Any, function: Any) -> None:
    tile, answer = source.acquire(1), target.acquire(1)
    function(answer, tile)
    source.release(1)
    target.release(1)


def leaves_one_out(source: Any, target: Any, function: Any) -> None:
    tile, _ = source.acquire(1), target.acquire(1)
    function(tile)


def takes_too_many(source: Any, target: Any, function: Any) -> None:
    source.acquire(3)


def takes_all_before_it_answers(source: Any, target: Any, function: Any) -> None:
    tiles, answer = source.acquire(2), target.acquire(1)
    function(tiles[0], answer)
    source.release(2)
    target.release(1)


@pytest.mark.parametrize(
    ("core", "says"),
    [
        (keeps_source, "acquires 1 of in0_0.cons while it still holds 1"),
        (keeps_target, "acquires 1 of out0_0.prod while it still holds 1"),
        (releases_twice, "releases 1 of in0_0.cons and holds 0"),
        (releases_first, "element of in0_0.cons was released before"),
        (swaps_arguments, "argument 0 is declared int8 .12288., and out0_0.prod gives int8 .4096."),
        (leaves_one_out, "called with 1 arguments and declared with 2"),
        (takes_all_before_it_answers, "everybody waits"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_core_that_handles_its_elements_wrongly(
    core: Callable[..., None], says: str, libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_kernels.aie2.column_map._core", core)
    with pytest.raises(WrongAnswer, match=says):
        checks.design_runs(ATTENTION.at(Geometry(1, 1, 4)), cache=libraries)


def test_a_core_that_asks_for_more_than_the_fifo_holds(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero_kernels.aie2.column_map._core", takes_too_many)
    with pytest.raises(OptionError, match="3 elements are acquired, and it is 2 deep"):
        checks.design_runs(ATTENTION.at(Geometry(1, 1, 4)), cache=libraries)


def test_arguments_of_one_type_swapped_are_told_by_their_direction(
    libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_kernels.aie2.column_map._core", swaps_arguments)
    with pytest.raises(WrongAnswer, match=r"argument 0 is an input, and the core holds out0_0\.prod to write"):
        checks.design_runs(GELU.at(Geometry(1, 1, 2)), cache=libraries)


def test_a_deadlock_says_who_waits_for_what(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero_kernels.aie2.column_map._core", takes_all_before_it_answers)
    with pytest.raises(WrongAnswer) as caught:
        checks.design_runs(ATTENTION.at(Geometry(1, 1, 3)), cache=libraries)
    assert "the host waits for the drain of store0" in str(caught.value)
    assert "core 0 waits for something in in0_0.cons" in str(caught.value)


def nobody_waits(iron: Iron, columns: int, load: Any, store: Any) -> None:
    group = iron.TaskGroup()
    for column in range(columns):
        load(column, group)
        store(column, group, wait=False)
    group.finish()


def never_finished(iron: Iron, columns: int, load: Any, store: Any) -> None:
    group = iron.TaskGroup()
    for column in range(columns):
        load(column, group)
        store(column, group)


def loads_too_little(iron: Iron, columns: int, load: Any, store: Any) -> None:
    group = iron.TaskGroup()
    for column in range(columns - 1):
        load(column, group)
    for column in range(columns):
        store(column, group)
    group.finish()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (nobody_waits, "nobody waits for the drain of store0"),
        (never_finished, "a task group was not finished"),
        (loads_too_little, "everybody waits"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_sequence_that_ends_wrongly(write: Callable[..., None], says: str, libraries: Path) -> None:
    with pytest.raises(WrongAnswer, match=says):
        checks.design_runs(mutant(ATTENTION, _sequence=with_sequence(write)).at(Geometry(4, 1, 2)), cache=libraries)


@pytest.mark.parametrize("change", [{"in_pattern": ()}, {"out_pattern": ()}], ids=str)
def test_a_wrong_layout(change: dict[str, Any], libraries: Path) -> None:
    with pytest.raises(WrongAnswer, match="differ from the reference"):
        checks.design_runs(dataclasses.replace(ATTENTION, **change).at(Geometry(2, 4, 2)), cache=libraries)


def test_a_pattern_of_the_whole_joined_buffer_is_refused_and_does_not_run(libraries: Path) -> None:
    """Real lowering applies it to each segment: a pattern of all four is wrong there."""
    whole = dataclasses.replace(ATTENTION, out_pattern=unblocked(4 * 64, 64))
    with pytest.raises(CompileError, match=r"takes 16,384 bytes of a segment of 4,096"):
        checks.fits(whole.at(Geometry(1, 4, 1)))
    with pytest.raises(WrongAnswer, match="a segment has 4,096"):
        checks.design_runs(whole.at(Geometry(1, 4, 1)), cache=libraries)


def test_a_core_sees_different_data_on_every_call(libraries: Path) -> None:
    """A double buffer that is overwritten shows on every other call, so that one call proves little."""
    design = ATTENTION.at(Geometry(4, 4, 4))
    seen: list[bytes] = []

    def examples(self: ColumnMap, rng: np.random.Generator) -> Any:
        inputs = design.examples(rng)
        seen.extend(tile.tobytes() for tile in pack(design, inputs)[0].reshape(design.tiles, -1))
        return inputs

    checks.design_runs(mutant(design, examples=examples), cache=libraries)
    assert len(seen) == len(set(seen)) == 64
    assert np.asarray([len(tile) for tile in seen]).tolist() == [12288] * 64


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("attention_i8_64x64", "saturation_mode::saturate", "saturation_mode::none"),
        ("attention_i8_64x64", "rounding_mode::floor", "rounding_mode::conv_even"),
        ("attention_i8_64x64", "int32_t(255)", "int32_t(256)"),
        ("attention_i8_64x64", "int bit = 6", "int bit = 5"),
        ("attention_i8_64x64", "aie::transpose(keys, 8, 8)", "keys"),
        ("attention_i8_64x64", "aie::downshift(block.extract<HALF>(half), 3)", "block.extract<HALF>(half)"),
        ("attention_i8_64x64", "int32_t(-64)", "int32_t(-63)"),
        ("matmul_i8_64x64", "saturation_mode::saturate", "saturation_mode::none"),
        ("matmul_i8_64x64", "rounding_mode::floor", "rounding_mode::symmetric_floor"),
        ("matmul_i8_64x64", "rounding_mode::floor", "rounding_mode::positive_inf"),
        ("gelu_i8", "lookup(table, 0, ENTRIES / 2)", "lookup(table, 0, 0)"),
        ("layernorm_i8_256", "total < 0 ? -(-total >> 8) : total >> 8", "total >> 8"),
        ("layernorm_i8_256", "const int32_t scale = reciprocal", "const int16_t scale = reciprocal"),
        ("layernorm_i8_256", "saturation_mode::saturate", "saturation_mode::none"),
        ("layernorm_i8_256", "variance_of(row, mean) + 1", "variance_of(row, mean) + 2"),
    ],
)
def test_a_small_mistake_in_the_source_shows(name: str, old: str, new: str, libraries: Path, tmp_path: Path) -> None:
    design = catalogue.design(name)
    text = design.source.read_text()
    assert text.count(old) == 1
    for header in design.source.parent.glob("*.hpp"):
        (tmp_path / header.name).write_text(header.read_text())
    source = tmp_path / "kernel.cc"
    source.write_text(text.replace(old, new))
    with pytest.raises(WrongAnswer, match="differ from the reference"):
        checks.equals_reference(dataclasses.replace(design, source=source, frame=1 << 14), "g++", 200, libraries)


def test_a_shift_that_a_core_ignores_is_told(libraries: Path, tmp_path: Path) -> None:
    text = ATTENTION.source.read_text()
    source = tmp_path / "kernel.cc"
    source.write_text(text.replace("sum.to_vector<int32_t>()", "sum.to_vector<int32_t>(3)", 1))
    with pytest.raises(WrongAnswer, match="AIE2 ignores a shift from a 32-bit accumulator"):
        checks.equals_reference(dataclasses.replace(ATTENTION, source=source), "g++", 1, libraries)
