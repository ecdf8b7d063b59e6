"""The steps of a graph: what the host computes, and what the NPU does with int8.

A step on the NPU has three parts: `begin` quantises on the host and starts the launches; the ticket is polled; `end`
makes floats of what came of it. Between the first and the last the host may do other things.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from hetero.backend import Call, Unsupported
from hetero.errors import InputError
from hetero.tensors import Array
from hetero_kernels.softmax import temperatures
from hetero_xrt.blocks import Blocks
from hetero_xrt.executable import TileExecutable, TileTicket
from hetero_xrt.quantise import Floats, Matrix, heads_of, product, rows_of
from hetero_xrt.weights import Weights

HEAD = 64
"""Features of a head in the attention kernels."""

_OUTPUT_STEPS = np.float32(1 / 256)


@dataclass(frozen=True, eq=False)
class HostStep:
    """A step in numpy.

    Attributes:
        name: For people.
        op: Its kind.
        inputs: Names of values.
        outputs: Names of values.
        compute: Gives the outputs, in order. It writes to no input.
        why: The reason for which it is not on the NPU, where it could have been.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    compute: Callable[[Sequence[Array]], Sequence[Array]]
    why: str = ""


class Landing(Protocol):
    """Launches of a step, and what to do when they are over."""

    ticket: TileTicket

    def end(self) -> Array:
        """The step's output; called once, when the ticket is done. Raises what a launch came to."""


Shared = dict[tuple[str, int, int, bool], tuple[Array, Floats]]
"""What steps of one call leave for each other: integers and steps, by the value's name and how it is quantised."""


@dataclass(eq=False)
class Layer:
    """A constant weight on the NPU; the same in every plan of a graph.

    Attributes:
        kernel: Computes int8 `[rows, K]` by int8 `[K, N]`.
        matrix: The weight in int8.
        weights: The same as a set that stays.
    """

    kernel: TileExecutable
    matrix: Matrix
    weights: Weights = field(init=False)

    def __post_init__(self) -> None:
        self.weights = Weights({"w": self.matrix.values}, stays=True)

    def close(self) -> None:
        """Take the weight off the NPU."""
        self.kernel.drop(self.weights)


@dataclass(frozen=True, eq=False)
class LinearStep:
    """`y = x w + b` with a constant weight.

    Attributes:
        name: For people.
        inputs: The activations' name, `[..., k]`.
        outputs: The output's name, `[..., n]`.
        layer: The weight.
        bias: `[n]`, or None.
        wide: Activations have 16 bits.
        blocks: Shares the host's work.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: Layer
    bias: Floats | None = None
    wide: bool = False
    blocks: Blocks = field(default_factory=Blocks)

    def begin(self, values: Mapping[str, Array], call: Call, shared: Shared) -> _LinearLanding:
        """Quantise and start; steps with the same input and divisors quantise it once.

        Args:
            values: By name.
            call: The call that it is part of.
            shared: Of the call.

        Raises:
            Unsupported: Not with these numbers.
            ExecutionError: As `PolledExecutable.start` raises.
        """
        name, matrix = self.inputs[0], self.layer.matrix
        x = values[name]
        depth = matrix.values.shape[0]
        key = (name, id(matrix.divisors), depth, self.wide)
        if key not in shared:
            flat = x.reshape(-1, x.shape[-1])
            shared[key] = rows_of(flat, depth, matrix.divisors, wide=self.wide, blocks=self.blocks)
        rows, steps = shared[key]
        ticket = self.layer.kernel.begin({"a": rows}, call, self.layer.weights)
        return _LinearLanding(ticket, self, steps, x.shape[:-1])


@dataclass(eq=False)
class _LinearLanding:
    ticket: TileTicket
    step: LinearStep
    steps: Floats
    shape: tuple[int, ...]

    def end(self) -> Array:
        step, sums = self.step, self.ticket.result()["c"]
        y = product(sums, self.steps, step.layer.matrix, step.bias, blocks=step.blocks)
        return y.reshape(*self.shape, y.shape[-1])


@dataclass(frozen=True, eq=False)
class AttentionStep:
    """`softmax(scale q kᵀ) v`, every query over all keys.

    Attributes:
        name: For people.
        inputs: Names of q `[..., n, size]`, k and v `[..., t, size]`, with the same dimensions in front.
        outputs: The name of the output, `[..., n, size]`.
        kernel: Computes heads of so many queries and keys.
        scale: What the scores are multiplied by.
        length: Queries and keys that the kernel takes.
        blocks: Shares the host's work.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernel: TileExecutable
    scale: float
    length: int
    blocks: Blocks = field(default_factory=Blocks)

    def begin(self, values: Mapping[str, Array], call: Call, shared: Shared) -> _AttentionLanding:
        """Quantise and start; arguments and errors as for `LinearStep.begin`."""
        q, k, v = (values[name] for name in self.inputs)
        n, size = q.shape[-2:]
        t = k.shape[-2]
        if max(n, t) > self.length or size > HEAD:
            raise Unsupported(
                f"{self.name}: {n} queries and {t} keys of {size} features; the kernel takes {self.length} of {HEAD}",
                fix="hand in shorter windows, or build the attention kernel for more keys",
            )
        q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))
        heads = heads_of(q, k, v, self.scale, self.length, HEAD, blocks=self.blocks)
        try:
            temperature = temperatures(heads.score_steps, size=1)
        except InputError as error:
            raise Unsupported(f"{self.name}: {error.problem}") from error
        feed = {
            "q": heads.q,
            "k": heads.k,
            "v": heads.v,
            "temperature": temperature,
            "keys": np.full((len(heads.q), 1), t, np.int32),
        }
        ticket = self.kernel.begin(feed, call)
        return _AttentionLanding(ticket, heads.value_steps, (*values[self.inputs[0]].shape[:-1], v.shape[-1]))


@dataclass(eq=False)
class _AttentionLanding:
    ticket: TileTicket
    value_steps: Floats
    shape: tuple[int, ...]

    def end(self) -> Array:
        o = self.ticket.result()["o"]
        y = o[:, : self.shape[-2], : self.shape[-1]].astype(np.float32)
        y *= self.value_steps * _OUTPUT_STEPS
        return y.reshape(self.shape)


Step = HostStep | LinearStep | AttentionStep


@dataclass(frozen=True, eq=False)
class Plan:
    """A graph for inputs of certain shapes.

    Attributes:
        steps: In an order in which each has its inputs.
        constants: Values that are always there, by name.
        outputs: The value of each output, by the output's name.
    """

    steps: Sequence[Step]
    constants: Mapping[str, Array]
    outputs: Mapping[str, str]

    @cached_property
    def uses(self) -> Counter[str]:
        """How often steps read each value; one more for those that stay to the end."""
        kept = Counter([*self.outputs.values(), *self.constants])
        return Counter(name for step in self.steps for name in step.inputs) + kept


@dataclass
class Times:
    """Where the time of an executable's runs went. Seconds, of all runs together; may be added to from any thread.

    Attributes:
        runs: How many have ended well.
        host: In numpy: host steps, and quantising.
        waiting: In asking for launches and copying to and from them, and in pauses with nothing else to do.
    """

    runs: int = 0
    host: float = 0.0
    waiting: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, host: float, waiting: float) -> None:
        """One more run."""
        with self._lock:
            self.runs += 1
            self.host += host
            self.waiting += waiting
