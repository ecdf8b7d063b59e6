"""Rockchip's runtime through its C interface: `librknnrt.so`, called by ctypes.

A call releases the GIL. Inputs and outputs live in memory that the NPU shares where their layout allows it, and more
instances of a model share its weights.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from ctypes import byref
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from hetero.backend import Array, DeviceLost, DeviceTimeout, ExecutionError, OutOfMemory, Unsupported
from hetero.errors import ClosedError, HeteroError
from hetero_rknn.drivers import capi_types as c
from hetero_rknn.drivers.capi_tensors import (
    CopiedInputs,
    CopiedOutputs,
    SharedMemory,
    check,
    output_type,
    shareable_input,
    shareable_output,
)
from hetero_rknn.drivers.contract import Context, Driver, Timing
from hetero_rknn.drivers.errors import error_of
from hetero_rknn.model_file import ModelFile

_INPUT_INVALID = -8
_CHECK_INPUTS = "check that dtypes and shapes are those of the model"


class CapiDriver(Driver):
    """Rockchip's C interface.

    Args:
        library: `librknnrt.so`; None searches, see `capi_types.Runtime`.
        zero_copy: Share memory with the NPU where layouts allow it; False lets the runtime copy always.
        disable_dup_context: Open every further instance from the file, with weights of its own, as is done anyway for
            models with custom operators: duplicated contexts of those are known to crash.
        flags: Of `rknn_init`, such as a priority. With 0x4000 or 0x8000 caches are flushed by the driver.

    Raises:
        Unavailable: There is no such library.
    """

    name = "capi"
    zero_copy = True

    def __init__(
        self,
        library: Path | None = None,
        *,
        zero_copy: bool = True,
        disable_dup_context: bool = False,
        flags: int = 0,
    ) -> None:
        self.runtime = c.Runtime(library)
        self.share_memory = zero_copy
        self.disable_dup_context = disable_dup_context
        self.flags = flags
        self._versions: tuple[str | None, str | None] = (None, None)
        self._in_file: str | None = None
        self._looked = False

    @property
    def library_version(self) -> str | None:
        """Of the runtime: from its file, and from itself once a model was opened."""
        if self._versions[0] is None and not self._looked:
            self._in_file, self._looked = self.runtime.version_in_file(), True
        return self._versions[0] or self._in_file

    @property
    def kernel_driver_version(self) -> str | None:
        """Of the kernel's driver; None before a model was opened."""
        return self._versions[1]

    def open(self, path: Path, model: ModelFile, mask: int) -> CapiContext:
        """Open a model; see `Driver.open`."""
        return self._open(path, model, mask, self.share_memory)

    def _open(self, path: Path, model: ModelFile, mask: int, share: bool) -> CapiContext:
        handle = c.Handle(0)
        # Size 0 hands over a path: the runtime maps the file, and Python never holds the weights.
        code = self.runtime.functions.rknn_init(byref(handle), str(path).encode(), 0, self.flags, None)
        if code < 0:
            raise error_of(code, f"opening {path.name}")
        family = _Family(self, path, model, handle)
        try:
            return self._context(family, handle, 0, mask, share)
        except _SharingRefused as refusal:
            context = self._open(path, model, mask, share=False)
            context.notes = (f"inputs and outputs are copied: {refusal.why.problem}",)
            return context

    def _context(self, family: _Family, handle: Any, has: int, mask: int, share: bool) -> CapiContext:
        """A context over a handle, which passes to it: freed also when this raises.

        Where the mask is the one that the handle `has` it is not set: chips with one core refuse any.
        """
        family.join()
        try:
            if self._versions == (None, None):
                self._versions = _versions(self.runtime, handle)
            if mask != has:
                _set_mask(self.runtime, handle, mask)
            return CapiContext(self, family, handle, mask, share)
        except BaseException:
            family.leave(handle)
            raise


