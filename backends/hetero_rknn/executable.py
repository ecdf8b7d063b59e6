"""Running a model on the NPU: one context per slot of the placement, for one job at a time each.

By default a lane of the scheduler is a slot, so that the next free core takes the next job and a core that fails is set
aside alone. In static order jobs go round the schedule as EZ RKNN Async has it, and wait for their slot, be it busy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hetero.backend import Array, Call, Executable, Program, Unsupported
from hetero.errors import ClosedError
from hetero_rknn.drivers.contract import Context, Driver, Timing
from hetero_rknn.finite import check_finite
from hetero_rknn.model_file import ModelFile
from hetero_rknn.pacing import Pacing
from hetero_rknn.perf import PerfLog
from hetero_rknn.placement import Placement, core_label, parse_core_mask
from hetero_rknn.platforms import Platform

# Jobs that may wait for a slot in static order; the queue of EZ RKNN Async is as long.
_STATIC_QUEUE = 3


@dataclass(frozen=True)
class Variant:
    """The model for one set of input shapes.

    Attributes:
        path: The `.rknn` file.
        model: Its header.
        converted: Names of the tensors that are float16 in the program and float32 in the file.
        notes: What may go wrong with it.
    """

    path: Path
    model: ModelFile
    converted: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The inputs' shapes by name."""
        return {tensor.name: tensor.shape for tensor in self.model.inputs}


class RknnExecutable(Executable):
    """A model on one or several cores.

    Args:
        driver: The way into the runtime.
        variants: The model for each set of input shapes that it was compiled for; the first is opened at once, the
            others when they are first asked for.
        program: Names the inputs and outputs.
        platform: The SoC.
        placement: Which contexts there are.
        on_nonfinite: See `check_finite`.
        pacing: Holds jobs back; None for never.
        perf: Where each job's times are written; None for nowhere.
        details: For `explain()`.
    """

    def __init__(
        self,
        driver: Driver,
        variants: Sequence[Variant],
        program: Program,
        platform: Platform,
        placement: Placement,
        *,
        on_nonfinite: str = "rerun",
        pacing: Pacing | None = None,
        perf: PerfLog | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._driver = driver
        self._variants = tuple(variants)
        self._outputs = tuple(spec.name for spec in program.outputs)
        self._platform = platform
        self._placement = placement
        self._on_nonfinite = on_nonfinite
        self._perf = perf
        self._lock = threading.Lock()
        self._closed = False
        self._turns = [threading.Lock() for _ in placement.slots]
        self._contexts: dict[tuple[int, int, int], Context] = {}
        self._origins: dict[int, Context] = {}
        self.pace = self._pacing = pacing
        self.details: dict[str, Any] = {**(details or {}), "placement": placement.text}
        if placement.static_order is None:
            self.lanes = len(placement.slots)
            self.units = [slot.core for slot in placement.slots]
            self.weights = placement.weights
        else:
            self.lanes = len(placement.slots) + _STATIC_QUEUE
        try:
            for slot, place in enumerate(placement.slots):
                self._context(0, slot, place.mask)
        except BaseException:
            self.close()
            raise
        notes = [note for context in self._origins.values() for note in context.notes]
        if driver.library_version is not None:
            self.details["librknnrt"] = driver.library_version
        if driver.kernel_driver_version is not None:
            self.details["rknpu"] = driver.kernel_driver_version
        if notes:
            self.details["notes"] = "; ".join(dict.fromkeys([*filter(None, [self.details.get("notes")]), *notes]))

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """See `Executable.run`. Raises NonFiniteOutput for an answer with NaN or infinity, as `on_nonfinite` has it."""
        variant = self._variant(inputs)
        order = self._placement.static_order
        slot = call.lane if order is None else order[call.number % len(order)]
        mask = self._placement.slots[slot].mask
        wanted = call.options.get("core_mask")
        if wanted is not None:
            mask = parse_core_mask(wanted, self._platform)
        chosen = self._variants[variant]
        model = chosen.model
        given = [inputs[tensor.name].astype(tensor.dtype, copy=False) for tensor in model.inputs]
        timing = Timing()
        with self._turns[slot]:
            context = self._context(variant, slot, mask)
            try:
                arrays = context.run(given, timing)
            except Unsupported:
                raise
            except Exception:
                # What a context is worth after a failure nobody can tell: the next job opens another.
                self._drop(variant, slot, mask)
                raise
        if self._pacing is not None:
            self._pacing.took(timing.infer)
        if self._perf is not None:
            self._perf.write(call.number, core_label(mask) if wanted else self._placement.slots[slot].core, timing)
        outputs = {tensor.name: array for tensor, array in zip(model.outputs, arrays, strict=True)}
        call.copy_seconds = timing.set_input + timing.copy_output
        with np.errstate(over="ignore"):
            for name in chosen.converted & outputs.keys():
                outputs[name] = outputs[name].astype(np.float16)
        check_finite(outputs, self._on_nonfinite)
        return {name: outputs[name] for name in self._outputs}

    def close(self) -> None:
        """Close every context, those that share weights before the one they share them with."""
        with self._lock:
            self._closed = True
            contexts = [*self._contexts.values()]
            origins = [*self._origins.values()]
            self._contexts.clear()
            self._origins.clear()
        for context in [*(context for context in contexts if context not in origins), *origins]:
            context.close()
        if self._perf is not None:
            self._perf.close()

    def _variant(self, inputs: Mapping[str, Array]) -> int:
        for place, variant in enumerate(self._variants):
            if all(inputs[name].shape == shape for name, shape in variant.shapes.items()):
                return place
        got = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
        has = "; ".join(", ".join(f"{n}{list(s)}" for n, s in variant.shapes.items()) for variant in self._variants)
        raise Unsupported(
            f"compiled for {has}; got {got}", fix="compile it for these shapes too: hetero compile --shape ..."
        )

    def _context(self, variant: int, slot: int, mask: int) -> Context:
        """The slot's context for a variant, on the cores of `mask`; opened where there is none."""
        own = self._placement.slots[slot].mask
        with self._lock:
            if self._closed:
                raise ClosedError("the executable is closed")
            context = self._contexts.get((variant, slot, mask)) or self._contexts.get((variant, slot, own))
        if context is not None and (context.mask == mask or context.set_mask(mask)):
            return context
        # The vendor's Python class cannot move a context: for another mask it needs one more.
        opened = self._open(variant, mask)
        with self._lock:
            if not self._closed:
                self._contexts[variant, slot, mask] = opened
                return opened
        opened.close()
        raise ClosedError("the executable is closed")

    def _open(self, variant: int, mask: int) -> Context:
        with self._lock:
            origin = self._origins.get(variant)
        if origin is not None:
            return origin.duplicate(mask)
        chosen = self._variants[variant]
        context = self._driver.open(chosen.path, chosen.model, mask)
        with self._lock:
            self._origins.setdefault(variant, context)
        return context

    def _drop(self, variant: int, slot: int, mask: int) -> None:
        own = self._placement.slots[slot].mask
        with self._lock:
            key = next((key for key in ((variant, slot, mask), (variant, slot, own)) if key in self._contexts), None)
            context = self._contexts.pop(key) if key is not None else None
            # Others share its weights: it stays open until they are closed.
            if context is None or context is self._origins.get(variant):
                return
        context.close()
