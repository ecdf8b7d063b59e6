"""Speech through a chain whose first device fails: the text is unchanged, and the story is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import hetero
from hetero import errors
from hetero.backend import Array, Backend, Call, Device, Executable, Program

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("av", reason="av is not installed")

from hetero.whisper import Transcriber
from hetero.whisper.models import open_model
from hetero_cpu.backend import CpuBackend

CLIP = Path(__file__).parents[1] / "data" / "speech" / "librivox-0880.flac"


class FailsAtLoad(Backend):
    name = "npu"

    def probe(self) -> Sequence[Device]:
        return [Device("npu", kind="npu")]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        raise errors.ExecutionError("firmware 1.2 is too old for this program")


class DiesInTheMiddle(Executable):
    """The CPU's answers, until the device is lost in the fifth call."""

    def __init__(self, inner: Executable) -> None:
        self._inner = inner
        self._left = 5

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        self._left -= 1
        if self._left < 0:
            raise errors.DeviceLost("the NPU was reset")
        return self._inner.run(inputs, call)

    def close(self) -> None:
        self._inner.close()


class FailsInTheMiddle(FailsAtLoad):
    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        cpu = CpuBackend(self.host)
        defaults = {option.name: option.default for option in cpu.options}
        inner = cpu.load(program, cpu.probe()[0], defaults)
        assert isinstance(inner, Executable)
        return DiesInTheMiddle(inner)


class MissesItsLibrary(FailsAtLoad):
    def probe(self) -> Sequence[Device]:
        raise errors.Unavailable("libnpu.so is not installed", fix="apt install libnpu")


@pytest.fixture(scope="module")
def model() -> Any:
    try:
        return open_model("tiny.en")
    except errors.ModelError as error:
        pytest.skip(f"no weights of tiny.en: {error}")


@pytest.fixture(scope="module")
def truth(model: Any) -> str:
    with Transcriber(model) as transcriber:
        return transcriber.transcribe(CLIP).text


@pytest.fixture
def on(model: Any) -> Iterator[Callable[..., Any]]:
    """Transcribes with a backend ahead of the CPU; gives the text, the Transcriber's runtime and its sessions."""
    open_ones: list[Any] = []

    def on(backend: type[Backend], **options: Any) -> tuple[str, hetero.Runtime]:
        runtime = hetero.Runtime(backends=[backend], chain=["npu", "cpu"])
        open_ones.append(runtime)
        transcriber = Transcriber(model, runtime=runtime, **options)
        open_ones.append(transcriber)
        return transcriber.transcribe(CLIP).text, runtime

    yield on
    for closing in reversed(open_ones):
        closing.close()


def test_a_backend_that_fails_at_load_changes_no_word(on: Callable[..., Any], truth: str) -> None:
    text, runtime = on(FailsAtLoad)
    assert text == truth
    assert all(record.device == "cpu" and record.fell_back for record in runtime.records)
    assert "firmware 1.2 is too old" in str(runtime.records.last)


def test_a_backend_that_dies_in_the_middle_changes_no_word(on: Callable[..., Any], truth: str) -> None:
    text, runtime = on(FailsInTheMiddle)
    assert text == truth
    steps = [record for record in runtime.records if record.program.endswith("decoder")]
    death = next(i for i, record in enumerate(steps) if record.attempts[0].outcome == "failed")
    assert death > 0
    assert {record.device for record in steps[:death]} == {"npu"}
    assert {record.device for record in steps[death:]} == {"cpu"}
    assert [(a.device, a.outcome) for a in steps[death].attempts] == [("npu", "failed"), ("cpu", "ok")]
    assert "DeviceLost: the NPU was reset" in steps[death].attempts[0].reason


def test_a_backend_without_its_library_changes_no_word(on: Callable[..., Any], truth: str) -> None:
    text, runtime = on(MissesItsLibrary)
    assert text == truth
    assert [(absent.backend, absent.fix) for absent in runtime.absent if absent.backend == "npu"] == [
        ("npu", "apt install libnpu")
    ]
    assert all(record.attempts[0].outcome == "unavailable" for record in runtime.records)


@pytest.mark.parametrize(
    ("backend", "story"),
    [
        (FailsAtLoad, "npu: load failed: firmware 1.2 is too old"),
        (FailsInTheMiddle, "npu: run failed: DeviceLost: the NPU was reset"),
        (MissesItsLibrary, "npu: probe unavailable: libnpu.so is not installed (fix: apt install libnpu)"),
    ],
)
def test_with_fallback_forbidden_the_error_tells_the_story(
    on: Callable[..., Any], backend: type[Backend], story: str
) -> None:
    with pytest.raises(errors.FallbackForbidden) as caught:
        on(backend, fallback="forbid")
    assert story in str(caught.value)