class _Family:
    """A context and its duplicates: they share the weights, so the original goes last.

    Rockchip does not say whether a duplicate outlives what it was made from.
    """

    def __init__(self, driver: CapiDriver, path: Path, model: ModelFile, original: Any) -> None:
        self.driver, self.path, self.model = driver, path, model
        self.original = original
        self._members = 0
        self._lock = threading.Lock()

    def join(self) -> None:
        with self._lock:
            self._members += 1

    def duplicate(self) -> Any:
        """A handle of one more; None when the runtime cannot make one."""
        if self.driver.disable_dup_context or self.model.custom_ops:
            return None
        handle = c.Handle(0)
        code = self.driver.runtime.functions.rknn_dup_context(byref(self.original), byref(handle))
        error = error_of(code, "rknn_dup_context") if code < 0 else None
        if isinstance(error, DeviceLost | DeviceTimeout | OutOfMemory):
            raise error
        return None if error else handle

    def leave(self, handle: Any) -> None:
        destroy = self.driver.runtime.functions.rknn_destroy
        if handle.value != self.original.value:
            destroy(handle)
        with self._lock:
            self._members -= 1
            last = self._members == 0
        if last:
            destroy(self.original)


class _SharingRefused(Exception):
    def __init__(self, why: HeteroError) -> None:
        super().__init__(why.problem)
        self.why = why


