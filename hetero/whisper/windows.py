"""Long audio as windows of 30 s: what a window's tokens say about segments, and where the next window begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Frames of a window: 30 s.
FRAMES = 3000
#: Frames in a second.
FRAME_RATE = 100
#: Frames from one timestamp token to the next.
FRAMES_PER_TIME = 2
#: Frames below which the rest of a recording is not worth a window: on such scraps the model makes things up.
LEAST = 10


@dataclass(frozen=True)
class Piece:
    """A segment within its window.

    Attributes:
        start: Frames from the window's beginning.
        end: Frames from the window's beginning.
        tokens: Times included.
    """

    start: int
    end: int
    tokens: tuple[int, ...]


def cut(tokens: Sequence[int], first_time: int, frames: int) -> tuple[list[Piece], int]:
    """The segments of a window's text.

    Two times in a row end one segment and begin the next. What stands after the last such pair was cut off by the
    window's end, and belongs to the next window, which begins there; a text that ends with a single time is complete,
    as is one without a pair.

    Args:
        tokens: Text and times.
        first_time: The token of 0.00 s.
        frames: Frames of sound in the window.

    Returns:
        The segments, and how many frames on the next window begins: at least 1.
    """
    is_time = [token >= first_time for token in tokens]
    borders = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    complete = is_time[-2:] == [False, True]
    if not borders:
        times = [(token - first_time) * FRAMES_PER_TIME for token in tokens if token >= first_time]
        start = times[0] if is_time[:1] == [True] else 0
        end = times[-1] if times and times[-1] > start else frames
        return [Piece(start, max(start, end), tuple(tokens))], max(1, frames)
    if complete:
        borders.append(len(tokens))
    pieces = []
    for begin, end in zip([0, *borders[:-1]], borders, strict=True):
        inside = tuple(tokens[begin:end])
        start, stop = ((token - first_time) * FRAMES_PER_TIME for token in (inside[0], inside[-1]))
        pieces.append(Piece(max(0, start), max(0, stop), inside))
    return pieces, max(1, frames if complete else pieces[-1].end)


class Seeker:
    """Where the windows of a recording begin.

    Goes on at least every second time by a second or more: a model that says short times over and over cannot make a
    recording last forever.

    Args:
        frames: Of the recording.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.at = 0
        self._crept = False

    @property
    def ended(self) -> bool:
        """No window is left."""
        return self.frames - self.at < LEAST

    @property
    def length(self) -> int:
        """Frames of sound in the window that begins here."""
        return min(FRAMES, self.frames - self.at)

    def advance(self, frames: int) -> None:
        """Go on to the next window."""
        creeps = frames < FRAME_RATE
        self.at += FRAME_RATE if creeps and self._crept else max(1, frames)
        self._crept = creeps

    def window(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frames of the window that begins here, filled up with zeros: float32 [1, n_mels, 3000]."""
        return window(mel, self.at)


def window(mel: NDArray[np.float32], begin: int) -> NDArray[np.float32]:
    """30 s of a spectrogram from a frame on, filled up with zeros: float32 [1, n_mels, 3000].

    The zeros are the reference implementation's; silence itself would be lower, and models know the former.
    """
    part = mel[:, begin : begin + FRAMES]
    filled = np.zeros((1, len(mel), FRAMES), dtype=np.float32)
    filled[0, :, : part.shape[1]] = part
    return filled
