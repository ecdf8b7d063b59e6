"""The inputs of a program from the command line: `--input NAME=VALUE`, `--shape`, `--seed`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from hetero.array_files import load_arrays
from hetero.errors import InputError, OptionError
from hetero.program import Program
from hetero.tensors import Array, TensorSpec, shape_text

_GENERATED = ("random", "zeros", "ones")
_WORDS = {"true": True, "false": False}

_INPUT = """NAME=VALUE: a FILE.npy or FILE.npz, random, zeros, ones, numbers as 1,2,3 or a JSON list. Without NAME: an
.npz with all inputs, or random, zeros or ones for every input without a value of its own. May be repeated."""

_SHAPE = """INPUT=1x80x3000, or DIMENSION=4 for a free dimension, where a value is random, zeros or ones. Sizes that are
not given are the program's usual ones, else 1. May be repeated."""

Command = TypeVar("Command", bound=Callable[..., Any])
Pairs = tuple[tuple[str, str], ...]


def parse_pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Pairs:
    """`("x=a.npy",)` as `(("x", "a.npy"),)`; a value without a name gets the empty one.

    Raises:
        click.BadParameter: An empty value, or a name that is there twice.
    """
    pairs: list[tuple[str, str]] = []
    for text in values:
        pair = _pair(text)
        if pair[0] in [other for other, _ in pairs]:
            raise click.BadParameter(f"{pair[0] or 'a value for all inputs'} is given twice")
        pairs.append(pair)
    return tuple(pairs)


def parse_repeated_pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Pairs:
    """As `parse_pairs`, but every value has a name, and a name may be there several times.

    Raises:
        click.BadParameter: An empty name or value.
    """
    pairs = tuple(_pair(text) for text in values)
    for (name, _), text in zip(pairs, values, strict=True):
        if not name:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
    return pairs


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    pair = (name.strip(), value.strip()) if equals else ("", text.strip())
    if not pair[1] or (equals and not pair[0]):
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
    return pair


def input_options(command: Command) -> Command:
    """`--input`, `--shape`, `--seed`."""
    given = click.option(
        "-i", "--input", "inputs", multiple=True, metavar="NAME=VALUE", callback=parse_pairs, help=_INPUT
    )
    shape = click.option("--shape", "shapes", multiple=True, metavar="NAME=SIZES", callback=parse_pairs, help=_SHAPE)
    seed = click.option("--seed", default=0, show_default=True, help="Of random inputs.")
    return given(shape(seed(command)))


def echo_assumed(dimensions: Iterable[str]) -> None:
    """Say which sizes were made up."""
    for dimension in dimensions:
        click.echo(f"note: the size of {dimension} was not given: 1 is used (--shape)", err=True)


@dataclass
class Feed:
    """The inputs of a program as the command line describes them.

    Attributes:
        arrays: By input name, in the program's order, checked.
        origin: By input name where the values come from: a file's path, `random`, `zeros`, `ones` or `values`.
        assumed: Sizes of free dimensions that nobody gave and that were set to 1.
    """

    arrays: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, int] = field(default_factory=dict)

    def describe(self) -> list[dict[str, Any]]:
        """The inputs as JSON-ready values: name, dtype, shape, origin."""
        return [
            {"name": name, "dtype": str(array.dtype), "shape": list(array.shape), "from": self.origin[name]}
            for name, array in self.arrays.items()
        ]


