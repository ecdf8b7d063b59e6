"""A design that Phoenix does not hold is refused, with what it takes and what there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hetero.errors import CompileError, OptionError, WrongAnswer
from hetero_kernels.aie2 import budgets, catalogue, checks
from hetero_kernels.aie2.budgets import Need, Use
from hetero_kernels.aie2.column_map import Geometry
from hetero_kernels.aie2.simulate import stand_in
from hetero_kernels.aie2.simulate.design import Program

ATTENTION = catalogue.design("attention_i8_64x64")
IRON = stand_in()
TILE = 1024


def flat(size: int) -> Any:
    return np.ndarray[(size,), np.dtype[np.int8]]  # type: ignore[misc]


def small(
    inputs: int = 1,
    outputs: int = 1,
    depth: int = 2,
    size: int = TILE,
    cores: int = 1,
    stack: int = 1024,
    transfers: int = 1,
    tap: Callable[[int], Any] = lambda size: None,
    dims: Any = None,
) -> Program:
    """Cores that are fed by shims directly, one like the other."""
    function = IRON.Kernel("f", "f.o", [flat(size)] * (inputs + outputs))
    workers, fills, drains = [], [], []
    for core in range(cores):
        ins = [IRON.ObjectFifo(flat(size), depth, f"in{core}_{i}") for i in range(inputs)]
        outs = [IRON.ObjectFifo(flat(size), depth, f"out{core}_{i}", dims_to_stream=dims) for i in range(outputs)]
        workers.append(
            IRON.Worker(
                lambda *arguments: None,
                [*(fifo.cons() for fifo in ins), *(fifo.prod() for fifo in outs), function],
                stack_size=stack,
            )
        )
        fills += [fifo.prod() for fifo in ins]
        drains += [fifo.cons() for fifo in outs]

    def sequence(source: Any, target: Any, *handles: Any) -> None:
        group = IRON.TaskGroup()
        for handle in handles:
            for _ in range(transfers):
                if handle.producer:
                    handle.fill(source, tap=tap(size), group=group)
                else:
                    handle.drain(target, tap=tap(size), group=group, wait=True)
        group.finish()

    runtime = IRON.Runtime(sequence, [flat(size), flat(size), *fills, *drains])
    program: Program = IRON.Program(IRON.device(), runtime, workers=workers)
    return program


def pattern(*steps: tuple[int, int]) -> Callable[[int], Any]:
    sizes, strides = zip(*steps, strict=True)
    return lambda size: IRON.TensorAccessPattern((size,), 0, list(sizes), list(strides))


def test_a_small_design_fits() -> None:
    assert {use.what for use in budgets.check(small(), {"f": Need(512)})} >= {"core memory", "shim descriptors"}


@pytest.mark.parametrize(
    ("program", "needs", "says"),
    [
        (small(inputs=3), Need(0), "core 0 takes 3 core channels in, and there are 2"),
        (small(outputs=3), Need(0), "core 0 takes 3 core channels out, and there are 2"),
        (small(depth=9), Need(0), "core 0 takes 18 core descriptors, and there are 16"),
        (small(size=16 * 1024), Need(0), "66,560 core memory, and there are 65,536"),
        (small(size=15 * 1024), Need(0, data=4096), "core memory, and there are 65,536"),
        (small(stack=1024), Need(1025), "its stack has 1,024 bytes, and f takes 1,025"),
        (small(cores=9), Need(0), "the sequence takes 9 shim channels in, and there are 8"),
        (small(cores=17), Need(0), "the design takes 17 cores, and there are 16"),
        (small(transfers=17), Need(0), "takes 17 shim descriptors, and there are 16"),
        (
            small(size=16384, depth=1, tap=pattern((2, 8192), (4096, 1))),
            Need(0),
            "1,024 words of a shim's innermost dimension, and there are 1,023",
        ),
        (
            small(tap=pattern((16, 4), (2, 1))),
            Need(0),
            "takes 2 elements of 1 bytes with a stride of 1; .* whole words of 4",
        ),
        (small(tap=pattern((1, 0), (1022, 1))), Need(0), "moves 1,022 bytes, expected whole words of 4"),
        (small(tap=pattern((64, 6), (4, 1))), Need(0), "a stride of 6 bytes"),
        (small(size=1023), Need(0), "moves 1,023 bytes, expected whole words of 4"),
        (small(dims=[(4, 256), (4, 64), (4, 16), (16, 1)]), Need(0), None),
        (small(dims=[(2, 8), (2, 16), (16, 64), (2, 32), (8, 1)]), Need(0), "5 dimensions of a core's pattern"),
        (small(dims=[(64, 8), (8, 1)]), Need(0), "takes 512 bytes of a segment of 1,024"),
    ],
)
def test_every_limit_names_both_sides(program: Program, needs: Need, says: str | None) -> None:
    if says is None:
        budgets.check(program, {"f": needs})
        return
    with pytest.raises(CompileError, match=says) as refused:
        budgets.check(program, {"f": needs})
    assert refused.value.fix


def test_a_long_linear_transfer_is_one_descriptor() -> None:
    budgets.check(small(size=16384, depth=1, tap=pattern((1, 0), (16384, 1))), {"f": Need(0)})


# The limits are those that mlir-aie's `verifyStridesWraps` has for a shim of AIE2; of each, the last size that is
# taken and the first that is not.
@pytest.mark.parametrize(
    ("fits", "beyond", "says"),
    [
        (
            [(64, 0), (1, 0), (1, 0), (4, 1)],
            [(65, 0), (1, 0), (1, 0), (4, 1)],
            r"in0_0 \(its outermost dimension\) takes 65 repeats of a shim's descriptor, and there are 64",
        ),
        # One behind the other, and yet repeats: these do not become one long run.
        ([(64, 4), (4, 1)], [(1, 0), (1, 0), (65, 4), (4, 1)], None),
        (
            [(64, 4), (1, 0), (1, 0), (4, 1)],
            [(65, 4), (1, 0), (1, 0), (4, 1)],
            "takes 65 repeats of a shim's descriptor, and there are 64",
        ),
        (
            [(1, 0), (1, 0), (1023, 8), (4, 1)],
            [(1, 0), (1, 0), (1024, 8), (4, 1)],
            "the transfer of in0_0 takes 1,024 entries of a shim's second dimension, and there are 1,023",
        ),
        # The third has no field of its own: the length of the whole ends it.
        ([(1, 0), (2000, 4), (1, 0), (4, 1)], None, None),
        (
            [(1, 0), (1, 0), (2, 4 << 20), (4, 1)],
            [(1, 0), (1, 0), (2, (4 << 20) + 4), (4, 1)],
            r"\(size 2\) takes 1,048,577 words of a shim's stride, and there are 1,048,576",
        ),
        ([(2, 0), (1, 0), (1, 0), (4, 1)], [(1, 0), (2, 0), (1, 0), (4, 1)], "an inner dimension has the stride 0"),
    ],
)
def test_a_transfer_stays_within_the_fields_of_a_shims_descriptor(
    fits: list[tuple[int, int]], beyond: list[tuple[int, int]] | None, says: str | None
) -> None:
    def of(steps: list[tuple[int, int]]) -> list[Use]:
        wide = (5 << 20,)
        tap = IRON.TensorAccessPattern(wide, 0, [size for size, _ in steps], [stride for _, stride in steps])
        return budgets.check(small(tap=lambda size: tap), {"f": Need(0)})

    used = {use.what: use for use in of(fits)}
    assert all(use.used <= use.limit for use in used.values())
    if beyond is None:
        return
    if says is None:
        of(beyond)
        return
    with pytest.raises(CompileError, match=says) as refused:
        of(beyond)
    assert refused.value.fix


@pytest.mark.parametrize(
    ("name", "geometry", "says"),
    [
        ("mel_i16_80", Geometry(4, 4, 32), "1,024 entries of a shim's second dimension, and there are 1,023"),
        ("gemm_i8_i32_64x8192", Geometry(1, 4, 1), "takes 128 repeats of a shim's descriptor, and there are 64"),
        ("gemm_i8_i8_64x8192", Geometry(1, 1, 1), "takes 128 repeats of a shim's descriptor, and there are 64"),
    ],
)
def test_a_geometry_whose_transfers_no_shim_takes_is_refused(name: str, geometry: Geometry, says: str) -> None:
    with pytest.raises(CompileError, match=says):
        checks.fits(catalogue.design(name).at(geometry))


def test_the_largest_of_every_family_fits_with_all_columns() -> None:
    for name in ("gemm_i8_i32_8192x8192", "gemm_i8_i8_8192x8192", "attention_i8_exact_4096", "layernorm_i8_2048"):
        uses = checks.fits(catalogue.design(name))
        assert {"repeats of a shim's descriptor"} <= {use.what for use in uses}, name


def test_a_function_whose_frame_nobody_states_is_refused() -> None:
    with pytest.raises(CompileError, match="core 0 calls f, whose frame is not stated"):
        budgets.check(small(), {})


def test_a_memory_tile_that_overflows_is_refused() -> None:
    load = IRON.ObjectFifo(flat(300 * 1024), 2, "load")
    share = load.cons().split([0], [flat(300 * 1024)], ["share"])[0]
    out = IRON.ObjectFifo(flat(TILE), 2, "out")
    worker = IRON.Worker(lambda *a: None, [share.cons(depth=1), out.prod()], stack_size=1024)

    def sequence(*arguments: Any) -> None:
        pass

    runtime = IRON.Runtime(sequence, [load.prod(), out.cons()])
    worker.handles[0].depth = 0  # its own memory is not what this is about
    with pytest.raises(CompileError, match="memory tile 0 takes 614,400 memory tile, and there are 524,288"):
        budgets.check(IRON.Program(IRON.device(), runtime, workers=[worker]), {})


def test_memory_tiles_are_counted_column_by_column() -> None:
    one = {use.what: use.used for use in checks.fits(ATTENTION.at(Geometry(1, 4, 1)))}
    four = {use.what: use.used for use in checks.fits(ATTENTION.at(Geometry(4, 4, 1)))}
    assert one["memory tile"] == four["memory tile"] == 2 * 4 * (12288 + 4096)
    assert one["memory tile descriptors"] == 2 * (1 + 4) + 2 * (4 + 4)
    assert one["core memory"] == 2 * (12288 + 4096) + ATTENTION.stack + ATTENTION.data


def test_tiles_that_a_core_cannot_hold_are_refused() -> None:
    deep = dataclasses.replace(ATTENTION, data=32 * 1024)
    with pytest.raises(CompileError, match=r"32,768 of buffers, 6,656 of stack, 32,768 of tables"):
        checks.fits(deep.at(Geometry()))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"columns": 5}, "columns is 5, expected 1 to 4"),
        ({"rows": 0}, "rows is 0"),
        ({"tiles_per_core": 0}, "1 or more"),
    ],
)
def test_a_size_that_the_array_does_not_have_is_refused(change: dict[str, int], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Geometry(**change)  # type: ignore[arg-type]


def test_parts_that_do_not_cover_the_whole_are_refused() -> None:
    for offsets in ([0, 512], [0, 256], [0, 0]):
        load = IRON.ObjectFifo(flat(TILE), 2, "load")
        if offsets == [0, 512]:
            load.cons().split(offsets, [flat(512)] * 2)
        else:
            with pytest.raises(WrongAnswer, match="the parts of load lie at"):
                load.cons().split(offsets, [flat(512)] * 2)
