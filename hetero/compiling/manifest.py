"""Writing a `hetero.toml`: as much of TOML as its values need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def manifest_text(content: Mapping[str, Any]) -> str:
    """TOML of texts, numbers, truth values, and lists and tables of them.

    Args:
        content: As `tomllib` reads it; values of the top level are tables or lists of tables.

    Raises:
        TypeError: A value of another type (dates, which no manifest has).
    """
    parts: list[str] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            # Tables in tables ([options.rknn]) stand inline, where nobody can mistake whose they are.
            parts.append(f"[{_key(key)}]\n{_lines(value)}")
        else:
            parts += [f"[[{_key(key)}]]\n{_lines(table)}" for table in value]
    return "\n".join(parts)


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items()) + " }"
    raise TypeError(f"{value!r} has no form in a manifest")


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