def make_feed(program: Program, given: Pairs, shapes: Pairs, seed: int, default: str | None = None) -> Feed:
    """The inputs of one call.

    Args:
        program: Whose inputs they are.
        given: `--input`: name and value; a value without a name is an `.npz` file, or `random`, `zeros` or `ones` for
            every input that has no value of its own.
        shapes: `--shape`: an input's name and shape, or a dimension's name and size.
        seed: Of the random values.
        default: The value of inputs that are not given; None makes those an error.

    Raises:
        InputError: A value that cannot be read or does not fit, or inputs without one.
        OptionError: A shape that cannot be read or belongs to nothing in the program.
    """
    sizes = _Sizes(program, shapes)
    values, default = _by_name(program, given, default)
    missing = [spec for spec in program.inputs if spec.name not in values]
    if missing and default is None:
        raise InputError(
            f"{program.name!r} needs values for {', '.join(map(str, missing))}",
            fix="give " + " ".join(f"--input {spec.name}=FILE.npy" for spec in missing) + ", or --input random",
        )
    feed = Feed()
    random = np.random.default_rng(seed)
    # What is read comes first: its sizes settle the dimensions of what is generated.
    for spec in program.inputs:
        value = values.get(spec.name, default or "")
        if isinstance(value, tuple):
            feed.arrays[spec.name], feed.origin[spec.name] = value
        elif value not in _GENERATED:
            feed.arrays[spec.name], feed.origin[spec.name] = _read(spec, value, sizes)
        else:
            continue
        sizes.learn(spec, np.shape(feed.arrays[spec.name]))
    for spec in program.inputs:
        value = values.get(spec.name, default or "")
        if isinstance(value, str) and value in _GENERATED:
            feed.arrays[spec.name] = _generate(spec, sizes.complete(spec), value, random)
            feed.origin[spec.name] = value
    feed.arrays = program.signature.feed((feed.arrays,))
    feed.assumed = sizes.assumed
    return feed


Named = dict[str, "str | tuple[Array, str]"]


def _by_name(program: Program, given: Pairs, default: str | None) -> tuple[Named, str | None]:
    """Values by input name, those of an archive opened already; and the value of the inputs that have none."""
    names = [spec.name for spec in program.inputs]
    values: Named = {}
    for name, value in given:
        if name and name not in names:
            raise InputError(f"--input: {program.name!r} has no input {name!r}", fix=_known(program))
        if name:
            values[name] = value
        elif value in _GENERATED:
            default = value
        elif value.endswith(".npz"):
            arrays = load_arrays(Path(value), "--input")
            unknown = [name for name in arrays if name not in names]
            if unknown:
                raise InputError(f"{value} holds {', '.join(unknown)}, no inputs of the program", fix=_known(program))
            # An input that is named itself wins over the archive.
            values = {**{name: (array, value) for name, array in arrays.items()}, **values}
        elif len(names) == 1:
            values[names[0]] = value
        else:
            raise InputError(f"--input {value!r} does not say which input it is for", fix=_known(program))
    return values, default


def _known(program: Program) -> str:
    return "write NAME=VALUE; inputs: " + (", ".join(map(str, program.inputs)) or "none")


class _Sizes:
    """The sizes of free dimensions: as `--shape` says, as given arrays have them, the program's usual ones, else 1."""

    def __init__(self, program: Program, shapes: Pairs) -> None:
        self.assumed: dict[str, int] = {}
        self._usual = program.sizes
        self._dims: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        inputs = {spec.name: spec for spec in program.inputs}
        dims = sorted({dim for spec in program.inputs for dim in spec.shape or () if isinstance(dim, str)})
        known = f"free dimensions: {', '.join(dims) or 'none'}; inputs: {', '.join(inputs) or 'none'}"
        for name, text in shapes:
            shape = _shape(text)
            if name in inputs:
                self._shapes[name] = shape
                self.learn(inputs[name], shape)
            elif name not in dims:
                raise OptionError(f"--shape: {program.name!r} has no input or free dimension {name!r}", fix=known)
            elif len(shape) != 1:
                raise OptionError(f"--shape: {name!r} is one dimension, {text!r} is not one size", fix=known)
            else:
                self._dims[name] = shape[0]

    def learn(self, spec: TensorSpec, shape: Sequence[int]) -> None:
        """Take the sizes of named dimensions from an array's shape."""
        for dim, size in zip(spec.shape or (), shape, strict=False):
            if isinstance(dim, str):
                self._dims.setdefault(dim, size)

    def partial(self, spec: TensorSpec) -> tuple[int | None, ...] | None:
        """The shape as far as it is known; None when not even the rank is."""
        if spec.name in self._shapes:
            return self._shapes[spec.name]
        if spec.shape is None:
            return None
        return tuple(self._dims.get(dim) if isinstance(dim, str) else dim for dim in spec.shape)

    def complete(self, spec: TensorSpec) -> tuple[int, ...]:
        """A whole shape; what nobody gave is 1, and noted."""
        shape = self.partial(spec)
        if shape is None:
            raise InputError(
                f"input {spec.name!r} has no declared rank", fix=f"give its shape: --shape {spec.name}=1x80x3000"
            )
        return tuple(self._assume(spec, place) if size is None else size for place, size in enumerate(shape))

    def for_values(self, spec: TensorSpec) -> tuple[int, ...] | None:
        """The shape to give to a list of numbers: the last open dimension (as -1) takes what there is."""
        shape = self.partial(spec)
        if shape is None:
            return None
        last = max((place for place, size in enumerate(shape) if size is None), default=None)
        return tuple(
            (-1 if place == last else self._assume(spec, place)) if size is None else size
            for place, size in enumerate(shape)
        )

    def _assume(self, spec: TensorSpec, place: int) -> int:
        dim = (spec.shape or ())[place]
        if dim in self._usual:
            return self._usual[str(dim)]
        self.assumed[dim if isinstance(dim, str) else f"{spec.name}[{place}]"] = 1
        return 1


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 0:
        raise OptionError(
            f"--shape: {text!r} is no shape", fix="write INPUT=1x80x3000, or DIMENSION=4 for a free dimension"
        )
    return shape


