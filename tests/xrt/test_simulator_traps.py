"""Each mistake that pyxrt punishes is punished, and counted."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.crash import SimulatedCrash

from .machine import Machine, attention, attention_tiles, context_of, fill


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def buffers(machine: Machine) -> list[Any]:
    return machine.buffers(attention_tiles(4))


def test_only_host_only_and_cacheable_buffers_exist(machine: Machine) -> None:
    for flags in (machine.x.bo.normal, machine.x.bo.flags.device_only, machine.x.bo.p2p, machine.x.bo.svm):
        with pytest.raises(RuntimeError, match="not supported"):
            machine.x.bo(machine.device, 4096, flags, machine.kernel.group_id(3))
    assert machine.x.bo(machine.device, 4096, machine.x.bo.cacheable, machine.kernel.group_id(3)).size() == 4096


def test_a_wrong_group_id_gives_silent_garbage(machine: Machine, buffers: list[Any]) -> None:
    wrong = machine.buffer(4, group=machine.kernel.group_id(1))
    assert machine.call([buffers[0], wrong]).wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert not np.array_equal(machine.read(wrong).reshape(4, 64, 64), attention(attention_tiles(4)))
    assert machine.misuse() == {"group_id": 1}


def test_scalars_have_no_group_id(machine: Machine) -> None:
    for index in (0, 2, 5):
        with pytest.raises(IndexError):
            machine.kernel.group_id(index)


def test_too_many_arguments_take_the_process_down(machine: Machine, buffers: list[Any]) -> None:
    with pytest.raises(SimulatedCrash, match="segmentation fault"):
        machine.call([*buffers, buffers[0]])
    report = machine.npu.report()
    assert report.misuse == {"too_many_arguments": 1}
    assert len(report.crashes) == 1
    with pytest.raises(SimulatedCrash, match="the process would have ended before"):
        machine.call(buffers)


def test_a_crash_is_no_exception_that_a_handler_of_errors_catches() -> None:
    assert not issubclass(SimulatedCrash, Exception)


@pytest.mark.parametrize("replacement", [3.0, "3", None, 2**31, 2**40])
@pytest.mark.parametrize("position", [0, 2])
def test_what_cannot_be_converted_is_left_unset_without_a_word(
    machine: Machine, buffers: list[Any], position: int, replacement: Any
) -> None:
    arguments = [3, machine.instructions, len(machine.words), *buffers]
    arguments[position] = replacement
    run = machine.kernel(*arguments)
    assert run.wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert machine.misuse() == {"unset_argument": 1}


def test_a_missing_buffer_ends_at_the_drivers_limit(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call(buffers[:1])
    assert run.wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert machine.misuse() == {"unset_argument": 1}


def test_a_wrong_opcode_fails(machine: Machine, buffers: list[Any]) -> None:
    run = machine.kernel(1, machine.instructions, len(machine.words), *buffers)
    assert run.wait() is machine.states.ERT_CMD_STATE_ERROR
    assert machine.misuse() == {"opcode": 1}


def test_numpy_integers_are_as_good_as_python_s(machine: Machine, buffers: list[Any]) -> None:
    run = machine.kernel(np.uint32(3), machine.instructions, np.int64(len(machine.words)), *buffers)
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED


def test_instructions_must_be_synced_and_counted_in_words(machine: Machine, buffers: list[Any]) -> None:
    unsynced = machine.instruction_buffer(sync=False)
    for instructions, words in ((unsynced, len(machine.words)), (machine.instructions, machine.words.nbytes)):
        assert machine.kernel(3, instructions, words, *buffers).wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    other = machine.instruction_buffer()
    other.write(np.flip(machine.words).copy(), 0)
    other.sync(machine.to_device)
    assert machine.kernel(3, other, len(machine.words), *buffers).wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert machine.misuse() == {"instructions": 3}


def test_dropping_a_run_in_flight_aborts(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call(buffers)
    assert run.wait(1) is machine.states.ERT_CMD_STATE_TIMEOUT
    del run
    gc.collect()
    assert machine.misuse() == {"dropped_run": 1}
    with pytest.raises(SimulatedCrash, match="dropped while in flight"):
        machine.call(buffers)


def test_dropping_a_run_that_has_ended_is_allowed(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call(buffers)
    run.wait()
    del run
    machine.npu.clock.hold(1)
    gc.collect()
    assert machine.npu.finish().misuse == {}


def test_dropping_a_runlist_in_flight_aborts(machine: Machine, buffers: list[Any]) -> None:
    runlist, run = machine.x.runlist(context_of(machine)), machine.x.run(kernel := machine.open())
    assert kernel is not machine.kernel
    with pytest.raises(RuntimeError, match="must share the same hwctx"):
        runlist.add(run)
    context = context_of(machine)
    runlist, run = machine.x.runlist(context), machine.x.run(machine.x.kernel(context, "MLIR_AIE"))
    fill(machine, run, buffers)
    runlist.add(run)
    runlist.execute()
    del run
    assert machine.misuse() == {}, "the list refers to it"
    del runlist
    gc.collect()
    assert machine.misuse() == {"dropped_run": 1}


def test_runs_in_flight_at_the_end_of_the_program_abort(machine: Machine, buffers: list[Any]) -> None:
    runs = [machine.call(buffers), machine.call(buffers)]
    report = machine.npu.finish()
    assert report.misuse == {"in_flight_at_end": 2}
    assert len(runs) == len(report.crashes)


SCRIPT = """
    import sys, pathlib
    from tests.xrt.machine import Machine, attention_tiles
    from hetero.testing.xrt.clock import RealClock
    times = dict(clock=RealClock(), tile_seconds=60.0, command_limit=100.0)
    machine = Machine(pathlib.Path(sys.argv[1]), real_crashes=len(sys.argv) > 2, **times)
    buffers = machine.buffers(attention_tiles(4))
    run = machine.call(buffers)
