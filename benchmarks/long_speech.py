"""An hour of read speech in one file, for long runs: the recordings of tests/data/speech, one after another, and again.

python benchmarks/long_speech.py hour.wav [--minutes 60]
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import numpy as np

from hetero.whisper.audio import SAMPLE_RATE, decode_audio

SPEECH = Path(__file__).parent.parent / "tests" / "data" / "speech"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    once = np.concatenate([part for each in sorted(SPEECH.glob("*.flac")) for part in (decode_audio(each), pause)])
    wanted = round(args.minutes * 60 * SAMPLE_RATE)
    samples = np.resize(once, wanted)
    with wave.open(str(args.file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    print(f"{args.file}: {args.minutes:g} minutes, {wanted / len(once):.1f} times {len(once) / SAMPLE_RATE:.0f} s")


if __name__ == "__main__":
    main()
