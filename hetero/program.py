"""What to run, independent of a device: named inputs and outputs, and the artifacts that backends load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hetero.cache import key_of, sha256_of
from hetero.errors import Unsupported
from hetero.tensors import Signature, TensorSpec

LENGTHS = (1, 16, 256, 1024)
"""Sizes of dimensions of which nothing is known, to be tried one after the other: a model may refuse the shortest."""


@dataclass(frozen=True)
class Artifact:
    """One form of a program that some backend can load.

    Attributes:
        kind: `onnx`, `rknn`, `xclbin`, `kernel`, or what a plugin calls its own.
        path: The file, for kinds that are files; checked to exist.
        target: What it was built for where that matters: a SoC (`rk3588`), a device generation (`npu1`).
        name: The kernel's name, for `kind="kernel"`.
        companions: Further files it needs, by role: `{"instructions": Path(...)}`.
        payload: An object in memory in place of a file (a kernel's specification).
        shapes: The fixed shape of every input by name, of an artifact that takes no others; empty where it takes all
            that the program does, or nobody says.
        report: A JSON file with what compiling it found out (`hetero.compiling.report.CompileReport`).
    """

    kind: str
    path: Path | None = None
    target: str | None = None
    name: str | None = None
    companions: Mapping[str, Path] = field(default_factory=dict)
    payload: Any = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    report: Path | None = None

    def takes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether it runs inputs of these shapes, as far as it is known."""
        return not self.shapes or all(self.shapes.get(name) == shape for name, shape in shapes.items())

    @property
    def file(self) -> Path:
        """The path, for kinds that are files."""
        if self.path is None:
            raise Unsupported(f"the {self.kind} artifact has no file")
        return self.path

    @cached_property
    def digest(self) -> str:
        """Changes when the content does; keys of caches are made of it.

        For an ONNX model with external data the weights' files count by size and modification time.
        """
        if self.path is None:
            return key_of(self.kind, self.name or "")
        parts = [self.kind, self.target or "", sha256_of(self.path)]
        for role, path in sorted(self.companions.items()):
            stat = path.stat()
            parts += [role, str(stat.st_size), str(stat.st_mtime_ns)]
        return key_of(*parts)


@dataclass(frozen=True)
class Program:
    """Named inputs and outputs, and the artifacts that carry them out.

    Attributes:
        name: For people, records and error messages.
        inputs: In the order in which positional arguments are given.
        outputs: In the order in which results are given.
        artifacts: At least one.
        options: Defaults for backends' options that the program brings along: `{"rknn": {"core_mask": "auto"}}`.
        padding: How a batch that is not full is filled up for executables that take full ones only: `none`, `zeros`, or
            `repeat` (the last row).
        tolerance: How far a device's answer may be from the reference's and still count as right, as a share of the
            largest number in the output; None for the usual.
        sizes: Usual sizes of symbolic dimensions, for devices that take fixed shapes only: `{"frames": 3000}`.
        source: The path or name it was opened from.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    artifacts: tuple[Artifact, ...]
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    padding: Literal["none", "zeros", "repeat"] = "none"
    tolerance: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def signature(self) -> Signature:
        """The check of a call's inputs and outputs."""
        return Signature(self.inputs, self.outputs)

    @cached_property
    def identity(self) -> str:
        """Changes when the program is another one; files count by size and modification time, which is cheap to ask."""
        parts = [self.name, *map(str, self.inputs), *map(str, self.outputs)]
        for artifact in self.artifacts:
            stat = artifact.path.stat() if artifact.path is not None and artifact.path.is_file() else None
            parts += [artifact.kind, artifact.target or "", artifact.name or ""]
            parts += [f"{stat.st_size}:{stat.st_mtime_ns}"] if stat else []
        return key_of(*parts)

    def artifact(self, kind: str, target: str | None = None) -> Artifact:
        """The artifact of that kind (and target, when given).

        Raises:
            Unsupported: There is none; says which there are.
        """
        for artifact in self.artifacts:
            if artifact.kind == kind and target in (None, artifact.target):
                return artifact
        wanted = f"{kind} for {target}" if target else kind
        raise Unsupported(f"{self.name!r} has no artifact of kind {wanted}; it has {_kinds(self.artifacts)}")

    def usual_shapes(self, sizes: Mapping[str, int] | None = None, other: int = 1) -> dict[str, tuple[int, ...]]:
        """The shapes that the inputs usually have, by name.

        Args:
            sizes: Of symbolic dimensions that have no usual size.
            other: Of dimensions of which nothing is known, but for the first of several, along which the items are: 1.

        Raises:
            Unsupported: An input's rank is unknown.
        """
        known = {**(sizes or {}), **self.sizes}
        shapes = {}
        for spec in self.inputs:
            if spec.shape is None:
                raise Unsupported(f"the input {spec.name!r} of {self.name!r} has no known rank")
            items = len(spec.shape) > 1
            shapes[spec.name] = tuple(
                dim if isinstance(dim, int) else known.get(dim or "", 1 if items and not axis else other)
                for axis, dim in enumerate(spec.shape)
            )
        return shapes

    def shapes_to_try(self, sizes: Mapping[str, int] | None = None) -> Iterator[dict[str, tuple[int, ...]]]:
        """The usual shapes; then longer ones, where nothing is known of lengths, and a model may refuse 1.

        Args:
            sizes: As of `usual_shapes`, which tells the errors too.
        """
        before: dict[str, tuple[int, ...]] = {}
        for other in LENGTHS:
            shapes = self.usual_shapes(sizes, other)
            if shapes != before:
                yield shapes
            before = shapes

    def artifacts_of(self, kind: str, target: str | None = None) -> tuple[Artifact, ...]:
        """All artifacts of that kind (and target, when given): one for each set of shapes that it was compiled for.

        A backend chooses by the shapes of a request: `next(a for a in ... if a.takes(shapes))`.
        """
        return tuple(a for a in self.artifacts if a.kind == kind and target in (None, a.target))


def _kinds(artifacts: Sequence[Artifact]) -> str:
    return ", ".join(f"{a.kind} for {a.target}" if a.target else a.kind for a in artifacts) or "none"
