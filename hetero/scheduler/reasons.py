"""Errors in one line, as records and messages show them."""

from __future__ import annotations

from hetero.errors import ExecutionError, HeteroError, Unsupported, WrongAnswer


def reason_of(error: BaseException) -> str:
    """An error in one line: its message, and its type unless hetero's own types tell no more than the message."""
    text = str(error.problem if isinstance(error, HeteroError) else error).strip() or "no message"
    plain = type(error) in (Unsupported, ExecutionError, WrongAnswer)
    return text if plain else f"{type(error).__name__}: {text}"
