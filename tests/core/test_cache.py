"""What is cached appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.cache import building, cache_dir, key_of, sha256_of


def test_a_folder_appears_when_its_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "entry"
    with building(target) as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["entry"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_block_raises(tmp_path: Path, error: type[BaseException]) -> None:
    def half() -> None:
        with building(tmp_path / "entry") as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        half()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins_and_the_other_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "entry"
    with building(target) as slow:
        (slow / "a").write_text("slow")
        with building(target) as fast:
            (fast / "a").write_text("fast")
    assert (target / "a").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_file_in_the_way_is_not_mistaken_for_another_builders_work(tmp_path: Path) -> None:
    (tmp_path / "entry").write_text("a file")
    with pytest.raises(OSError), building(tmp_path / "entry") as folder:  # noqa: PT011  which one depends on the system
        (folder / "a").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_keys_differ_when_parts_are_split_differently() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")


def test_the_environment_chooses_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HETERO_CACHE_DIR", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("HETERO_CACHE_DIR")
    assert cache_dir().name == "hetero"


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f").startswith("ba7816bf")
