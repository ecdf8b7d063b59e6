"""Real speech with Whisper's encoder on a simulated RK3588: the same text as on the CPU, over both drivers."""

from __future__ import annotations

from pathlib import Path

import pytest

import hetero
from tests.rknn.runtimes import DRIVERS, on_board

SPEECH = Path(__file__).parents[1] / "data" / "speech" / "librivox-0870.flac"


@pytest.fixture(autouse=True)
def _whisper() -> None:
    pytest.importorskip("av")
    pytest.importorskip("tokenizers")
    from hetero.errors import ModelError
    from hetero.whisper.models import open_model

    try:
        open_model("tiny.en")
    except ModelError as error:
        pytest.skip(str(error))


def transcribed(runtime: hetero.Runtime) -> str:
    from hetero.whisper import Transcriber

    with Transcriber("tiny.en", runtime=runtime) as transcriber:
        return transcriber.transcribe(SPEECH).text


@pytest.mark.parametrize("driver", DRIVERS)
def test_speech_is_written_down_as_on_the_cpu_and_every_window_was_encoded_on_the_npu(driver: str) -> None:
    with on_board(driver, keep_records=10_000) as runtime:
        text = transcribed(runtime)
        encoded = [record for record in runtime.records if record.program == "whisper-tiny.en-encoder"]
        assert encoded
        assert {record.device for record in encoded} == {"rknn"}
        assert all(record.simulated for record in encoded)
    with on_board(driver, chain=["cpu"]) as runtime:
        assert transcribed(runtime) == text
    assert "leisure to consider" in text
