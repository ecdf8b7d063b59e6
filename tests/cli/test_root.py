"""`hetero` itself: help, version, exit codes, errors in words and in JSON, logging, interruption, a cheap start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from hetero import errors
from hetero.cli import failures, root
from hetero.telemetry.records import Attempt
from tests import models
from tests.cli.backends import reference
from tests.cli.conftest import Line
from tests.fakes import raises

COMMANDS = (
    "devices",
    "doctor",
    "power",
    "run",
    "bench",
    "transcribe",
    "trace",
    "thermal",
    "top",
    "compile",
    "kernels",
    "models",
    "cache",
    "plugins",
)


def attempts(*outcomes: Any) -> list[Attempt]:
    return [Attempt("npu", "run", outcome) for outcome in outcomes]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("x"), 2),
        (errors.OptionError("x"), 2),
        (errors.ProgramNotFound("x"), 2),
        (errors.BundleError("x"), 2),
        (click.UsageError("x"), 2),
        (errors.Unavailable("x"), 3),
        (errors.ModelError("x"), 3),
        (ModuleNotFoundError("x", name="av.container"), 3),
        (errors.AllDevicesFailed("x", attempts("unavailable", "unsupported")), 3),
        (errors.AllDevicesFailed("x"), 3),
        (errors.AllDevicesFailed("x", attempts("unsupported", "failed")), 1),
        (errors.FallbackForbidden("x", attempts("failed")), 1),
        (errors.AudioError("x"), 1),
        (errors.PluginError("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (ModuleNotFoundError("x", name="something_else"), 1),
        (ZeroDivisionError(), 1),
    ],
)
def test_each_error_has_the_exit_code_that_the_help_promises(error: Exception, code: int) -> None:
    assert failures.exit_code(error) == code


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_help_tells_what_the_command_does(line: Line, command: tuple[str, ...]) -> None:
    result = line(*command, "--help")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) > 8
    for listed in () if command else (*COMMANDS, "Exit codes:", "130  interrupted"):
        assert listed in result.stdout


def test_without_a_command_the_help_is_shown(line: Line) -> None:
    result = line()
    assert result.exit_code == 0
    assert result.stdout == line("--help").stdout


def test_the_version_is_the_distributions(line: Line) -> None:
    assert line("--version").stdout == f"hetero, version {version('hetero')}\n"


def test_an_unknown_command_or_option_is_wrong_usage(line: Line) -> None:
    line.refuses("device", says="No such command 'device'. Did you mean 'devices'?")
    assert "Did you mean" not in line.refuses("zzz", says="No such command 'zzz'.")
    line.refuses("devices", "--jsn", says="--jsn")
    line.refuses("run", says="Missing argument 'MODEL'")


def test_with_json_every_error_is_one_document_on_stdout(line: Line) -> None:
    for arguments, kind in [
        (("devices", "--nope"), "UsageError"),
        (("run",), "UsageError"),
        (("run", "no.onnx"), "ProgramNotFound"),
        (("run", "gelu_i8", "--input", "q=zeros"), "InputError"),
        (("run", "gelu_i8", "--input", "zeros", "--device", "toaster"), "OptionError"),
    ]:
        document = line.json(*arguments, code=2)
        assert list(document) == ["error", "problem", "fix", "attempts"]
        assert document["error"] == kind
        assert document["problem"]


def test_a_missing_package_is_told_with_the_extra_that_brings_it(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers")
    monkeypatch.setattr("hetero.cli.runtime.make_runtime", lambda **_: raises(missing)())
    said = line.refuses("devices", code=3, says="the Python package 'tokenizers' is not installed")
    assert 'fix: pip install "hetero[whisper]"' in said


def test_a_defect_is_told_in_one_line_and_with_vv_in_full(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hetero.cli.runtime.make_runtime", lambda **_: 1 / 0)
    line.refuses("devices", code=1, says="error: unexpected ZeroDivisionError: division by zero\nfix: this is a defect")
    result = line("-vv", "devices")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_what_happens_is_logged_as_much_as_is_asked_for(line: Line, tmp_path: Path) -> None:
    model = models.double(tmp_path / "double.onnx")
    line.backends = [reference("cpu", spoil=raises(ValueError("odd"))), reference("other")]
    assert line("run", model, "-i", "zeros").stderr == "warning: cpu: run failed: ValueError: odd\n"
    line.backends = [reference("npu", "npu", kernels=False), reference("cpu")]
    assert line("run", "gelu_i8", "-i", "zeros", "--shape", "n=1").stderr == ""
    unsupported = "npu: load unsupported: kernels are not for this device"
    assert f"info: {unsupported}" in line("-v", "run", "gelu_i8", "-i", "zeros").stderr
    assert f"INFO hetero.scheduler.candidate: {unsupported}" in line("-vv", "run", "gelu_i8", "-i", "zeros").stderr


def test_an_interruption_ends_with_130_and_leaves_no_file(line: Line, tmp_path: Path) -> None:
    model = models.double(tmp_path / "double.onnx")
    line.backends = [reference("cpu", spoil=raises(KeyboardInterrupt()))]
    # Without a time-out the call is in the thread that a signal interrupts.
    result = line("run", model, "--input", "zeros", "--output-dir", tmp_path / "out", "--timeout", 0)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"
    assert list((tmp_path / "out").iterdir()) == []


# A process of hetero in which the command `wait` does what a test says.
WAITING = """
import click, time
from hetero.cli import root
@click.command()
def wait(): {}
root.Commands.get_command = lambda *_: wait
root.cli.main(["wait"])
"""


def hetero(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hetero", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_command_works_in_a_process_of_its_own() -> None:
    done = hetero("devices", "--json")
    assert done.returncode == 0, done.stderr
    assert "devices" in json.loads(done.stdout)
    done = hetero("run", "no.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: there is no file, folder or program 'no.onnx'\nfix: " in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a broken pipe in other ways")
def test_a_reader_that_goes_away_is_no_error_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "hetero", "devices", "--json"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert done.returncode == failures.BROKEN_PIPE
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_the_process_with_130_and_without_a_traceback() -> None:
    # The command tells that it is under way by its first line; then it would go on for an hour.
    code = WAITING.format("click.echo('ready'); time.sleep(3600)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip() == "interrupted"


def test_text_that_the_terminal_cannot_show_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-c", WAITING.format("click.echo('\\u6a21')")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u6a21\n", "")


def test_devices_imports_neither_a_vendors_runtime_nor_onnx() -> None:
    code = (
        "import sys; from hetero.cli.root import cli; cli.main(['devices'], standalone_mode=False)\n"
        "late = ('onnx', 'onnxruntime', 'av', 'tokenizers', 'safetensors', 'huggingface_hub', 'rich.progress')\n"
        "print([name for name in late if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_a_json_call_imports_no_rich() -> None:
    code = (
        "import sys; from hetero.cli.root import cli; cli.main(['devices', '--json'], standalone_mode=False)\n"
        "print('rich' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "False"


def test_every_command_is_a_module_with_a_command() -> None:
    context = click.Context(root.cli)
    assert root.cli.list_commands(context) == list(COMMANDS)
    assert all(root.cli.get_command(context, name) is not None for name in COMMANDS)
    assert root.cli.get_command(context, "console") is None
