"""Programs on a device: shapes, parts, lanes, what is lost or full in the middle of a run, and what is left then."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hetero.backend import Call, Host, Program
from hetero.errors import ClosedError, DeviceLost, DeviceTimeout, InputError, OutOfMemory, Unsupported
from hetero.graph import evaluate, import_onnx
from hetero.onnx_file import open_onnx
from hetero.tensors import Array
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.choosing import VARIABLE
from hetero_vulkan.executable import GraphExecutable
from hetero_vulkan.holder import DeviceHolder
from hetero_vulkan.onnx_program import load_onnx
from tests.models import save, tensor
from tests.vulkan.machine import LOST, NO_MEMORY, TIMED_OUT, WHICH, Faults, Machine, graphics_card

Load = Callable[..., GraphExecutable]
OPTIONS = {"timeout": 10.0, "partition": "forbid", "plans": 8, "tune": False}
WEIGHT = np.random.default_rng(1).standard_normal((8, 8), dtype=np.float32)


def known(**arrays: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def layers(path: Path) -> Program:
    """Y = softmax(relu(x @ w) + x), of any number of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Add", ["r", "x"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]
    file = save(path, nodes, [tensor("x", ("n", 8))], [tensor("y", ("n", 8))], known(w=WEIGHT))
    return dataclasses.replace(open_onnx(file), sizes={"n": 5})


def rows(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 8), dtype=np.float32)


def expected(program: Program, **inputs: Array) -> dict[str, Array]:
    graph = import_onnx(program.artifact("onnx").file, {name: array.shape for name, array in inputs.items()})
    return evaluate(graph, inputs)


def check(executable: GraphExecutable, program: Program, lane: int = 0, **inputs: Array) -> None:
    """That the answer is numpy's."""
    answers = executable.run(inputs, Call(lane))
    for name, array in expected(program, **inputs).items():
        np.testing.assert_allclose(answers[name], array, rtol=1e-5, atol=1e-6)
        assert answers[name].dtype == array.dtype


@pytest.fixture
def holder(machine: Machine, faults: Faults) -> Iterator[DeviceHolder]:
    holder = DeviceHolder(machine.instance, machine.choice, machine.folder, faults.clock)
    yield holder
    holder.close()


@pytest.fixture
def load(holder: DeviceHolder) -> Iterator[Load]:
    """Loads programs; closed when the test ends."""
    made: list[GraphExecutable] = []

    def load(program: Program, **options: Any) -> GraphExecutable:
        made.append(load_onnx(program, holder, None, {**OPTIONS, **options}))
        return made[-1]

    yield load
    for executable in made:
        executable.close()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return layers(tmp_path / "layers.onnx")


def test_any_shapes_run_and_only_a_few_plans_are_kept(load: Load, program: Program, holder: DeviceHolder) -> None:
    plans = 4
    executable = load(program, plans=plans)
    assert "100.0% of the operations: " in executable.details["on the device"]

    def check_often(counts: range | tuple[int, ...]) -> None:
        for count in counts:
            for _ in range(5):
                check(executable, program, x=rows(count))

    check_often((5, 1, 33, 1, 7, 12, 100, 5))
    device = holder.take()
    before = device.memory.in_use_bytes
    check_often(range(40, 40 + plans))
    filled = device.memory.in_use_bytes
    check_often(range(60, 60 + 3 * plans))
    assert device.memory.in_use_bytes <= filled + (filled - before) + 65536
    device.returned()


def test_shapes_that_change_with_every_call_are_refused_and_those_that_come_back_are_not(
    load: Load, program: Program
) -> None:
    executable = load(program, plans=3)
    for count in (5, 6, 7):
        check(executable, program, x=rows(count))
    for count in (8, 9, 10):
        with pytest.raises(
            Unsupported, match=r"shapes keep changing, .* 3 were made, and used again 1 times"
        ) as caught:
            executable.run({"x": rows(count)}, Call(0))
        assert "vulkan.plans" in caught.value.fix
    for _ in range(4):
        for count in (5, 6, 7):
            check(executable, program, x=rows(count))
    check(executable, program, x=rows(8))
    with pytest.raises(Unsupported, match=r"shapes keep changing, .* 4 were made"):
        executable.run({"x": rows(9)}, Call(0))


def test_an_output_is_written_to_the_caller_s_array(load: Load, program: Program) -> None:
    executable, call = load(program), Call(0)
    call.outputs = {"y": np.zeros((5, 8), np.float32)}
    answer = executable.run({"x": rows(5)}, call)["y"]
    assert answer is call.outputs["y"]
    call.outputs = {"y": np.zeros((4, 8), np.float32)}
    assert executable.run({"x": rows(5)}, call)["y"].shape == (5, 8)


def test_a_model_of_nothing_that_the_device_does_is_refused_in_both_ways(load: Load, tmp_path: Path) -> None:
    node = helper.make_node("ScatterElements", ["x", "places", "x"], ["y"], reduction="add")
    places = np.zeros((3, 8), np.int64)
    file = save(tmp_path / "m.onnx", [node], [tensor("x", (3, 8))], [tensor("y", (3, 8))], known(places=places))
    refusal = r"vulkan:0 does not run 1 of the 1 nodes .*ScatterElements \(.* with the reduction add is not computed"
    with pytest.raises(Unsupported, match=refusal) as caught:
        load(open_onnx(file))
    assert "partition=allow" in caught.value.fix
    with pytest.raises(Unsupported, match="has nothing for vulkan:0 to do"):
        load(open_onnx(file), partition="allow")