class CapiContext(Context):
    """One instance of a model, through the C interface.

    Attributes:
        zero_copy: Its inputs and outputs live in memory that the NPU shares.
        shares_weights: It is a duplicate, without weights of its own.
        notes: Remarks for people: why nothing is shared.
    """

    def __init__(self, driver: CapiDriver, family: _Family, handle: Any, mask: int, share: bool) -> None:
        self._driver, self._family, self._handle = driver, family, handle
        self._functions = driver.runtime.functions
        self.mask = mask
        self.shares_weights = handle.value != family.original.value
        self.notes: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._running = self._closed = False
        self._shared: tuple[list[SharedMemory], list[SharedMemory]] = ([], [])
        self._dtypes = [tensor.dtype for tensor in family.model.outputs]
        inputs, outputs = self._attributes()
        self.zero_copy = share and self._share(outputs)
        if not self.zero_copy:
            self._copied_in = CopiedInputs(family.model.inputs, inputs)
            self._copied_out = CopiedOutputs(family.model.outputs, outputs)

    def run(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        """Run once; see `Context.run`."""
        with self._lock:
            self._check_open()
            if self._running:
                raise ExecutionError("an RKNN context was used by two threads at once", fix="give each thread its own")
            self._running = True
        try:
            return self._run_shared(inputs, timing) if self.zero_copy else self._run_copied(inputs, timing)
        finally:
            with self._lock:
                self._running = False
                free = self._closed
            if free:
                self._free()

    def set_mask(self, mask: int) -> bool:
        """Move to other cores; False when the runtime refuses the mask."""
        if mask == self.mask:
            return True
        with self._lock:
            self._check_open()
            code = self._functions.rknn_set_core_mask(self._handle, mask)
        if code < 0:
            return False
        self.mask = mask
        return True

    def duplicate(self, mask: int) -> CapiContext:
        """One more instance: over the same weights, or from the file where the runtime cannot duplicate."""
        with self._lock:
            self._check_open()
            handle = self._family.duplicate()
        if handle is None:
            return self._driver._open(self._family.path, self._family.model, mask, self.zero_copy)
        try:
            made = self._driver._context(self._family, handle, self.mask, mask, self.zero_copy)
        except _SharingRefused as refusal:
            # The original's memory was accepted, so this one has its reason elsewhere: memory, mostly.
            raise refusal.why from None
        made.notes = self.notes
        return made

    def close(self) -> None:
        """Free it; while a run is under way, when that ends. A hung run keeps its context: freeing it would crash."""
        with self._lock:
            free = not self._closed and not self._running
            self._closed = True
        if free:
            self._free()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the RKNN context was closed", fix="open the model again")

    def _free(self) -> None:
        self._drop_shared()
        self._family.leave(self._handle)

    def _attributes(self) -> tuple[list[c.TensorAttr], list[c.TensorAttr]]:
        runtime, model = self._driver.runtime, self._family.model
        counts = c.InOutNum()
        runtime.query(self._handle, c.QUERY_IN_OUT_NUM, counts)
        inputs = runtime.attributes(self._handle, c.QUERY_INPUT, counts.n_input)
        outputs = runtime.attributes(self._handle, c.QUERY_OUTPUT, counts.n_output)
        check(model.inputs, inputs, "input")
        check(model.outputs, outputs, "output")
        return inputs, outputs

    def _share(self, outputs: Sequence[c.TensorAttr]) -> bool:
        """Bind memory to every input and output; False when one of them lies in a way that is not plain.

        All or nothing: a context whose inputs are shared in part depends on an order of calls that nobody documents.
        Inputs are written as the NPU keeps them; outputs are left to the runtime's conversion to the graph's own form.

        Raises:
            _SharingRefused: The runtime refused; what was bound stays bound, so the handle is not to be used.
        """
        runtime, model = self._driver.runtime, self._family.model
        try:
            native = runtime.attributes(self._handle, c.QUERY_NATIVE_INPUT, len(model.inputs))
            if not all(map(shareable_input, model.inputs, native)):
                self.notes = ("inputs and outputs are copied: an input's layout on the NPU is not plain",)
                return False
            if not all(map(shareable_output, model.outputs, outputs)):
                self.notes = ("inputs and outputs are copied: an output's layout is not plain",)
                return False
            ins, outs = self._shared
            for tensor, attribute in zip(model.inputs, native, strict=True):
                ins.append(SharedMemory(runtime, self._handle, tensor, attribute, attribute.type))
            for tensor, attribute in zip(model.outputs, outputs, strict=True):
                outs.append(SharedMemory(runtime, self._handle, tensor, attribute, output_type(tensor, attribute)))
        except HeteroError as refusal:
            self._drop_shared()
            raise _SharingRefused(refusal) from refusal
        return True

    def _drop_shared(self) -> None:
        for memory in (*self._shared[0], *self._shared[1]):
            memory.close()
        self._shared = ([], [])

    def _run_shared(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        start = perf_counter()
        ins, outs = self._shared
        flags = self._driver.flags
        # What half precision cannot hold becomes infinite, as it would in the runtime's own conversion.
        with np.errstate(over="ignore"):
            for memory, array in zip(ins, inputs, strict=True):
                np.copyto(memory.array, array, casting="same_kind")
                if flags & c.FLAG_DISABLE_FLUSH_INPUT:
                    memory.sync(c.SYNC_TO_DEVICE)
        given = perf_counter()
        self._run()
        ran = perf_counter()
        results = []
        for memory, dtype in zip(outs, self._dtypes, strict=True):
            if flags & c.FLAG_DISABLE_FLUSH_OUTPUT:
                memory.sync(c.SYNC_FROM_DEVICE)
            results.append(memory.array.astype(dtype, order="C", copy=True))
        timing.set_input, timing.infer, timing.copy_output = given - start, ran - given, perf_counter() - ran
        return results

    def _run_copied(self, inputs: Sequence[Array], timing: Timing) -> list[Array]:
        start = perf_counter()
        structures = self._copied_in.structures
        self._copied_in.fill(inputs)
        code = self._functions.rknn_inputs_set(self._handle, len(structures), structures)
        if code < 0:
            error = error_of(code, "rknn_inputs_set")
            raise Unsupported(error.problem, fix=_CHECK_INPUTS) if code == _INPUT_INVALID else error
        given = perf_counter()
        self._run()
        ran = perf_counter()
        arrays = self._copied_out.allocate()
        wanted = self._copied_out.structures
        code = self._functions.rknn_outputs_get(self._handle, len(wanted), wanted, None)
        if code < 0:
            raise error_of(code, "rknn_outputs_get")
        self._functions.rknn_outputs_release(self._handle, len(wanted), wanted)
        results = self._copied_out.finished(arrays)
        timing.set_input, timing.infer, timing.copy_output = given - start, ran - given, perf_counter() - ran
        return results

    def _run(self) -> None:
        code = self._functions.rknn_run(self._handle, None)
        if code < 0:
            raise error_of(code, "rknn_run")


def _set_mask(runtime: c.Runtime, handle: Any, mask: int) -> None:
    code = runtime.functions.rknn_set_core_mask(handle, mask)
    if code >= 0:
        return
    error = error_of(code, f"rknn_set_core_mask({mask})")
    if isinstance(error, DeviceLost | DeviceTimeout | OutOfMemory):
        raise error
    raise Unsupported(error.problem, fix="use a core mask that this SoC has; chips with one NPU core take none but 0")


def _versions(runtime: c.Runtime, handle: Any) -> tuple[str | None, str | None]:
    """Of the runtime and of the kernel driver: the numbers without what stands behind them."""
    told = c.SdkVersion()
    runtime.query(handle, c.QUERY_SDK_VERSION, told)
    library, _, _ = told.api_version.decode(errors="replace").partition(" ")
    kernel, _, _ = told.drv_version.decode(errors="replace").partition(" ")
    return library or None, kernel or None
