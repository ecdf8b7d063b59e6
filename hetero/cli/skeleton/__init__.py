"""The skeleton of a backend: its templates beside this file, and writing them out whole or not at all."""

from __future__ import annotations

import importlib.metadata
import re
import string
from importlib.resources import files
from pathlib import Path

from hetero.cache import building
from hetero.errors import OptionError
from hetero.plugins import Plugins

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 40
# Of the project itself, whether or not they are installed here: their modules are called likewise.
_TAKEN = ("cpu", "kernels", "ort", "rknn", "vulkan", "xrt")

_FILES = {
    "README.md": "README.md.in",
    "pyproject.toml": "pyproject.toml.in",
    "src/{module}/__init__.py": "init.py.in",
    "src/{module}/backend.py": "backend.py.in",
    "src/{module}/py.typed": None,
    "tests/test_conformance.py": "test_conformance.py.in",
}


def write_skeleton(name: str, folder: Path) -> tuple[Path, list[str]]:
    """Write the package `hetero-NAME` into a folder.

    Args:
        name: Of the backend.
        folder: Where the package's folder is made.

    Returns:
        The package's folder, and its files relative to it.

    Raises:
        OptionError: A name that cannot be used or is taken, or the folder exists.
    """
    _check_name(name)
    module = "hetero_" + name.replace("-", "_")
    distribution = module.replace("_", "-")
    target = folder / distribution
    if target.exists() or target.is_symlink():
        raise OptionError(f"{target} exists already", fix="choose another name or --dir, or remove it")
    title = "".join(part.capitalize() for part in re.split("[-_]", name))
    values = {
        "name": name,
        "module": module,
        "distribution": distribution,
        "backend": f"{title}Backend",
        "executable": f"{title}Executable",
        "version": ".".join(importlib.metadata.version("hetero").split(".")[:2]),
    }
    written = []
    with building(target) as workspace:
        for place, template in _FILES.items():
            path = workspace / place.format(module=module)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (files(__name__) / template).read_text(encoding="utf-8") if template else ""
            path.write_text(string.Template(text).substitute(values), encoding="utf-8")
            written.append(str(path.relative_to(workspace)))
        # What is built is for this user alone until it is moved; a package is for others too.
        workspace.chmod(0o755)
    return target, written


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise OptionError(
            f"{name!r} cannot be the name of a backend: small letters and digits, words joined by `-` or `_`, a letter "
            f"first, at most {_LONGEST} characters",
            fix="choose a name such as toy, or acme-npu",
        )
    if re.match("hetero[-_]", name):
        raise OptionError(f"{name!r} would give hetero-{name}", fix=f"leave the prefix out: {name[7:]}")
    plugins = Plugins()
    plugins.discover()
    taken = {*_TAKEN, *(backend.name for backend in plugins.backends())}
    if name.replace("_", "-") in {known.replace("_", "-") for known in taken}:
        raise OptionError(f"the name {name!r} is taken", fix=f"choose another one; taken: {', '.join(sorted(taken))}")