"""


def run_script(folder: Path, *lines: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(SCRIPT) + "\n".join(lines)
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), *options], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_run_in_flight_when_python_exits_is_told_of(tmp_path: Path) -> None:
    assert "dropped while in flight" in run_script(tmp_path).stderr


def test_a_run_that_is_kept_alive_beyond_the_exit_is_no_crash(tmp_path: Path) -> None:
    result = run_script(tmp_path, "import ctypes", "ctypes.pythonapi.Py_IncRef(ctypes.py_object(run))")
    assert (result.returncode, result.stderr) == (0, "")


def test_crashes_are_real_where_that_is_asked_for(tmp_path: Path) -> None:
    result = run_script(tmp_path, "del run", options=("real_crashes",))
    assert result.returncode == -6
    assert "dropped while in flight" in result.stderr


def test_a_run_keeps_no_buffer_alive(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call([machine.buffer(3, attention_tiles(4)), buffers[1]])
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert machine.misuse() == {"freed_buffer": 1}
    assert not np.array_equal(machine.read(buffers[1]).reshape(4, 64, 64), attention(attention_tiles(4)))


def test_a_buffer_that_died_before_a_launch_is_as_good_as_unset(machine: Machine, buffers: list[Any]) -> None:
    run = fill(machine, machine.x.run(machine.kernel), buffers)
    buffers.clear()
    run.start()
    assert run.wait() is machine.states.ERT_CMD_STATE_TIMEOUT
    assert machine.misuse() == {"unset_argument": 2}


def test_a_map_keeps_no_buffer_alive(machine: Machine) -> None:
    bo = machine.buffer(3, attention_tiles(4))
    view = np.frombuffer(bo.map(), np.uint8)
    alive = machine.npu.report().buffers
    del bo
    assert machine.npu.report().buffers == alive - 1
    assert (view == 0xDD).all(), "freed memory is poisoned, so that reading it shows"
    assert machine.misuse() == {}
    view[7] = 1
    assert machine.misuse() == {"write_after_free": 1}


def test_a_part_keeps_its_buffer_alive_and_shares_its_memory(machine: Machine) -> None:
    whole = machine.buffer(3, attention_tiles(4))
    part = machine.x.bo(whole, 4096, 12288)
    del whole
    np.testing.assert_array_equal(part.read(4096, 0), attention_tiles(4)[1, 0].reshape(-1))
    assert machine.misuse() == {}
    with pytest.raises(RuntimeError, match="invalid sub buffer"):
        machine.x.bo(part, 4096, 1)


def test_restarting_an_active_run_is_refused(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call(buffers)
    with pytest.raises(RuntimeError, match="bad command state, can't launch"):
        run.start()
    run.wait()
    run.start()
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED
    assert machine.misuse() == {"restarted_run": 1}
    assert machine.npu.report().launches == 2


def test_touching_a_buffer_in_flight_is_noticed(machine: Machine, buffers: list[Any]) -> None:
    run = machine.call(buffers)
    buffers[0].map()[0] ^= 1
    run.wait()
    assert machine.misuse() == {"written_in_flight": 1}
    buffers[0].sync(machine.to_device)
    run.start()
    buffers[1].sync(machine.from_device)
    run.wait()
    assert machine.misuse() == {"written_in_flight": 1, "synced_in_flight": 1}


def test_another_part_of_a_buffer_in_flight_may_be_synced(machine: Machine) -> None:
    whole = machine.x.bo(machine.device, 2 * 16384, machine.x.bo.host_only, machine.kernel.group_id(4))
    used, free = machine.x.bo(whole, 16384, 0), machine.x.bo(whole, 16384, 16384)
    source = machine.buffer(3, attention_tiles(4))
    run = machine.call([source, used])
    free.sync(machine.from_device)
    run.wait()
    assert machine.misuse() == {}


@pytest.mark.parametrize("call", ["wait", "submit", "runlist"])
def test_waiting_for_ever_for_a_hung_run_hangs_the_process(tmp_path: Path, call: str) -> None:
    machine = Machine(tmp_path, queue=1)
    machine.npu.force("hang")
    buffers = machine.buffers(attention_tiles(4))
    context = context_of(machine)
    kernel = machine.x.kernel(context, "MLIR_AIE")
    if call == "runlist":
        runlist = machine.x.runlist(context)
        runlist.add(fill(machine, machine.x.run(kernel), buffers))
        runlist.execute()
        with pytest.raises(SimulatedCrash, match="never ends"):
            runlist.wait()
    else:
        run = machine.call(buffers, kernel)
        assert run.wait(50) is machine.states.ERT_CMD_STATE_TIMEOUT
        with pytest.raises(SimulatedCrash, match="never"):
            run.wait() if call == "wait" else machine.call(buffers, kernel)
    assert machine.misuse() == {"waited_for_ever": 1}


def test_empty_and_truncated_xclbins_take_the_process_down(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "whole")
    content = Path(machine.xclbin_path).read_bytes()
    for length in (0, 7, 300, len(content) - 1):
        path = tmp_path / "part.xclbin"
        path.write_bytes(content[:length])
        with pytest.raises(SimulatedCrash, match="empty or truncated"):
            Machine(tmp_path / "other", open_it=False).x.xclbin(str(path))


def test_other_files_are_refused(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "other.xclbin"
    with pytest.raises(RuntimeError, match="Failed to open file"):
        machine.x.xclbin(str(path))
    path.write_bytes(b"\x7fELF" + bytes(1000))
    with pytest.raises(RuntimeError, match="Invalid xclbin"):
        machine.x.xclbin(str(path))


def test_accesses_beyond_a_buffer_are_refused(machine: Machine, buffers: list[Any]) -> None:
    size = buffers[1].size()
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffers[1].write(bytes(2), size - 1)
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffers[1].read(2, size - 1)
    with pytest.raises(RuntimeError, match="past buffer size"):
        buffers[1].sync(machine.from_device, 2, size - 1)


def test_wrong_calls_are_type_errors(machine: Machine, buffers: list[Any]) -> None:
    x = machine.x
    run = machine.call(buffers)
    for wrong in (
        lambda: buffers[0].read(4096),
        lambda: buffers[0].write(b"x"),
        lambda: buffers[0].write(b"x", -1),
        lambda: buffers[0].sync(0),
        lambda: run.wait(-1),
        lambda: run.wait(1.5),
        lambda: run.wait2(1),
        lambda: run.set_arg(3, 1.5),
        lambda: x.runlist(context_of(machine)).wait(1),
        lambda: x.bo(machine.device, 4096.0, x.bo.host_only, 0),
        lambda: x.bo(machine.device, 4096, 1 << 29, 0),
        lambda: x.kernel(machine.device, "MLIR_AIE"),
        lambda: x.hw_context(machine.device, "uuid"),
        lambda: x.hw_context(machine.device, machine.xclbin.get_uuid(), {}),
    ):
        with pytest.raises(TypeError):
            wrong()
    assert run.wait() is machine.states.ERT_CMD_STATE_COMPLETED


def test_enumerations_are_not_integers(machine: Machine) -> None:
    completed = machine.states.ERT_CMD_STATE_COMPLETED
    assert completed != 4
    assert int(completed) == 4
    assert not hasattr(machine.states, "ERT_CMD_STATE_RUNNING")
    assert not hasattr(machine.x, "XCL_BO_SYNC_BO_TO_DEVICE")


def test_a_wrong_kernel_name_is_refused(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="No compute units matching 'DPU'"):
        machine.x.kernel(context_of(machine), "DPU")


def test_the_clock_of_a_machine_can_be_shared(tmp_path: Path) -> None:
    clock = ControlledClock()
    a, b = Machine(tmp_path / "a", clock=clock), Machine(tmp_path / "b", clock=clock)
    a.call(buffers := a.buffers(attention_tiles(4))).wait()
    assert clock.now() > 0
    assert b.npu.report().launches == 0
    assert len(buffers) == 2


def test_a_crash_ends_every_later_call(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    buffers = machine.buffers(attention_tiles(4))
    run = machine.call(buffers)
    machine.npu.finish()
    for later in (run.wait, run.state, lambda: buffers[0].sync(machine.to_device), lambda: machine.x.device(0)):
        with pytest.raises(SimulatedCrash):
            later()
