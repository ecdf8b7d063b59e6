"""The model's three programs in a Runtime, and the memory of the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hetero
from hetero import errors
from hetero.whisper import programs
from hetero.whisper.models import WhisperModel, open_model, opening
from hetero.whisper.models.carried import CARRIED
from hetero.whisper.sessions import DecoderState, SpeechSessions
from tests.fakes import fake
from tests.whisper import checkpoints
from tests.whisper.checkpoints import DIMS
from tests.whisper.reference import Reference

Make = Callable[..., hetero.Runtime]

RNG = np.random.default_rng(2)
MEL = RNG.standard_normal((2, DIMS.n_mels, 2 * DIMS.n_audio_ctx), dtype=np.float32)
TOKENS = np.array([[3, 17, 0, 39, 8], [5, 5, 30, 2, 11]], np.int64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WhisperModel:
    folder = tmp_path_factory.mktemp("model")
    return open_model(checkpoints.hugging_face(folder / "toy", checkpoints.weights()), cache=folder)


@pytest.fixture
def runtime(make_runtime: Make) -> hetero.Runtime:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from hetero_cpu.backend import CpuBackend

    return make_runtime(CpuBackend)


@pytest.fixture
def sessions(runtime: hetero.Runtime, model: WhisperModel) -> Iterator[SpeechSessions]:
    with SpeechSessions(runtime, model) as sessions:
        yield sessions


@pytest.fixture
def state(sessions: SpeechSessions) -> DecoderState:
    return sessions.decoder_state(sessions.encode(MEL))


def expected_logits() -> NDArray[np.float64]:
    reference = Reference(DIMS, checkpoints.weights().__getitem__)
    return np.stack([reference.logits(list(row), reference.encode(mel)) for row, mel in zip(TOKENS, MEL, strict=True)])


def test_step_by_step_is_all_at_once_is_the_paper(sessions: SpeechSessions) -> None:
    hidden = sessions.encode(MEL)
    at_once = sessions.decoder_state(hidden).step(TOKENS, range(5))
    np.testing.assert_allclose(at_once, expected_logits(), atol=1e-4)
    state = sessions.decoder_state(hidden)
    for i in range(5):
        logits = state.step(TOKENS[:, i : i + 1])
        assert logits.dtype == np.float32
        assert (logits.shape, state.length) == ((2, 1, DIMS.n_vocab), i + 1)
        np.testing.assert_allclose(logits[:, 0], at_once[:, i], atol=2e-5)


def test_the_last_place_is_scored_unless_others_are_asked_for(state: DecoderState) -> None:
    everything = state.step(TOKENS, range(5))
    state.truncate(0)
    np.testing.assert_allclose(state.step(TOKENS), everything[:, 4:], atol=1e-5)
    state.truncate(0)
    np.testing.assert_allclose(state.step(TOKENS, [2, 0]), everything[:, [2, 0]], atol=1e-5)
    state.truncate(0)
    assert state.step(TOKENS, ()).shape == (2, 0, DIMS.n_vocab)
    assert state.length == 5


def test_after_truncate_the_rest_is_forgotten(state: DecoderState) -> None:
    first = state.step(TOKENS)
    state.step(np.array([[1], [2]], np.int64))
    state.truncate(3)
    assert state.length == 3
    np.testing.assert_allclose(state.step(np.ascontiguousarray(TOKENS[:, 3:])), first, atol=2e-5)
    for length in (-1, 6):
        with pytest.raises(errors.InputError, match=f"cannot truncate to {length} tokens, there are 5"):
            state.truncate(length)


@pytest.mark.parametrize(
    ("tokens", "at", "message"),
    [
        (TOKENS[:1], None, r"tokens are \[1, 5\], expected an int64 array of shape \[2, n\]"),
        (TOKENS[0], None, r"tokens are \[5\]"),
        (TOKENS[:, :0], None, r"tokens are \[2, 0\]"),
        ([[1], [2]], None, "tokens are list"),
        (TOKENS.astype(np.int32), None, "has dtype int32, expected int64"),
        (np.array([[0], [40]]), None, "outside the vocabulary of 40: 0 to 40"),
        (np.array([[0], [-1]]), None, "outside the vocabulary of 40: -1 to 0"),
        (np.zeros((2, 11), np.int64), None, "0 [+] 11 tokens are more than the decoder's 10 places"),
        (TOKENS, [5], r"logits_at is \[5\], expected places from 0 to 4"),
        (TOKENS, [-1], r"logits_at is \[-1\], expected places from 0 to 4"),
    ],
)
def test_bad_steps_are_refused_and_change_nothing(state: DecoderState, tokens: Any, at: Any, message: str) -> None:
    with pytest.raises(errors.InputError, match=message):
        state.step(tokens, at)
    assert state.length == 0
    np.testing.assert_allclose(state.step(TOKENS, range(5)), expected_logits(), atol=1e-4)


def test_the_decoder_can_be_filled_and_no_further(state: DecoderState) -> None:
    state.step(np.concatenate([TOKENS, TOKENS], axis=1))
    assert state.length == DIMS.n_text_ctx
    with pytest.raises(errors.InputError, match=r"10 \+ 1 tokens are more than the decoder's 10 places"):
        state.step(TOKENS[:, :1])


def test_no_step_copies_the_earlier_keys_and_values(state: DecoderState, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[dict[str, NDArray[Any]]] = []
    decoder = state._decoder

    def watched(feed: dict[str, NDArray[Any]]) -> Any:
        fed.append(dict(feed))
        return decoder(feed)

    monkeypatch.setattr(state, "_decoder", watched)
    for i in range(4):
        state.step(np.ascontiguousarray(TOKENS[:, i : i + 1]))
    for kind in "kv":
        for i in range(DIMS.n_text_layer):
            views = [feed[f"self_{kind}_{i}"] for feed in fed]
            assert [len(view) for view in views] == [0, 1, 2, 3]
            assert all(view.flags.c_contiguous for view in views)
            assert all(view.base is views[0].base and view.base is not None for view in views)
            assert all(feed[f"cross_{kind}_{i}"] is fed[0][f"cross_{kind}_{i}"] for feed in fed)


def test_two_states_do_not_disturb_each_other(sessions: SpeechSessions) -> None:
    hidden = sessions.encode(MEL)
    one, two = sessions.decoder_state(hidden), sessions.decoder_state(hidden)
    for i in range(5):
        part = np.ascontiguousarray(TOKENS[:, i : i + 1])
        first, second = one.step(part), two.step(part[::-1].copy())
    np.testing.assert_allclose(first[:, 0], expected_logits()[:, 4], atol=1e-4)
    assert np.abs(first - second).max() > 1e-3


def test_a_single_spectrogram_is_a_batch_of_one(sessions: SpeechSessions) -> None:
    np.testing.assert_array_equal(sessions.encode(MEL[0]), sessions.encode(MEL[:1]))
    short = sessions.encode(MEL[0, :, :9].copy())
    assert short.shape == (1, 5, DIMS.n_audio_state)
    assert sessions.decoder_state(short).step(TOKENS[:1]).shape == (1, 1, DIMS.n_vocab)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (np.zeros((1, 4, 25), np.float32), "mel has 25 frames, expected 1 to 24"),
        (np.zeros((1, 4, 0), np.float32), "mel has 0 frames"),
        (np.zeros((1, 5, 24), np.float32), r"has shape \[1, 5, 24\], expected \[batch, 4, frames\]"),
        (np.zeros((1, 4, 24)), "has dtype float64, expected float32"),
        (np.zeros(24, np.float32), r"has shape \[24\]"),
    ],
)
def test_a_spectrogram_that_does_not_fit_is_refused(sessions: SpeechSessions, mel: Any, message: str) -> None:
    with pytest.raises(errors.InputError, match=message):
        sessions.encode(mel)


def test_each_part_has_its_own_records(runtime: hetero.Runtime, sessions: SpeechSessions) -> None:
    sessions.decoder_state(sessions.encode(MEL)).step(TOKENS)
    assert [record.program for record in runtime.records] == [
        f"whisper-toy-{part}" for part in ("encoder", "cross", "decoder")
    ]
    assert [record.device for record in runtime.records] == ["cpu"] * 3


def test_each_part_can_have_its_own_device(make_runtime: Make, model: WhisperModel) -> None:
    runtime = make_runtime(fake("npu", kind="npu"), fake("gpu", kind="gpu"), fake("slow", kind="cpu"))
    placed = SpeechSessions(runtime, model, device={"encoder": "gpu", "decoder": ["slow", "gpu"]})
    assert (placed.encoder.device, placed.cross.device, placed.decoder.device) == ("gpu", "npu", "slow")
    everywhere = SpeechSessions(runtime, model, device="slow")
    assert {everywhere.encoder.device, everywhere.cross.device, everywhere.decoder.device} == {"slow"}
    with pytest.raises(errors.OptionError, match=r"a device is given for 'encode'\n.*encoder, cross, decoder"):
        SpeechSessions(runtime, model, device={"encode": "gpu"})


def test_closing_closes_all_three(runtime: hetero.Runtime, model: WhisperModel) -> None:
    with SpeechSessions(runtime, model) as sessions:
        hidden = sessions.encode(MEL)
    for call in (lambda: sessions.encode(MEL), lambda: sessions.decoder_state(hidden)):
        with pytest.raises(errors.ClosedError):
            call()


def test_programs_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: WhisperModel) -> None:
    asked = []

    def opened(name: str) -> WhisperModel:
        asked.append(name)
        return model

    monkeypatch.setattr("hetero.whisper.models.open_model", opened)
    for suffix, part in (("", "encoder"), ("-cross", "cross"), ("-decoder", "decoder")):
        program = programs.hetero_program(f"whisper-tiny.en{suffix}")
        assert program is not None
        assert program.name == f"whisper-toy-{part}"
    assert asked == ["tiny.en"] * 3
    for name in ("whisper-", "whisper-decoder", "tiny.en", "whisper-tiny.en-encoders", "whisper-unknown", "matmul"):
        assert programs.hetero_program(name) is None


def test_the_names_of_programs_are_those_of_the_models() -> None:
    names = list(programs.hetero_program_names())
    assert names == [f"whisper-{name}{suffix}" for name in opening.OFFICIAL for suffix in ("", "-cross", "-decoder")]


@pytest.mark.parametrize("name", CARRIED)
def test_the_real_models_are_the_papers(runtime: hetero.Runtime, name: str) -> None:
    found = CARRIED[name].find()
    if found is None:
        pytest.skip(f"the weights of {name} are not installed: {CARRIED[name].install}")
    model = open_model(name)
    tensors = found.read().tensors
    reference = Reference(model.dims, lambda tensor: tensors[tensor].float32())
    mel = RNG.normal(0, 0.3, (80, 100)).astype(np.float32)
    tokens = [50257, 464, 2068, 7586, 21831]
    with SpeechSessions(runtime, model) as sessions:
        hidden = sessions.encode(mel)
        expected = reference.encode(mel)
        cosine = np.vdot(hidden[0], expected) / np.linalg.norm(hidden) / np.linalg.norm(expected)
        assert cosine > 0.99999
        np.testing.assert_allclose(hidden[0], expected, atol=5e-3)
        state = sessions.decoder_state(hidden)
        logits = np.concatenate([state.step(np.array([[token]])) for token in tokens], axis=1)
        np.testing.assert_allclose(logits[0], reference.logits(tokens, expected), atol=1e-2)
