"""Opening programs: an `.onnx` file, a bundle (a folder with a `hetero.toml`), or a name that a plugin knows.

The format of `hetero.toml`, version 1::

    [program]
    format = 1
    name = "denoiser"                # optional; the folder's name by default
    tolerance = 0.02                 # optional: by how much devices may differ, as a share of the largest number
    padding = "zeros"                # optional: how a batch that is not full is filled up: "none", "zeros", "repeat"

    [[artifact]]                     # one or more, each a form that some backend can load
    kind = "onnx"                    # "onnx", "rknn", "xclbin", "kernel", or a plugin's own
    path = "denoiser.onnx"           # in the bundle's folder; for kind "kernel", `name` stands instead
    target = "rk3588"                # optional: what it was built for
    sha256 = "..."                   # optional: checked when the bundle is opened
    companions = { instructions = "denoiser.insts.bin" }    # optional: further files by role
    shapes = { noisy = [1, 16000] }  # optional: the fixed shapes that it was compiled for, of every input
    report = "denoiser.rk3588.json"  # optional: what `hetero compile` found out about it

    [[input]]                        # inputs and outputs; may be left out when an onnx artifact tells them
    name = "noisy"
    dtype = "float32"
    shape = ["batch", 16000]         # an integer, a name, or "?" for any size

    [[output]]
    name = "clean"
    dtype = "float32"
    shape = ["batch", 16000]

    [options.rknn]                   # optional: defaults for backends' options
    core_mask = "auto"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hetero.cache import sha256_of
from hetero.errors import BundleError, ProgramInvalid, ProgramNotFound
from hetero.onnx_file import open_onnx
from hetero.program import Artifact, Program
from hetero.tensors import Dim, TensorSpec
from hetero.toml_checks import TomlChecks, read_toml

MANIFEST = "hetero.toml"
FORMAT = 1

Source = str | os.PathLike[str] | Program


def open_program(
    source: Source,
    find: Callable[[str], Program | None] = lambda name: None,
    names: Callable[[], Iterable[str]] = lambda: (),
) -> Program:
    """What `Runtime.load` was asked to run.

    Args:
        source: A path to an `.onnx` file or to a bundle, a name, or a Program, which is returned as it is.
        find: The program of a name, or None.
        names: The names that `find` knows, for the error message.

    Raises:
        ProgramNotFound: Nothing is there under that path or name.
        ProgramError: Something is, and it cannot be used; the subclass and the message say why.
    """
    if isinstance(source, Program):
        return source
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise ProgramNotFound(f"cannot load {source!r}: expected a path, a name or a Program")
    text = os.fspath(source)
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return open_bundle(path, find)
        if path.is_file():
            return open_bundle(path.parent, find) if path.name == MANIFEST else _open_file(path)
    except PermissionError as error:
        raise ProgramInvalid(f"{path} cannot be read: {error.strerror}", fix="check the file's permissions") from None
    program = find(text)
    if program is not None:
        return program
    raise ProgramNotFound(f"there is no file, folder or program {text!r}", fix=_instead_of(text, path, sorted(names())))


def _instead_of(text: str, path: Path, known: Sequence[str]) -> str:
    """What a user may have meant, who named what is not there."""
    import difflib

    near = difflib.get_close_matches(text, known, n=3)
    if not near and path.parent.is_dir() and os.access(path.parent, os.R_OK | os.X_OK):
        beside = {each.stem: each for each in path.parent.iterdir() if each.suffix == ".onnx" or _is_bundle(each)}
        near = [str(beside[stem]) for stem in difflib.get_close_matches(path.stem, beside, n=3)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    names = ", or one of the names that `hetero models` lists" if known else ""
    return f"give a path to an .onnx file or a bundle folder{names}"


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _open_file(path: Path) -> Program:
    if path.suffix.lower() == ".onnx":
        return open_onnx(path)
    if path.suffix.lower() in (".rknn", ".xclbin"):
        raise ProgramInvalid(
            f"{path} is built for one device and does not tell its inputs",
            fix=f"put it in a folder with a {MANIFEST} that names its inputs and outputs (docs: bundles)",
        )
    raise ProgramInvalid(
        f"{path} is not a program: expected an .onnx file or a folder with a {MANIFEST}",
        fix="export the model to ONNX",
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """The content of a bundle's `hetero.toml`, unchecked.

    Raises:
        BundleError: There is none, or it is not TOML.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        models = sorted(file.name for file in folder.glob("*.onnx"))
        hint = f"load {folder / models[0]} itself" if models else f"add a {MANIFEST} (docs: bundles)"
        raise BundleError(f"the folder {folder} has no {MANIFEST}", fix=hint)
    return read_toml(manifest)


