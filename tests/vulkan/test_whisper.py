"""Whisper's encoder wholly on the device: ONNX Runtime's numbers, as near as the precision is, and the CPU's words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hetero
from hetero import errors
from hetero.backend import Call, Host
from hetero.onnx_file import open_onnx
from hetero.whisper import Transcriber
from hetero.whisper.audio import decode_audio
from hetero.whisper.mel import log_mel
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


@pytest.mark.parametrize(
    ("precision", "most", "typical", "weights"),
    [
        ("fp32", 5e-6, 5e-6, 34e6),
        ("fp16", 5e-3, 2e-3, 17e6),
        ("int8", 0.1, 0.04, 11e6),
        ("int8-fp16", 0.1, 0.04, 10e6),
    ],
)
def test_the_encoder_s_error_is_what_the_precision_promises(
    model: Any,
    host: Host,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    most: float,
    typical: float,
    weights: float,
) -> None:
    """The largest error of noise; of speech, where the network amplifies what happens in silence, the typical one."""
    path = model.encoder / "encoder.onnx"
    noise = np.random.default_rng(0).standard_normal((1, 80, 3000), dtype=np.float32)
    speech = log_mel(decode_audio(CLIP), padding=30 * 16000)[None, :, :3000]
    reference = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    backend = VulkanBackend(host)
    (device, *_) = backend.probe()
    options = {option.name: option.default for option in backend.options} | {"precision": precision}
    executable = backend.load(dataclasses.replace(open_onnx(path), sizes={"frames": 3000}), device, options)
    details, told, errors = executable.details, [], []
    for name, mel in (("noise", noise), ("speech", speech)):
        (answer,) = executable.run({"mel": mel}, Call(0)).values()
        right = reference.run(None, {"mel": mel})[0]
        largest = float(np.abs(answer - right).max() / np.abs(right).max())
        root = float(np.linalg.norm(answer - right) / np.linalg.norm(right))
        errors.append((largest, root))
        told.append(f"{name}: largest error {largest:.2g} of the largest value, typical {root:.2g}")
    assert executable.memory < weights  # type: ignore[attr-defined]
    executable.close()
    backend.close()
    assert "100.0% of the operations" in details["on the device"]
    with capsys.disabled():
        print(  # noqa: T201
            f"\ntiny.en's encoder on {device.description}, {precision}: {details['memory']}; weights "
            f"{details['weights']}; {'; '.join(told)}"
        )
    assert errors[0][0] < most
    assert errors[1][1] < typical


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-fp16"])
def test_speech_through_the_device_has_the_cpu_s_words(model: Any, host: Host, precision: str) -> None:
    with Transcriber(model) as transcriber:
        expected = transcriber.transcribe(CLIP).text
    with (
        hetero.Runtime(
            backends=[VulkanBackend, CpuBackend], plugins=False, host=host, chain=["vulkan", "cpu"]
        ) as runtime,
        Transcriber(model, runtime=runtime, options={"vulkan": {"precision": precision}}) as transcriber,
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
