"""Weights as a reader finds them, and their check against the model's sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import ModelError
from hetero.tensors import shape_text
from hetero.whisper.models.dims import Dims

#: The matrix of the logits, in the rare checkpoint where it is not the embedding of the tokens.
UNTIED = "proj_out.weight"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, not read yet.

    Attributes:
        shape: As it will be when read.
        dtype: As it is stored.
        origin: File and name in it, for error messages.
        read: Gives the array, in any float dtype.
    """

    shape: tuple[int, ...]
    dtype: str
    origin: str
    read: Callable[[], NDArray[Any]]

    def float32(self) -> NDArray[np.float32]:
        """The values, C-contiguous.

        Raises:
            ModelError: A value is infinite or not a number, or the file ends before the tensor does.
        """
        array = np.ascontiguousarray(self.read(), dtype=np.float32)
        if array.shape != self.shape:
            raise ModelError(f"{self.origin} has shape {shape_text(array.shape)}, expected {shape_text(self.shape)}")
        if not np.isfinite(array).all():
            raise ModelError(f"{self.origin} holds values that are not finite", fix="the file is damaged: get it again")
        return array


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was found, whatever its format.

    Attributes:
        dims: Its sizes.
        tensors: By the names of `Dims.tensors`; more may be there.
        suppress: Tokens that are never to be said.
        suppress_first: Tokens that are not to be said first.
    """

    dims: Dims
    tensors: Mapping[str, Tensor]
    suppress: tuple[int, ...] = ()
    suppress_first: tuple[int, ...] = ()

    def check(self) -> None:
        """Compare with what the sizes ask for, before anything is converted.

        Raises:
            ModelError: A tensor is missing or has another shape or dtype; tells its name, what was expected and what
                is there.
        """
        expected = dict(self.dims.tensors())
        missing = [name for name in expected if name not in self.tensors]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelError(
                f"the tensor {missing[0]!r} of shape {shape_text(expected[missing[0]])} is missing{more}; "
                f"found {len(self.tensors)} tensors",
                fix="the file is not whole, or not a Whisper model: get it again",
            )
        if UNTIED in self.tensors:
            expected[UNTIED] = expected["decoder.embed_tokens.weight"]
        for name, shape in expected.items():
            found = self.tensors[name]
            if found.shape != shape:
                sizes = f"{shape_text(found.shape)}, expected {shape_text(shape)}"
                raise ModelError(
                    f"the tensor {name!r} ({found.origin}) has shape {sizes}",
                    fix="the weights and their config.json do not belong together",
                )
        for which, tokens in (("suppressed", self.suppress), ("suppressed at first", self.suppress_first)):
            outside = [token for token in tokens if not 0 <= token < self.dims.n_vocab]
            if outside:
                raise ModelError(f"the {which} token {outside[0]} is outside the vocabulary of {self.dims.n_vocab}")


def tokens_of(config: Mapping[str, Any], key: str, path: Path) -> tuple[int, ...]:
    """A list of tokens in a configuration, `()` where there is none; -1 stands for "the default ones" and is left out.

    Raises:
        ModelError: It is something else.
    """
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or any(type(token) is not int for token in value):
        raise ModelError(f"{path}: {key} is {value!r}, expected a list of tokens")
    return tuple(token for token in value if token != -1)
