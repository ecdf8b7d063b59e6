"""A backend whose compiler does what an option says, on a machine without its device."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import (
    Backend,
    CompileReport,
    CompileRequest,
    Device,
    Executable,
    Host,
    Option,
    Program,
    Unavailable,
)
from hetero.compiling.report import LayerLoss, OutputError, Progress
from hetero.errors import CompileError


class Cooking(Backend):
    name = "toy"
    targets = ("toy1", "toy2")
    compile_options = (Option("do", str, "cook", "What.", choices=("cook", "refuse", "crash", "wait")),)

    def probe(self) -> Sequence[Device]:
        raise Unavailable("there is no toy", fix="buy one")

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        raise AssertionError

    def compiler(self, options: Mapping[str, Any]) -> str:
        return "toycc 1.0"

    def compile(self, request: CompileRequest, out: Path, progress: Progress) -> CompileReport:
        progress("cook", 0.25)
        if request.options["do"] == "refuse":
            raise CompileError("toycc has no Foo", fix="leave Foo out")
        if request.options["do"] == "crash":
            ctypes.string_at(0)
        if request.options["do"] == "wait":
            try:
                while True:
                    progress("cook", 0.5)
            finally:
                (self.host.cache / "nobody listens").touch()
        told = {
            "pid": os.getpid(),
            "onnx": request.program.artifact("onnx").file.name,
            "calibration": [{name: array.tolist() for name, array in s.items()} for s in request.calibration],
            "checks": [{name: array.tolist() for name, array in s.items()} for s in request.checks],
        }
        (out / "m.toy").write_text(json.dumps(told))
        progress("cook", 1.0)
        return CompileReport(
            target=request.target,
            kind="toy",
            file="m.toy",
            compiler="toycc 1.0",
            precision="int8" if request.int8 else "fp16",
            shapes=request.shapes,
            # As a vendor's library gives numbers.
            outputs=(OutputError("y", float(np.float32(0.999)), 0.25, 3.0),),
            samples=len(request.checks),
            layers=(LayerLoss("[Mul] m", 0.6, 0.5),),
            notes=("mind the gap",),
            seconds=1.25,
        )


def make_cooking(host: Host) -> Backend:
    return Cooking(host)
