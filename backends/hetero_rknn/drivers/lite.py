"""Rockchip's runtime through its Python class: `rknnlite.api.RKNNLite`, from the package rknn-toolkit-lite2.

The way in for machines that have the package and nothing else. It copies every tensor, hands out float32 alone, and
cannot share weights between instances; `capi` does better in all three. What is known of the class was seen by running
2.3.2 and 2.5.0: it raises nothing, so errors are what it logs; it takes no notice of what `rknn_run` returns, so the
driver looks for itself (`lite_watch`); it keeps the bytes of the file, a copy of the weights for each object, which the
driver drops.
"""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from hetero.backend import Array, ExecutionError, NonFiniteOutput, Unavailable, Unsupported
from hetero.errors import ClosedError, HeteroError
from hetero_rknn.drivers.contract import Context, Driver, Timing
from hetero_rknn.drivers.errors import code_named, error_of
from hetero_rknn.drivers.lite_log import Words, listener, logging_kept
from hetero_rknn.drivers.lite_watch import watched
from hetero_rknn.model_file import ModelFile, ModelTensor

_PACKAGE = "rknn-toolkit-lite2"
_INSTALL = f"pip install {_PACKAGE} (there are wheels for aarch64 Linux only)"
_KERNEL_LOG = "look for rknpu in the kernel's log: dmesg | grep -i rknpu"
_CHECK_INPUTS = "check that dtypes and shapes are those of the model"
_C_INTERFACE = 'use the C interface, driver="capi", which hands integers out as they are'

_NHWC_OF_NCHW = (0, 2, 3, 1)
_NCHW_OF_NHWC = (0, 3, 1, 2)
# What the class refuses, as what it takes.
_TAKEN_AS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.uint64): np.dtype(np.int64),
}
# Up to here float32 has every integer.
_EXACT = 1 << 24
# Calls between two collections of the youngest generation, and how many of those make one of the next and of all.
_CALLS, _YOUNG, _MIDDLE = 64, 8, 64


class LiteDriver(Driver):
    """Rockchip's Python class.

    Every call of it leaves about a dozen objects that refer to one another, which only Python's cyclic collector frees.
    A program that turned the collector off (`gc.disable()`) would grow with every call. The driver then collects by
    itself: the youngest generation after every 64th call, all of them after every 4096th. While the collector is on it
    does nothing.

    Args:
        module: What stands for `rknnlite.api`; None imports it.
        collect: Collect when the collector is off; False leaves that to the program.

    Raises:
        Unavailable: The package is not installed, or cannot be imported.
    """

    name = "lite"

    def __init__(self, module: Any = None, *, collect: bool = True) -> None:
        with logging_kept():
            self.module = _imported() if module is None else module
        self._collect = collect
        self._calls = 0
        self._lock = threading.Lock()
        self._versions: tuple[str | None, str | None] = (None, None)

    @property
    def library_version(self) -> str | None:
        """Of the runtime; None before a model was opened."""
        return self._versions[0]

    @property
    def kernel_driver_version(self) -> str | None:
        """Of the kernel's driver; None before a model was opened."""
        return self._versions[1]

    def open(self, path: Path, model: ModelFile, mask: int) -> LiteContext:
        """Open a model; see `Driver.open`. Each context has an object, and weights, of its own."""
        doing = f"opening {path.name}"
        with logging_kept():
            instance = _called(doing, self.module.RKNNLite)
        with listener.listening() as words:
            try:
                if _called(doing, instance.load_rknn, str(path)) != 0:
                    raise ExecutionError(f"{doing} failed: {words.text}", fix="check that the file may be read")
                if _called(doing, instance.init_runtime, core_mask=mask) != 0:
                    raise _mask_error(doing, mask, words) if _said(words, "npu core mode") else _error(doing, words)
                if self._versions == (None, None):
                    self._versions = _versions(_called(doing, instance.get_sdk_version))
            except BaseException:
                # After a refused mask the class holds a runtime that works, and the weights.
                instance.release()
                raise
        # rknn_init made its own copy: the vendor's C examples free theirs at this point.
        instance.rknn_data = None
        return LiteContext(self, path, model, instance, mask)

    def called(self) -> None:
        """Count a call of the class, and collect what calls left behind when nobody else will."""
        if not self._collect or gc.isenabled():
            return
        with self._lock:
            self._calls += 1
            rounds, rest = divmod(self._calls, _CALLS)
        if rest == 0:
            # Objects of calls under way survive into older generations, so these need their turn.
            gc.collect(2 if rounds % _MIDDLE == 0 else 1 if rounds % _YOUNG == 0 else 0)