def open_bundle(folder: Path, find: Callable[[str], Program | None] = lambda name: None) -> Program:
    """The program in a bundle.

    Args:
        folder: The folder that holds the `hetero.toml`.
        find: The program of a kernel's name, or None.

    Raises:
        BundleError: There is no `hetero.toml`, or it breaks the format; the message names the key.
        ArtifactMissing: A file that it names is not there.
        ProgramInvalid: A file that it names is not what it says.
    """
    return _Manifest(folder / MANIFEST, read_manifest(folder), find).program()


class _Manifest(TomlChecks):
    """The content of one `hetero.toml`."""

    docs = "bundles"

    def __init__(self, path: Path, content: Mapping[str, Any], find: Callable[[str], Program | None]) -> None:
        super().__init__(path, content)
        self._find = find

    def program(self) -> Program:
        self.keys("the top level", self.content, {"program", "artifact", "input", "output", "options", "sizes"})
        head = self.table("program", self.content.get("program"))
        self.keys("[program]", head, {"format", "name", "description", "padding", "tolerance"})
        if head.get("format") != FORMAT:
            raise self.wrong(
                f"program.format is {head.get('format')!r}, expected {FORMAT}",
                fix="upgrade hetero, or write the bundle in the format of docs: bundles",
            )
        name = self.text("program.name", head.get("name", self.folder.resolve().name))
        programs = [self._opened(f"artifact {i}", entry, name) for i, entry in enumerate(self.tables("artifact"), 1)]
        if not programs:
            raise self.wrong("there is no [[artifact]]", fix="name at least one file that a backend can load")
        inputs, outputs = self._specs("input"), self._specs("output")
        for told in programs:
            if told.inputs or told.outputs:
                self._agree("input", inputs, told.inputs)
                self._agree("output", outputs, told.outputs)
                inputs, outputs = inputs or told.inputs, outputs or told.outputs
        if not outputs:
            raise self.wrong("[[input]] and [[output]] are needed, since no onnx artifact or kernel tells them")
        artifacts = tuple(told.artifacts[0] for told in programs)
        for place, artifact in enumerate(artifacts, 1):
            self._check_shapes(f"artifact {place}: shapes", artifact, inputs)
        padding = head.get("padding", "none")
        if padding not in ("none", "zeros", "repeat"):
            raise self.wrong(f"program.padding is {padding!r}, expected 'none', 'zeros' or 'repeat'")
        tolerance = head.get("tolerance")
        if tolerance is not None and (type(tolerance) not in (int, float) or not tolerance > 0):
            raise self.wrong(f"program.tolerance is {tolerance!r}, expected a number above 0")
        options = self.table("options", self.content.get("options", {}))
        for backend, values in options.items():
            self.table(f"options.{backend}", values)
        return Program(
            name,
            inputs,
            outputs,
            artifacts,
            options=options,
            padding=padding,
            tolerance=tolerance,
            sizes=self._sizes(inputs),
            source=str(self.folder),
        )

    def _sizes(self, inputs: tuple[TensorSpec, ...]) -> Mapping[str, int]:
        sizes = self.table("sizes", self.content.get("sizes", {}))
        dims = {dim for spec in inputs for dim in spec.shape or () if isinstance(dim, str)}
        for name, size in sizes.items():
            if name not in dims:
                raise self.wrong(
                    f"sizes.{name} is no dimension of an input", fix=f"there are: {', '.join(sorted(dims))}"
                )
            if type(size) is not int or size < 1:
                raise self.wrong(f"sizes.{name} is {size!r}, expected a size of 1 or more")
        return sizes

    def _opened(self, where: str, entry: Mapping[str, Any], name: str) -> Program:
        """One artifact as a program, with inputs and outputs where its kind tells them."""
        self.keys(where, entry, {"kind", "path", "name", "target", "sha256", "companions", "shapes", "report"})
        kind = self.text(f"{where}: kind", entry.get("kind"))
        if kind == "kernel":
            kernel = self.text(f"{where}: name", entry.get("name"))
            found = self._find(kernel)
            if found is None:
                raise self.wrong(f"{where}: there is no kernel {kernel!r}", fix="`hetero models` lists the names")
            return found
        target = self.text(f"{where}: target", entry["target"]) if "target" in entry else None
        companions = self.table(f"{where}: companions", entry.get("companions", {}))
        files = {role: self.file(f"{where}: companions.{role}", file) for role, file in companions.items()}
        path = self.file(f"{where}: path", entry.get("path"))
        if "sha256" in entry:
            expected, found_sum = self.text(f"{where}: sha256", entry["sha256"]).lower(), sha256_of(path)
            if expected != found_sum:
                raise ProgramInvalid(
                    f"{path} has sha256 {found_sum}, {self.path} expects {expected}",
                    fix="the file was changed or damaged: make or download the bundle again",
                )
        if kind == "onnx":
            return open_onnx(path, name)
        shapes = {
            name: self._shape(f"{where}: shapes.{name}", shape)
            for name, shape in self.table(f"{where}: shapes", entry.get("shapes", {})).items()
        }
        report = self.file(f"{where}: report", entry["report"]) if "report" in entry else None
        artifact = Artifact(kind, path=path, target=target, companions=files, shapes=shapes, report=report)
        return Program(name, (), (), (artifact,))

    def _shape(self, where: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(type(size) is int and size > 0 for size in value):
            raise self.wrong(f"{where} is {value!r}, expected a list of sizes")
        return tuple(value)

    def _check_shapes(self, where: str, artifact: Artifact, inputs: tuple[TensorSpec, ...]) -> None:
        """Fixed shapes are of every input, and such as the input may have."""
        if not artifact.shapes:
            return
        if artifact.shapes.keys() != {spec.name for spec in inputs}:
            raise self.wrong(f"{where} are of {sorted(artifact.shapes)}, the inputs are {[s.name for s in inputs]}")
        for spec in inputs:
            shape = artifact.shapes[spec.name]
            if spec.shape is not None and (
                len(shape) != len(spec.shape)
                or any(type(dim) is int and dim != size for dim, size in zip(spec.shape, shape, strict=True))
            ):
                raise self.wrong(f"{where}.{spec.name} is {list(shape)}, which does not fit {spec}")

    def _specs(self, kind: str) -> tuple[TensorSpec, ...]:
        specs = tuple(self._spec(f"{kind} {i}", entry) for i, entry in enumerate(self.tables(kind), 1))
        self.unique(kind, [spec.name for spec in specs])
        return specs

    def _spec(self, where: str, entry: Mapping[str, Any]) -> TensorSpec:
        self.keys(where, entry, {"name", "dtype", "shape"})
        try:
            dtype = np.dtype(self.text(f"{where}: dtype", entry.get("dtype")))
        except TypeError:
            raise self.wrong(
                f"{where}: dtype {entry.get('dtype')!r} is unknown", fix='use a numpy name: "float32", "int8"'
            ) from None
        shape = entry.get("shape")
        if not isinstance(shape, list) or not all(_is_dim(dim) for dim in shape):
            raise self.wrong(f'{where}: shape is {shape!r}, expected a list of sizes, names or "?"')
        dims: tuple[Dim, ...] = tuple(None if dim == "?" else dim for dim in shape)
        return TensorSpec(self.text(f"{where}: name", entry.get("name")), dtype, dims)

    def _agree(self, kind: str, written: tuple[TensorSpec, ...], told: tuple[TensorSpec, ...]) -> None:
        """What the manifest says must be what the ONNX artifact has; a fixed size for a free one is allowed."""
        if not written:
            return
        if [spec.name for spec in written] != [spec.name for spec in told]:
            raise self.wrong(
                f"{kind}s are {[s.name for s in written]}, but the onnx artifact has {[s.name for s in told]}"
            )
        for mine, theirs in zip(written, told, strict=True):
            sizes = (
                theirs.shape is None
                or mine.shape is None
                or (
                    len(mine.shape) == len(theirs.shape)
                    and all(a == b or not isinstance(b, int) for a, b in zip(mine.shape, theirs.shape, strict=True))
                )
            )
            if mine.dtype != theirs.dtype or not sizes:
                raise self.wrong(f"{kind} {mine} does not fit the onnx artifact's {theirs}")


def _is_dim(dim: Any) -> bool:
    return (isinstance(dim, str) and bool(dim)) or (type(dim) is int and dim >= 0)
