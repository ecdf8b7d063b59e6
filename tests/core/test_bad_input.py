"""Bad input gets an error that says what was wrong; nothing is half-written and no thread is left behind."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import hetero
from hetero import errors
from tests.core.test_bundle import DATA, write_model

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@dataclass
class Desk:
    """What a case works with: an empty folder, a Runtime on the real CPU, and a session of y = x @ w."""

    folder: Path
    runtime: hetero.Runtime
    session: hetero.Session

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def load_file(self, name: str, content: bytes) -> None:
        self.runtime.load(self.file(name, content))

    def load_graph(self, **changes: Any) -> None:
        """Load y = Relu(x) with something changed."""
        node = changes.get("node") or helper.make_node("Relu", ["x"], ["y"])
        x = changes.get("x") or helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
        graph = helper.make_graph([node], "g", [x], changes.get("outputs", [y]))
        opsets = changes.get("opsets", [helper.make_opsetid("", 17)])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        if not opsets:
            del model.opset_import[:]
        self.load_file("m.onnx", model.SerializeToString())

    def load_bundle(self, manifest: str | bytes) -> None:
        write_model(self.folder / "b" / "m.onnx")
        text = manifest.encode() if isinstance(manifest, str) else manifest
        self.file("b/hetero.toml", text)
        self.runtime.load(self.folder / "b")

    def load_external(self, location: str, data: bytes | None = None) -> None:
        path = write_model(self.folder / "e" / "m.onnx", external=location)
        if data is not None:
            (path.parent / location).write_bytes(data)
        self.runtime.load(path)

    def option(self, value: Any, name: str = "threads", backend: str = "cpu") -> None:
        self.runtime.load(write_model(self.folder / "m.onnx"), options={backend: {name: value}})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    folder = tmp_path / "desk"
    folder.mkdir()
    host = hetero.Host(environ={}, sysroot=Path("/"), cache=tmp_path / "cache")
    with hetero.Runtime(host=host, chain=["cpu"]) as runtime:
        session = runtime.load(write_model(tmp_path / "model" / "m.onnx"))
        session([[1.0, 2.0]])
        yield Desk(folder, runtime, session)


MODEL = write_model
HEAD = "[program]\nformat = 1\n"
ART = '[[artifact]]\nkind = "onnx"\npath = "m.onnx"\n'
X = np.zeros((1, 2), np.float32)

Case = tuple[Callable[[Desk], Any], type[Exception], str]


def whole(desk: Desk) -> bytes:
    return write_model(desk.folder / "whole.onnx").read_bytes()


FILES: dict[str, Case] = {
    "no such file": (lambda d: d.runtime.load("no-such.onnx"), errors.ProgramNotFound, "no file, folder or program"),
    "empty name": (lambda d: d.runtime.load(""), errors.ProgramNotFound, "expected a path, a name or a Program"),
    "no path at all": (lambda d: d.runtime.load(None), errors.ProgramNotFound, "cannot load None"),  # type: ignore[arg-type]
    "name with a typing mistake": (
        lambda d: d.runtime.load("attention_i8_64x46"),
        errors.ProgramNotFound,
        "did you mean attention_i8_64x64",
    ),
    "empty file": (lambda d: d.load_file("m.onnx", b""), errors.ProgramInvalid, "is empty"),
    "text": (lambda d: d.load_file("m.onnx", b"hello, this is text\n" * 9), errors.ProgramInvalid, "not an ONNX model"),
    "html": (lambda d: d.load_file("m.onnx", b"<!doctype html><html>404"), errors.ProgramInvalid, "not an ONNX model"),
    "noise": (
        lambda d: d.load_file("m.onnx", bytes(range(255, 0, -1)) * 9),
        errors.ProgramInvalid,
        "not an ONNX model",
    ),
    "first half": (lambda d: d.load_file("m.onnx", whole(d)[:90]), errors.ProgramInvalid, "truncated"),
    "last byte gone": (lambda d: d.load_file("m.onnx", whole(d)[:-1]), errors.ProgramInvalid, "truncated"),
    "bare rknn": (
        lambda d: d.load_file("m.rknn", b"RKNN"),
        errors.ProgramInvalid,
        "put it in a folder with a hetero.toml",
    ),
    "bare xclbin": (lambda d: d.load_file("m.xclbin", b"xclbin2"), errors.ProgramInvalid, "does not tell its inputs"),
    "pytorch file": (lambda d: d.load_file("m.pt", b"PK"), errors.ProgramInvalid, "export the model to ONNX"),
    "folder without manifest": (lambda d: d.runtime.load(d.folder), errors.BundleError, "has no hetero.toml"),
    "folder with a model": (
        lambda d: (MODEL(d.folder / "m.onnx"), d.runtime.load(d.folder)),
        errors.BundleError,
        "m.onnx itself",
    ),
    "no opset": (lambda d: d.load_graph(opsets=[]), errors.ProgramInvalid, "no valid opset"),
    "opset 0": (lambda d: d.load_graph(opsets=[helper.make_opsetid("", 0)]), errors.ProgramInvalid, "no valid opset"),
    "opset of the future": (
        lambda d: d.load_graph(opsets=[helper.make_opsetid("", 999)]),
        errors.AllDevicesFailed,
        "999",
    ),
    "unknown op": (lambda d: d.load_graph(node=helper.make_node("Foo", ["x"], ["y"])), errors.AllDevicesFailed, "Foo"),
    "op of an unknown domain": (
        lambda d: d.load_graph(
            node=helper.make_node("Foo", ["x"], ["y"], domain="acme"),
            opsets=[helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)],
        ),
        errors.AllDevicesFailed,
        "acme",
    ),
    "dangling edge": (
        lambda d: d.load_graph(node=helper.make_node("Relu", ["z"], ["y"])),
        errors.AllDevicesFailed,
        "z",
    ),
    "no outputs": (lambda d: d.load_graph(outputs=[]), errors.ProgramInvalid, "graph with outputs"),
    "sequence input": (
        lambda d: d.load_graph(x=helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2])),
        errors.ProgramInvalid,
        "is a sequence; only tensors",
    ),
    "unknown element type": (
        lambda d: d.load_graph(x=onnx.ValueInfoProto(name="x", type=_type(999))),
        errors.ProgramInvalid,
        "unknown element type",
    ),
    "external data upwards": (lambda d: d.load_external("../w"), errors.ProgramInvalid, "outside the model's folder"),
    "external data absolute": (lambda d: d.load_external("/etc/passwd"), errors.ProgramInvalid, "outside the model's"),
    "external data missing": (lambda d: d.load_external("w"), errors.ProgramInvalid, "not beside it"),
    "external data short": (lambda d: d.load_external("w", DATA[:9]), errors.ProgramInvalid, "truncated: 9 bytes"),
}


def _type(element: int) -> onnx.TypeProto:
    value = onnx.TypeProto()
    value.tensor_type.elem_type = element
    return value


def bundle(text: str | bytes, error: type[Exception], says: str) -> Case:
    return (lambda d: d.load_bundle(text)), error, says


SPEC = '[[output]]\nname="y"\ndtype="float32"\nshape=["batch",3]\n[[input]]\nname = "x"\n'

BUNDLES: dict[str, Case] = {
    "broken TOML": bundle("[program\n", errors.BundleError, "not valid TOML"),
    "not UTF-8": bundle(b"\xff\xfe[program]", errors.BundleError, "not valid TOML"),
    "no program table": bundle(ART, errors.BundleError, "program is missing"),
    "program is a number": bundle("program = 1\n", errors.BundleError, "program is no table"),
    "no format": bundle("[program]\n" + ART, errors.BundleError, "format is None, expected 1"),
    "format of the future": bundle("[program]\nformat = 2\n", errors.BundleError, "format is 2, expected 1"),
    "unknown top-level key": bundle("artifcat = 1\n" + HEAD, errors.BundleError, "did you mean 'artifact'"),
    "unknown program key": bundle(HEAD + "nmae = 'x'\n", errors.BundleError, "did you mean 'name'"),
    "name is a number": bundle(HEAD + "name = 3\n" + ART, errors.BundleError, "program.name is 3"),
    "negative tolerance": bundle(HEAD + "tolerance = -1\n" + ART, errors.BundleError, "tolerance is -1"),
    "unknown padding": bundle(HEAD + "padding = 'ones'\n" + ART, errors.BundleError, "padding is 'ones'"),
    "no artifacts": bundle(HEAD, errors.BundleError, "no [[artifact]]"),
    "artifact is one table": bundle(HEAD + '[artifact]\nkind="onnx"', errors.BundleError, "write [[artifact]]"),
    "artifact without kind": bundle(HEAD + '[[artifact]]\npath="m.onnx"', errors.BundleError, "kind is missing"),
    "artifact without path": bundle(HEAD + '[[artifact]]\nkind="onnx"', errors.BundleError, "path is missing"),
    "unknown artifact key": bundle(HEAD + ART + "taget = 'x'", errors.BundleError, "did you mean 'target'"),
    "artifact not there": bundle(HEAD + ART.replace("m.onnx", "n.onnx"), errors.ArtifactMissing, "'n.onnx'"),
    "artifact is a folder": bundle(HEAD + ART.replace("m.onnx", "."), errors.ArtifactMissing, "'.'"),
    "artifact outside": bundle(HEAD + ART.replace("m.onnx", "../x"), errors.BundleError, "outside the folder"),
    "artifact absolute": bundle(HEAD + ART.replace("m.onnx", "/etc/passwd"), errors.BundleError, "outside the folder"),
    "wrong sha256": bundle(HEAD + ART + f"sha256='{'0' * 64}'", errors.ProgramInvalid, "expects 0000"),
    "companion not there": bundle(HEAD + ART + "companions = {a = 'b'}", errors.ArtifactMissing, "'b'"),
    "unknown dtype": bundle(HEAD + ART + SPEC + "dtype='real'\nshape=[1]", errors.BundleError, "'real' is unknown"),
    "shape is a text": bundle(HEAD + ART + SPEC + "dtype='float32'\nshape='1x2'", errors.BundleError, "'1x2'"),
    "negative size": bundle(HEAD + ART + SPEC + "dtype='float32'\nshape=[-1,2]", errors.BundleError, "[-1, 2]"),
    "dtype unlike the model's": bundle(HEAD + ART + SPEC + "dtype='int8'\nshape=['?',2]", errors.BundleError, "fit"),
    "shape unlike the model's": bundle(HEAD + ART + SPEC + "dtype='float32'\nshape=[1,4]", errors.BundleError, "fit"),
    "name unlike the model's": bundle(
        HEAD + ART + SPEC.replace('"x"', '"z"') + "dtype='float32'\nshape=[1,2]", errors.BundleError, "inputs are ['z']"
    ),
    "output twice": bundle(
        HEAD + ART + SPEC.split("[[input]]")[0] * 2, errors.BundleError, "output 'y' is there 2 times"
    ),
    "rknn that tells nothing": bundle(
        HEAD + ART.replace('"onnx"', '"rknn"'), errors.BundleError, "[[input]] and [[output]] are needed"
    ),
    "nothing for this machine": bundle(
        HEAD + ART.replace('"onnx"', '"rknn"') + SPEC + "dtype='float32'\nshape=['?',2]",
        errors.AllDevicesFailed,
        "no artifact of kind onnx",
    ),
    "unknown kernel": bundle(HEAD + '[[artifact]]\nkind="kernel"\nname="nope"', errors.BundleError, "no kernel 'nope'"),
    "options is a list": bundle("options = []\n" + HEAD + ART, errors.BundleError, "options is no table"),
    "options of a backend is a number": bundle(HEAD + ART + "[options]\ncpu = 1", errors.BundleError, "options.cpu"),
    "unknown option in a bundle": bundle(HEAD + ART + "[options.cpu]\nthraeds = 1", errors.OptionError, "thraeds"),
}

INPUTS: dict[str, Case] = {
    "nothing": (lambda d: d.session(), errors.InputError, "got 0 inputs, expected 1"),
    "too many": (lambda d: d.session(X, X), errors.InputError, "got 2 inputs"),
    "wrong name": (lambda d: d.session({"X": X}), errors.InputError, "missing x; unknown X"),
    "float64": (lambda d: d.session(X.astype(np.float64)), errors.InputError, "array.astype(numpy.float32)"),
    "float16": (lambda d: d.session(X.astype(np.float16)), errors.InputError, "float16, expected float32"),
    "complex": (lambda d: d.session(X.astype(np.complex64)), errors.InputError, "complex64"),
    "too few dimensions": (lambda d: d.session(X[0]), errors.InputError, "add the leading dimension"),
    "too many dimensions": (lambda d: d.session(X[None]), errors.InputError, "drop the dimensions of size 1"),
    "wrong size": (lambda d: d.session(np.zeros((1, 3), np.float32)), errors.InputError, "expected [batch, 2]"),
    "None": (lambda d: d.session(None), errors.InputError, "NoneType that cannot become float32"),
    "a text": (lambda d: d.session("1, 2"), errors.InputError, "str that cannot become float32"),
    "ragged lists": (lambda d: d.session([[1, 2], [3]]), errors.InputError, "list that cannot become float32"),
    "through submit": (lambda d: d.session.submit(X[0]), errors.InputError, "expected [batch, 2]"),
    "through map": (lambda d: list(d.session.map([X, X[0]])), errors.InputError, "expected [batch, 2]"),
    "map without room": (lambda d: list(d.session.map([X], in_flight=0)), errors.OptionError, "in_flight is 0"),
    "call on an unknown device": (lambda d: d.session(X, device="tpu"), errors.OptionError, "'tpu' is none of"),
}

OPTIONS: dict[str, Case] = {
    "unknown option": (lambda d: d.option(1, "thraeds"), errors.OptionError, "did you mean 'threads'"),
    "option of a wrong type": (lambda d: d.option([2]), errors.OptionError, "expected int"),
    "number as a wrong text": (lambda d: d.option("many"), errors.OptionError, "'many', expected int"),
    "truth for a number": (lambda d: d.option(True), errors.OptionError, "expected int"),
    "zero threads": (lambda d: d.option(0), errors.OptionError, "at least 1"),
    "unknown choice": (lambda d: d.option("most", "graph_optimization"), errors.OptionError, "expected one of"),
    "text for a truth value": (lambda d: d.option("perhaps", "graph_cache"), errors.OptionError, "expected bool"),
    "options of an unknown backend": (lambda d: d.option(1, backend="tpu"), errors.OptionError, "'tpu'"),
    "options that are no mapping": (
        lambda d: d.runtime.load("attention_i8_64x64", options={"cpu": 3}),  # type: ignore[dict-item]
        errors.OptionError,
        "expected a mapping",
    ),
    "unknown device": (lambda d: d.runtime.load(MODEL(d.folder / "m.onnx"), device="tpu"), errors.OptionError, "'tpu'"),
    "unknown fallback": (
        lambda d: d.runtime.load(MODEL(d.folder / "m.onnx"), fallback="maybe"),  # type: ignore[arg-type]
        errors.OptionError,
        "'allow' or 'forbid'",
    ),
    "unknown device in the chain": (lambda d: hetero.Runtime(chain=["tpu", "cpu"]), errors.OptionError, "'tpu'"),
    "unknown machine to simulate": (lambda d: hetero.Runtime(simulate=["rk9999"]), errors.OptionError, "'rk9999'"),
    "unknown backend in the Runtime's options": (
        lambda d: hetero.Runtime(options={"tpu": {}}),
        errors.OptionError,
        "'tpu', which is not known",
    ),
    "unknown option in the Runtime's options": (
        lambda d: hetero.Runtime(options={"cpu": {"cores": 1}}),
        errors.OptionError,
        "no option 'cores'",
    ),
}

CASES = {
    f"{kind}: {name}": case
    for kind, cases in (("file", FILES), ("bundle", BUNDLES), ("input", INPUTS), ("option", OPTIONS))
    for name, case in cases.items()
}


def snapshot(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_told_clearly_and_leaves_nothing_behind(name: str, desk: Desk) -> None:
    do, error, says = CASES[name]
    cache_before = snapshot(desk.folder.parent / "cache")
    threads_before = set(threading.enumerate())
    with pytest.raises(error) as caught:
        do(desk)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert snapshot(desk.folder.parent / "cache") == cache_before
    np.testing.assert_array_equal(desk.session([[1.0, 2.0]]), [[6.0, 9.0, 12.0]])
    desk.runtime.close()
    assert set(threading.enumerate()) <= threads_before
