"""Calibration data: typical inputs, read from files and refused where they do not fit, before a compiler sees them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hetero.array_files import load_arrays
from hetero.compiling.report import Sample
from hetero.compiling.shapes import Bucket
from hetero.errors import AudioError, InputError
from hetero.program import Program
from hetero.tensors import Array, TensorSpec, shape_text

#: Files and folders with samples, or samples themselves.
Source = str | os.PathLike[str] | Sample

_MOST_REPORTED = 10


def read_samples(program: Program, buckets: Sequence[Bucket], sources: Iterable[Source]) -> list[list[Sample]]:
    """The samples of each bucket.

    An `.npz` holds one sample, an array by each input's name. An `.npy` holds one of a program with one input, or
    several of them along a first dimension. A recording gives the windows of a Whisper encoder. A folder stands for all
    of these in it.

    Returns:
        A list for each bucket: the samples whose shapes are the bucket's.

    Raises:
        InputError: Files that cannot be read or do not fit, each with its reason; a folder without any; a bucket
            without a sample.
    """
    found: list[list[Sample]] = [[] for _ in buckets]
    problems: list[str] = []
    given = 0
    for source in _each(program, sources):
        given += 1
        where = source.name if isinstance(source, Path) else f"sample {given}"
        try:
            for place, sample in _samples_of(program, buckets, source, where):
                found[place].append(sample)
        except (InputError, AudioError) as error:
            problems.append(f"{where}: {error.problem.removeprefix(where).lstrip(': ')}")
    if problems:
        shown = problems[:_MOST_REPORTED]
        more = [f"and {len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
        raise InputError(
            f"{len(problems)} of {given} calibration samples cannot be used:\n  " + "\n  ".join([*shown, *more]),
            fix=_how(program, buckets),
        )
    for bucket, samples in zip(buckets, found, strict=True):
        if not samples:
            raise InputError(
                f"there is no calibration sample of the shape {_bucket_text(bucket)}", fix=_how(program, buckets)
            )
    return found


def digest_of(samples: Iterable[Sample]) -> str:
    """Changes when a name, a shape or a value does."""
    digest = hashlib.sha256()
    for sample in samples:
        for name, array in sample.items():
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def evenly(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many of them, spread over all."""
    places = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int))
    return [samples[place] for place in places]


def _each(program: Program, sources: Iterable[Source]) -> Iterator[Path | Sample]:
    """Every file and every sample; folders are looked through."""
    for source in sources:
        if not isinstance(source, str | os.PathLike):
            yield source
            continue
        path = Path(source).expanduser()
        if not path.is_dir():
            yield path
            continue
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in _suffixes(program))
        if not files:
            raise InputError(
                f"the folder {path} holds no calibration data: no {', '.join(sorted(_suffixes(program)))} file",
                fix=_how(program, ()),
            )
        yield from files


def _suffixes(program: Program) -> frozenset[str]:
    from hetero.whisper.calibration import SUFFIXES, takes_mel

    return frozenset({".npy", ".npz"}) | (SUFFIXES if takes_mel(program) else frozenset())


def _samples_of(
    program: Program, buckets: Sequence[Bucket], source: Path | Sample, where: str
) -> Iterator[tuple[int, Sample]]:
    """The samples in one source, each with its bucket's place."""
    if not isinstance(source, Path):
        arrays = {name: np.asarray(array) for name, array in source.items()}
    elif source.suffix.lower() not in (".npy", ".npz") and source.suffix.lower() in _suffixes(program):
        yield from _windows(program, buckets, source)
        return
    else:
        arrays = load_arrays(source, where)
    names = [spec.name for spec in program.inputs]
    if "" in arrays:
        if len(names) != 1:
            raise InputError(
                f"one array for {len(names)} inputs ({', '.join(names)}); expected an .npz with each by name"
            )
        arrays = {names[0]: arrays[""]}
    if sorted(arrays) != sorted(names):
        raise InputError(f"holds {', '.join(sorted(arrays)) or 'nothing'}, expected {', '.join(names)}")
    for spec in program.inputs:
        _check(spec, arrays[spec.name])
    sample = {name: arrays[name] for name in names}
    shapes = {name: array.shape for name, array in sample.items()}
    if shapes in buckets:
        yield buckets.index(shapes), _contiguous(sample)
        return
    if len(names) == 1:
        place = _stacked(buckets, names[0], shapes[names[0]])
        if place is not None:
            shape = buckets[place][names[0]]
            for part in sample[names[0]]:
                yield place, _contiguous({names[0]: part.reshape(shape)})
            return
    expected = " or ".join(_bucket_text(bucket) for bucket in buckets)
    raise InputError(f"has the shape {_bucket_text(shapes)}, expected {expected}")


def _stacked(buckets: Sequence[Bucket], name: str, shape: tuple[int, ...]) -> int | None:
    """The bucket that several samples in one array belong to: [n, 1, 80, 3000] or [n, 80, 3000] to [1, 80, 3000]."""
    for place, bucket in enumerate(buckets):
        one = bucket[name]
        if shape and shape[0] > 0 and (shape[1:] == one or (one[:1] == (1,) and shape[1:] == one[1:])):
            return place
    return None


def _windows(program: Program, buckets: Sequence[Bucket], path: Path) -> Iterator[tuple[int, Sample]]:
    from hetero.whisper.calibration import mel_windows
    from hetero.whisper.windows import FRAMES

    for place, bucket in enumerate(buckets):
        batch, bands, frames = bucket["mel"]
        if batch != 1 or frames > FRAMES:
            raise InputError(f"recordings give samples of [1, {bands}, at most {FRAMES}], not {_bucket_text(bucket)}")
        for mel in mel_windows(path, bands, frames):
            yield place, {"mel": mel}


def _check(spec: TensorSpec, array: Array) -> None:
    if array.dtype != spec.dtype:
        hint = f"; convert it: array.astype(numpy.{spec.dtype})" if array.dtype.kind in "fiub" else ""
        raise InputError(f"{spec.name} has dtype {array.dtype}, expected {spec.dtype}{hint}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{spec.name} holds NaN or infinity")


def _contiguous(sample: Sample) -> Sample:
    return {name: np.require(array, requirements="C") for name, array in sample.items()}


def _bucket_text(shapes: Bucket) -> str:
    return ", ".join(f"{name}: {shape_text(shape)}" for name, shape in shapes.items())


def _how(program: Program, buckets: Sequence[Bucket]) -> str:
    from hetero.whisper.calibration import takes_mel

    specs = ", ".join(map(str, program.inputs))
    if len(program.inputs) == 1:
        form = f"numpy.save one array of {specs} to each file"
    else:
        form = f"numpy.savez the inputs of one call to each file: {specs}"
    sizes = f" in the shape {_bucket_text(buckets[0])}" if buckets else ""
    return form + sizes + ("; or give recordings of speech" if takes_mel(program) else "")
