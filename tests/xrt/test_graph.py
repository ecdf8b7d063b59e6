"""Graphs of which the NPU does a part: what is in flight together, what fails how, and what is left behind."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetero.backend import Call
from hetero.errors import ClosedError, DeviceLost, DeviceTimeout, ExecutionError, Unsupported
from hetero.graph.node import Shapes
from hetero.tensors import Array
from hetero.testing.xrt.stand_in import write_usual
from hetero_kernels import get
from hetero_xrt.executable import TileExecutable
from hetero_xrt.flights import FLIGHTS
from hetero_xrt.graph import GraphExecutable
from hetero_xrt.quantise import matrix_of
from hetero_xrt.reading import read_manifest
from hetero_xrt.steps import AttentionStep, HostStep, Layer, LinearStep, Plan, Step
from tests.xrt.npu import Laptop, still

WIDTH = 64


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cosine(a: Any, b: Any) -> float:
    a, b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


class Block:
    """One head of attention and a product: x -> q, k, v -> attention -> out, and the same in float32."""

    def __init__(self, folder: Path, *, timeout: float = 10.0, sleep: Any = still, **phoenix: Any) -> None:
        self.laptop = Laptop(folder, **phoenix)
        self.kernels = [self.kernel(name, timeout) for name in ("gemm_i8_i32_64x64", "attention_i8_exact_128")]
        gemm, attention = self.kernels
        self.matrices = {name: normal(WIDTH, WIDTH, seed=seed) for seed, name in enumerate(("q", "k", "v", "out"))}
        self.layers = {name: Layer(gemm, matrix_of(matrix, 64, 64)) for name, matrix in self.matrices.items()}
        self.plans = 0

        def linear(name: str, source: str) -> LinearStep:
            return LinearStep(name, (source,), (name,), self.layers[name])

        self.steps: list[Step] = [
            *(linear(name, "x") for name in "qkv"),
            AttentionStep("attention", ("q", "k", "v"), ("o",), attention, 0.1, 128),
            HostStep("twice", "Mul", ("o", "two"), ("oo",), lambda values: [values[0] * values[1]]),
            linear("out", "oo"),
        ]
        self.executable = GraphExecutable(self.plan, self.close, min_cosine=0.9, details={"a": 1}, sleep=sleep)

    def kernel(self, name: str, timeout: float) -> TileExecutable:
        program = get(name).program()
        manifest = read_manifest(write_usual(self.laptop.folder / name, program, 4))
        return self.laptop.load(manifest, timeout=timeout)

    def plan(self, shapes: Shapes) -> Plan:
        self.plans += 1
        return Plan(self.steps, {"two": np.float32(2)}, {"y": "out"})

    def close(self) -> None:
        for layer in self.layers.values():
            layer.close()
        for kernel in self.kernels:
            kernel.close()

    def expected(self, x: Array) -> Array:
        q, k, v = (x @ self.matrices[name] for name in "qkv")
        scores = q @ k.transpose(0, 2, 1) * np.float32(0.1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        o: Array = weights / weights.sum(-1, keepdims=True) @ v
        return 2 * o @ self.matrices["out"]

    def run(self, x: Array | None = None, call: Call | None = None) -> Array:
        x = normal(2, 100, WIDTH, seed=9) if x is None else x
        return self.executable.run({"x": x}, call or Call(0))["y"]

    def check(self) -> None:
        x = normal(2, 100, WIDTH, seed=9)
        assert cosine(self.run(x), self.expected(x)) > 0.995


def test_a_graph_s_answer_is_near_that_of_floats_and_the_inputs_stay_as_they_were(tmp_path: Path) -> None:
    block = Block(tmp_path)
    x = normal(2, 100, WIDTH, seed=9)
    before = x.copy()
    x.setflags(write=False)
    assert cosine(block.run(x), block.expected(before)) > 0.995
    np.testing.assert_array_equal(x, before)
    block.laptop.check_clean()


def test_products_of_one_input_are_in_flight_together_and_quantise_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hetero_xrt import steps

    block = Block(tmp_path, poll=1e-6)
    quantised: list[int] = []
    original = steps.rows_of
    monkeypatch.setattr(steps, "rows_of", lambda x, *a, **k: quantised.append(1) or original(x, *a, **k))
    block.check()
    assert len(quantised) == 2, "the input of q, k and v, and that of out"
    assert block.laptop.npu.report().peak_in_flight == 2, "the third waits for a place: there are two in a context"


def test_weights_go_over_once_for_many_calls_and_leave_with_the_executable(tmp_path: Path) -> None:
    block = Block(tmp_path)
    before = block.laptop.npu.memory.locked
    for _ in range(3):
        block.check()
    assert block.laptop.flow.weights.count == 4
    assert block.laptop.npu.memory.locked == before + 4 * WIDTH * WIDTH
    block.executable.close()
    block.executable.close()
    assert block.laptop.npu.memory.locked == before, "the kernels' contexts and their buffers stay for the next"
    with pytest.raises(ClosedError):
        block.run()
    block.laptop.check_clean()


def test_each_set_of_shapes_is_planned_once(tmp_path: Path) -> None:
    block = Block(tmp_path)
    for _ in range(2):
        for count in (1, 100, 128):
            x = normal(1, count, WIDTH)
            assert cosine(block.run(x), block.expected(x)) > 0.99
    assert block.plans == 3


def test_more_keys_than_the_kernel_takes_are_refused(tmp_path: Path) -> None:
    block = Block(tmp_path)
    with pytest.raises(Unsupported, match="129 queries and 129 keys of 64 features; the kernel takes 128"):
        block.run(normal(1, 129, WIDTH))
    block.check()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_int8_cannot_hold_are_refused(tmp_path: Path, value: float) -> None:
    block = Block(tmp_path)
    x = normal(1, 10, WIDTH)
    x[0, 0, 0] = value
    with pytest.raises(Unsupported, match="not finite"):
        block.run(x)
    block.check()


@pytest.mark.parametrize("launch", range(5))
@pytest.mark.parametrize(("fault", "error"), [("error", ExecutionError), ("abort", ExecutionError)])
def test_a_launch_that_fails_is_the_call_s_error_and_the_next_call_is_right(
    tmp_path: Path, launch: int, fault: Any, error: Any
) -> None:
    block = Block(tmp_path)
    block.check()
    block.laptop.npu.force(*[None] * launch, fault)
    with pytest.raises(error):
        block.run()
    block.laptop.clock.advance(1)
    block.check()
    block.laptop.check_clean()


def test_a_launch_that_hangs_is_a_time_out_and_is_parked_until_it_has_ended(tmp_path: Path) -> None:
    block = Block(tmp_path, timeout=0.5)
    block.laptop.npu.force(None, "hang")
    with pytest.raises(DeviceTimeout, match=r"0\.5 s"):
        block.run()
    assert FLIGHTS.parked
    with pytest.raises(DeviceTimeout, match="hangs"):
        block.run()
    block.laptop.npu.release_hangs()
    block.check()
    assert FLIGHTS.parked == 0
    block.laptop.check_clean()


def test_a_device_that_was_lost_gets_contexts_and_weights_anew_when_it_is_back(tmp_path: Path) -> None:
    block = Block(tmp_path)
    block.check()
    block.laptop.npu.force("lost")
    with pytest.raises(ExecutionError, match="ABORT"):
        block.run()
    with pytest.raises(DeviceLost):
        block.run()
    block.laptop.npu.restore()
    block.check()
    gc.collect()
    assert block.laptop.flow.weights.count == 4, "those of before are gone with their contexts"
    block.laptop.check_clean()


@pytest.mark.usefixtures("untraced")
@settings(max_examples=30, deadline=None)
@given(
    faults=st.lists(st.sampled_from([None, None, None, "error", "abort", "timeout", "hang"]), min_size=10, max_size=60),
    calls=st.integers(2, 10),
)
def test_whatever_goes_wrong_a_call_is_right_or_an_error_and_nothing_is_left(
    tmp_path_factory: pytest.TempPathFactory, faults: list[Any], calls: int
) -> None:
    block = Block(tmp_path_factory.mktemp("faults"), timeout=3.0, poll=1e-2)
    block.laptop.npu.force(*faults)
    for seed in range(calls):
        x = normal(1, 100, WIDTH, seed=seed)
        try:
            answer = block.run(x)
        except ExecutionError:
            # What hangs ends some time, and what was left to itself lands.
            block.laptop.npu.release_hangs()
            block.laptop.clock.advance(10)
        else:
            assert cosine(answer, block.expected(x)) > 0.99
    block.laptop.npu._forced.clear()
    block.check()
    assert FLIGHTS.parked == 0
    block.laptop.check_clean()


def test_a_call_that_is_cancelled_ends_soon_and_leaves_its_launches_to_themselves(tmp_path: Path) -> None:
    block = Block(tmp_path)
    block.check()
    call = Call(0)
    turns = 0

    def sleep(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            assert block.executable.cancel(call)

    block.executable._sleep = sleep
    with pytest.raises(ExecutionError, match="cancelled"):
        block.run(call=call)
    assert turns == 1
    block.executable._sleep = still
    block.laptop.clock.advance(1)
    block.check()
    assert FLIGHTS.parked == 0
    block.laptop.check_clean()


def test_a_call_that_is_over_cannot_be_cancelled(tmp_path: Path) -> None:
    block = Block(tmp_path)
    call = Call(0)
    block.run(call=call)
    gc.collect()
    assert not block.executable.cancel(call)


def test_a_host_step_that_fails_leaves_nothing_in_flight(tmp_path: Path) -> None:
    block = Block(tmp_path)

    def broken(values: Any) -> Any:
        raise FloatingPointError("overflow")

    block.steps.insert(0, HostStep("broken", "Div", ("x",), ("z",), broken))
    with pytest.raises(FloatingPointError):
        block.run()
    del block.steps[0]
    block.executable._plans.clear()
    block.laptop.clock.advance(1)
    block.check()
    assert FLIGHTS.parked == 0
    block.laptop.check_clean()


def test_nothing_waits_with_the_gil_held(tmp_path: Path) -> None:
    block = Block(tmp_path)
    made = block.laptop.clock.held
    block.check()
    assert block.laptop.clock.held == made


def test_calls_on_several_lanes_are_right_and_other_threads_go_on(tmp_path: Path) -> None:
    block = Block(tmp_path, sleep=time.sleep)
    answers: dict[int, Array] = {}

    def call(lane: int) -> None:
        for _ in range(4):
            answers[lane] = block.run(normal(2, 100, WIDTH, seed=lane), Call(lane))

    threads = [threading.Thread(target=call, args=(lane,)) for lane in range(block.executable.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for lane, answer in answers.items():
        assert cosine(answer, block.expected(normal(2, 100, WIDTH, seed=lane))) > 0.99
    assert len(answers) == block.executable.lanes
    block.laptop.check_clean()


def test_details_tell_where_the_time_went(tmp_path: Path) -> None:
    block = Block(tmp_path)
    assert dict(block.executable.details) == {"a": 1}
    block.check()
    assert "ms on the host" in block.executable.details["mean of a run"]
