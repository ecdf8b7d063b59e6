"""What the documentation shows is so: its examples run, its commands and options exist, its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import hetero
from tests import models
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.packaging.test_packages import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ["README.md", "index.md", "quickstart.md"]
"""Pages whose examples a newcomer types in; the tutorial of `writing-a-backend.md` has a test of its own."""


def blocks(page: Path, language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\b[^\n]*\n(.*?)^```$", page.read_text(), re.M | re.S):
        if "--8<--" not in found[1]:
            yield found[1]


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of each call of a program that a page shows."""
    found = []
    for line in re.findall(r"^\$ (.*)$", page.read_text(), re.M):
        words = shlex.split(line.rstrip("\\"), comments=True)
        if program not in words:
            continue
        words = words[words.index(program) + 1 :]
        ends = [place for place, word in enumerate(words) if word in (">", "|", "&&")]
        found.append(words[: ends[0]] if ends else words)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_heteros_in_an_example_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        tree = compile(text, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert isinstance(tree, ast.Module)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hetero") and _ours(node.module):
                module = importlib.import_module(node.module or "")
                for name in node.names:
                    found = hasattr(module, name.name) or importlib.util.find_spec(f"{node.module}.{name.name}")
                    assert found, f"{page.name}: {node.module} has no {name.name}\n{text}"
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hetero":
                assert hasattr(hetero, node.attr), f"{page.name}: hetero has no {node.attr}\n{text}"
            elif isinstance(node, ast.Call) and (known := _called(node.func)) is not None:
                parameters = inspect.signature(known).parameters
                if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
                    for keyword in node.keywords:
                        assert keyword.arg is None or keyword.arg in parameters, f"{page.name}: {ast.unparse(node)}"


def _ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] in ("hetero", "hetero_cpu", "hetero_kernels", "hetero_rknn", "hetero_xrt")


def _called(function: ast.expr) -> Callable[..., Any] | None:
    """What is called, where the docs' usual names tell it: `rt` is a Runtime, `session` a Session."""
    if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Name):
        return None
    owner: Any = {"rt": hetero.Runtime, "session": hetero.Session, "hetero": hetero}.get(function.value.id)
    found = getattr(owner, function.attr, None)
    return found if callable(found) else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of somebody who has a `model.onnx` for images."""
    monkeypatch.chdir(tmp_path)
    node = helper.make_node("GlobalAveragePool", ["image"], ["scores"])
    image, scores = models.tensor("image", ["batch", 3, 224, 224]), models.tensor("scores", ["batch", 3, 1, 1])
    models.save(tmp_path / "model.onnx", [node], [image], [scores])
    return tmp_path


BACKENDS = [reference("xrt", "npu"), reference("vulkan:0", "gpu"), reference("cpu")]


@pytest.mark.parametrize("name", RUN)
def test_the_examples_of_the_first_pages_run(
    name: str, folder: Path, host: hetero.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (page,) = (page for page in PAGES if page.name == name)
    examples = list(blocks(page, "python"))
    assert examples
    real = hetero.Runtime
    made: list[hetero.Runtime] = []

    def make(**options: Any) -> hetero.Runtime:
        made.append(real(backends=BACKENDS, plugins=False, host=host, **options))
        return made[-1]

    monkeypatch.setattr(hetero, "Runtime", make)
    image = np.ones((1, 3, 224, 224), np.float32)
    rt = make()
    told: list[hetero.Record] = []
    names: dict[str, Any] = {"x": image, "images": [image, image], "alert": told.append}
    for text in examples:
        # What is shown outside of a `with` is meant within one.
        names |= {"hetero": hetero, "rt": rt, "session": rt.load("model.onnx")}
        code = compile(text, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(eval(code, names))
        else:
            exec(code, names)
        assert "y" not in names or names["y"].shape == (1, 3, 1, 1)
    for runtime in made:
        runtime.close()


def test_the_commands_of_the_quick_start_run(line: Line, folder: Path) -> None:
    line.backends = BACKENDS
    ran = []
    for arguments in commands(ROOT / "docs" / "quickstart.md", "hetero"):
        if arguments[0] == "transcribe":
            continue  # needs a model of speech; the README's own run has it
        if arguments[0] == "bench":
            arguments = [*arguments, "--runs", "1", "--meter", "none"]
        result = line(*arguments)
        assert result.exit_code == 0, f"hetero {shlex.join(arguments)}\n{result.output}"
        ran.append(arguments[0])
    assert ran == ["devices", "doctor", "run", "bench"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_has_its_options(page: Path, line: Line) -> None:
    for arguments in [*commands(page, "hetero"), *commands(page, ".venv/bin/hetero")]:
        # Options are looked up before help is shown, and nothing else is done.
        ours = arguments.index("--") if "--" in arguments else len(arguments)
        result = line(*arguments[:ours], "--help", *arguments[ours:])
        assert result.exit_code == 0, f"{page.name}: hetero {shlex.join(arguments)}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_test_and_page_named_is_there(page: Path) -> None:
    text = page.read_text()
    for script, options in re.findall(r"python (benchmarks/\w+\.py)([^`\n]*)", text):
        source = (ROOT / script).read_text()
        for option in re.findall(r"--[\w-]+", options):
            assert f'"{option}"' in source, f"{page.name}: {script} has no {option}"
    for path in re.findall(r"pytest (?:-\w+ )*(tests/[\w/.]+)", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), f"{page.name}: {link}"
