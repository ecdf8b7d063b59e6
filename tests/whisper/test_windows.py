"""Long audio as windows: segments, and where the next window begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetero.whisper.windows import FRAMES, Piece, Seeker, cut, window

T = 1000  # the token of 0.00 s; words are below it


def times(*seconds: float | str) -> list[int]:
    return [T + round(part * 50) if not isinstance(part, str) else ord(part) for part in seconds]


@pytest.mark.parametrize(
    ("tokens", "pieces", "advance"),
    [
        # A pair of times ends one segment and begins the next, which the window's end cut off: it is heard again.
        (times(0.0, "a", 4.0, 4.0, "b"), [(0, 400)], 400),
        (times(0.5, "a", 4.0, 5.0, "b", 9.0, 9.5, "c"), [(50, 400), (500, 900)], 900),
        # A single time at the end: the text is complete.
        (times(0.0, "a", 4.0, 4.0, "b", 9.0), [(0, 400), (400, 900)], 3000),
        # No pair: one segment to the last time, or to the end of the window.
        (times(0.0, "a", 4.0), [(0, 400)], 3000),
        (times(0.5, "a", 4.0), [(50, 400)], 3000),
        (times(0.5, "a", "b"), [(50, 3000)], 3000),
        (times(0.0, "a", "b"), [(0, 3000)], 3000),
        (times("a", "b"), [(0, 3000)], 3000),
        ([], [(0, 3000)], 3000),
    ],
)
def test_segments_and_the_next_window(tokens: list[int], pieces: list[tuple[int, int]], advance: int) -> None:
    found, frames = cut(tokens, T, 3000)
    assert [(piece.start, piece.end) for piece in found] == pieces
    assert frames == advance


def test_segments_keep_their_tokens() -> None:
    tokens = times(0.0, "a", "b", 4.0, 4.0, "c", 9.0, 9.0, "d")
    assert cut(tokens, T, 3000)[0] == [Piece(0, 400, tuple(tokens[:4])), Piece(400, 900, tuple(tokens[4:7]))]


@given(tokens=st.lists(st.integers(0, 9) | st.integers(T, T + 1500), max_size=40), frames=st.integers(1, 3000))
def test_whatever_is_said_goes_on_and_no_token_is_in_two_segments(tokens: list[int], frames: int) -> None:
    pieces, advance = cut(tokens, T, frames)
    assert advance >= 1
    inside = [token for piece in pieces for token in piece.tokens]
    assert inside == tokens[: len(inside)]
    assert all(piece.start >= 0 and piece.end >= 0 for piece in pieces)


@given(frames=st.integers(0, 20_000), steps=st.lists(st.integers(-5, 4000)))
def test_a_seeker_ends_in_a_bounded_number_of_windows(frames: int, steps: list[int]) -> None:
    seeker = Seeker(frames)
    windows = 0
    while not seeker.ended:
        assert 1 <= seeker.length <= FRAMES
        seeker.advance(steps[windows] if windows < len(steps) else 1)
        windows += 1
    assert windows <= 2 * (frames / 100 + 1)


def test_a_seeker_goes_where_it_is_told() -> None:
    seeker = Seeker(4437)
    assert (seeker.at, seeker.length) == (0, 3000)
    seeker.advance(2916)
    assert (seeker.at, seeker.length) == (2916, 1521)
    seeker.advance(60)
    assert seeker.at == 2976
    seeker.advance(60)
    assert seeker.at == 3076
    seeker.advance(1355)
    assert seeker.ended


def test_a_window_is_filled_up_with_zeros() -> None:
    mel = np.arange(2 * 4000, dtype=np.float32).reshape(2, 4000) + 1
    np.testing.assert_array_equal(window(mel, 0)[0], mel[:, :3000])
    last = window(mel, 3500)
    assert last.shape == (1, 2, 3000)
    assert last.dtype == np.float32
    np.testing.assert_array_equal(last[0, :, :500], mel[:, 3500:])
    assert not last[0, :, 500:].any()
