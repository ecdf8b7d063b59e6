"""The toolkit's environment: one is made, whole, once; what is in the way is told."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import hetero
from hetero.errors import Unavailable
from hetero_rknn.toolkit import environment, interpreters
from tests.rknn.toolkit.environments import make_environment


@pytest.fixture
def installing(monkeypatch: pytest.MonkeyPatch, toolkit: Path) -> list[str]:
    """Steps that would install, in order; the environment with the stand-in takes the place of what they make."""
    steps: list[str] = []

    def run(command: list[str], log: Path, follow: Callable[[str], None]) -> None:
        steps.append(command[3])
        if command[3] == "venv":
            shutil.copytree(toolkit, command[4], symlinks=True, dirs_exist_ok=True)
        else:
            follow("Collecting numpy==1.26.4")

    monkeypatch.setattr(environment, "_run", run)
    monkeypatch.setattr(environment, "find_python", lambda host: (Path(sys.executable), "3.11"))
    return steps


def silent(stage: str, done: float) -> None:
    """Progress that nobody looks at."""


def place_of(host: hetero.Host) -> Path:
    return host.cache / "rknn-toolkit2" / "2.5.0-py3.11"


def test_it_is_made_on_first_use_and_found_from_then_on(host: hetero.Host, installing: list[str]) -> None:
    told: list[str] = []
    made = environment.prepare(host, lambda stage, done: told.append(stage))
    assert made.python.is_relative_to(place_of(host))
    assert installing == ["venv", "pip", "pip"]
    assert "install rknn-toolkit2 2.5.0: numpy==1.26.4" in told
    assert environment.prepare(host, silent) == made == environment.find(host)
    assert len(installing) == 3


def test_the_stand_in_for_torch_is_put_into_it(host: hetero.Host, installing: list[str]) -> None:
    made = environment.prepare(host, silent)
    (packages,) = made.python.parent.parent.glob("lib/python3*/site-packages")
    assert (packages / "torch" / "nn" / "__init__.py").is_file()


def test_threads_and_processes_that_ask_at_once_get_one_environment(host: hetero.Host, installing: list[str]) -> None:
    found: list[environment.Environment] = []
    threads = [threading.Thread(target=lambda: found.append(environment.prepare(host, silent))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert installing.count("venv") == 1


def test_one_that_cannot_import_the_toolkit_is_not_kept(
    host: hetero.Host, installing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_RKNN", "broken")
    with pytest.raises(Unavailable, match=r"cannot be imported.*No module named 'pkg_resources'.*log: ") as caught:
        environment.prepare(host, silent)
    assert "hetero cache rm" in caught.value.fix
    assert environment.find(host) is None
    left = [path.name for path in place_of(host).parent.iterdir() if path.is_dir()]
    assert left == ["logs"], "nothing half-made stays, only the log"
    monkeypatch.delenv("STAND_IN_RKNN")
    assert environment.prepare(host, silent).version == "2.5.0"


def test_what_a_killed_process_has_left_is_removed_and_made_again(host: hetero.Host, installing: list[str]) -> None:
    unmarked, half = place_of(host), place_of(host).parent / ".2.5.0-py3.11.abc"
    for folder in (unmarked, half):
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text("half")
    assert environment.find(host) is None
    environment.prepare(host, silent)
    assert installing.count("venv") == 1
    assert not half.exists()
    assert (unmarked / "hetero-environment.json").is_file()


def test_too_little_space_is_told_before_anything_is_fetched(
    host: hetero.Host, installing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(Unavailable, match=r"needs 1 GB .* has 0\.1 GB") as caught:
        environment.prepare(host, silent)
    assert "HETERO_CACHE_DIR" in caught.value.fix
    assert installing == []


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "no space left"),
        ("WARNING: Retrying: Temporary failure in name resolution\nERROR: No matching distribution", "no network"),
        ("ERROR: Could not find a version that satisfies the requirement onnx==1.18.0", "requirement onnx==1.18.0"),
        ("Error: Command 'ensurepip' failed", "'ensurepip' failed"),
    ],
)
def test_a_step_that_fails_is_told_with_its_reason_and_its_log(said: str, problem: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"]
    with pytest.raises(Unavailable, match=problem) as caught:
        environment._run(command, log, lambda line: None)
    assert str(log) in caught.value.problem
    assert said in log.read_text()
    assert caught.value.fix


def test_without_a_python_that_has_wheels_the_versions_are_named(
    host: hetero.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreters, "_version", lambda python: "3.14")
    with pytest.raises(Unavailable, match=r"needs Python 3\.9, 3\.10, 3\.11, 3\.12 .*found 3\.14") as caught:
        environment.prepare(host, silent)
    assert environment.VARIABLE in caught.value.fix


def test_another_kind_of_machine_is_told_where_to_compile(host: hetero.Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters.platform, "machine", lambda: "riscv64")
    with pytest.raises(Unavailable, match="riscv64"):
        environment.prepare(host, silent)


def test_the_environment_that_the_user_names_is_used(toolkit: Path, tmp_path: Path) -> None:
    for named in (toolkit, toolkit / "bin" / "python"):
        host = hetero.Host(environ={"HETERO_RKNN_TOOLKIT": str(named)}, cache=tmp_path)
        assert environment.prepare(host, silent) == environment.Environment(toolkit / "bin" / "python", "2.5.0")
    other = make_environment(tmp_path / "other", "2.3.2")
    assert environment.version_of(hetero.Host(environ={"HETERO_RKNN_TOOLKIT": str(other)})) == "2.3.2"


def test_a_named_environment_without_the_toolkit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    host = hetero.Host(environ={"HETERO_RKNN_TOOLKIT": str(tmp_path)}, cache=tmp_path)
    with pytest.raises(Unavailable, match=r"there is no .*bin/python"):
        environment.find(host)
    (tmp_path / "bin" / "python").touch()
    with pytest.raises(Unavailable, match="not installed there"):
        environment.find(host)


def test_logs_do_not_pile_up(host: hetero.Host) -> None:
    for _ in range(30):
        environment.new_log(host, "rk3588").touch()
    assert len(list((host.cache / "rknn-toolkit2" / "logs").iterdir())) == 20


def test_a_log_that_another_process_removes_meanwhile_does_no_harm(
    host: hetero.Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(25):
        environment.new_log(host, "rk3588").touch()
    glob = Path.glob

    def glob_then_removed(folder: Path, pattern: str) -> list[Path]:
        found = list(glob(folder, pattern))
        found[0].unlink()
        return found

    monkeypatch.setattr(Path, "glob", glob_then_removed)
    assert environment.new_log(host, "rk3588").parent.is_dir()


def test_working_folders_of_killed_processes_are_removed_after_a_day(host: hetero.Host) -> None:
    folder = environment.scratch(host)
    for name, age in ((".work-old", 25), (".work-new", 23), ("2.5.0-py3.11", 25)):
        (folder / name).mkdir()
        seconds = time.time() - age * 3600
        os.utime(folder / name, (seconds, seconds))
    environment.scratch(host)
    assert sorted(path.name for path in folder.iterdir()) == [".work-new", "2.5.0-py3.11"]