def test_what_the_device_does_not_do_runs_on_the_host_where_that_is_allowed(load: Load, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("ScatterElements", ["e", "places", "e"], ["c"], reduction="add"),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    places = np.arange(24).reshape(3, 8) % 3
    file = save(tmp_path / "m.onnx", nodes, [tensor("x", (3, 8))], [tensor("y", (3, 8))], known(places=places))
    executable = load(open_onnx(file), partition="allow")
    reason = "ScatterElements with the reduction add is not computed on the device"
    assert executable.details["on the host"] == f"ScatterElements 1 ({reason})"
    assert executable.details["parts"] == "3"
    check(executable, open_onnx(file), x=rows(3))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_an_index_that_is_out_of_range_is_an_error_and_does_no_harm(load: Load, tmp_path: Path, dtype: Any) -> None:
    node = helper.make_node("Gather", ["w", "i"], ["y"])
    file = save(tmp_path / "m.onnx", [node], [tensor("i", ("n",), dtype)], [tensor("y", ("n", 8))], known(w=WEIGHT))
    executable = load(open_onnx(file))
    check(executable, open_onnx(file), i=np.array([7, 0, -8, -1], dtype))
    for wrong in (8, -9, np.iinfo(dtype).min):
        with pytest.raises(InputError, match="but the dimension has 8 elements"):
            executable.run({"i": np.array([0, wrong], dtype)}, Call(0))
    check(executable, open_onnx(file), i=np.array([3], dtype))


def test_memory_of_its_own_is_copied_to_and_from(machine: Machine, program: Program, faults: Faults) -> None:
    physical = graphics_card(machine.choice.physical)
    choice = dataclasses.replace(machine.choice, physical=physical)
    holder = DeviceHolder(machine.instance, choice, None, faults.clock)
    executable = load_onnx(program, holder, None, OPTIONS)
    for count in (5, 9, 5):
        check(executable, program, x=rows(count))
    executable.close()
    holder.close()


@pytest.mark.parametrize("function", ["vkQueueSubmit", "vkWaitSemaphores"])
def test_a_device_that_is_lost_in_a_run_is_opened_anew_for_the_next_one(
    load: Load, program: Program, faults: Faults, function: str
) -> None:
    executable = load(program)
    check(executable, program, x=rows(5))
    if function not in faults.calls:
        pytest.skip(f"the driver does not use {function}")
    faults.fail(function, LOST)
    with pytest.raises(DeviceLost, match="VK_ERROR_DEVICE_LOST"):
        executable.run({"x": rows(5)}, Call(0))
    faults.heal()
    for seed in range(3):
        check(executable, program, x=rows(5, seed))
        check(executable, program, x=rows(6, seed))
    faults.fail(function, LOST)
    for _ in range(2):
        with pytest.raises(DeviceLost):
            executable.run({"x": rows(5)}, Call(0))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_no_room_for_a_plan_is_told_and_does_no_harm(load: Load, program: Program, faults: Faults, at: int) -> None:
    executable = load(program)
    count = 3 << 18  # of which each value needs a block of its own
    faults.fail("vkAllocateMemory", NO_MEMORY, at=at, times=1000)
    for _ in range(2):
        with pytest.raises(OutOfMemory, match="vulkan:0"):
            executable.run({"x": rows(4 * count)}, Call(0))
    check(executable, program, x=rows(5))
    faults.heal()
    check(executable, program, x=rows(6))


def test_a_run_that_does_not_end_in_time_is_told_and_waited_for_before_the_next(
    load: Load, program: Program, faults: Faults
) -> None:
    executable = load(program)
    check(executable, program, x=rows(5))
    if "vkWaitSemaphores" not in faults.calls:
        pytest.skip("the driver does not use vkWaitSemaphores")
    faults.fail("vkWaitSemaphores", TIMED_OUT, times=10_000)
    for _ in range(2):
        with pytest.raises(DeviceTimeout):
            executable.run({"x": rows(5)}, Call(0))
    faults.heal()
    check(executable, program, x=rows(5, 3))


def test_lanes_at_once_never_mix_up(load: Load, program: Program) -> None:
    executable = load(program)
    wrong: list[BaseException] = []

    def work(lane: int) -> None:
        try:
            for seed in range(20):
                check(executable, program, lane, x=rows(1 + (seed + lane) % 6, 100 * lane + seed))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(lane,)) for lane in range(executable.lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_fifty_runs_take_no_more_memory(load: Load, program: Program, holder: DeviceHolder, machine: Machine) -> None:
    executable = load(program)
    check(executable, program, x=rows(5))
    device = holder.take()
    before, alive = device.memory, dict(machine.vulkan.live)
    for seed in range(50):
        check(executable, program, x=rows(5, seed))
    assert device.memory.in_use_bytes == before.in_use_bytes
    assert device.memory.idle_bytes == before.idle_bytes
    assert dict(machine.vulkan.live) == alive
    executable.close()
    executable.close()
    assert device.memory.in_use_bytes == 0
    device.returned()
    with pytest.raises(ClosedError):
        executable.run({"x": rows(5)}, Call(0))


def test_a_program_is_loaded_by_the_backend_with_its_options(tmp_path: Path, validated: bool, program: Program) -> None:
    backend = VulkanBackend(Host(environ={VARIABLE: WHICH}, cache=tmp_path / "cache"))
    (device, *_) = backend.probe()
    executable = backend.load(program, device, {option.name: option.default for option in backend.options})
    assert executable.lanes == device.lanes
    executable.close()
    backend.close()
