"""ONNX encoders on a simulated NPU through a Runtime: what is claimed, what is refused, how near answers come."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hetero
from hetero.backend import Program
from hetero.bundle import open_program
from hetero.errors import AllDevicesFailed, OptionError
from hetero.tensors import Array
from hetero.testing.xrt.stand_in import write_usual
from hetero.whisper.models.dims import Dims
from hetero.whisper.models.graphs import write_cross, write_decoder, write_encoder
from hetero_cpu.backend import CpuBackend
from hetero_kernels import get
from hetero_xrt import onnx_program
from hetero_xrt.backend import XrtBackend
from hetero_xrt.fidelity import compare_layers, cosine, largest_activations, write_statistics
from hetero_xrt.flights import FLIGHTS
from hetero_xrt.onnx_program import OnnxOnNpu, precision_of
from tests.whisper.checkpoints import weights
from tests.xrt.bench import Bench
from tests.xrt.npu import Laptop

DIMS = Dims(
    n_mels=4,
    n_audio_ctx=150,
    n_audio_state=128,
    n_audio_head=2,
    n_audio_layer=2,
    n_vocab=40,
    n_text_ctx=10,
    n_text_state=128,
    n_text_head=2,
    n_text_layer=1,
)
KERNELS = ("gemm_i8_i32_128x128", "gemm_i8_i32_128x512", "gemm_i8_i32_512x128", "attention_i8_exact_192")
OPTIONS = {"keep_float": (), "activation_bits": 16, "smoothing": "off", "statistics": None}


def read(name: str) -> Any:
    return weights(DIMS)[name] * np.float32(0.3)


@functools.cache
def written(folder: Path, part: str) -> Path:
    path = folder / f"{part}.onnx"
    {"encoder": write_encoder, "cross": write_cross, "decoder": write_decoder}[part](path, DIMS, read)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Program]:
    folder = tmp_path_factory.mktemp("models")
    sizes = {"encoder": {"batch": 1, "frames": 300}, "cross": {"batch": 1, "context": 150}, "decoder": {}}
    return lambda part: dataclasses.replace(open_program(written(folder, part)), sizes=sizes[part])


def mel(frames: int = 300, batch: int = 1, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((batch, 4, frames)).astype(np.float32)


def check(session: hetero.Session, x: Array, exact: hetero.Session, device: str = "xrt") -> Any:
    result = session.run(x)
    assert result.record.device == device, result.record
    expected = exact(x)
    assert result.outputs["hidden"].shape == expected.shape
    assert cosine(result.outputs["hidden"], expected) > (0.99 if device == "xrt" else 0.999999)
    return result.record


def test_an_encoder_runs_on_the_npu_and_is_near_the_cpu_for_every_shape(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench()
    program = models("encoder")
    exact = machine.runtime.load(program, device="cpu")
    session = machine.load(program)
    for frames, batch in ((300, 1), (300, 2), (131, 1), (200, 3), (300, 1)):
        record = check(session, mel(frames, batch), exact)
        assert record.simulated
    told = str(session.explain())
    for kernel in KERNELS:
        assert kernel in told
    assert "on the host=" in told
    assert "as two int8" in told
    assert machine.npu.report().contexts == 4, "one for each kernel"
    machine.check_clean()


def test_inputs_that_the_kernels_do_not_take_are_answered_by_the_cpu(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench()
    session = machine.load(models("encoder"))
    exact = machine.runtime.load(models("encoder"), device="cpu")
    x = mel()
    x[0, 0, 0] = np.nan
    result = session.run(x)
    assert result.record.device == "cpu"
    assert "not finite" in result.record.attempts[0].reason
    check(session, mel(), exact)


def test_shapes_that_leave_the_npu_less_to_do_are_answered_by_the_cpu(
    bench: Callable[..., Bench], models: Callable[[str], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bench()
    session = machine.load(models("encoder"))
    exact = machine.runtime.load(models("encoder"), device="cpu")
    read = []
    original = onnx_program.import_onnx
    monkeypatch.setattr(onnx_program, "import_onnx", lambda *args: read.append(args) or original(*args))
    for _ in range(2):
        record = check(session, mel(100), exact, "cpu")
        assert "the NPU has 0 of the 14 nodes" in record.attempts[0].reason
    assert len(read) == 1, "the second time it is known"
    check(session, mel(), exact)


@pytest.mark.parametrize(
    ("fault", "reason"), [("error", "ERROR"), ("abort", "ABORT"), ("timeout", "killed"), ("hang", "within")]
)
def test_a_launch_that_fails_in_the_middle_is_answered_by_the_cpu(
    bench: Callable[..., Bench], models: Callable[[str], Program], fault: Any, reason: str
) -> None:
    machine = bench(poll=1e-2)
    exact = machine.runtime.load(models("encoder"), device="cpu")
    session = machine.load(models("encoder"), timeout=5.0)
    machine.npu.force(*[None] * 7, fault)
    record = check(session, mel(), exact, "cpu")
    assert reason in record.attempts[0].reason
    machine.npu.release_hangs()
    machine.clock.advance(10.0)
    FLIGHTS.sweep()
    machine.check_clean()


def test_garbage_is_caught_by_verification(bench: Callable[..., Bench], models: Callable[[str], Program]) -> None:
    machine = bench()
    exact = machine.runtime.load(models("encoder"), device="cpu")
    session = machine.load(models("encoder"), verify=1)
    machine.npu.force(*[None] * 12, "garbage", "garbage")
    record = check(session, mel(), exact, "cpu")
    assert "cosine" in record.attempts[0].reason


def test_weights_are_on_the_npu_once_and_gone_with_the_session(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench()
    session = machine.load(models("encoder"))
    backend: Any = machine.runtime._machine.backends["xrt"]
    flow = backend._caches[True].flow
    assert flow.weights.count == 12
    for _ in range(2):
        session(mel(200))
    assert flow.weights.count == 12
    session.close()
    assert flow.weights.count == 0
    assert machine.npu.report().contexts == 4, "kept for the next"
    machine.check_clean()


def test_sessions_share_the_contexts_and_two_encoders_fit_beside_each_other(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench()
    first, second = (machine.load(models("encoder")) for _ in range(2))
    cross = machine.load(models("cross"))
    exact = machine.runtime.load(models("encoder"), device="cpu")
    for session in (first, second, first):
        check(session, mel(), exact)
    hidden = first(mel())
    assert cross.run(hidden).record.device == "xrt"
    assert machine.npu.report().contexts == 4
    machine.check_clean()


def test_a_second_model_that_finds_no_contexts_left_says_so_and_runs_on_the_cpu(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench(contexts=3)
    session = machine.load(models("encoder"))
    result = session.run(mel())
    assert result.record.device == "cpu"
    assert "contexts" in str(session.explain())
    assert (
        machine.runtime.load(get(KERNELS[0]).program())
        .run(np.zeros((64, 128), np.int8), np.zeros((128, 128), np.int8))
        .record.device
        == "xrt"
    ), "what was taken for it was given back"
    machine.check_clean()


def test_a_decoder_has_no_work_for_the_npu(bench: Callable[..., Bench], models: Callable[[str], Program]) -> None:
    session = bench().load(models("decoder"))
    assert session.device == "cpu"
    assert "no product of 64 rows or more" in str(session.explain())


def test_a_small_share_is_left_to_the_cpu(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A small product behind a large convolution."""
    rng = np.random.default_rng(0)
    initializers = [
        helper.make_tensor("k", TensorProto.FLOAT, (64, 64, 9), rng.standard_normal(64 * 64 * 9)),
        helper.make_tensor("w", TensorProto.FLOAT, (128, 64), rng.standard_normal(128 * 64)),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[4, 4]),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 64])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "m.onnx")
    session = bench().load(tmp_path / "m.onnx")
    assert session.device == "cpu"
    assert "of the operations" in str(session.explain())


