"""From a model to a bundle: what is compiled is checked, kept and told, and nothing is written when it is not good."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero.bundle import open_bundle
from hetero.cache import sha256_of
from hetero.errors import CompileError, InputError, OptionError, ProgramError
from hetero_rknn.toolkit import process
from tests import models

Compile = Callable[..., Any]


def told_in(rknn: Path) -> dict[str, Any]:
    """What the stand-in for the toolkit wrote behind the body of a `.rknn` file."""
    content = rknn.read_bytes()
    end = 64 + struct.unpack_from("<Q", content, 16)[0]
    told: dict[str, Any] = json.loads(content[end + 8 :])
    return told


def samples(folder: Path, *arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for place, array in enumerate(arrays):
        np.save(folder / f"{place}.npy", array)
    return folder


def no_worker(*arguments: Any) -> None:
    raise AssertionError("the toolkit was started")


def test_a_compiled_model_is_in_a_bundle_with_its_onnx_and_a_report(compile_here: Compile, tmp_path: Path) -> None:
    compiled = compile_here(models.double(tmp_path / "double.onnx"))
    program = open_bundle(compiled.bundle)
    artifact = program.artifact("rknn", "rk3588")
    assert program.name == "double"
    assert program.artifact("onnx").file.parent == compiled.bundle
    assert artifact.shapes == {"x": (4,)}
    assert artifact.file.name == "double.rk3588.fp16.rknn"
    told = json.loads(artifact.report.read_text()) if artifact.report else {}
    assert told["compiler"] == "rknn-toolkit2 2.5.0"
    assert told["outputs"][0] == {
        "name": "y",
        "cosine": pytest.approx(1),
        "max_abs_error": 0,
        "largest": pytest.approx(1.0, abs=3),
    }
    assert told["sampled"] == "random inputs"
    assert told_in(artifact.file)["target_platform"] == ["rk3588"]
    assert f'sha256 = "{sha256_of(artifact.file)}"' in (compiled.bundle / "hetero.toml").read_text()


def test_the_second_time_nothing_is_started_and_the_bytes_are_the_same(
    compile_here: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.double(tmp_path / "double.onnx")
    first = compile_here(model)
    monkeypatch.setattr("hetero_rknn.toolkit.compiler.Worker", no_worker)
    second = compile_here(model, out=tmp_path / "other")
    assert (first.kept, second.kept) == ((False,), (True,))
    assert second.reports == first.reports
    files = [open_bundle(compiled.bundle).artifact("rknn").file for compiled in (first, second)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_another_model_option_target_or_shape_is_compiled_anew(compile_here: Compile, tmp_path: Path) -> None:
    model = models.dynamic(tmp_path / "dynamic.onnx")
    once = {"shapes": [("x", (1, 8))]}
    assert compile_here(model, **once).kept == (False,)
    assert compile_here(model, **once).kept == (True,)
    assert compile_here(model, "rk3576", **once).kept == (False,)
    assert compile_here(model, shapes=[("x", (2, 8))]).kept == (False,)
    assert compile_here(model, options={"rknn": {"optimization_level": 1}}, **once).kept == (False,)
    assert compile_here(model, anew=True, **once).kept == (False,)
    other = models.identity(tmp_path / "dynamic.onnx", ["batch", "width"])
    assert compile_here(other, out=tmp_path / "other", **once).kept == (False,)


def test_one_source_and_a_mapping_of_shapes_are_as_good_as_lists(compile_here: Compile, tmp_path: Path) -> None:
    model = models.dynamic(tmp_path / "dynamic.onnx")
    sample = {"x": np.ones((1, 8), np.float32)}
    listed = compile_here(model, shapes=[("x", (1, 8))], int8=True, calibration=[sample])
    single = compile_here(model, shapes={"x": (1, 8)}, int8=True, calibration=sample, check=())
    data = samples(tmp_path / "data", sample["x"])
    folder = compile_here(model, shapes={"x": (1, 8)}, int8=True, calibration=str(data))
    assert (listed.kept, single.kept, folder.kept) == ((False,), (True,), (True,))


def test_a_bundle_behind_a_link_is_written_where_the_link_leads(compile_here: Compile, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    compile_here(models.double(tmp_path / "double.onnx"), out=tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert open_bundle(tmp_path / "real").artifact("rknn").target == "rk3588"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_several_targets_are_artifacts_of_one_bundle(compile_here: Compile, tmp_path: Path) -> None:
    compiled = compile_here(models.double(tmp_path / "double.onnx"), ["rk3588", "RK3566", "rk3588"])
    program = open_bundle(compiled.bundle)
    assert [artifact.target for artifact in program.artifacts_of("rknn")] == ["rk3588", "rk3566"]


def test_each_shape_that_is_given_is_an_artifact_that_a_backend_can_choose(
    compile_here: Compile, tmp_path: Path
) -> None:
    shapes = [("batch", [1]), ("x", (1, 8)), ("x", (1, 16))]
    compiled = compile_here(models.dynamic(tmp_path / "dynamic.onnx"), shapes=shapes)
    artifacts = open_bundle(compiled.bundle).artifacts_of("rknn", target="rk3588")
    assert [artifact.shapes for artifact in artifacts] == [{"x": (1, 8)}, {"x": (1, 16)}]
    assert [artifact.takes({"x": (1, 16)}) for artifact in artifacts] == [False, True]
    assert told_in(artifacts[1].file)["shapes"] == {"x": [1, 16]}


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ([], "needs? fixed sizes"),
        ([("x", (1, 8)), ("x", (1, 9)), ("batch", (1,)), ("batch", (1,)), ("batch", (1,))], "2 times .* 3 times"),
        ([("z", (1,))], "no input or dimension 'z'"),
        ([("x", (8,))], "does not fit"),
        ([("x", (0, 8))], "sizes of 1 or more"),
        ([("batch", (1, 2))], "is not one size"),
        ([("x", (1, 8)), ("batch", (2,))], "gets two sizes"),
        ([("batch", (1,))], "fixed sizes"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_before_anything_starts(
    compile_here: Compile, tmp_path: Path, shapes: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_rknn.toolkit.compiler.Worker", no_worker)
    with pytest.raises(OptionError, match=says):
        compile_here(models.dynamic(tmp_path / "dynamic.onnx"), shapes=shapes)


def test_compiling_into_a_bundle_adds_to_it_and_replaces_its_like(compile_here: Compile, tmp_path: Path) -> None:
    model = models.double(tmp_path / "double.onnx")
    first = compile_here(model)
    manifest = first.bundle / "hetero.toml"
    manifest.write_text(manifest.read_text() + '\n[options.rknn]\ncore_mask = "auto"\n')
    old = sha256_of(open_bundle(first.bundle).artifact("rknn").file)
    compile_here(model, ["rk3576"])
    compile_here(model, ["rk3588"], anew=True)
    program = open_bundle(first.bundle)
    assert sorted(artifact.target for artifact in program.artifacts_of("rknn")) == ["rk3576", "rk3588"]
    assert sha256_of(program.artifact("rknn", "rk3588").file) != old
    assert program.options == {"rknn": {"core_mask": "auto"}}
    assert len(list(first.bundle.iterdir())) == 6, "the model, the manifest, two artifacts with a report each"


def test_a_bundle_keeps_what_it_had_when_it_is_the_model(runtime: hetero.Runtime, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    models.external_data(source / "model.onnx", n=8)
    (source / "other.bin").write_bytes(b"other")
    (source / "hetero.toml").write_text(
        '[program]\nformat = 1\nname = "twice \\"it\\""\ntolerance = 0.01\n[[artifact]]\nkind = "onnx"\n'
        'path = "model.onnx"\n[[artifact]]\nkind = "toy"\npath = "other.bin"\ncompanions = { "a b" = "other.bin" }\n'
    )
    compiled = runtime.compile(source, "rk3588", out=tmp_path / "out", shapes=[("batch", (1,))])
    program = open_bundle(compiled.bundle)
    assert (program.name, program.tolerance) == ('twice "it"', 0.01)
    assert program.artifact("toy").companions["a b"].read_bytes() == b"other"
    assert [file.name for file in program.artifact("onnx").companions.values()] == ["weights.bin"]
    assert program.artifact("rknn").target == "rk3588"


def test_what_is_no_bundle_of_that_model_is_left_alone(compile_here: Compile, tmp_path: Path) -> None:
    compiled = compile_here(models.double(tmp_path / "double.onnx"))
    before = sorted(file.read_bytes() for file in compiled.bundle.iterdir())
    with pytest.raises(ProgramError, match="another model"):
        compile_here(models.identity(tmp_path / "identity.onnx"))
    assert sorted(file.read_bytes() for file in compiled.bundle.iterdir()) == before
    folder = samples(tmp_path / "data", np.zeros(4))
    with pytest.raises(ProgramError, match="is no bundle"):
        compile_here(models.double(tmp_path / "double.onnx"), out=folder)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("refused", r"failed to load .*: Unsupport onnx opset 22, need <= 19! \(log: (?P<log>.+)\)"),
        ("minus_one", r"failed to build .*: build: Meet unsupported dims in reducesum \(build gave -1\) \(log:"),
        ("says_nothing", r"build gave -1, and it did not say why"),
        ("exits", r"it called exit\(3\)"),
        ("killed", r"was killed by SIGKILL; the machine may have run out of memory \(log: "),
        ("no_answer", r"failed to simulate .*: inference gave nothing, and it did not say why"),
    ],
)
def test_each_way_of_the_toolkit_to_fail_is_an_error_with_its_words_and_its_log(
    compile_here: Compile, tmp_path: Path, fault: str, says: str
) -> None:
    with pytest.raises(CompileError, match=says) as caught:
        compile_here(models.double(tmp_path / f"{fault}.onnx"))
    log = Path(caught.value.problem.rpartition("(log: ")[2].rstrip(")"))
    assert "rknn-toolkit2 version" in log.read_text()
    assert caught.value.fix
    assert not (tmp_path / "bundle").exists()
    assert list((tmp_path / "cache" / "compiled").iterdir()) == []


def test_no_process_and_no_scratch_stays_behind(
    compile_here: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[process.Worker] = []
    real = process.Worker

    def counted(*arguments: Any) -> process.Worker:
        started.append(real(*arguments))
        return started[-1]

    monkeypatch.setattr("hetero_rknn.toolkit.compiler.Worker", counted)
    compile_here(models.double(tmp_path / "double.onnx"))
    with pytest.raises(CompileError):
        compile_here(models.double(tmp_path / "minus_one.onnx"), out=tmp_path / "other")
    assert [worker.alive for worker in started] == [False, False]
    assert [worker.folder.exists() for worker in started] == [False, False]


def test_a_failure_leaves_the_bundle_that_was_there_as_it_was(compile_here: Compile, tmp_path: Path) -> None:
    compiled = compile_here(models.double(tmp_path / "poor_int8.onnx"))
    before = {file.name: file.read_bytes() for file in compiled.bundle.iterdir()}
    data = samples(tmp_path / "data", *np.ones((2, 4), np.float32))
    with pytest.raises(CompileError):
        compile_here(tmp_path / "poor_int8.onnx", int8=True, calibration=[data])
    assert {file.name: file.read_bytes() for file in compiled.bundle.iterdir()} == before


def test_int8_is_told_the_calibration_data(compile_here: Compile, tmp_path: Path) -> None:
    data = samples(tmp_path / "data", *np.ones((6, 4), np.float32))
    compiled = compile_here(models.double(tmp_path / "double.onnx"), int8=True, calibration=[data])
    (report,) = compiled.reports
    assert (report.precision, report.samples, report.sampled) == ("int8", 4, "calibration data")
    artifact = open_bundle(compiled.bundle).artifact("rknn")
    assert artifact.file.name == "double.rk3588.int8.rknn"
    assert told_in(artifact.file)["quantized"] is True


def test_int8_that_is_too_far_off_is_refused_with_the_layers_that_lose_most(
    compile_here: Compile, tmp_path: Path
) -> None:
    model = models.double(tmp_path / "poor_int8.onnx")
    data = samples(tmp_path / "data", np.float32([9, 1, 1, 1]))
    with pytest.raises(
        CompileError, match=r"y has cosine 0\.\d+\n.*loses most: \[Conv\] h_mm, alone to 0\.91"
    ) as caught:
        compile_here(model, int8=True, calibration=[data])
    assert "--force" in caught.value.fix
    assert not (tmp_path / "bundle").exists()
    forced = compile_here(model, int8=True, calibration=[data], force=True)
    assert forced.kept == (True,), "that it was compiled is not lost with the refusal"
    assert forced.reports[0].layers[0].layer == "[Conv] h_mm"
    assert open_bundle(forced.bundle).artifact("rknn").report is not None


def test_a_lower_demand_is_met_by_the_same_artifact(compile_here: Compile, tmp_path: Path) -> None:
    data = samples(tmp_path / "data", np.float32([9, 1, 1, 1]))
    compiled = compile_here(models.double(tmp_path / "poor_int8.onnx"), int8=True, calibration=[data], min_cosine=0.1)
    assert compiled.reports[0].layers == (), "nobody asked where it loses"
    with pytest.raises(CompileError, match="loses most"):
        compile_here(tmp_path / "poor_int8.onnx", int8=True, calibration=[data])


def test_answers_that_are_not_finite_are_refused_whatever_is_asked_for(compile_here: Compile, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="cosine nan") as caught:
        compile_here(models.double(tmp_path / "overflow.onnx"), min_cosine=0.0)
    assert "65504" in caught.value.fix


def test_int8_without_data_says_how_to_give_it(compile_here: Compile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs calibration data") as caught:
        compile_here(models.double(tmp_path / "double.onnx"), int8=True)
    assert "--calibration" in caught.value.fix


def test_an_unused_input_is_not_handed_over_as_another(compile_here: Compile, tmp_path: Path) -> None:
    from onnx import helper

    ends = [models.tensor("unused", [4]), models.tensor("x", ["n"]), models.tensor("y", ["n"])]
    model = models.save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "x"], ["y"])], ends[:2], ends[2:])
    data = tmp_path / "data"
    data.mkdir()
    np.savez(data / "a.npz", unused=np.float32([5, 5, 5, 5]), x=np.float32([1, 2, 3, 4]))
    compiled = compile_here(model, int8=True, calibration=[data], shapes=[("n", [4])])
    assert compiled.reports[0].outputs[0].max_abs_error == 0
    assert "'unused' is used by nothing" in compiled.reports[0].notes[0]


def test_operators_without_an_implementation_are_told(compile_here: Compile, tmp_path: Path) -> None:
    compiled = compile_here(models.double(tmp_path / "custom_op.onnx"))
    assert "Det (at y)" in compiled.reports[0].notes[0]


def test_inputs_without_a_dimension_are_refused_before_the_simulator_fails_on_them(
    compile_here: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetero_rknn.toolkit.compiler.Worker", no_worker)
    with pytest.raises(CompileError, match=r"inputs without a dimension \(x\)") as caught:
        compile_here(models.double(tmp_path / "scalar.onnx", ()))
    assert "[1]" in caught.value.fix


def test_images_and_half_precision_go_through(compile_here: Compile, tmp_path: Path) -> None:
    from onnx import helper

    ends = [models.tensor("x", [1, 3, 4, 5]), models.tensor("k", [1]), models.tensor("y", [1, 3, 4, 5])]
    model = models.save(tmp_path / "image.onnx", [helper.make_node("Mul", ["x", "k"], ["y"])], ends[:2], ends[2:])
    assert compile_here(model).reports[0].outputs[0].cosine == pytest.approx(1)
    half = models.double(tmp_path / "half.onnx", (4,), np.float16)
    assert compile_here(half, out=tmp_path / "half").reports[0].outputs[0].cosine == pytest.approx(1)


def test_options_reach_the_toolkit_and_unknown_ones_do_not(compile_here: Compile, tmp_path: Path) -> None:
    model = models.double(tmp_path / "double.onnx")
    compiled = compile_here(model, options={"rknn": {"compress_weight": "true"}})
    settings = told_in(open_bundle(compiled.bundle).artifact("rknn").file)["settings"]
    assert settings["compress_weight"] is True
    assert settings["optimization_level"] == 3
    with pytest.raises(OptionError, match="no option 'compres_weight'"):
        compile_here(model, options={"rknn": {"compres_weight": True}})
    with pytest.raises(OptionError, match="not known here"):
        compile_here(model, options={"rkn": {}})


def test_unknown_targets_and_programs_without_onnx_are_refused(
    compile_here: Compile, runtime: hetero.Runtime, tmp_path: Path
) -> None:
    model = models.double(tmp_path / "double.onnx")
    with pytest.raises(OptionError, match="no backend compiles for 'rk3577'") as caught:
        compile_here(model, "rk3577")
    assert "rk3588, rk3576, rk3566, rk3568, rk3562 (rknn)" in caught.value.fix
    program = runtime.open(model)
    kernel = hetero.Program("k", program.inputs, program.outputs, (hetero.Artifact("kernel", name="k"),))
    with pytest.raises(ProgramError, match="only ONNX models"):
        compile_here(kernel)
    with pytest.raises(ProgramError, match="texts"):
        compile_here(models.strings(tmp_path / "strings.onnx"), shapes=[("n", (1,))])


def test_progress_goes_up_and_may_stop_it(compile_here: Compile, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    model = models.double(tmp_path / "double.onnx")
    compile_here(model, ["rk3588", "rk3576"], progress=lambda stage, done: told.append((stage, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares)
    assert ("rk3576: build", 0.55) in told

    def stop(stage: str, done: float) -> None:
        if stage.endswith("build"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_here(model, anew=True, out=tmp_path / "other", progress=stop)
    assert not (tmp_path / "other").exists()
