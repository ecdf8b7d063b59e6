"""One request after the other over a socket: small messages as pickles, tensors in shared memory.

A channel serves one thread at a time on either side; several calls at once take several channels. Messages are made of
Python's own types and of hetero's dataclasses; what may need somebody's module to be read travels in them as bytes that
the receiver unpickles where it can tell what went wrong.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hetero.isolation.memory import Incoming, Layout, Outgoing
from hetero.tensors import Array

# Bytes of the message; bytes of a new block, whose descriptor follows the message, or 0.
_HEADER = struct.Struct("<QQ")
_NOTHING: Mapping[str, Array] = {}


@dataclass(frozen=True)
class Told:
    """What is told on the way to an answer, in a message before it.

    Attributes:
        stage: What is being done.
        done: How much of it, from 0 to 1.
    """

    stage: str
    done: float


class Channel:
    """One end.

    Args:
        end: A connected Unix socket, which belongs to the channel from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._outgoing = Outgoing()
        self._incoming = Incoming()

    def send(self, message: Any, arrays: Mapping[str, Array] = _NOTHING) -> None:
        """Send a message with arrays, which are copied.

        Raises:
            HeteroError: The arrays cannot be sent; nothing was, and the channel can be used further.
            OSError: The other end is gone.
        """
        outgoing = self._outgoing
        data = pickle.dumps((message, outgoing.write(arrays) if arrays else ()), pickle.HIGHEST_PROTOCOL)
        if outgoing.unsent is None:
            self._socket.sendall(_HEADER.pack(len(data), 0) + data)
            return
        self._socket.sendall(_HEADER.pack(len(data), outgoing.size) + data)
        socket.send_fds(self._socket, [b"b"], [outgoing.unsent])
        outgoing.sent()

    def receive(self, timeout: float | None = None) -> tuple[Any, Layout]:
        """Wait for a message.

        Returns:
            The message, and the layout of its arrays for `arrays`.

        Raises:
            EOFError: The other end was closed.
            TimeoutError: Nothing came in so many seconds; the channel cannot be used further.
            OSError: The other end is gone.
            OutOfMemory: The arrays cannot be mapped; the channel cannot be used further.
        """
        if timeout is not None:
            self._socket.settimeout(timeout)
        length, size = _HEADER.unpack(self._exactly(_HEADER.size))
        data = self._exactly(length)
        if size:
            _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
            if not descriptors:
                raise EOFError
            self._incoming.accept(descriptors[0], size)
        if timeout is not None:
            self._socket.settimeout(None)
        message, layout = pickle.loads(data)
        return message, layout

    def arrays(self, layout: Layout, *, copy: bool) -> dict[str, Array]:
        """The arrays that came with the last message; see `Incoming.read`."""
        return self._incoming.read(layout, copy=copy) if layout else {}

    def shut(self) -> None:
        """Wake whoever waits here, in another thread, with EOFError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end and let go of its memory."""
        self._socket.close()
        self._outgoing.close()

    def _exactly(self, count: int) -> bytes:
        data = self._socket.recv(count, socket.MSG_WAITALL)
        if len(data) == count:
            return data
        parts = bytearray(data)
        while data and len(parts) < count:
            data = self._socket.recv(count - len(parts), socket.MSG_WAITALL)
            parts += data
        if len(parts) < count:
            raise EOFError
        return bytes(parts)
