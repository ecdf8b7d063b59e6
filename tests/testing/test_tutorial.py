"""The tutorial of `docs/writing-a-backend.md`, followed: its files written, its changes made, its commands run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.test_packages import ROOT
from tests.testing.environment import Environment

PAGE = ROOT / "docs" / "writing-a-backend.md"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title, and its text."""

    language: str
    title: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    for found in re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page, re.M | re.S):
        yield Block(found[1], found[2] or "", found[3])


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, with the output that is shown."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def shows(shown: str, output: str) -> bool:
    """Whether an output has what the page shows; there, `...` stands for anything, and spaces do not count."""
    parts = [re.escape(" ".join(part.split())) for part in shown.split("...")]
    return re.search(r"\s*.*?\s*".join(parts), " ".join(output.split())) is not None


def change(path: Path, diff: str) -> None:
    """Put a block of removed, added and kept lines into a file; what it stands on must be there once."""
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("-", " "))
    new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("+", " "))
    text = path.read_text()
    assert text.count(old) == 1, f"{path} does not have once:\n{old}"
    path.write_text(text.replace(old, new))


def test_the_tutorial_can_be_followed(environment: Environment, tmp_path: Path) -> None:
    followed = []
    for block in blocks(PAGE.read_text()):
        if block.language == "console":
            for command, shown in commands(block.text):
                fails = "failed" in shown or "found: " in shown
                output = environment.run(command, tmp_path, code=1 if fails else 0)
                assert shows(shown, output), f"$ {command}\nthe page shows:\n{shown}\nit printed:\n{output}"
                followed.append(command.split()[0])
        elif block.language == "diff":
            change(tmp_path / block.title, block.text)
            followed.append("diff")
        elif block.language == "python" and block.title and "--8<--" not in block.text:
            (tmp_path / block.title).write_text(block.text)
            followed.append("python")
    assert len(followed) > 20
    assert {"hetero", "pip", "pytest", "diff", "python"} <= set(followed)


def test_a_page_that_shows_something_else_is_noticed() -> None:
    assert shows("1  cpu  ...\n2 toy", "1 cpu   a fine one\n2   toy\n")
    assert not shows("1  cpu  ...\n2 toy", "1 toy\n2 cpu\n")
    assert list(commands("$ a b\nc\n$ d\n")) == [("a b", "c\n"), ("d", "")]
