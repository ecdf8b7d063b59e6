"""Kept graphs make loading faster and can never make it fail or answer differently."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import Artifact
from hetero.onnx_file import open_onnx
from hetero_cpu import graph_cache
from hetero_cpu.graph_cache import GraphCache, graph_key, worth_keeping
from tests import models
from tests.cpu.conftest import Load, call

X = np.random.default_rng(5).random((3, 256), np.float32)


def kept(host: hetero.Host) -> list[Path]:
    return sorted((host.cache / "cpu").glob("*/graph.onnx"))


def answer(load: Load, path: Path, **options: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """Where the graph came from, and what the model answers."""
    executable = load(path, **options)
    return executable.details["graph"], call(executable, x=X)["y"]


def test_the_second_load_uses_the_kept_graph_and_answers_the_same(
    load: Load, host: hetero.Host, tmp_path: Path
) -> None:
    path = models.perceptron(tmp_path / "p.onnx")
    off, expected = answer(load, path, graph_cache=False)
    first, one = answer(load, path)
    second, two = answer(load, path)
    assert (off, first, second) == ("not kept", "new", "cache")
    assert len(kept(host)) == 1
    np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(two, expected)


def test_a_changed_model_is_not_answered_from_the_old_ones_graph(load: Load, host: hetero.Host, tmp_path: Path) -> None:
    path = models.perceptron(tmp_path / "p.onnx", layers=4)
    answer(load, path)
    models.perceptron(path, layers=3)
    graph, got = answer(load, path)
    assert graph == "new"
    np.testing.assert_array_equal(got, answer(load, path, graph_cache=False)[1])


def test_levels_of_optimisation_have_graphs_of_their_own_and_off_has_none(
    load: Load, host: hetero.Host, tmp_path: Path
) -> None:
    path = models.perceptron(tmp_path / "p.onnx")
    assert [answer(load, path, graph_optimization=level)[0] for level in ("all", "extended", "basic", "off")] == [
        *["new"] * 3,
        "not kept",
    ]
    assert len(kept(host)) == 3


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, "truncated"])
def test_a_corrupt_graph_is_removed_and_the_load_goes_on(
    load: Load, host: hetero.Host, tmp_path: Path, content: bytes | str
) -> None:
    path = models.perceptron(tmp_path / "p.onnx")
    _, expected = answer(load, path)
    (graph,) = kept(host)
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    state, got = answer(load, path)
    assert state == "new"
    np.testing.assert_array_equal(got, expected)
    assert kept(host) == [graph]
    assert graph.stat().st_size == len(whole)


def test_external_data_counts_for_the_key_and_is_taken_into_the_graph(
    load: Load, host: hetero.Host, tmp_path: Path
) -> None:
    path = models.external_data(tmp_path / "e.onnx", n=256)
    assert answer(load, path)[0] == "new"
    weights = np.fromfile(tmp_path / "weights.bin", np.float32) * 2
    weights.tofile(tmp_path / "weights.bin")
    os.utime(tmp_path / "weights.bin", ns=(0, time.time_ns() + 10**9))
    state, got = answer(load, path)
    assert state == "new"
    np.testing.assert_allclose(got, 4 * X, rtol=1e-6)
    assert answer(load, path)[0] == "cache"


def test_models_outside_the_sizes_that_pay_are_not_kept(
    load: Load, host: hetero.Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.perceptron(tmp_path / "p.onnx")
    assert not worth_keeping(Artifact("onnx", path=models.double(tmp_path / "tiny.onnx")))
    monkeypatch.setattr(graph_cache, "LARGEST", path.stat().st_size - 1)
    assert answer(load, path)[0] == "not kept"
    assert kept(host) == []


def test_external_data_counts_towards_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (artifact,) = open_onnx(models.external_data(tmp_path / "e.onnx", n=256)).artifacts
    assert worth_keeping(artifact)
    monkeypatch.setattr(graph_cache, "LARGEST", 256 * 256 * 4)
    assert not worth_keeping(artifact)


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(
    load: Load, host: hetero.Host, tmp_path: Path
) -> None:
    path = models.perceptron(tmp_path / "p.onnx")
    host.cache.mkdir()
    (host.cache / "cpu").write_text("a file where the folder should be")
    state, got = answer(load, path)
    assert state.startswith("not kept: ")
    np.testing.assert_array_equal(got, answer(load, path, graph_cache=False)[1])


def test_the_key_changes_with_version_level_and_processor(tmp_path: Path) -> None:
    artifact = Artifact("onnx", path=models.double(tmp_path / "d.onnx"))
    (tmp_path / "proc").mkdir()
    keys = []
    for version, level, flags in (
        ("1.31", "all", "avx2"),
        ("1.32", "all", "avx2"),
        ("1.31", "basic", "avx2"),
        ("1.31", "all", "sse"),
    ):
        (tmp_path / "proc/cpuinfo").write_text(f"flags : {flags}\n")
        keys.append(graph_key(artifact, version, level, tmp_path))
    assert len(set(keys)) == 4


def entry(cache: GraphCache, key: str, size: int = 10) -> str:
    """Where a session for `key` came from; a new one's graph is so large."""

    def build(target: Path | None) -> str:
        if target is not None:
            target.write_bytes(b"x" * size)
        return "session"

    return cache.load(key, lambda graph: "session", build)[1]


