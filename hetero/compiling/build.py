"""From an ONNX model to a bundle with compiled artifacts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hetero.backend import Backend
from hetero.compiling.bundling import Find, check_place, write_bundle
from hetero.compiling.report import MIN_COSINE, CompileReport, CompileRequest, Progress, Sample
from hetero.compiling.samples import Source, evenly, read_samples
from hetero.compiling.shapes import Bucket, Given, buckets_of
from hetero.compiling.store import Entry, Store
from hetero.compiling.targets import backends_for
from hetero.errors import CompileError, InputError, OptionError, ProgramError, Unsupported
from hetero.options import check_options
from hetero.program import Program
from hetero.scheduler.canary import canary_inputs
from hetero.tensors import shape_text

#: How many samples of the calibration data are compared; a simulator takes seconds for each.
MOST_CHECKS = 4


@dataclass(frozen=True)
class Compiled:
    """What `Runtime.compile` made.

    Attributes:
        bundle: The folder, ready to be loaded.
        reports: One for each target and bucket.
        kept: Of each report, whether its artifact was in the cache already.
    """

    bundle: Path
    reports: tuple[CompileReport, ...]
    kept: tuple[bool, ...]


@dataclass(frozen=True)
class Settings:
    """How to compile; see `Runtime.compile`."""

    shapes: Given = ()
    int8: bool = False
    calibration: Source | Iterable[Source] = ()
    check: Source | Iterable[Source] = ()
    min_cosine: float = MIN_COSINE
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    force: bool = False
    anew: bool = False


def compile_program(
    program: Program,
    targets: Sequence[str],
    out: Path | None,
    settings: Settings,
    *,
    backends: Mapping[str, Backend],
    cache: Path,
    find: Find = lambda name: None,
    progress: Progress = lambda stage, done: None,
) -> Compiled:
    """See `Runtime.compile`.

    Args:
        program: What to compile.
        targets: For what.
        out: The bundle.
        settings: How.
        backends: By name.
        cache: hetero's cache folder.
        find: The program of a kernel's name, for bundles that name one.
        progress: Told about each stage.
    """
    chosen = backends_for(targets, backends)
    _check_model(program)
    if not 0 <= settings.min_cosine <= 1:
        raise OptionError(f"min_cosine is {settings.min_cosine!r}, expected 0 to 1")
    options = _options(settings.options, backends, chosen)
    folder = out if out is not None else Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '-', program.name)}.hetero")
    check_place(folder, program, find)
    data = _Data.read(program, buckets_of(program, settings.shapes), settings)
    requests = [
        (chosen[target], data.request(program, target, place, settings, options[chosen[target].name]))
        for target in chosen
        for place in range(len(data.buckets))
    ]
    store = Store(cache)
    entries = []
    for place, (backend, request) in enumerate(requests):
        entries.append(_build(store, backend, request, data, settings, _staged(progress, requests, place)))
    if not settings.force:
        _refuse_poor(entries, settings.min_cosine, program)
    progress("write the bundle", 1.0)
    write_bundle(folder, program, entries, find)
    return Compiled(folder, tuple(entry.report for entry in entries), tuple(entry.kept for entry in entries))


@dataclass(frozen=True)
class _Data:
    """The buckets, and the samples of each.

    Attributes:
        buckets: Shapes to compile for.
        calibration: Samples to quantise by.
        checks: Samples to compare on.
        sampled: What those are.
    """

    buckets: tuple[Bucket, ...]
    calibration: list[list[Sample]]
    checks: list[list[Sample]]
    sampled: str

    @classmethod
    def read(cls, program: Program, buckets: tuple[Bucket, ...], settings: Settings) -> _Data:
        given, check = _sources(settings.calibration), _sources(settings.check)
        if settings.int8 and not given:
            from hetero.whisper.calibration import takes_mel

            speech = ", or recordings of speech" if takes_mel(program) else ""
            raise InputError(
                "int8 needs calibration data: typical inputs, from which the ranges of all numbers are learned",
                fix=f"--calibration FOLDER with 20 or more .npy or .npz files{speech} (docs: compile)",
            )
        calibration = read_samples(program, buckets, given) if given else [[] for _ in buckets]
        if check:
            return cls(buckets, calibration, read_samples(program, buckets, check), "check data")
        if given:
            return cls(buckets, calibration, [evenly(own, MOST_CHECKS) for own in calibration], "calibration data")
        return cls(buckets, calibration, [[_random(program, bucket)] for bucket in buckets], "random inputs")

    def request(
        self, program: Program, target: str, place: int, settings: Settings, options: Mapping[str, Any]
    ) -> CompileRequest:
        return CompileRequest(
            program=program,
            target=target,
            shapes=self.buckets[place],
            int8=settings.int8,
            calibration=self.calibration[place] if settings.int8 else [],
            checks=self.checks[place],
            min_cosine=settings.min_cosine,
            options=options,
        )


def _sources(given: Source | Iterable[Source]) -> list[Source]:
    """One source is as good as a list of one."""
    if isinstance(given, str | os.PathLike | Mapping):
        return [given]
    return list(given)


def _check_model(program: Program) -> None:
    try:
        program.artifact("onnx")
    except Unsupported as error:
        raise ProgramError(f"only ONNX models can be compiled: {error.problem}", fix="export it to ONNX") from None
    texts = [spec.name for spec in (*program.inputs, *program.outputs) if spec.dtype == object]
    if texts:
        raise ProgramError(f"{program.name!r} has texts ({', '.join(texts)}), which no compiler takes")
    if not program.inputs:
        raise ProgramError(f"{program.name!r} has no inputs: there is nothing to compile")


def _options(
    given: Mapping[str, Mapping[str, Any]], backends: Mapping[str, Backend], chosen: Mapping[str, Backend]
) -> dict[str, dict[str, Any]]:
    """A value for every compile option of each backend that is used."""
    for name in given:
        if name not in backends:
            raise OptionError(f"options are given for the backend {name!r}, which is not known here")
    return {
        backend.name: check_options(backend.name, backend.compile_options, given.get(backend.name, {}))
        for backend in chosen.values()
    }


def _random(program: Program, bucket: Bucket) -> Sample:
    specs = tuple(replace(spec, shape=bucket[spec.name]) for spec in program.inputs)
    sample = canary_inputs(replace(program, inputs=specs))
    if sample is None:
        raise AssertionError("every shape is fixed")
    return sample


def _staged(progress: Progress, requests: Sequence[tuple[Backend, CompileRequest]], place: int) -> Progress:
    """Progress of one request as a part of all."""
    _, request = requests[place]
    shapes = {shape_text(shape) for shape in request.shapes.values()}
    what = request.target + (f" {' '.join(sorted(shapes))}" if len({str(r.shapes) for _, r in requests}) > 1 else "")

    def tell(stage: str, done: float) -> None:
        progress(f"{what}: {stage}", (place + done) / len(requests))

    return tell


def _build(
    store: Store, backend: Backend, request: CompileRequest, data: _Data, settings: Settings, progress: Progress
) -> Entry:
    def compile_into(folder: Path) -> CompileReport:
        report = replace(backend.compile(request, folder, progress), sampled=data.sampled)
        if report.target != request.target or not (folder / report.file).is_file():
            raise CompileError(
                f"the backend {backend.name!r} told of {report.file!r} for {report.target}, which is not there or not "
                f"what was asked for"
            )
        return report

    progress("look in the cache", 0.0)
    return store.get(request, backend.compiler(request.options), compile_into, anew=settings.anew)


def _refuse_poor(entries: Sequence[Entry], least: float, program: Program) -> None:
    poor = [entry.report for entry in entries if not entry.report.reaches(least)]
    if not poor:
        return
    lines = []
    for report in poor:
        for output in report.outputs:
            if not output.cosine >= least:
                lines.append(f"{report.target} ({report.precision}): {output.name} has cosine {output.cosine:.5f}")
        lines += [
            f"  loses most: {loss.layer}, alone to {loss.own:.5f}, so far {loss.so_far:.5f}" for loss in report.layers
        ]
    fine = [entry.report.target for entry in entries if entry.report.reaches(least)]
    int8 = any(report.precision == "int8" for report in poor)
    raise CompileError(
        f"{program.name!r} as compiled is too far from ONNX Runtime, {least:g} is asked for (on {poor[0].sampled}):\n  "
        + "\n  ".join(lines)
        + (f"\n  good enough: {', '.join(dict.fromkeys(fine))}" if fine else ""),
        fix=("more typical calibration data, without --int8, " if int8 else "look for values beyond 65504 (fp16), ")
        + "another --min-cosine, or --force to take it as it is; nothing was written",
    )
