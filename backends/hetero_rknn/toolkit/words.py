"""The toolkit's ways of saying that something went wrong, as one text for people.

It raises `ValueError` with a whole traceback as its message, or gives -1 or None and prints a line that begins with
`E`, in colours; what its C libraries print has a form of its own.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAISED = re.compile(r"^(\w+(?:Error|Exception)): ", re.MULTILINE)
_LINE = re.compile(r"^E (?:RKNN: \[[\d:.]+\] )?(.+)$")
_UNSUPPORTED = re.compile(r"No lowering found for: (?P<output>.+?), node type = (?P<op>\w+)")

# Printed for every second model that builds well.
_NOISE = ("Unkown op target: 0", "Traceback (most recent call last)")
_MOST = 600


def reason(words: str, printed: str) -> str:
    """Why a call failed.

    Args:
        words: What it raised, as `Type: message`, or what it gave in place of a result.
        printed: What the toolkit has printed since the call began.
    """
    plain = _plain(words)
    raised = list(_RAISED.finditer(plain))
    if raised:
        # The message may itself be a traceback: what its last line says is the reason.
        kind, told = raised[-1].group(1), plain[raised[-1].end() :].strip()
        text = told if kind == "ValueError" and told else f"{kind}: {told}"
    else:
        lines = error_lines(printed)
        text = f"{lines[-1]} ({words})" if lines else f"{words}, and it did not say why"
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


def error_lines(printed: str) -> list[str]:
    """The lines that the toolkit marks as errors."""
    found = (_LINE.match(line) for line in _plain(printed).splitlines())
    # Before a message stands the call that it is about: `build: `.
    lines = [match.group(1).strip() for match in found if match]
    return [line for line in lines if not any(noise in line for noise in _NOISE)]


def left_to_custom_ops(printed: str) -> list[tuple[str, str]]:
    """Operators that the compiler has nothing for and expects a library of the user's on the board: output and type."""
    found = dict.fromkeys((match["output"], match["op"]) for match in _UNSUPPORTED.finditer(_plain(printed)))
    return list(found)


def _plain(text: str) -> str:
    return _COLOUR.sub("", text)
