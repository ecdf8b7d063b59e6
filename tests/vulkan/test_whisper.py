"""Whisper's encoder wholly on the device: ONNX Runtime's numbers, and the CPU's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Call, Host
from hetero.onnx_file import open_onnx
from hetero.whisper import Transcriber
from hetero.whisper.models import open_model
from hetero_cpu.backend import CpuBackend
from hetero_vulkan.backend import VulkanBackend
from hetero_vulkan.choosing import VARIABLE
from tests.vulkan.machine import WHICH

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
CLIP = Path(__file__).parents[1] / "data" / "speech" / "librivox-0880.flac"


@pytest.fixture(scope="module")
def model() -> Any:
    try:
        return open_model("tiny.en")
    except errors.ModelError as error:
        pytest.skip(f"no weights of tiny.en: {error}")


@pytest.fixture
def host(tmp_path: Path, validated: bool) -> Host:
    return Host(environ={VARIABLE: WHICH}, cache=tmp_path / "cache")


def test_the_encoder_is_onnx_runtime_s_to_five_millionths(
    model: Any, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model.encoder / "encoder.onnx"
    mel = np.random.default_rng(0).standard_normal((1, 80, 3000), dtype=np.float32)
    expected = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"mel": mel})[0]
    backend = VulkanBackend(host)
    (device, *_) = backend.probe()
    options = {option.name: option.default for option in backend.options}
    executable = backend.load(open_onnx(path), device, options)
    (answer,) = executable.run({"mel": mel}, Call(0)).values()
    told = executable.details["on the device"]
    executable.close()
    backend.close()
    assert "100.0% of the operations" in told
    error = float(np.abs(answer - expected).max() / np.abs(expected).max())
    with capsys.disabled():
        print(f"\ntiny.en's encoder on {device.description}: {told}; largest error {error:.2g} of the largest value")  # noqa: T201
    assert error < 5e-6


def test_speech_through_the_device_has_the_cpu_s_words(model: Any, host: Host) -> None:
    with Transcriber(model) as transcriber:
        expected = transcriber.transcribe(CLIP).text
    with (
        hetero.Runtime(
            backends=[VulkanBackend, CpuBackend], plugins=False, host=host, chain=["vulkan", "cpu"]
        ) as runtime,
        Transcriber(model, runtime=runtime) as transcriber,
    ):
        assert transcriber.transcribe(CLIP).text == expected
        records = list(runtime.records)
    devices: dict[str, list[str]] = {}
    for record in records:
        devices.setdefault(record.program.rsplit("-", 1)[1], []).append(str(record.device))
    assert set(devices["encoder"]) == set(devices["cross"]) == {"vulkan:0"}
    # Each token is a shape of its own: the first few are planned, then the CPU is faster.
    assert devices["decoder"][0] == "vulkan:0"
    assert devices["decoder"][-1] == "cpu"
    (attempt, _) = records[-1].attempts
    assert attempt.outcome == "unsupported"
    assert "shapes keep changing" in attempt.reason
