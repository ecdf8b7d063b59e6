"""Real speech with Whisper's encoder on a simulated Phoenix: the same text as on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

import hetero
from hetero.backend import Host
from hetero.cache import cache_dir
from hetero_cpu.backend import CpuBackend
from hetero_xrt.backend import XrtBackend

SPEECH = sorted((Path(__file__).parents[1] / "data" / "speech").glob("librivox-*.flac"))


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


def test_speech_is_written_down_as_on_the_cpu_and_every_window_was_encoded_on_the_npu() -> None:
    from hetero.whisper import Transcriber

    host = Host(environ={}, cache=cache_dir() / "simulators", simulate=("phoenix",))
    with (
        hetero.Runtime(
            backends=[XrtBackend, CpuBackend], plugins=False, host=host, learn=False, keep_records=10_000
        ) as runtime,
        Transcriber("tiny.en", runtime=runtime) as on_npu,
        Transcriber("tiny.en", runtime=runtime, device="cpu") as on_cpu,
    ):
        assert len(SPEECH) == 5
        for path in SPEECH:
            assert on_npu.transcribe(path).text == on_cpu.transcribe(path).text
        encoded = [record for record in runtime.records if record.program == "whisper-tiny.en-encoder"]
        devices = [record.device for record in encoded]
        assert devices.count("xrt") == devices.count("cpu") == len(SPEECH)
        assert all(record.simulated for record in encoded if record.device == "xrt")
        decoder = on_npu.sessions.decoder
        assert decoder.device == "cpu", "a decoder's products have few rows"