def age(cache: GraphCache, **seconds: float) -> None:
    for key, old in seconds.items():
        os.utime(cache.folder / key, (time.time() - old,) * 2)


def test_the_least_recently_used_graphs_go_first(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, total=25)
    entry(cache, "a")
    entry(cache, "b")
    age(cache, a=300, b=200)
    assert entry(cache, "a") == "cache"  # used: now b is the older one
    assert entry(cache, "c") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def test_the_newest_graph_stays_even_when_it_alone_is_too_large(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, total=25)
    entry(cache, "a")
    entry(cache, "huge", size=100)
    assert [path.name for path in tmp_path.iterdir()] == ["huge"]


def test_work_that_a_killed_process_left_is_removed_and_work_in_progress_is_not(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path)
    for name, old in ((".left.x1", 3 * 24 * 3600), (".busy.x2", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "graph.onnx").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - old,) * 2)
    entry(cache, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".busy.x2", "a"]


def test_a_failing_model_leaves_nothing_behind_and_its_own_error(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "cpu")

    def build(target: Path | None) -> str:
        if target is not None:
            target.write_bytes(b"half a graph")
        raise RuntimeError("the model is bad")

    with pytest.raises(RuntimeError, match="the model is bad"):
        cache.load("k", lambda graph: "session", build)
    assert list((tmp_path / "cpu").iterdir()) == []


def test_a_disk_that_fills_up_while_a_graph_is_written_does_not_fail_the_load(tmp_path: Path) -> None:
    def build(target: Path | None) -> str:
        if target is not None:
            target.write_bytes(b"half a graph")
            raise OSError(28, "No space left on device")
        return "session"

    cache = GraphCache(tmp_path / "cpu")
    assert cache.load("k", lambda graph: "session", build) == ("session", "not kept: OSError")
    assert list((tmp_path / "cpu").iterdir()) == []


LOAD_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
import hetero
from hetero.onnx_file import open_onnx
from hetero_cpu.backend import CpuBackend
model, cache = map(Path, sys.argv[1:])
backend = CpuBackend(hetero.Host(environ={}, cache=cache))
sys.stdin.readline()
for _ in range(5):
    executable = backend.load(open_onnx(model), backend.probe()[0], {"threads": 1})
    y = executable.run({"x": np.ones((1, 256), np.float32)}, hetero.Call())["y"]
    assert executable.details["graph"] in ("new", "cache"), executable.details
    executable.close()
print(float(y.sum()))
"""


def test_processes_that_fill_the_cache_at_once_all_load_and_agree(host: hetero.Host, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = models.perceptron(tmp_path / "p.onnx")
    command = [sys.executable, "-c", LOAD_AND_RUN, str(path), str(host.cache)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:  # all of them wait for this line, so that they begin together
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert answers[0]
    assert len(kept(host)) == 1
    assert [path.name for path in (host.cache / "cpu").iterdir() if path.name.startswith(".")] == []