class LiteContext(Context):
    """One instance of a model, in an object of the vendor's class that no other context has.

    Attributes:
        notes: Remarks for people: what this version of the class does not show.
    """

    def __init__(self, driver: LiteDriver, path: Path, model: ModelFile, instance: Any, mask: int) -> None:
        self._driver, self._path, self._model, self._instance = driver, path, model, instance
        self.mask = mask
        self._lock = threading.Lock()
        self._running = self._closed = False
        self._watch = watched(instance)
        self.notes = () if self._watch else (f"this {_PACKAGE} shows neither the code of a run nor its time",)
        self._nhwc = [_is_image(tensor) for tensor in model.inputs]
        # One string for all would be taken for a 2-D input's too; without any the class guesses, and never says so.
        self._formats = ["nhwc" if nhwc else "nchw" for nhwc in self._nhwc]
        self._several_shapes = any(tensor.shapes for tensor in model.inputs)

    def run(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        """Run once; see `Context.run`.

        With a version of the class that cannot be watched, `timing.infer` has its copies of inputs and outputs in it;
        `set_input` and `copy_output` are then the driver's own changes of layout and dtype alone.

        Raises:
            Unsupported: Also for an integer output beyond 2**24, which float32 cannot carry.
            NonFiniteOutput: An integer output is not a number.
        """
        with self._lock:
            self._check_open()
            if self._running:
                raise ExecutionError("an RKNN context was used by two threads at once", fix="give each thread its own")
            self._running = True
        try:
            return self._run(inputs, timing)
        finally:
            with self._lock:
                self._running = False
                free = self._closed
            if free:
                self._instance.release()

    def set_mask(self, mask: int) -> bool:
        """Whether the context has that mask: the class cannot change it."""
        self._check_open()
        return mask == self.mask

    def duplicate(self, mask: int) -> LiteContext:
        """One more instance, from the file, with weights of its own."""
        self._check_open()
        return self._driver.open(self._path, self._model, mask)

    def close(self) -> None:
        """Free it; while a run is under way, when that ends. A hung run keeps its context: freeing it would crash."""
        with self._lock:
            free = not self._closed and not self._running
            self._closed = True
        if free:
            self._instance.release()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the RKNN context was closed", fix="open the model again")

    def _run(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        start = perf_counter()
        handed = [
            _handed_over(tensor, array, nhwc)
            for tensor, array, nhwc in zip(self._model.inputs, inputs, self._nhwc, strict=True)
        ]
        given = perf_counter()
        watch = self._watch
        if watch is not None:
            watch.begin()
        with listener.listening() as words:
            # The class writes into the list that it is given.
            answer = _called("inference", self._instance.inference, inputs=handed, data_format=list(self._formats))
        ran = perf_counter()
        if watch is not None:
            if watch.code < 0:
                # Whatever it answers is not of this run.
                raise error_of(watch.code, "inference", words.text)
            given, ran = watch.given or given, watch.ran or ran
        if answer is None:
            raise _inference_error(words)
        results = self._results(answer)
        timing.set_input, timing.infer, timing.copy_output = given - start, ran - given, perf_counter() - ran
        self._driver.called()
        return results

    def _results(self, answer: Sequence[Any]) -> list[Array]:
        outputs = self._model.outputs
        if len(answer) != len(outputs):
            raise ExecutionError(f"inference gave {len(answer)} outputs, {self._model.label} has {len(outputs)}")
        results = []
        for tensor, value in zip(outputs, answer, strict=True):
            array = np.asarray(value)
            results.append(_in_dtype(tensor, array if self._several_shapes else _in_shape(tensor, array)))
        return results


def _imported() -> Any:
    try:
        import rknnlite.api
    except ModuleNotFoundError as error:
        what = f"{_PACKAGE} is not installed" if error.name in ("rknnlite", "rknnlite.api") else ""
        raise Unavailable(what or f"{_PACKAGE} cannot be imported: {error}", fix=_INSTALL) from error
    except Exception as error:
        # A foreign package may raise anything while it is imported: a wheel for another Python, a wrong numpy.
        raise Unavailable(f"{_PACKAGE} cannot be imported: {error}", fix=f"reinstall it: {_INSTALL}") from error
    return rknnlite.api


def _called(doing: str, function: Any, *arguments: Any, **named: Any) -> Any:
    """Call the vendor's class, whose few unguarded lines may raise anything."""
    try:
        return function(*arguments, **named)
    except Exception as error:
        raise ExecutionError(f"{doing} failed: {type(error).__name__}: {error}", fix=_KERNEL_LOG) from error


def _said(words: Words, part: str) -> bool:
    return any(part in line for line in words.lines)


def _error(doing: str, words: Words) -> HeteroError:
    code = code_named(words.code)
    if code is not None:
        return error_of(code, doing, words.text)
    return ExecutionError(f"{doing} failed: {words.text or 'RKNNLite does not say why'}", fix=_KERNEL_LOG)


def _mask_error(doing: str, mask: int, words: Words) -> HeteroError:
    error = _error(doing, words)
    if type(error) is not ExecutionError:
        return error
    return Unsupported(
        f"{doing} with core mask {mask} failed: {words.text}",
        fix="use a core mask that this SoC has; chips with one NPU core take none but 0",
    )


def _inference_error(words: Words) -> HeteroError:
    error = _error("inference", words)
    if type(error) is ExecutionError and _said(words, "when setting inputs"):
        return Unsupported(error.problem, fix=_CHECK_INPUTS)
    return error


def _versions(told: str | None) -> tuple[str | None, str | None]:
    """Of the runtime and of the kernel driver, from `API: 2.3.2 (c949ad8@...)` and `DRV: 0.9.8`."""
    library, kernel = (re.search(rf"{key}:\s*(\d[\w.]*)", told or "") for key in ("API", "DRV"))
    return library[1] if library else None, kernel[1] if kernel else None


def _is_image(tensor: ModelTensor) -> bool:
    """Whether the class has to be handed NHWC: its default for 4-D inputs, and what the NPU has unless it says else."""
    return len(tensor.shape) == 4 and tensor.native_layout in ("NHWC", "")


def _handed_over(tensor: ModelTensor, array: Array, nhwc: bool) -> Array:
    dtype: np.dtype[Any] = array.dtype
    if dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise Unsupported(
            f"input {tensor.name!r} is uint64, of which RKNNLite takes what fits int64; its largest is {array.max()}",
            fix="hand over smaller numbers",
        )
    # What single precision cannot hold becomes infinite, as it would on the NPU.
    with np.errstate(over="ignore"):
        handed: Array = np.ascontiguousarray(
            array.transpose(_NHWC_OF_NCHW) if nhwc else array, dtype=_TAKEN_AS.get(dtype, dtype)
        )
    return handed


def _in_shape(tensor: ModelTensor, array: Array) -> Array:
    shape = tensor.shape
    if array.shape == shape:
        return array
    shaped: Array
    if len(shape) == 4 and array.shape == tuple(shape[axis] for axis in _NHWC_OF_NCHW):
        shaped = array.transpose(_NCHW_OF_NHWC)
        return shaped
    # The runtime drops and adds dimensions of 1.
    if [size for size in array.shape if size != 1] == [size for size in shape if size != 1]:
        shaped = array.reshape(shape)
        return shaped
    raise ExecutionError(
        f"output {tensor.name!r} came in shape {list(array.shape)}, the model's is {list(shape)}",
        fix="convert the model again, with the toolkit of the runtime's version",
    )


def _in_dtype(tensor: ModelTensor, array: Array) -> Array:
    """In the graph's dtype, C-contiguous and the caller's own; the class hands everything out as float32."""
    dtype = tensor.dtype
    if dtype.kind in "iu" and array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise NonFiniteOutput(f"output {tensor.name!r} of {dtype} has elements that are not finite")
        most = int(np.abs(array).max(initial=0))
        if dtype.itemsize > 2 and most >= _EXACT:
            raise Unsupported(
                f"output {tensor.name!r} is {dtype} and holds {most}: RKNNLite hands out float32, in which integers "
                f"from {_EXACT} on are not exact",
                fix=_C_INTERFACE,
            )
    with np.errstate(over="ignore"):
        made: Array = np.ascontiguousarray(array, dtype=dtype)
    # A view is of memory that somebody else has, and may write to.
    if not made.flags.owndata:
        made = made.copy()
    return made
