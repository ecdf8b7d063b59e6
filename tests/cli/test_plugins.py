"""`hetero plugins`: what is installed and what became of it; names and places that `new` refuses."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from hetero.cli import skeleton
from tests.cli.conftest import Line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_the_plugins_of_the_project_are_listed_with_what_they_bring(line: Line) -> None:
    rows = [row.split() for row in line("plugins").stdout.splitlines()]
    assert rows[0] == ["plugin", "group", "module", "distribution", "state", "backends", "programs"]
    assert ["cpu", "hetero.backends", "hetero_cpu", "hetero", "0.1.0", "ok", "cpu,", "ort", "-"] in rows
    assert line("plugins", "list").stdout == line("plugins").stdout


def test_a_disabled_plugin_is_listed_with_reason_and_fix(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETERO_DISABLE_PLUGINS", "kernels")
    told = {plugin["name"]: plugin for plugin in line.json("plugins")["plugins"]}
    assert told["kernels"]["state"] == "disabled"
    assert told["kernels"]["programs"] == []
    assert told["cpu"]["state"] == "ok"
    text = line("plugins").stdout
    assert "kernels of hetero.programs is disabled: disabled by HETERO_DISABLE_PLUGINS" in text
    assert "fix: take 'kernels' out of HETERO_DISABLE_PLUGINS" in text


def test_the_json_has_the_documented_keys(line: Line) -> None:
    keys = ["group", "name", "value", "distribution", "version", "state", "reason", "fix", "backends", "programs"]
    plugins = line.json("plugins", "list")["plugins"]
    assert plugins
    assert all(list(plugin) == keys for plugin in plugins)


def test_json_before_a_subcommand_is_refused(line: Line) -> None:
    assert line("plugins", "--json", "new", "toy").exit_code == 2


@pytest.mark.parametrize("name", ["toy", "acme-npu", "acme_npu2", "x"])
def test_a_new_backend_is_written_whole(line: Line, tmp_path: Path, name: str) -> None:
    told = line.json("plugins", "new", name, "--dir", tmp_path)
    folder = tmp_path / ("hetero-" + name.replace("_", "-"))
    assert told["folder"] == str(folder)
    assert sorted(told["files"]) == sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    assert list(tmp_path.iterdir()) == [folder]
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["hetero.backends"] == {name: "hetero_" + name.replace("-", "_")}
    for file in folder.rglob("*.py"):
        ast.parse(file.read_text())
        assert "$" not in file.read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Toy", "cannot be the name of a backend"),
        ("2toy", "cannot be the name"),
        ("toy/../x", "cannot be the name"),
        ("to y", "cannot be the name"),
        ("", "cannot be the name"),
        ("toy-", "cannot be the name"),
        ("t" * 41, "at most 40"),
        ("hetero-toy", "leave the prefix out: toy"),
        ("cpu", "'cpu' is taken"),
        ("ort", "'ort' is taken"),
        ("xrt", "'xrt' is taken"),
        ("kernels", "'kernels' is taken"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(
    line: Line, tmp_path: Path, name: str, says: str
) -> None:
    line.refuses("plugins", "new", name, "--dir", tmp_path, says=says)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_left_alone(line: Line, tmp_path: Path) -> None:
    mine = tmp_path / "hetero-toy"
    mine.mkdir()
    line.refuses("plugins", "new", "toy", "--dir", tmp_path, says="exists already")
    assert list(mine.iterdir()) == []
    (tmp_path / "hetero-link").symlink_to(tmp_path / "nowhere")
    line.refuses("plugins", "new", "link", "--dir", tmp_path, says="exists already")


def test_a_folder_that_is_not_there_is_refused(line: Line, tmp_path: Path) -> None:
    line.refuses("plugins", "new", "toy", "--dir", tmp_path / "nowhere", says="does not exist")


def test_when_writing_fails_nothing_is_left(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(skeleton._FILES, "src/{module}/py.typed", "no-such-template.in")
    assert line("plugins", "new", "toy", "--dir", tmp_path).exit_code == 1
    assert list(tmp_path.iterdir()) == []
