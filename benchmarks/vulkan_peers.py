"""Peers of the Vulkan backend: each in a virtual environment of its own, in a process that is asked for single runs."""

from __future__ import annotations

import json
import selectors
import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

WORKER = Path(__file__).with_name("vulkan_peer_worker.py")


@dataclass(frozen=True)
class Peer:
    """What is installed, and which versions were tried.

    Attributes:
        name: As the worker knows it.
        packages: For pip.
        note: What to know about it.
    """

    name: str
    packages: tuple[str, ...]
    note: str = ""


PEERS = (
    Peer("onnxruntime-webgpu", ("onnxruntime-webgpu==1.27.0",), "finds no adapter on lavapipe 22.3.6"),
    Peer("ncnn", ("ncnn==1.0.20261020",)),
    Peer("iree", ("iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "onnx==1.23.2")),
    Peer(
        "onnxruntime-ggml", ("onnxruntime-ggml==0.2.0",), "ggml's Vulkan kernels in ONNX Runtime; Python 3.11 or later"
    ),
)


class PeerFailed(Exception):
    """A peer cannot be had, or gave up; the message says why."""


def installed(peer: Peer, folder: Path) -> Path | None:
    """Its Python, where it was installed with these versions."""
    python = _home(peer, folder) / "bin" / "python"
    return python if python.exists() else None


def install(peer: Peer, folder: Path, timeout: float) -> Path:
    """Its Python, in a virtual environment that is made when it is not there.

    Raises:
        PeerFailed: pip cannot have it, or not in that time.
    """
    found = installed(peer, folder)
    if found:
        return found
    home = _home(peer, folder)
    home.parent.mkdir(parents=True, exist_ok=True)
    # A virtual environment knows its own path, so that it is made where it stays; what fails is removed.
    try:
        venv.create(home, with_pip=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary=:all:", *peer.packages]
        subprocess.run(pip, check=True, timeout=timeout, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        shutil.rmtree(home, ignore_errors=True)
        raise PeerFailed(f"pip has not installed {' '.join(peer.packages)} in {timeout:.0f} s") from None
    except subprocess.CalledProcessError as error:
        shutil.rmtree(home, ignore_errors=True)
        lines = (error.stderr or "").strip().splitlines()
        said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "nothing")
        raise PeerFailed(f"pip does not install {' '.join(peer.packages)}: {said}") from None
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return home / "bin" / "python"


class Worker:
    """A peer's process.

    Args:
        peer: Which.
        python: Of its virtual environment.
        folder: The models; see the worker.
    """

    def __init__(self, peer: Peer, python: Path, folder: Path) -> None:
        self.peer = peer
        self._log = (folder / f"{peer.name}.log").open("w+")
        self._process = subprocess.Popen(
            [python, WORKER, peer.name, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )

    def ask(self, command: str, what: str, timeout: float) -> dict[str, Any]:
        """What it answers: `wall` and `processor` seconds.

        Raises:
            PeerFailed: It failed, ended, or did not answer in time; then it is stopped.
        """
        process = self._process
        try:
            _end(process.stdin).write(f"{command} {what}\n")
        except BrokenPipeError:
            raise PeerFailed(f"it ended: {self._said()}") from None
        with selectors.DefaultSelector() as selector:
            selector.register(_end(process.stdout), selectors.EVENT_READ)
            if not selector.select(timeout):
                self.close()
                raise PeerFailed(f"{command} {what} has not ended in {timeout:.0f} s")
        line = _end(process.stdout).readline()
        if not line:
            code = process.wait()
            raise PeerFailed(f"it ended with {code}: {self._said()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(f"{answer['error'].splitlines()[0][:300]}")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for end in (self._process.stdin, self._process.stdout, self._log):
            assert end is not None
            try:
                end.close()
            except BrokenPipeError:
                continue

    def _said(self) -> str:
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def _home(peer: Peer, folder: Path) -> Path:
    return folder / "-".join(package.replace("==", "-") for package in peer.packages[:1])


def _end(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
