"""What a program costs is learned from its own runs, survives a restart, and never from a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.scheduler.costs import CostModel, Key

KEY = Key("p", "npu", ((1, 80, 3000),))


def test_the_first_run_is_kept_apart() -> None:
    model = CostModel()
    for seconds in (9.0, 0.1, 0.2, 0.3):
        model.add(KEY, seconds)
    cost = model.cost(KEY)
    assert cost is not None
    assert (cost.first, cost.median) == (9.0, pytest.approx(0.2))
    assert cost.spread == pytest.approx(0.1)
    assert model.predict(KEY) == pytest.approx(0.2)


def test_nothing_is_predicted_from_a_first_run_alone() -> None:
    model = CostModel()
    model.add(KEY, 9.0)
    assert model.predict(KEY) is None


def test_old_runs_are_forgotten() -> None:
    model = CostModel()
    for _ in range(50):
        model.add(KEY, 1.0)
    for _ in range(40):
        model.add(KEY, 2.0)
    assert model.predict(KEY) == 2.0


def test_an_unseen_shape_is_guessed_from_the_nearest_of_the_same_program_and_device() -> None:
    model = CostModel()
    for size, seconds in ((100, 1.0), (1000, 8.0)):
        for _ in range(2):
            model.add(Key("p", "npu", ((size,),)), seconds)
    assert model.predict(Key("p", "npu", ((200,),))) == pytest.approx(2.0)
    assert model.predict(Key("p", "npu", ((2000,),))) == pytest.approx(16.0)
    assert model.predict(Key("p", "gpu", ((200,),))) is None
    assert model.predict(Key("q", "npu", ((200,),))) is None


def test_costs_survive_a_restart(tmp_path: Path) -> None:
    model = CostModel(tmp_path / "costs.json")
    for seconds in (9.0, 0.1, 0.2, 0.3):
        model.add(KEY, seconds)
    model.save()
    again = CostModel(tmp_path / "costs.json")
    assert again.predict(KEY) == pytest.approx(0.2)
    assert again.cost(KEY).to_json() == model.cost(KEY).to_json()  # type: ignore[union-attr]
    assert [path.name for path in tmp_path.iterdir()] == ["costs.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 99, "costs": []}',
        '{"format": 1, "costs": [["p", "d", [[1]], {"runs": 1, "first": null, "last": []}]]}',
        '{"format": 2}',
        '{"format": 2, "costs": [[1]]}',
        "\xff\x00",
        '{"format": 2, "costs": [["p", "d", [[1]], {"runs": "x", "first": 1, "last": [], "joules": [], "meter": ""}]]}',
        '{"format": 2, "costs": [["p", "d", [[1]], {"runs": 1, "first": 1, "last": [], "joules": [{}], "meter": ""}]]}',
    ],
)
def test_a_damaged_or_foreign_file_begins_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content, encoding="latin-1")
    model = CostModel(path)
    assert list(model) == []
    model.add(KEY, 1.0)
    model.save()
    assert len(json.loads(path.read_text())["costs"]) == 1


def test_the_number_of_keys_is_bounded() -> None:
    model = CostModel(limit=3)
    for size in range(5):
        model.add(Key("p", "npu", ((size,),)), 1.0)
    assert [key.shapes[0][0] for key, _ in model] == [2, 3, 4]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "in the way").write_text("a file")
    model = CostModel(tmp_path / "in the way" / "costs.json")
    model.add(KEY, 1.0)
    model.save()
    assert model.predict(KEY) is None
    assert (tmp_path / "in the way").read_text() == "a file"


@given(st.lists(st.floats(1e-6, 1e3), min_size=2, max_size=80))
def test_a_prediction_lies_within_what_was_seen(seconds: list[float]) -> None:
    model = CostModel()
    for value in seconds:
        model.add(KEY, value)
    predicted = model.predict(KEY)
    assert predicted is not None
    assert min(seconds[1:]) <= predicted <= max(seconds[1:])


def test_joules_are_the_median_of_one_meters_measurements() -> None:
    model = CostModel()
    for joules in (1.0, 5.0, 2.0):
        model.add_joules(KEY, joules, "package")
    assert model.predict_joules(KEY) == (2.0, "package")
    model.add_joules(KEY, 9.0, "board")
    assert model.predict_joules(KEY) == (9.0, "board")
    assert model.predict(KEY) is None


def test_joules_of_an_unseen_shape_are_guessed_and_say_so() -> None:
    model = CostModel()
    model.add_joules(Key("p", "npu", ((100,),)), 1.0, "package")
    assert model.predict_joules(Key("p", "npu", ((200,),))) == (2.0, "package, for other shapes")
    assert model.predict_joules(Key("p", "gpu", ((200,),))) is None


def test_what_two_processes_have_learned_is_kept_and_the_newer_measurement_counts(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    other = Key("q", "npu", ((1,),))
    first = CostModel(path)
    first.add_joules(KEY, 1.0, "package")
    first.save()
    service, bench = CostModel(path), CostModel(path)
    bench.add_joules(KEY, 3.0, "board")
    bench.add(other, 1.0)
    bench.save()
    service.add(KEY, 0.5)
    service.save()
    last = CostModel(path)
    assert last.predict_joules(KEY) == (3.0, "board")
    assert last.cost(KEY).runs == 1  # type: ignore[union-attr]
    assert last.cost(other).runs == 1  # type: ignore[union-attr]


def test_the_file_is_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    for start in (0, 3):
        model = CostModel(path, limit=4)
        for size in range(start, start + 3):
            model.add(Key("p", "npu", ((size,),)), 1.0)
        model.save()
    assert [key.shapes[0][0] for key, _ in CostModel(path)] == [2, 3, 4, 5]