def test_what_stays_in_float_is_chosen_by_name(bench: Callable[..., Bench], models: Callable[[str], Program]) -> None:
    machine = bench()
    exact = machine.runtime.load(models("encoder"), device="cpu")
    for patterns, told in (("*layers.1.fc2*", "layers.1.fc2"), ("*fc?*", "layers.0.fc1")):
        session = machine.runtime.load(models("encoder"), options={"xrt": {"keep_float": (patterns,)}})
        check(session, mel(), exact)
        assert "in float32=" in str(session.explain())
        assert told in str(session.explain()).split("in float32=")[1]
    session = machine.runtime.load(models("encoder"), options={"xrt": {"keep_float": ("*",)}})
    assert session.device == "cpu"


def test_every_precision_comes_near_and_more_bits_come_nearer(tmp_path: Path, models: Callable[[str], Program]) -> None:
    program, samples = models("encoder"), [{"mel": mel(seed=seed)} for seed in range(2)]
    statistics = tmp_path / "statistics.npz"
    made = on_npu(tmp_path, program)
    largest = largest_activations(made, samples)
    assert len(largest) == 12
    write_statistics(statistics, largest)
    ends = {}
    for name, options in {
        "16": {},
        "8": {"activation_bits": 8},
        "8, smoothed": {"activation_bits": 8, "smoothing": "on"},
        "8, by samples": {"activation_bits": 8, "smoothing": "on", "statistics": str(statistics)},
    }.items():
        layers = compare_layers(on_npu(tmp_path / name, program, **options), samples)
        assert [layer.kind for layer in layers].count("product") == 12
        assert [layer.kind for layer in layers].count("attention") == 2
        assert min(layer.cosine for layer in layers) > 0.98, name
        ends[name] = layers[-1].cosine
        assert layers[-1].kind == "output"
    assert ends["16"] == max(ends.values())