def _read(spec: TensorSpec, text: str, sizes: _Sizes) -> tuple[Any, str]:
    """The value of one input, and where it comes from."""
    if text.endswith((".npy", ".npz")):
        arrays = load_arrays(Path(text), f"--input {spec.name}")
        if "" in arrays:
            return arrays[""], text
        if spec.name not in arrays:
            raise InputError(f"{text} holds no array {spec.name!r}", fix=f"it holds {', '.join(arrays) or 'nothing'}")
        return arrays[spec.name], text
    values = _values(spec, text)
    shape = sizes.for_values(spec) if values.ndim <= 1 else None
    if shape is not None:
        try:
            values = values.reshape(shape)
        except ValueError:
            raise InputError(
                f"--input {spec.name}: {values.size} values do not fill {spec}",
                fix="give as many as the shape holds, or FILE.npy, random or zeros",
            ) from None
    # A list, so that the check of the call converts it to the input's dtype, and refuses what does not fit.
    return values.tolist(), "values"


def _values(spec: TensorSpec, text: str) -> Array:
    """Numbers, texts or a JSON list of them."""
    try:
        if text.startswith("["):
            values = np.array(json.loads(text))
            if values.dtype == object:
                raise ValueError("not a list of numbers")
        elif spec.dtype.kind == "O":
            values = np.array(text.split(","))
        else:
            parts = [_number(part.strip()) for part in text.split(",")]
            values = np.array(parts if len(parts) > 1 or spec.shape != () else parts[0])
    except (ValueError, RecursionError):
        raise InputError(
            f"--input {spec.name}: cannot read {text!r}",
            fix="give FILE.npy, FILE.npz, random, zeros, ones, numbers as 1,2,3 or a JSON list",
        ) from None
    return values.astype(bool) if spec.dtype.kind == "b" and set(values.ravel().tolist()) <= {0, 1} else values


def _number(text: str) -> bool | int | float:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        return float(text)


def _generate(spec: TensorSpec, shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    if spec.dtype.kind == "O":
        raise InputError(
            f"input {spec.name!r} holds texts, which cannot be made up", fix=f"give --input {spec.name}=TEXT"
        )
    try:
        return _filled(spec.dtype, shape, kind, random)
    except (MemoryError, ValueError):
        raise InputError(f"input {spec.name!r}: there is no memory for the shape {shape_text(shape)}") from None


def _filled(dtype: np.dtype[Any], shape: tuple[int, ...], kind: str, random: np.random.Generator) -> Array:
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if kind == "ones":
        return np.ones(shape, dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        # Wider integers are indices, lengths and masks as a rule: 0 and 1 are the values that most models allow.
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.itemsize == 1 else (0, 1)
        return random.integers(low, high, shape, dtype, endpoint=True)
    if dtype.kind == "c":
        return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)
