"""Building and configuring the simulated `librknnrt.so`, and what it makes of model files."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from ctypes import byref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hetero.errors import OptionError, Unavailable
from hetero.testing.rknn import library as library_module
from hetero.testing.rknn.library import built_library, environment
from hetero.testing.rknn.npu import SimulatedNpu
from hetero_rknn.drivers import capi_types as c
from tests import models
from tests.rknn.board import (
    CONTEXT,
    MODEL,
    PARAMETER,
    PLATFORM,
    UNAVAILABLE,
    Board,
    in_thread,
    numbers,
)
from tests.rknn.sim_models import perceptron, shifted_image, simulated_library, twin, twin_bytes


def test_it_is_built_once_and_again_when_the_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated_library()
    source = tmp_path / "source"
    shutil.copytree(library_module.SOURCE, source)
    monkeypatch.setattr(library_module, "SOURCE", source)
    built: list[Path] = []
    threads = [in_thread(lambda: built.append(built_library(tmp_path / "cache"))) for _ in range(2)]
    for thread in threads:
        thread.join()
    assert len(set(built)) == 1
    assert ctypes.CDLL(str(built[0])).hetero_sim_counter(b"jobs") == 0
    with monkeypatch.context() as patch:
        patch.setattr(library_module, "_compile", lambda *arguments: pytest.fail("compiled again"))
        assert built_library(tmp_path / "cache") == built[0]
    (source / "log.h").write_text((source / "log.h").read_text() + "\n")
    assert built_library(tmp_path / "cache") != built[0]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        {path.parent.name for path in (built[0], built_library(tmp_path / "cache"))}
    )


def test_without_a_compiler_or_onnx_runtime_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module.shutil, "which", lambda name: None)
    monkeypatch.setattr(library_module.importlib.util, "find_spec", lambda name: None)
    for missing in (lambda: built_library(tmp_path), environment):
        with pytest.raises(Unavailable) as raised:
            missing()
        assert "pip install" in raised.value.fix
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_quoted_and_nothing_half_built_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated_library()
    source = tmp_path / "source"
    source.mkdir()
    (source / "broken.c").write_text("this is not C")
    monkeypatch.setattr(library_module, "SOURCE", source)
    with pytest.raises(Unavailable, match=r"broken\.c"):
        built_library(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_structures_are_laid_out_as_the_vendors() -> None:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("sizes of 64-bit programs")
    sizes = {c.TensorAttr: 376, c.TensorMem: 40, c.Input: 32, c.Output: 24, c.SdkVersion: 512, c.InOutNum: 8}
    assert {structure: ctypes.sizeof(structure) for structure in sizes} == sizes


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "platform=",
        "job_us=-1",
        "job_us=1s",
        "faults=explode:1",
        "faults=fail:0.6,lost:0.6",
        "slowness=1,0",
        "fp16=2",
        "speedup=1,1,1,1",
        "hung_core=x",
    ],
)
def test_a_description_that_is_not_understood_is_refused_and_changes_nothing(
    board: Board, small: Path, text: str
) -> None:
    handle, versions = board.init(small), c.SdkVersion()
    board.library.configure(SimulatedNpu(library_version="9.9.9"))
    assert board.call.hetero_sim_configure(text.encode()) == -1
    assert board.call.hetero_sim_configure(None) == -1
    assert board.call.rknn_query(handle, c.QUERY_SDK_VERSION, byref(versions), ctypes.sizeof(versions)) == 0
    assert versions.api_version == b"9.9.9 (simulated)"


def test_an_impossible_npu_is_an_option_error(board: Board) -> None:
    with pytest.raises(OptionError):
        board.library.configure(SimulatedNpu(slowness=(1, 2, 3, 4)))
    with pytest.raises(OptionError):
        board.library.counter("unheard-of")  # type: ignore[arg-type]


def test_a_program_that_is_not_python_is_configured_by_the_environment(small: Path, tmp_path: Path) -> None:
    library = simulated_library()
    source = tmp_path / "main.c"
    source.write_text(
        r"""
        #include <dlfcn.h>
        #include <stdint.h>
        #include <stdio.h>
        int main(int count, char **argument) {
            void *library = dlopen(argument[1], RTLD_NOW);
            int (*init)(uint64_t *, void *, uint32_t, uint32_t, void *) = dlsym(library, "rknn_init");
            int (*destroy)(uint64_t) = dlsym(library, "rknn_destroy");
            int (*counter)(const char *) = dlsym(library, "hetero_sim_counter");
            uint64_t context = 0;
            int code = init(&context, argument[2], 0, 0, 0);
            printf("%d %d", code, counter("sessions"));
            return code ? 0 : destroy(context);
        }
        """
    )
    program = tmp_path / "main"
    subprocess.run([*library_module.compiler(), str(source), "-o", str(program), "-ldl"], check=True)

    def said(**variables: str) -> str:
        line = [str(program), str(library.path), str(small)]
        done = subprocess.run(line, env=variables, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout + done.stderr

    assert said(**environment()) == "0 1"
    assert said(**environment(SimulatedNpu("rk3576"))).startswith(f"{PLATFORM} 0")
    assert "HETERO_SIM_RKNN" in (refused := said(**{**environment(), "HETERO_SIM_RKNN": "speed=9"}))
    assert refused.startswith(f"{UNAVAILABLE} 0")
    for wrong in ({}, {"HETERO_SIM_ORT": str(library.path)}, {"HETERO_SIM_ORT": "/nowhere.so"}):
        assert "HETERO_SIM_ORT" in (refused := said(**wrong))
        assert refused.startswith(f"{UNAVAILABLE} 0")


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", MODEL, "cannot be read"),
        (b"RKNM" + bytes(200), MODEL, "Invalid RKNN format"),
        (b"RKNN", MODEL, "Invalid RKNN format"),
        (twin_bytes(b"x", version=7), MODEL, "Invalid RKNN model version 7"),
        (twin_bytes(b"x", mark=b"the real thing.."), MODEL, "only its twin"),
        (twin_bytes(b"x", ["rk3576"]), PLATFORM, "not for rk3588"),
        (twin_bytes(b"x", []), PLATFORM, "not for rk3588"),
        (twin_bytes(b"no onnx"), MODEL, "model: "),
        (twin_bytes(b"x" * 100)[:80], MODEL, "truncated"),
        (twin_bytes(b"x" * 100)[:-1], MODEL, "truncated"),
        (b"RKNN\0\0\0\0" + b"\6".ljust(8, b"\0") + b"\xff" * 8 + bytes(100), MODEL, "truncated"),
    ],
)
def test_a_model_that_cannot_be_used_has_the_vendors_code(
    board: Board, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes, code: int, words: str
) -> None:
    path = tmp_path / "m.rknn"
    path.write_bytes(content)
    assert board.init(path) == code
    assert not content or board.init(content) == code
    assert words in capfd.readouterr().err
    assert board.library.counter("contexts") == 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_to_a_file_does_more_than_refuse_it(board: Board, small: Path, data: st.DataObject) -> None:
    good = small.read_bytes()
    # The header, the mark and the tail are this library's to read; the graph between is ONNX Runtime's.
    body = 64 + int.from_bytes(good[16:24], "little")
    place = data.draw(st.sampled_from([*range(80), *range(body, len(good))]))
    damaged = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    handle = board.init(damaged[: data.draw(st.sampled_from([len(good), place]))] or b"\0")
    if isinstance(handle, c.Handle):
        board.call.rknn_destroy(handle)
        board.made.clear()
    else:
        assert handle in (MODEL, PLATFORM)


def test_chips_of_one_family_run_each_others_models(board: Board, tmp_path: Path) -> None:
    path, _ = twin(models.double(tmp_path / "m.onnx"), ["rk3566"])
    assert board.init(path) == PLATFORM
    for platform in ("rk3566", "rk3568"):
        board.library.configure(SimulatedNpu(platform))
        assert isinstance(board.init(path), c.Handle)


def test_shapes_that_are_not_fixed_and_types_that_the_npu_has_not_are_refused(board: Board, tmp_path: Path) -> None:
    assert board.init(twin_bytes(models.dynamic(tmp_path / "a.onnx").read_bytes())) == MODEL
    assert board.init(twin_bytes(models.identity(tmp_path / "b.onnx", (4,), np.float64).read_bytes())) == MODEL


def test_what_is_not_simulated_says_so(board: Board, small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert board.init(small, flags=0x10) == PARAMETER
    handle = board.init(small)
    assert board.call.rknn_query(handle, 12, byref(c.TensorAttr()), 4096) == PARAMETER
    assert board.call.rknn_query(handle, 999, byref(c.TensorAttr()), 4096) == PARAMETER
    assert board.call.rknn_query(handle, c.QUERY_INPUT, byref(c.TensorAttr()), 100) == PARAMETER
    assert board.call.rknn_query(handle, c.QUERY_INPUT, byref(c.TensorAttr(index=1)), 4096) == PARAMETER
    assert board.call.rknn_register_custom_ops(handle, None, 1) < 0
    assert board.call.rknn_set_weight_mem(handle, None) < 0
    assert "not simulated" in capfd.readouterr().err


def test_a_handle_that_is_not_there_is_refused_everywhere(board: Board, small: Path) -> None:
    handle = board.init(small)
    assert board.call.rknn_destroy(handle) == 0
    x = numbers(4)
    assert board.call.rknn_destroy(handle) == CONTEXT
    assert (board.set(handle, x), board.run(handle), board.get(handle, x)) == (CONTEXT,) * 3
    assert board.call.rknn_set_core_mask(handle, 1) == CONTEXT
    assert not board.call.rknn_create_mem(handle, 64)


def test_attributes_are_those_of_the_graph(board: Board, tmp_path: Path) -> None:
    handle = board.init(twin(shifted_image(tmp_path / "m.onnx", (1, 12, 5, 7)))[0])
    seen = [board.attribute(handle, command) for command in (1, 2, 8, 9, 10, 11)]
    assert [(found.name.decode(), found.fmt, found.shape()) for found in seen] == [
        ("x", c.NHWC, (1, 5, 7, 12)),
        ("y", c.NCHW, (1, 12, 5, 7)),
        ("x", c.NC1HWC2, (1, 2, 5, 7, 8)),
        ("y", c.NC1HWC2, (1, 2, 5, 7, 8)),
        ("x", c.NHWC, (1, 5, 7, 12)),
        ("y", c.NHWC, (1, 5, 7, 12)),
    ]
    dense, cells, rows = 12 * 5 * 7, 2 * 5 * 7 * 8, 5 * 16 * 12
    assert [found.size_with_stride // 4 for found in seen] == [dense, dense, cells, cells, rows, rows]
    assert {found.type for found in seen} == {c.FLOAT32}
    board.library.configure(SimulatedNpu(fp16=True))
    half = board.init(twin(perceptron(tmp_path / "h.onnx"))[0])
    assert (board.attribute(half, 1).type, board.attribute(half, 1).fmt) == (c.FLOAT16, c.UNDEFINED)
