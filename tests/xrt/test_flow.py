"""The vendor's calls, in every version of XRT: what goes wrong is told, and no run is dropped in flight."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from hetero.backend import Call
from hetero.errors import DeviceLost, DeviceTimeout, ExecutionError, HeteroError, OutOfMemory, Unavailable, Unsupported
from hetero_xrt.failures import translated
from hetero_xrt.flights import FLIGHTS
from tests.xrt.machine import KERNEL
from tests.xrt.npu import Laptop, check, edited, inputs_of, run

VERSIONS = ("2.13", "2.15", "2.16", "2.17", "2.20", "2.23")


@pytest.mark.parametrize("xrt", VERSIONS)
@pytest.mark.parametrize("layout", ["packed", "separate"])
def test_every_version_of_xrt_gives_the_exact_answer_without_a_warning(tmp_path: Path, xrt: str, layout: Any) -> None:
    laptop = Laptop(tmp_path, xrt=xrt)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        executable = laptop.load(laptop.manifest(layout=layout))
        for count in (1, 4, 9):
            check(executable, count)
    laptop.check_clean()


@pytest.mark.parametrize("xrt", VERSIONS)
def test_xrt_without_contexts_has_one_and_says_so(tmp_path: Path, xrt: str) -> None:
    laptop = Laptop(tmp_path, xrt=xrt)
    executable = laptop.load(laptop.manifest(columns=1, tiles_per_launch=1))
    check(executable, 9)
    old = xrt in ("2.13", "2.15")
    assert laptop.npu.report().contexts == (1 if old else 4)
    assert ("deprecated" in executable.details["flow"]) is old
    laptop.check_clean()


@pytest.mark.parametrize("xrt", ["2.13", "2.20"])
@pytest.mark.parametrize(
    ("phoenix", "kind", "told", "fix"),
    [
        ({"devices": 0}, Unavailable, "XRT finds no NPU", "modprobe amdxdna"),
        ({"permitted": False}, Unavailable, "may not open the NPU", "usermod -aG render"),
        ({"memlock_bytes": 10_000}, OutOfMemory, "limit of locked memory", "memlock unlimited"),
        ({"contexts": 0}, Unavailable, "as many contexts are open", "xrt-smi examine"),
    ],
)
def test_what_keeps_the_npu_from_working_is_told_with_a_way_out(
    tmp_path: Path, xrt: str, phoenix: dict[str, Any], kind: type[HeteroError], told: str, fix: str
) -> None:
    laptop = Laptop(tmp_path, xrt=xrt, **phoenix)
    with pytest.raises(kind, match=told) as caught:
        laptop.load(laptop.manifest())
    assert fix in caught.value.fix
    laptop.check_clean()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("DRM_IOCTL_AMDXDNA_EXEC_CMD IOCTL failed (err=-19): No such device", DeviceLost),
        (" No such device with index '0'", Unavailable),
        ("mmap(addr=0x0, len=67108864, prot=3) failed (err=-11): Resource temporarily unavailable", OutOfMemory),
        ("Open /dev/accel/accel0 failed (err=-13): Permission denied", Unavailable),
        ("something that nobody has seen yet", ExecutionError),
        ("", ExecutionError),
    ],
)
def test_the_vendor_s_words_are_kept_whatever_they_mean(words: str, kind: type[HeteroError]) -> None:
    error = translated(RuntimeError(words), "testing")
    assert type(error) is kind
    assert error.problem.startswith("testing: ")
    assert (words.strip() or "RuntimeError") in error.problem


def test_a_manifest_with_a_buffer_too_many_is_refused_before_the_segmentation_fault(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    manifest = laptop.manifest()
    text = manifest.path.read_text()
    manifest.path.write_text(
        text + '\n[[argument]]\nindex = 5\nname = "spare"\nrole = "scratch"\n'
        'tensors = [{ name = "s", dtype = "int8", shape = [4] }]\n'
    )
    with pytest.raises(Unsupported, match="names 3 buffers, but the kernel MLIR_AIE takes 2"):
        laptop.load(edited(manifest))
    laptop.check_clean()


def test_a_group_that_is_not_the_xclbin_s_is_refused(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    role = 'role = "in"'
    check(laptop.load(edited(laptop.manifest(), (role, f"{role}\ngroup = 65536"))))
    with pytest.raises(Unsupported, match="argument in has group 3"):
        laptop.load(edited(laptop.manifest(), (role, f"{role}\ngroup = 3")))
    laptop.check_clean()


def test_an_opcode_that_does_not_fit_is_refused_and_not_left_out(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(edited(laptop.manifest(), ("opcode = 3", "opcode = 4294967296")))
    with pytest.raises(Unsupported, match="opcode is 4294967296"):
        check(executable)
    laptop.check_clean()


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        ("error", ExecutionError, "state ERROR"),
        ("abort", ExecutionError, "state ABORT"),
        ("timeout", DeviceTimeout, "the driver killed a launch"),
        ("lost", ExecutionError, "state ABORT|the NPU went away"),
    ],
)
@pytest.mark.parametrize("pipeline", ["auto", "threads"])
def test_completed_is_not_taken_for_granted(
    tmp_path: Path, fault: Any, kind: type[HeteroError], told: str, pipeline: Any
) -> None:
    laptop = Laptop(tmp_path, poll=1e-2)
    executable = laptop.load(laptop.manifest(), pipeline=pipeline)
    laptop.npu.force(None, fault)
    with pytest.raises(kind, match=told):
        run(executable, inputs_of(KERNEL, 8))
    if fault != "lost":
        check(executable, 8)
    laptop.check_clean()


def test_a_lost_device_is_told_and_opened_again_when_it_is_back(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    executable = laptop.load(laptop.manifest())
    laptop.npu.force("lost")
    with pytest.raises(ExecutionError):
        check(executable)
    for _ in range(2):
        with pytest.raises(DeviceLost, match="went away"):
            check(executable)
    laptop.npu.restore()
    check(executable, 9)
    executable.close()
    laptop.check_clean()


def test_a_request_that_is_dropped_in_flight_keeps_its_runs_until_they_have_ended(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, poll=0.0)
    executable = laptop.load(laptop.manifest())
    ticket = executable.start(inputs_of(KERNEL, 8), Call(0))
    assert not ticket.done()
    executable.close()
    laptop.cache.close()
    del ticket, executable
    gc.collect()
    assert FLIGHTS.parked == 2
    assert laptop.npu.report().crashes == ()
    laptop.clock.advance(1.0)
    FLIGHTS.sweep()
    gc.collect()
    assert FLIGHTS.parked == 0
    assert (laptop.npu.report().contexts, laptop.npu.report().buffers) == (0, 0), "and nothing after that"
    laptop.check_clean()


EXIT = """
import atexit, sys
from pathlib import Path
from tests.xrt.npu import Laptop, inputs_of
from hetero.backend import Call
from hetero_xrt.flights import FLIGHTS
laptop = Laptop(Path(sys.argv[1]), real_crashes=True, poll=0.0)
executable = laptop.load(laptop.manifest())
laptop.npu.force("hang", "hang")
ticket = executable.start(inputs_of("attention_i8_64x64", 8), Call(0))
if sys.argv[2] == "drop":
    del ticket
if sys.argv[3] == "unguarded":
    atexit.unregister(FLIGHTS.leave)
print("last words")
"""


@pytest.mark.parametrize("ticket", ["hold", "drop"])
@pytest.mark.parametrize("guard", ["guarded", "unguarded"])
def test_the_interpreter_ends_in_peace_with_runs_in_flight(tmp_path: Path, ticket: str, guard: str) -> None:
    """Without the guard the vendor's library aborts: that the test can fail is tested too."""
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "backends"), str(root / "kernels")]
    code = f"import sys; sys.path[:0] = {paths!r}\n{EXIT}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), ticket, guard], capture_output=True, text=True, check=False
    )
    assert "last words" in done.stdout, done.stderr
    assert (done.returncode == 0) is (guard == "guarded"), done.stderr
