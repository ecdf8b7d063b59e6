"""Whisper's encoder on a simulated Phoenix in int8: how near it comes to float32, what text comes of it, modelled time.

    python benchmarks/xrt_encoder.py [--model tiny.en] [--speech tests/data/speech] [--windows 2] [--layers] [--text]
                                     [--time] [--statistics FILE.npz] [--option activation_bits=8 ...] [--json]

Nothing here was measured on a laptop: answers come from the kernels' exact references, the NPU's times from a model.

- By default: the cosine of the encoder's output with float32's, over real speech.
- `--layers`: of every product, attention and sum, with everything before it on the NPU too.
- `--text`: the text of each recording, with the encoder on the NPU and on the CPU, and where they differ.
- `--time`: modelled time of the NPU for a window, with and without loading another kernel into the columns; kernels of
  four columns, and of one column each, side by side; and real time of the host's part on this machine.
- `--statistics`: writes the largest activations, for `--option smoothing=on --option statistics=FILE.npz`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import hetero
from hetero.backend import Call, Program
from hetero.bundle import open_program
from hetero.tensors import Array
from hetero.testing.xrt.clock import ControlledClock
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.pyxrt import simulated_pyxrt
from hetero.testing.xrt.stand_in import write_stand_in, write_usual
from hetero.whisper import Transcriber, WhisperModel, open_model
from hetero.whisper.calibration import mel_windows
from hetero_kernels import get
from hetero_xrt.backend import XrtBackend
from hetero_xrt.executable import TileExecutable
from hetero_xrt.fidelity import compare_layers, cosine, largest_activations, write_statistics
from hetero_xrt.flow import Flow
from hetero_xrt.graph import GraphExecutable
from hetero_xrt.manifest import Manifest
from hetero_xrt.onnx_program import MIN_COSINE, OnnxOnNpu, precision_of
from hetero_xrt.pool import PoolCache
from hetero_xrt.reading import read_manifest

POLL = 1e-5
"""Modelled seconds that each poll of a launch is worth."""


class Laptop:
    """An encoder on a simulated NPU with a clock of its own."""

    def __init__(self, program: Program, options: Mapping[str, Any], folder: Path, **phoenix: Any) -> None:
        self.narrow = phoenix.pop("narrow", False)
        self.clock = ControlledClock(poll_seconds=POLL)
        self._folder = folder / ("narrow" if self.narrow else "wide")
        self._cache = PoolCache(Flow(simulated_pyxrt(SimulatedPhoenix(**phoenix), clock=self.clock), self.clock.now))
        self.made = OnnxOnNpu(program, self._kernel, precision_of(options))
        self.executable = GraphExecutable(
            self.made.plan, self.made.close, min_cosine=MIN_COSINE, details={}, sleep=lambda seconds: None
        )

    def run(self, mel: Array) -> Array:
        return self.executable.run({"mel": mel}, Call())["hidden"]

    def modelled(self, mel: Array) -> float:
        """Seconds of the NPU's clock for a window; the host's part takes none of it."""
        self.run(mel)
        before = self.clock.now()
        self.run(mel)
        return self.clock.now() - before

    def _kernel(self, name: str) -> TileExecutable:
        return TileExecutable(self._cache, self._manifest(name), get(name).program(), contexts=1)

    def _manifest(self, name: str) -> Manifest:
        folder, program = self._folder / name, get(name).program()
        if not self.narrow:
            return read_manifest(write_usual(folder, program, 4))
        shape: dict[str, Any] = {"rows": 4, "tile_rows": 64, "weights": "argument"} if name.startswith("gemm") else {}
        return read_manifest(write_stand_in(folder, program, 1, 4 if shape else 1, **shape))


def chosen(pairs: list[str]) -> dict[str, Any]:
    """The backend's options: defaults, and what the command line says."""
    declared = {option.name: option for option in XrtBackend.options}
    values = {name: option.default for name, option in declared.items()}
    for pair in pairs:
        name, _, text = pair.partition("=")
        kind = declared[name].type
        values[name] = tuple(text.split(",")) if kind is tuple else kind(text)  # type: ignore[operator]
    return values


def times(program: Program, options: Mapping[str, Any], mel: Array, folder: Path) -> dict[str, float]:
    """Modelled milliseconds of a window, by way, and real ones of the host."""
    found = {}
    for way, phoenix in (
        ("kernels of four columns", {}),
        ("the same, if switching were free", {"switch_seconds": 0.0}),
        ("kernels of one column, side by side", {"narrow": True}),
    ):
        laptop = Laptop(program, options, folder, **phoenix)
        found[way] = laptop.modelled(mel) * 1e3
        ran = laptop.executable.times
    found["host, real time here"] = ran.host / ran.runs * 1e3
    return found


def texts(model: WhisperModel, recordings: list[Path], options: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What is written down on the CPU and with the encoder on the NPU, by recording."""
    found: dict[str, list[str]] = {path.name: [] for path in recordings}
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for device in (None, {"encoder": ("xrt",)}):
        with (
            hetero.Runtime(simulate=("phoenix",), options={"xrt": given}) as runtime,
            Transcriber(model, runtime=runtime, device=device or "cpu") as transcriber,
        ):
            for path in recordings:
                found[path.name].append(transcriber.transcribe(path).text)
    return {name: (cpu, npu) for name, (cpu, npu) in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny.en")
    parser.add_argument("--speech", type=Path, default=Path("tests/data/speech"))
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--statistics", type=Path)
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model, options = open_model(args.model), chosen(args.option)
    program = open_program(model.encoder)
    recordings = sorted(args.speech.glob("*.flac"))
    mels = [mel for path in recordings for mel in mel_windows(path, model.dims.n_mels)][: args.windows]
    found: dict[str, Any] = {"model": args.model, "options": args.option}
    with tempfile.TemporaryDirectory() as name:
        laptop = Laptop(program, options, Path(name))
        if args.statistics:
            write_statistics(args.statistics, largest_activations(laptop.made, [{"mel": mel} for mel in mels]))
            return
        with hetero.Runtime(chain=["cpu"]) as runtime:
            exact = [runtime.load(program)({"mel": mel}) for mel in mels]
        found["cosines"] = [cosine(laptop.run(mel), hidden) for mel, hidden in zip(mels, exact, strict=True)]
        if args.layers:
            near = compare_layers(laptop.made, [{"mel": mel} for mel in mels])
            found["layers"] = [(layer.name, layer.kind, layer.cosine) for layer in near]
        if args.time:
            found["milliseconds"] = times(program, options, mels[0], Path(name))
    if args.text:
        found["texts"] = texts(model, recordings, options)
    print(json.dumps(found)) if args.json else show(found)


def show(found: Mapping[str, Any]) -> None:
    """Tables for people."""
    console = Console()
    least, mean = min(found["cosines"]), float(np.mean(found["cosines"]))
    console.print(f"{found['model']} {' '.join(found['options'])}: cosine {least:.5f} least, {mean:.5f} mean")
    if "layers" in found:
        table = Table("layer", "kind", "cosine", title="with everything before it on the NPU too")
        for name, kind, value in found["layers"]:
            table.add_row(name, kind, f"{value:.5f}")
        console.print(table)
    if "milliseconds" in found:
        table = Table("a window", "ms", title="the NPU's times are modelled: no hardware")
        for name, value in found["milliseconds"].items():
            table.add_row(name, f"{value:.1f}")
        console.print(table)
    for name, (cpu, npu) in found.get("texts", {}).items():
        console.print(f"{name}: the same text" if cpu == npu else f"{name} differs:\n  CPU {cpu}\n  NPU {npu}")


if __name__ == "__main__":
    main()
