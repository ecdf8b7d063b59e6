"""Arrays in `.npy` and `.npz` files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from hetero.errors import InputError
from hetero.tensors import Array


def load_arrays(path: Path, where: str) -> dict[str, Array]:
    """The arrays of a file; the one of an `.npy` under the empty name. Nothing in it is executed.

    Args:
        path: The file.
        where: What asked for it, for messages: `--input x`.

    Raises:
        InputError: The file is not there, or holds something else than arrays of numbers and texts.
    """
    try:
        # The file is opened here: numpy leaves it open when a zip archive turns out to be broken.
        with path.expanduser().open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise InputError(f"{where}: there is no file {path}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{where}: {path} cannot be read: {error}", fix="write it with numpy.save or numpy.savez, without objects"
        ) from None
