"""An array in a pool's memory, as a user has it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import ClosedError
from hetero.memory.pool import Buffer

if TYPE_CHECKING:
    from hetero.tensors import Array


class PooledArray:
    """An array whose memory goes back to its pool. Made by `Runtime.buffer`; a context manager.

    It can be given to a session as an input or as `out=`, and be read and written by index: `x[...] = samples`. At
    first it holds whatever was in the memory.

    Attributes:
        shape: As asked for.
        dtype: As asked for.
        nbytes: Bytes of the array.
        pool: The name of the pool: `host`, or the device's whose memory it is.
    """

    def __init__(self, buffer: Buffer, shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> None:
        array = buffer.array(shape, dtype)
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, array.nbytes
        self.pool = buffer.pool.name
        self._buffer = buffer
        self._array: Array | None = array

    @property
    def array(self) -> Array:
        """The array itself: C-contiguous, the same object each time.

        Whoever keeps it, or a slice of it, keeps the memory.

        Raises:
            ClosedError: It was given back.
        """
        if self._array is None:
            raise ClosedError("the array was given back", fix="take another one: Runtime.buffer")
        return self._array

    def release(self) -> None:
        """Give the memory back; it is used again once no array over it is left.

        Raises:
            ClosedError: It was given back before.
        """
        self._array = None
        self._buffer.release()

    def __enter__(self) -> PooledArray:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._array is not None:
            self.release()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy:
            return np.array(self.array, dtype)
        return np.asarray(self.array, dtype)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array[index] = value

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        state = ", given back" if self._array is None else ""
        return f"<PooledArray {self.dtype}{list(self.shape)} of {self.pool}{state}>"
