"""The installed onnxruntime: what can be known without importing it, and importing it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetero.backend import Unavailable

INSTALL = 'pip install "hetero[cpu]"'


@dataclass(frozen=True)
class Installed:
    """An onnxruntime that could be imported.

    Attributes:
        distribution: Which one brings it: `onnxruntime`, `onnxruntime-directml`, ...; all share one import name.
        version: Of that distribution.
        folder: Where the package lies; None when that cannot be told.
    """

    distribution: str
    version: str
    folder: Path | None


def installed() -> Installed | None:
    """The onnxruntime of this environment, without importing it; None when there is none."""
    module = sys.modules.get("onnxruntime")
    if module is None:
        try:
            spec = importlib.util.find_spec("onnxruntime")
        except (ImportError, ValueError):
            return None
        # A folder without __init__.py is what an incomplete uninstallation leaves behind.
        if spec is None or spec.origin is None:
            return None
        file: str | None = spec.origin
    else:
        file = getattr(module, "__file__", None)
    name, version = _distribution()
    return Installed(name, getattr(module, "__version__", version), Path(file).parent if file else None)


def onnxruntime() -> Any:
    """The module, imported.

    Raises:
        Unavailable: It is not installed, or it is and cannot be imported.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name == "onnxruntime":
            raise Unavailable("onnxruntime is not installed", fix=INSTALL) from None
        raise _broken(error) from error
    except Exception as error:  # a broken vendor library fails in whichever way it likes
        raise _broken(error) from error


def _broken(error: Exception) -> Unavailable:
    found = installed()
    name = found.distribution if found else "onnxruntime"
    return Unavailable(
        f"{name} is installed but cannot be imported: {type(error).__name__}: {error}",
        fix=f"pip install --force-reinstall {name}",
    )


def _distribution() -> tuple[str, str]:
    try:
        return "onnxruntime", importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        # Reads the metadata of everything that is installed, some 20 ms, which the plain distribution is spared.
        names = importlib.metadata.packages_distributions().get("onnxruntime")
    return (names[0], importlib.metadata.version(names[0])) if names else ("unknown", "unknown")