def on_npu(folder: Path, program: Program, **options: Any) -> OnnxOnNpu:
    laptop = Laptop(folder)

    def load(name: str) -> Any:
        from hetero_xrt.reading import read_manifest

        manifest = read_manifest(write_usual(folder / name, get(name).program(), 4))
        return laptop.load(manifest, contexts=1)

    return OnnxOnNpu(program, load, precision_of({**OPTIONS, **options}))


def test_statistics_that_cannot_be_read_are_told(bench: Callable[..., Bench], models: Callable[[str], Program]) -> None:
    options = {"xrt": {"smoothing": "on", "statistics": "nowhere.npz"}}
    with pytest.raises(OptionError, match=r"nowhere\.npz"):
        bench().runtime.load(models("encoder"), options=options)


def test_kernels_are_taken_from_the_folder_and_missing_ones_are_named(
    host: hetero.Host, models: Callable[[str], Program], tmp_path: Path, pyxrt_runtime: Callable[..., hetero.Runtime]
) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    with pytest.raises(AllDevicesFailed) as error:
        pyxrt_runtime(folder).load(models("encoder"))
    for kernel in KERNELS:
        assert kernel in str(error.value)
    for kernel in KERNELS:
        write_usual(folder / kernel, get(kernel).program(), 4)
    session = pyxrt_runtime(folder).load(models("encoder"))
    assert session.run(mel()).record.device == "xrt"


@pytest.fixture
def pyxrt_runtime(
    host: hetero.Host, make_runtime: Callable[..., hetero.Runtime], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], hetero.Runtime]:
    """A Runtime of what counts as a real NPU, without the CPU, with a folder of kernels."""
    from hetero.testing.xrt.clock import ControlledClock
    from hetero.testing.xrt.phoenix import SimulatedPhoenix
    from hetero.testing.xrt.pyxrt import simulated_pyxrt
    from hetero_xrt.backend import XrtBackend
    from tests.xrt.test_backend import laptop

    clock = ControlledClock(poll_seconds=1e-3)
    module = simulated_pyxrt(SimulatedPhoenix(), clock=clock)
    monkeypatch.setitem(sys.modules, "pyxrt", module)
    sysroot = laptop(host).sysroot

    class There(XrtBackend):
        def __init__(self, where: hetero.Host) -> None:
            super().__init__(where, pyxrt=module, clock=clock.now)

    def make(folder: Path) -> hetero.Runtime:
        there = hetero.Host(environ={"HETERO_XRT_KERNELS": str(folder)}, sysroot=sysroot, cache=host.cache)
        return make_runtime(There, host=there, learn=False)

    return make


def test_an_event_loop_goes_on_while_the_host_and_the_npu_work(
    bench: Callable[..., Bench], models: Callable[[str], Program]
) -> None:
    machine = bench(poll=1e-4)
    session = machine.load(models("encoder"))

    async def both() -> int:
        turns = 0
        work = asyncio.ensure_future(session.arun(mel(batch=4)))
        while not work.done():
            await asyncio.sleep(0)
            turns += 1
            time.sleep(0)
        await work
        return turns

    assert asyncio.run(both()) > 10


def test_an_encoder_runs_in_a_process_of_its_own(host: hetero.Host, models: Callable[[str], Program]) -> None:
    there = hetero.Host(environ={}, sysroot=host.sysroot, cache=host.cache, simulate=("phoenix",))
    with hetero.Runtime(
        backends=[XrtBackend, CpuBackend], plugins=False, host=there, learn=False, isolate=["xrt"]
    ) as runtime:
        session = runtime.load(models("encoder"))
        check(session, mel(), runtime.load(models("encoder"), device="cpu"))
        assert "isolated=True" in str(session.explain())
