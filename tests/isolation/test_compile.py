"""Compiling with an isolated backend: in its process, with the same answers, errors and progress as in this one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.errors import CompileError, OptionError
from tests import models
from tests.isolation.compilers import Cooking, make_cooking

MakeRuntime = Callable[..., hetero.Runtime]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x + x, float32 [4]."""
    return models.double(tmp_path / "double.onnx")


def content(bundle: Path) -> dict[str, Any]:
    (file,) = bundle.rglob("*.toy")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize("factory", [Cooking, make_cooking])
def test_a_program_is_compiled_in_the_process_as_in_this_one(
    make_runtime: MakeRuntime, model: Path, tmp_path: Path, factory: Any
) -> None:
    samples = [{"x": np.full(4, value, np.float32)} for value in (1, 2, 3)]
    told: dict[bool, list[tuple[str, float]]] = {False: [], True: []}
    compiled, files = {}, {}
    for apart in (False, True):
        runtime = make_runtime(factory, isolate=apart)
        compiled[apart] = runtime.compile(
            model,
            "toy1",
            out=tmp_path / f"out{apart}",
            int8=True,
            calibration=samples[:2],
            check=samples[2:],
            anew=True,
            progress=lambda stage, done, apart=apart: told[apart].append((stage, done)),
        )
        files[apart] = content(compiled[apart].bundle)
    assert compiled[True].reports == compiled[False].reports
    assert told[True] == told[False]
    assert ("toy1: cook", 0.25) in told[True]
    assert files[False].pop("pid") == os.getpid()
    assert files[True].pop("pid") != os.getpid()
    assert files[True] == files[False]
    assert files[True]["calibration"] == [{"x": [1.0] * 4}, {"x": [2.0] * 4}]
    assert files[True]["checks"] == [{"x": [3.0] * 4}]


def test_options_and_targets_are_those_of_the_backend(make_runtime: MakeRuntime, model: Path) -> None:
    runtime = make_runtime(Cooking, isolate=["toy"])
    with pytest.raises(OptionError, match="no backend compiles for 'toy3'") as wrong:
        runtime.compile(model, "toy3")
    assert "toy1, toy2 (toy)" in wrong.value.fix
    with pytest.raises(OptionError, match="do"):
        runtime.compile(model, "toy1", options={"toy": {"do": "fry"}})


def test_a_refusal_comes_as_the_compiler_said_it(make_runtime: MakeRuntime, model: Path, tmp_path: Path) -> None:
    runtime = make_runtime(Cooking, isolate=True)
    with pytest.raises(CompileError, match="toycc has no Foo") as refused:
        runtime.compile(model, "toy1", out=tmp_path / "out", options={"toy": {"do": "refuse"}})
    assert refused.value.fix == "leave Foo out"
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_crashes_is_an_error_here_and_the_next_one_works(
    make_runtime: MakeRuntime, model: Path, tmp_path: Path
) -> None:
    runtime = make_runtime(Cooking, isolate=True)
    with pytest.raises(
        CompileError, match=r"not compiled for toy1: the process of backend 'toy' was killed by SIGSEGV"
    ):
        runtime.compile(model, "toy1", out=tmp_path / "out", options={"toy": {"do": "crash"}})
    assert not (tmp_path / "out").exists()
    compiled = runtime.compile(model, "toy1", out=tmp_path / "out")
    assert compiled.reports[0].target == "toy1"


def test_progress_may_stop_it_and_the_process_goes_on(
    make_runtime: MakeRuntime, model: Path, tmp_path: Path, host: hetero.Host
) -> None:
    class Enough(Exception):
        pass

    def stop(stage: str, done: float) -> None:
        if done >= 0.5:
            raise Enough

    runtime = make_runtime(Cooking, isolate=True)
    with pytest.raises(Enough):
        runtime.compile(model, "toy1", out=tmp_path / "out", options={"toy": {"do": "wait"}}, progress=stop)
    assert not (tmp_path / "out").exists()
    limit = time.monotonic() + 60
    while not (host.cache / "nobody listens").exists():
        assert time.monotonic() < limit, "the compiler goes on"
        time.sleep(0.01)
    first = runtime.compile(model, "toy1", out=tmp_path / "one")
    second = runtime.compile(model, "toy2", out=tmp_path / "two")
    assert content(first.bundle)["pid"] == content(second.bundle)["pid"]
