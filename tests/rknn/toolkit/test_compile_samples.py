"""Calibration data: what fits is taken, and of what does not every file is told with its reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetero.bundle import open_program
from hetero.compiling.samples import digest_of, evenly, read_samples
from hetero.errors import InputError
from hetero.whisper.audio import decode_audio
from hetero.whisper.transcription import spectrogram
from tests import models

SPEECH = Path(__file__).parents[2] / "data" / "speech"
BUCKETS = [{"x": (1, 8)}, {"x": (1, 16)}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def program(tmp_path: Path) -> object:
    return open_program(models.dynamic(tmp_path / "dynamic.onnx"))


def test_each_file_goes_to_the_bucket_of_its_shape(tmp_path: Path, data: Path) -> None:
    np.save(data / "a.npy", np.zeros((1, 8), np.float32))
    np.savez(data / "b.npz", x=np.ones((1, 16), np.float32))
    np.save(data / "c.npy", np.zeros((3, 1, 8), np.float32))
    np.save(data / "d.npy", np.zeros((5, 16), np.float32))
    (data / "notes.txt").write_text("not a sample")
    small, large = read_samples(program(tmp_path), BUCKETS, [data])
    assert [len(small), len(large)] == [4, 6]
    assert {sample["x"].shape for sample in small} == {(1, 8)}
    assert large[0]["x"].max() == 1


def test_arrays_can_be_given_without_files(tmp_path: Path) -> None:
    given = {"x": np.zeros((1, 8), np.float32)}
    assert read_samples(program(tmp_path), BUCKETS[:1], [given]) == [[given]]


def test_every_file_that_does_not_fit_is_told_with_its_reason(tmp_path: Path, data: Path) -> None:
    np.save(data / "good.npy", np.zeros((1, 8), np.float32))
    np.save(data / "double.npy", np.zeros((1, 8)))
    np.save(data / "shape.npy", np.zeros((1, 9), np.float32))
    np.save(data / "nan.npy", np.full((1, 8), np.nan, np.float32))
    np.savez(data / "names.npz", z=np.zeros((1, 8), np.float32))
    (data / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError) as caught:
        read_samples(program(tmp_path), BUCKETS, [data, tmp_path / "missing.npy"])
    problem = caught.value.problem
    assert problem.startswith("6 of 7 calibration samples cannot be used")
    for told in (
        "double.npy: x has dtype float64, expected float32; convert it",
        "shape.npy: has the shape x: [1, 9], expected x: [1, 8] or x: [1, 16]",
        "nan.npy: x holds NaN",
        "names.npz: holds z, expected x",
        "broken.npy: ",
        "missing.npy: there is no file",
    ):
        assert told in problem
    assert "good.npy" not in problem


def test_many_bad_files_are_not_all_listed(tmp_path: Path, data: Path) -> None:
    for place in range(25):
        np.save(data / f"{place}.npy", np.zeros(3))
    with pytest.raises(InputError, match="and 15 more"):
        read_samples(program(tmp_path), BUCKETS, [data])


def test_a_program_with_several_inputs_needs_their_names(tmp_path: Path, data: Path) -> None:
    two = open_program(models.two_outputs(tmp_path / "two.onnx"))
    bucket = [{"x": (4,), "y": (4,)}]
    np.save(data / "a.npy", np.zeros(4, np.float32))
    with pytest.raises(InputError, match="one array for 2 inputs"):
        read_samples(two, bucket, [data])
    np.savez(data / "a.npz", x=np.zeros(4, np.float32), y=np.ones(4, np.float32))
    ((sample,),) = read_samples(two, bucket, [data / "a.npz"])
    assert list(sample) == ["x", "y"]


def test_a_bucket_without_a_sample_and_an_empty_folder_are_errors(tmp_path: Path, data: Path) -> None:
    with pytest.raises(InputError, match="holds no calibration data"):
        read_samples(program(tmp_path), BUCKETS, [data])
    np.save(data / "a.npy", np.zeros((1, 8), np.float32))
    with pytest.raises(InputError, match=r"no calibration sample of the shape x: \[1, 16\]"):
        read_samples(program(tmp_path), BUCKETS, [data])


def test_recordings_become_windows_of_a_whisper_encoder(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from onnx import helper

    ends = [models.tensor("mel", ["n", 80, "frames"]), models.tensor("hidden", ["n", 80, "frames"])]
    encoder = open_program(
        models.save(tmp_path / "encoder.onnx", [helper.make_node("Abs", ["mel"], ["hidden"])], ends[:1], ends[1:])
    )
    recording = SPEECH / "librivox-0870.flac"
    mel = spectrogram(decode_audio(recording), 80)
    whole, short = read_samples(encoder, [{"mel": (1, 80, 3000)}, {"mel": (1, 80, 200)}], [recording])
    frames = mel.shape[1]
    assert 400 < frames < 3000
    np.testing.assert_array_equal(whole[0]["mel"][0, :, :frames], mel)
    assert not whole[0]["mel"][0, :, frames:].any()
    np.testing.assert_array_equal(short[1]["mel"][0], mel[:, 200:400])
    assert len(short) == -(-frames // 200)
    with pytest.raises(InputError, match="at most 3000"):
        read_samples(encoder, [{"mel": (2, 80, 3000)}], [recording])


def test_recordings_are_for_whisper_encoders_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(program(tmp_path), BUCKETS, [SPEECH / "librivox-0870.flac"])


def test_the_digest_changes_with_names_shapes_and_values() -> None:
    base = {"x": np.zeros((2, 2), np.float32)}
    others = [
        {"z": base["x"]},
        {"x": base["x"].reshape(4)},
        {"x": base["x"] + 1},
        {"x": base["x"].astype(np.int32)},
    ]
    digests = {digest_of([sample]) for sample in (base, *others)} | {digest_of([base, base])}
    assert len(digests) == 6
    assert digest_of([base]) == digest_of([{"x": np.zeros((2, 2), np.float32)}])


@pytest.mark.parametrize(
    ("count", "most", "taken"), [(10, 4, [0, 3, 6, 9]), (3, 4, [0, 1, 2]), (1, 4, [0]), (5, 1, [0])]
)
def test_samples_to_compare_are_spread_over_all(count: int, most: int, taken: list[int]) -> None:
    given = [{"x": np.full(1, place)} for place in range(count)]
    assert [int(sample["x"][0]) for sample in evenly(given, most)] == taken
