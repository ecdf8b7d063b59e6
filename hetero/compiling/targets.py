"""Which backend compiles for a target."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from hetero.backend import Backend
from hetero.errors import OptionError


def backends_for(targets: Sequence[str], backends: Mapping[str, Backend]) -> dict[str, Backend]:
    """The backend of each target, in the order given; a target that is there twice counts once.

    Args:
        targets: In any case.
        backends: By name.

    Raises:
        OptionError: No target, or one that no backend knows; says which there are.
    """
    known = {target: backend for backend in backends.values() for target in backend.targets}
    if not targets:
        raise OptionError("there is no target to compile for", fix=_known(known))
    found: dict[str, Backend] = {}
    for name in targets:
        target = name.strip().lower()
        if target not in known:
            near = difflib.get_close_matches(target, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise OptionError(f"no backend compiles for {name!r}", fix=hint + _known(known))
        found[target] = known[target]
    return found


def _known(known: Mapping[str, Backend]) -> str:
    names: dict[str, list[str]] = {}
    for target, backend in known.items():
        names.setdefault(backend.name, []).append(target)
    listed = "; ".join(f"{', '.join(targets)} ({backend})" for backend, targets in names.items())
    return f"known: {listed}" if listed else "no installed backend compiles"
