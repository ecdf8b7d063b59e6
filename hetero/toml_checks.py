"""Reading a manifest in TOML: each value is checked as it is taken, and every refusal names the file and the key."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from hetero.errors import ArtifactMissing, BundleError


def read_toml(path: Path) -> Mapping[str, Any]:
    """The content of a manifest, unchecked.

    Raises:
        BundleError: It is not TOML.
        OSError: It cannot be read.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        content: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not valid TOML: {error}", fix="mend the line that the message names") from None
    return content


class TomlChecks:
    """The content of one manifest, for a reader to take its values from.

    Args:
        path: The file. What it names lies in its folder.
        content: As TOML has it.

    Each method takes `where`, the place of the value for people (`kernel.columns`), and raises BundleError.
    """

    docs: ClassVar[str]
    """The page of the docs that describes the format."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.folder = path.parent
        self.content = content

    def keys(self, where: str, table: Mapping[str, Any], known: set[str]) -> None:
        """Refuse a key that the format does not have, with the one that is like it."""
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
                raise self.wrong(f"{where} has the unknown key {key!r}", hint)

    def table(self, where: str, value: Any) -> Mapping[str, Any]:
        """A table."""
        if not isinstance(value, dict):
            raise self.wrong(f"{where} is {'missing' if value is None else 'no table'}", self._see)
        return value

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        """The list of tables of a key at the top level; empty when it is not there."""
        value = self.content.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.wrong(f"{key} is no list of tables", f"write [[{key}]]")
        return value

    def text(self, where: str, value: Any) -> str:
        """A text that is not empty."""
        if not isinstance(value, str) or not value:
            raise self.wrong(f"{where} is {_found(value)}, expected a text", self._see)
        return value

    def number(self, where: str, value: Any, least: int, most: int | None = None) -> int:
        """An integer within limits."""
        if type(value) is not int or value < least or (most is not None and value > most):
            limits = f"at least {least}" if most is None else f"from {least} to {most}"
            raise self.wrong(f"{where} is {_found(value)}, expected an integer {limits}", self._see)
        return value

    def choice(self, where: str, value: Any, choices: tuple[str, ...]) -> str:
        """One of several texts."""
        if value not in choices:
            raise self.wrong(f"{where} is {_found(value)}", f"write one of {', '.join(map(repr, choices))}")
        return str(value)

    def file(self, where: str, value: Any) -> Path:
        """A file that the manifest names, in its own folder or below.

        Raises:
            BundleError: It is no text, or lies elsewhere.
            ArtifactMissing: It is not there.
        """
        text = self.text(where, value)
        path = self.folder / text
        if Path(text).is_absolute() or not path.resolve().is_relative_to(self.folder.resolve()):
            raise self.wrong(f"{where}: {text!r} lies outside the folder", f"keep it beside {self.path.name}")
        if not path.is_file():
            raise ArtifactMissing(
                f"{self.path}: {where} names {text!r}, which is not there", fix=f"put it into {self.folder}"
            )
        return path

    def unique(self, what: str, names: Sequence[str]) -> None:
        """Refuse a name that is there several times."""
        for name, count in Counter(names).items():
            if count > 1:
                raise self.wrong(f"{what} {name!r} is there {count} times", "give each a name of its own")

    def wrong(self, problem: str, fix: str = "") -> BundleError:
        """The error for what breaks the format."""
        return BundleError(f"{self.path}: {problem}", fix=fix)

    @property
    def _see(self) -> str:
        return f"see docs: {self.docs}"


def _found(value: Any) -> str:
    return "missing" if value is None else repr(value)
