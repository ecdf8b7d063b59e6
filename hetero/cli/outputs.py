"""The outputs of a program: what is shown of them, and files of them, all whole or none."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hetero.errors import OptionError
from hetero.tensors import Array, shape_text


def output_paths(names: Iterable[str], folder: Path | None, chosen: Mapping[str, Path]) -> dict[str, Path]:
    """Where each output goes, checked before any work is done.

    Args:
        names: The program's outputs.
        folder: Gets `NAME.npy` for each output; made when it is not there.
        chosen: A file for some outputs, by name; under the empty name, for the only one.

    Raises:
        OptionError: An output that is not there, two for one file, or a folder that cannot be written to.
    """
    names = list(names)
    if "" in chosen and len(names) == 1:
        chosen = {names[0]: chosen[""]}
    for name in chosen:
        if name not in names:
            raise OptionError(f"--output: there is no output {name!r}", fix=f"outputs: {', '.join(names)}")
    paths = {name: folder.expanduser() / f"{_file_name(name)}.npy" for name in names} if folder else {}
    paths |= {name: path.expanduser() for name, path in chosen.items()}
    if len(set(paths.values())) < len(paths):
        raise OptionError("two outputs would go to one file", fix="choose files with --output NAME=FILE.npy")
    for path in paths.values():
        if path.is_dir():
            raise OptionError(f"--output: {path} is a folder", fix="choose a file, or use --output-dir")
        if path.suffix != ".npy":
            raise OptionError(f"--output: {path} is no .npy file", fix=f"write {path.with_suffix('.npy')}")
        writable_folder(path.parent)
    return paths


def writable_folder(folder: Path) -> Path:
    """The folder, made when it is not there.

    Raises:
        OptionError: It cannot be made or written to.
    """
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OptionError(
            f"cannot write to the folder {folder}: {error.strerror}",
            fix="choose another folder, or mend its permissions",
        ) from None
    return folder


def save_all(arrays: Mapping[Path, Array]) -> None:
    """Write each array to its `.npy` file; when one cannot be written, no file is there that was not there before."""
    written: dict[Path, Path] = {}
    try:
        for path, array in arrays.items():
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            written[Path(name)] = path
            with os.fdopen(handle, "wb") as file:
                texts = array.dtype.kind == "O"
                np.save(file, array.astype(str) if texts else array, allow_pickle=False)
        for workspace, path in written.items():
            workspace.chmod(0o666 & ~_umask())
            workspace.replace(path)
    finally:
        for workspace in written:
            with contextlib.suppress(OSError):
                workspace.unlink()


def summary(name: str, array: Array, first: int = 6) -> dict[str, Any]:
    """What is told of an output: name, dtype, shape, least, mean and greatest finite value, the first values.

    Args:
        name: As the program calls it.
        array: Any shape and dtype; of texts and of empty arrays the three numbers are None.
        first: How many values.
    """
    told: dict[str, Any] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    numeric = array.dtype.kind not in "OUSc"
    values = array.astype(np.float64) if numeric else np.empty(0)
    finite = values[np.isfinite(values)]
    some = finite.size > 0
    return {
        **told,
        "min": float(finite.min()) if some else None,
        "mean": float(finite.mean()) if some else None,
        "max": float(finite.max()) if some else None,
        "not_finite": int(values.size - finite.size),
        "first": [_shown(value) for value in array.ravel()[:first]],
    }


def summary_row(told: Mapping[str, Any]) -> tuple[str, ...]:
    """A summary as the cells of a table: output, dtype, shape, min, mean, max, first values."""
    numbers = ("-" if told[key] is None else f"{told[key]:.6g}" for key in ("min", "mean", "max"))
    first = " ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in told["first"])
    return (told["name"], told["dtype"], shape_text(told["shape"]), *numbers, first)


def _shown(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "output"
