"""The fixed shapes that a compiler needs.

A user gives sizes by an input's name (`mel=1,80,3000`) or a dimension's (`batch=1`). A name that is given several times
makes buckets: the first of its values belongs to the first bucket, the second to the second. A name that is given once
holds in all buckets. What nobody gives has its usual size, if the program tells one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hetero.errors import OptionError
from hetero.program import Program
from hetero.tensors import TensorSpec, shape_text

#: The shape of every input, by name in the program's order.
Bucket = Mapping[str, tuple[int, ...]]
#: Names of inputs or dimensions, each with sizes; in pairs, a name may be there several times.
Given = Iterable[tuple[str, Sequence[int]]] | Mapping[str, Sequence[int]]


def buckets_of(program: Program, given: Given = ()) -> tuple[Bucket, ...]:
    """The sets of shapes to compile for, at least one, in the order given and none twice.

    Raises:
        OptionError: A name that is no input and no dimension, sizes that do not fit, different numbers of values, or a
            size that nobody gave; names what is missing and how to give it.
    """
    values = _by_name(program, given)
    count = max((len(shapes) for shapes in values.values()), default=1)
    for name, shapes in values.items():
        if len(shapes) not in (1, count):
            most = next(other for other, theirs in values.items() if len(theirs) == count)
            raise OptionError(
                f"--shape: {name!r} is given {len(shapes)} times and {most!r} {count} times",
                fix="give each name once, or once for each bucket",
            )
    buckets = [
        _bucket(program, {name: shapes[min(place, len(shapes) - 1)] for name, shapes in values.items()})
        for place in range(count)
    ]
    unique: list[Bucket] = []
    for bucket in buckets:
        if bucket not in unique:
            unique.append(bucket)
    return tuple(unique)


def _by_name(program: Program, given: Given) -> dict[str, list[tuple[int, ...]]]:
    inputs = {spec.name for spec in program.inputs}
    dims = sorted({dim for spec in program.inputs for dim in spec.shape or () if isinstance(dim, str)} - inputs)
    known = f"inputs: {', '.join(map(str, program.inputs))}" + (f"; dimensions: {', '.join(dims)}" if dims else "")
    values: dict[str, list[tuple[int, ...]]] = {}
    for name, sizes in given.items() if isinstance(given, Mapping) else given:
        shape = tuple(sizes)
        if name not in inputs and name not in dims:
            raise OptionError(f"--shape: {program.name!r} has no input or dimension {name!r}", fix=known)
        if any(type(size) is not int or size < 1 for size in shape):
            raise OptionError(f"--shape: {name}={list(shape)!r} is no shape, expected sizes of 1 or more")
        if name not in inputs and len(shape) != 1:
            raise OptionError(f"--shape: {name!r} is one dimension, {list(shape)} is not one size", fix=known)
        values.setdefault(name, []).append(shape)
    return values


def _bucket(program: Program, values: Mapping[str, tuple[int, ...]]) -> Bucket:
    dims: dict[str, int] = {}
    for spec in program.inputs:
        shape = values.get(spec.name)
        if shape is None:
            continue
        if spec.shape is not None and (
            len(shape) != len(spec.shape)
            or any(type(dim) is int and dim != size for dim, size in zip(spec.shape, shape, strict=True))
        ):
            raise OptionError(f"--shape: {spec.name} is {shape_text(spec.shape)}, {shape_text(shape)} does not fit")
        for dim, size in zip(spec.shape or (), shape, strict=False):
            if isinstance(dim, str) and dims.setdefault(dim, size) != size:
                raise OptionError(f"--shape: the dimension {dim!r} gets two sizes, {dims[dim]} and {size}")
    inputs = {spec.name for spec in program.inputs}
    for name, shape in values.items():
        if name not in inputs and dims.setdefault(name, shape[0]) != shape[0]:
            raise OptionError(f"--shape: the dimension {name!r} gets two sizes, {dims[name]} and {shape[0]}")
    dims = {**program.sizes, **dims}
    return {spec.name: values.get(spec.name) or _fixed(program, spec, dims) for spec in program.inputs}


def _fixed(program: Program, spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    shape = [dims.get(dim) if isinstance(dim, str) else dim for dim in spec.shape or ()]
    fixed = tuple(size for size in shape if size is not None)
    if spec.shape is None or len(fixed) < len(shape):
        example = ",".join("N" if size is None else str(size) for size in shape) or "SIZE,SIZE,..."
        raise OptionError(
            f"{program.name!r} takes {spec}, and compilers need fixed sizes",
            fix=f"give the sizes that you will use: --shape {spec.name}={example}; several times for buckets",
        )
    return fixed
