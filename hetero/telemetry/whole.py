"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hetero.errors import OptionError


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its place when all went well and is gone when something was raised.

    Raises:
        OptionError: `path` is a folder, or its folder is not there.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        raise OptionError(f"{target} is a folder, expected the path of a file")
    if not target.parent.is_dir():
        raise OptionError(f"there is no folder {target.parent}", fix="make it, or write to another one")
    workspace = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with workspace.open("xb") as file:
            yield file
        workspace.replace(target)
    finally:
        workspace.unlink(missing_ok=True)
