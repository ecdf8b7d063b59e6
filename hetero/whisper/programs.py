"""The plugin that gives Whisper models' programs by name: `Runtime.load("whisper-tiny.en")`."""

from __future__ import annotations

from collections.abc import Iterable

from hetero.plugins import hookimpl
from hetero.program import Program

_PREFIX = "whisper-"
_PARTS = {"": "encoder", "-cross": "cross", "-decoder": "decoder"}
# As `hetero.whisper.models` has them; repeated, since every Runtime imports this module and few need that one.
_NAMES = (
    *("tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium"),
    *("large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo"),
)


@hookimpl
def hetero_program(name: str) -> Program | None:
    """The encoder of a model (`whisper-base.en`), or its other parts (`whisper-base.en-cross`, `-decoder`).

    Raises:
        ModelError: The model cannot be found, downloaded or converted.
    """
    if not name.startswith(_PREFIX):
        return None
    for suffix, part in _PARTS.items():
        model_name = name[len(_PREFIX) : len(name) - len(suffix)]
        if name.endswith(suffix) and model_name in _NAMES:
            from hetero.bundle import open_program
            from hetero.whisper.models import open_model

            return open_program(open_model(model_name).folder / part)
    return None


@hookimpl
def hetero_program_names() -> Iterable[str]:
    """The names that `hetero_program` answers to."""
    return [_PREFIX + name + suffix for name in _NAMES for suffix in _PARTS]
