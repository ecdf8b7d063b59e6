"""Sound of any format and rate, as the samples that Whisper hears: mono, 16 kHz, float32. PyAV (FFmpeg) decodes."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hetero.errors import AudioError

_log = logging.getLogger(__name__)

#: Samples per second that Whisper works on.
SAMPLE_RATE = 16_000

#: Where sound can come from: a path, a file's content, an open binary file, samples.
AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | NDArray[Any]

# Seconds by which a file may be shorter than it says: codecs' lead-in, rounded durations.
_TOLERATED = 0.5
_CHUNK = 1 << 20
_INSTALL = "install it: pip install 'hetero[whisper]'"
_FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}


def decode_audio(source: AudioSource, *, rate: int | None = None) -> NDArray[np.float32]:
    """The sound of `source`, mono at 16 kHz.

    Several channels are averaged (more than two are mixed to stereo first). A file that breaks off, or has broken
    parts, gives what can be read of it, and a warning in the log.

    Args:
        source: A path, a file's content as bytes, an open binary file, or samples: float in -1 to 1, int16 or int32, of
            shape [samples], or two-dimensional, where the shorter axis holds the channels.
        rate: Samples per second, for samples; files tell their own.

    Returns:
        float32 [samples], in -1 to 1.

    Raises:
        AudioError: There is no such file, it holds no sound that can be read, or the samples do not make sense.
    """
    if isinstance(source, np.ndarray):
        return _from_samples(source, rate)
    if rate is not None:
        raise AudioError("rate is given for a file, which tells its own", fix="give rate= only with a numpy array")
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(source), f"audio of {len(source)} bytes")
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return _from_file(file, str(path))
        except OSError as error:
            raise AudioError(
                f"cannot open {path}: {error.strerror or error}", fix="check the path and its permissions"
            ) from error
    if hasattr(source, "read"):
        return _from_file(source, str(getattr(source, "name", "the open file")))
    raise AudioError(
        f"audio is a {type(source).__name__}",
        fix="give a path, bytes, an open binary file or a numpy array with rate=",
    )


def _from_file(file: Any, name: str) -> NDArray[np.float32]:
    av = _av()
    problems: list[str] = []
    try:
        # The file is opened here and not by FFmpeg: a playlist inside it cannot make FFmpeg open something else.
        container = av.open(file, mode="r", metadata_errors="ignore", options={"protocol_whitelist": "none"})
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise AudioError(f"{name} is not an audio file that FFmpeg can read ({_text(error)})", fix=_FORMATS) from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{name} has no audio stream", fix="check that it is the right file")
        stream = container.streams.audio[0]
        stream.thread_type = "AUTO"
        samples = _resampled(_frames(container, stream, problems), problems)
        missing = _announced(container, stream) - len(samples) / SAMPLE_RATE
        if missing > _TOLERATED:
            problems.append(f"{missing:.1f} s are missing")
    if not len(samples):
        reason = f" ({problems[0]})" if problems else ""
        raise AudioError(
            f"{name} holds no sound that can be read{reason}", fix="the file is empty or damaged: get it again"
        )
    if problems:
        _log.warning(
            "%s is damaged: %s; going on with the %.1f s that can be read",
            name,
            problems[0],
            len(samples) / SAMPLE_RATE,
        )
    return samples


_FORMATS = "use a common format: wav, flac, mp3, ogg, opus, m4a, webm, mp4"


def _announced(container: Any, stream: Any) -> float:
    """The seconds that a file says it has; 0 where it does not, or FFmpeg guesses them from the bit rate."""
    if container.format.name in ("aac", "ac3", "eac3", "mp2", "mp3"):
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / float(_av().time_base)


def _frames(container: Any, stream: Any, problems: list[str]) -> Iterator[Any]:
    """The frames that can be decoded; a broken packet is passed over, a broken container ends them."""
    av = _av()
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError) as error:
            problems.append(_text(error))
            return
        if packet is None:
            return
        try:
            if packet.is_corrupt:
                problems.append("a part is cut off")
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            problems.append(_text(error))


def _resampled(frames: Iterator[Any], problems: list[str]) -> NDArray[np.float32]:
    av = _av()
    pieces: list[NDArray[np.float32]] = []
    resampler = None
    form: tuple[Any, ...] = ()

    def take(resampled: list[Any]) -> None:
        for piece in resampled:
            array = piece.to_ndarray()
            pieces.append(array[0] if len(array) == 1 else array.mean(axis=0, dtype=np.float32))

    for frame in frames:
        # A stream may change its rate or channels midway (joined MP3 or AAC files); a resampler takes one kind only.
        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
            if resampler is not None:
                take(resampler.resample(None))
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            # FFmpeg's own float downmix to mono adds channels without scaling: the mean is taken here.
            layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=SAMPLE_RATE)
        frame.pts = None
        try:
            take(resampler.resample(frame))  # type: ignore[union-attr]
        except (av.error.FFmpegError, ValueError) as error:
            problems.append(_text(error))
    if resampler is not None:
        take(resampler.resample(None))
    if not pieces:
        return np.zeros(0, dtype=np.float32)
    samples = np.concatenate(pieces)
    # A damaged or hand-made float file can hold anything, and one NaN would spoil every window it is in.
    if not np.isfinite(samples.max()) or not np.isfinite(samples.min()):
        problems.append("samples that are not finite numbers")
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return samples


def _from_samples(samples: NDArray[Any], rate: int | None) -> NDArray[np.float32]:
    if rate is None:
        raise AudioError("samples are given without their rate", fix="say how many there are in a second: rate=16000")
    if not 1 <= rate <= 10_000_000:
        raise AudioError(f"rate is {rate}, expected samples per second", fix="for Whisper's own rate: rate=16000")
    if samples.ndim not in (1, 2):
        raise AudioError(f"samples have {samples.ndim} dimensions", fix="expected [samples] or [samples, channels]")
    full_scale = _FULL_SCALE.get(samples.dtype)
    if full_scale is None and samples.dtype.kind != "f":
        raise AudioError(f"samples are {samples.dtype}", fix="expected float in -1 to 1, int16 or int32")
    mono = samples.astype(np.float32, copy=False)
    if mono.ndim == 2:
        mono = mono.mean(axis=int(mono.shape[0] > mono.shape[1]), dtype=np.float32)
    if full_scale is not None:
        mono = mono / np.float32(full_scale)
    if mono.size and not np.isfinite(mono).all():
        raise AudioError(
            "samples hold values that are not finite numbers", fix="replace them: numpy.nan_to_num(samples)"
        )
    if rate != SAMPLE_RATE and mono.size:
        mono = _resampled(_chunks(np.ascontiguousarray(mono), rate), [])
    return np.ascontiguousarray(mono)


def _chunks(mono: NDArray[np.float32], rate: int) -> Iterator[Any]:
    av = _av()
    for begin in range(0, len(mono), _CHUNK):
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis, begin : begin + _CHUNK], format="fltp", layout="mono")
        frame.sample_rate = rate
        yield frame


def _text(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"decoding audio needs the package av, which cannot be imported ({error})", fix=_INSTALL
        ) from None
    return av
