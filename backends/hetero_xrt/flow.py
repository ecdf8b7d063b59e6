"""The vendor's flow: xclbin, registered; context; kernel; buffers; run. What XRT's version has is found by looking.

| XRT | way in |
|---|---|
| 2.16 and later | `register_xclbin`, `hw_context`, `kernel(context, name)` |
| 2.13 to 2.15 | `load_xclbin`, `kernel(device, uuid, name)`: one context; deprecated since 2.23 |

No call here waits with the GIL held: pyxrt holds it in every wait, so a run is asked for its `state()`, and waited for
only when that says that it is over. A `runlist` is not used: it has no state that could be asked for and its wait takes
no time-out, so it can only be waited for with the GIL held.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from hetero.backend import Unavailable, Unsupported
from hetero.kernel_manifest import FIRST_DATA_ARGUMENT
from hetero.tensors import Array
from hetero_xrt.arguments import Argument
from hetero_xrt.failures import ended_in, translated
from hetero_xrt.flights import FLIGHTS
from hetero_xrt.layout import Tiles
from hetero_xrt.manifest import Manifest
from hetero_xrt.weights import Held, ResidentWeights, Weights

MOST_IN_FLIGHT = 4
"""In one context: the driver's queue. The next submit would block with the GIL held."""

_MOST_SCALAR = 2**31 - 1
_OVER = ("COMPLETED", "ERROR", "ABORT", "TIMEOUT", "NORESPONSE", "SKERROR", "SKCRASHED")


class Flow:
    """pyxrt and the device, opened when the first kernel is.

    Args:
        module: `pyxrt`, or a simulated one.
        clock: Seconds, for time-outs.

    Attributes:
        contextual: Contexts can be made; else XRT is older than 2.16.
        generation: Counts how often the device was opened again after it was lost.
        weights: Those that stay on the device.
    """

    def __init__(self, module: ModuleType, clock: Callable[[], float] = time.monotonic) -> None:
        self.x: Any = module
        self.clock = clock
        self.contextual = hasattr(module, "hw_context") and hasattr(module.device, "register_xclbin")
        self.generation = 0
        self.weights = ResidentWeights()
        states = module.ert_cmd_state
        self.completed = states.ERT_CMD_STATE_COMPLETED
        # An enumeration's members are not ints, and which there are depends on the version.
        self.over = {
            getattr(states, f"ERT_CMD_STATE_{name}"): name for name in _OVER if hasattr(states, f"ERT_CMD_STATE_{name}")
        }
        self.to_device = module.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE
        self.from_device = module.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
        self._device: Any = None

    @property
    def way(self) -> str:
        """The way in, for people."""
        if self.contextual:
            return "hw_context"
        return "load_xclbin (deprecated: XRT older than 2.16 has one context for each xclbin; upgrade XRT)"

    def device(self) -> Any:
        """The NPU, opened once.

        Raises:
            Unavailable: There is none, or this user may not open it.
            DeviceLost: It went away.
        """
        if self._device is None:
            try:
                if hasattr(self.x, "enumerate_devices") and not self.x.enumerate_devices():
                    raise RuntimeError(" No such device with index '0'")
                self._device = self.x.device(0)
            except RuntimeError as error:
                raise translated(error, "opening the NPU") from error
        return self._device

    def lost(self) -> None:
        """Open the device anew next time: contexts of before stay dead."""
        self._device = None
        self.generation += 1

    def context(self, manifest: Manifest) -> Context:
        """A context with the kernel in it: on a laptop about 35 ms, so keep it.

        Args:
            manifest: Its files were checked when it was read, before any call of the vendor's.

        Raises:
            Unavailable: No NPU, no permission, or no context left.
            OutOfMemory: The instructions do not fit the limit of locked memory.
            Unsupported: XRT does not find in the xclbin what the manifest says.
            DeviceLost: It went away.
        """
        return Context(self, manifest)


class Context:
    """A hardware context with one kernel and its instructions.

    Attributes:
        late: Launches that have taken too long and are not over: while there are any, nothing is started behind them.
    """

    def __init__(self, flow: Flow, manifest: Manifest) -> None:
        self.flow = flow
        self.manifest = manifest
        self.late = 0
        device, x = flow.device(), flow.x
        path = str(manifest.xclbin.path)
        try:
            xclbin = x.xclbin(path)
            self._check_arguments(xclbin)
            if flow.contextual:
                device.register_xclbin(xclbin)
                self._context = x.hw_context(device, xclbin.get_uuid())
                self.kernel = x.kernel(self._context, manifest.name)
            else:
                self.kernel = x.kernel(device, device.load_xclbin(path), manifest.name)
            words = np.fromfile(manifest.instructions, np.uint32)
            self.words = len(words)
            self.instructions = x.bo(device, words.nbytes, x.bo.cacheable, self.kernel.group_id(1))
            np.copyto(np.frombuffer(self.instructions.map(), np.uint32, self.words), words)
            self.instructions.sync(flow.to_device, words.nbytes, 0)
        except RuntimeError as error:
            raise translated(error, f"loading {manifest.xclbin.path.name}") from error

    def buffer(self, argument: Argument) -> Any:
        """A buffer for an argument, in memory of the host: the NPU's driver has no other for data."""
        flow, group = self.flow, self.kernel.group_id(argument.index)
        # Above the memory bank is the context's own number.
        if argument.group is not None and argument.group & 0xFFFF != group & 0xFFFF:
            raise Unsupported(
                f"{self.manifest.path}: argument {argument.name} has group {argument.group}, "
                f"but the xclbin says {group}",
                fix="take `group` out of the manifest, or name the xclbin that it describes",
            )
        size = self.manifest.size_of(argument)
        buffer = flow.x.bo(flow.device(), size, flow.x.bo.host_only, group)
        if argument.file is not None:
            np.copyto(np.frombuffer(buffer.map(), np.uint8, size), np.fromfile(argument.file, np.uint8))
            buffer.sync(flow.to_device, size, 0)
        return buffer

    def weights_in(self, held: Held | None, weights: Weights, tiles: Tiles) -> Held:
        """Weights in buffers for the kernel's weight arguments, filled and synced.

        Args:
            held: Buffers to fill; new ones when not given.
            weights: What to fill them with.
            tiles: How tensors lie in buffers.

        Raises:
            OutOfMemory: The limit of locked memory is reached.
        """
        arguments = [argument for argument in self.manifest.arguments if argument.role == "weight"]
        if held is None:
            try:
                buffers = [self.buffer(argument) for argument in arguments]
                held = Held(buffers, [buffer.map() for buffer in buffers], sum(map(self.manifest.size_of, arguments)))
            except RuntimeError as error:
                raise translated(error, f"making buffers for weights of {self.manifest.logical}") from error
        for argument, buffer, memory in zip(arguments, held.buffers, held.maps, strict=True):
            tiles.fill(tiles.pieces(argument, memory), weights.arrays, 0, 0)
            buffer.sync(self.flow.to_device, self.manifest.size_of(argument), 0)
        return held

    def _check_arguments(self, xclbin: Any) -> None:
        """One argument too many is a segmentation fault in pyxrt, so XRT's own number is looked at first."""
        needed = FIRST_DATA_ARGUMENT + len(self.manifest.arguments)
        kernels = {kernel.get_name(): kernel for kernel in xclbin.get_kernels()}
        told = kernels.get(self.manifest.name)
        if told is not None and told.get_num_args() < needed:
            raise Unsupported(
                f"{self.manifest.path} names {needed - FIRST_DATA_ARGUMENT} buffers, but the kernel "
                f"{self.manifest.name} takes {told.get_num_args() - FIRST_DATA_ARGUMENT}",
                fix="name every buffer of the compiled design once, and no other",
            )


class Launch:
    """One launch that can be repeated: a run with its buffers and their maps, which it outlives by none.

    Args:
        context: Where it runs.
        tiles: How the tensors lie in its buffers.

    Attributes:
        started: When it was started last, on the flow's clock.
        cover: First and last entry of the inputs that it works on.
    """

    def __init__(self, context: Context, tiles: Tiles) -> None:
        self.context = context
        self.started = 0.0
        self.cover = (0, 0)
        self._flow = context.flow
        self._tiles = tiles
        self._run: Any = None
        manifest = context.manifest
        try:
            # Those of weights are had when it is known which weights.
            self._buffers: list[Any] = [None if a.role == "weight" else context.buffer(a) for a in manifest.arguments]
            # The vendor's map does not keep its buffer alive, the launch holds both.
            self._maps = [None if buffer is None else buffer.map() for buffer in self._buffers]
        except RuntimeError as error:
            raise translated(error, f"making the buffers of {manifest.logical}") from error
        pairs: list[tuple[Argument, Any, Any]] = list(zip(manifest.arguments, self._buffers, self._maps, strict=True))
        self._read = [(b, tiles.pieces(a, m)) for a, b, m in pairs if a.role in ("in", "inout")]
        self._written = [(b, tiles.pieces(a, m)) for a, b, m in pairs if a.role in ("out", "inout")]
        self._sizes = {id(buffer): manifest.size_of(argument) for argument, buffer, _ in pairs if buffer is not None}
        self._weighing = [place for place, a in enumerate(manifest.arguments) if a.role == "weight"]
        self._own: Held | None = None
        self._held: Held | None = None
        self._weights: weakref.ref[Weights] | None = None

    def fill(self, inputs: Mapping[str, Array], first: int, last: int, weights: Weights | None = None) -> None:
        """Copy entries of the inputs to the device, and the weights if they are not there.

        Args:
            inputs: By name.
            first: The first entry.
            last: The one behind the last.
            weights: What the kernel's weight arguments are to hold; not for a kernel that has none.
        """
        self.cover = (first, last)
        for _, pieces in self._read:
            self._tiles.fill(pieces, inputs, first, last)
        try:
            for buffer, _ in self._read:
                buffer.sync(self._flow.to_device, self._sizes[id(buffer)], 0)
            if self._weighing and weights is not None and not self.bears(weights):
                self._bear(weights)
        except RuntimeError as error:
            raise translated(error, "syncing inputs") from error

    def bears(self, weights: Weights) -> bool:
        """Whether its next launch would read that set."""
        return self._weights is not None and self._weights() is weights

    def rest(self) -> None:
        """It is free: let go of weights that nobody has any more."""
        if self._weights is not None and self._weights() is None and self._held is not self._own:
            self.unload()

    def unload(self) -> None:
        """Let go of the weights that it reads; not while it is in flight."""
        self._held = self._weights = None
        for place in self._weighing:
            self._buffers[place] = None

    def _bear(self, weights: Weights) -> None:
        """Read these weights from now on."""
        self.unload()
        context = self.context
        if weights.stays:
            held = self._flow.weights.get(context, weights, lambda: context.weights_in(None, weights, self._tiles))
        else:
            held = self._own = context.weights_in(self._own, weights, self._tiles)
        for place, buffer in zip(self._weighing, held.buffers, strict=True):
            self._buffers[place] = buffer
            if self._run is not None:
                self._run.set_arg(FIRST_DATA_ARGUMENT + place, buffer)
        self._held, self._weights = held, weakref.ref(weights)

    def start(self) -> None:
        """Start it; it is held until it is over.

        Raises:
            ExecutionError: The driver refused; `DeviceLost` where the device went away.
        """
        if self._run is None:
            self._run = self._made()
        FLIGHTS.begin(self)
        self.started = self._flow.clock()
        try:
            self._run.start()
        except RuntimeError as error:
            FLIGHTS.end(self)
            self._run = None
            raise translated(error, f"starting {self.context.manifest.logical}") from error

    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self._run is None or self._run.state() in self._flow.over

    def collect(self) -> None:
        """Look what came of a launch that is over; it can then be started again.

        Raises:
            ExecutionError: It did not complete; `DeviceTimeout` where it took too long.
        """
        # XRT notices the end of a command in a wait; this one has nothing to wait for.
        state = self._run.wait(1)
        FLIGHTS.end(self)
        if state != self._flow.completed:
            self._run = None
            raise ended_in(self._flow.over.get(state, str(state)), self.context.manifest.logical)

    def take(self, outputs: Mapping[str, Array]) -> None:
        """Copy the answer from the device to the entries that it covers."""
        try:
            for buffer, _ in self._written:
                buffer.sync(self._flow.from_device, self._sizes[id(buffer)], 0)
        except RuntimeError as error:
            raise translated(error, "syncing outputs") from error
        for _, pieces in self._written:
            self._tiles.take(pieces, outputs, *self.cover)

    def forget(self) -> None:
        """Take a new run next time; of this one, which is over, nobody wants to know what came of it."""
        if self._run is not None:
            self._run.wait(1)
            self._run = None

    def _made(self) -> Any:
        """A run with all its arguments, each of which was checked: pyxrt leaves out what it cannot convert."""
        manifest, context = self.context.manifest, self.context
        scalars = {"opcode": manifest.opcode, "instruction words": context.words}
        for name, value in scalars.items():
            if not 0 <= value <= _MOST_SCALAR:
                raise Unsupported(
                    f"{manifest.path}: {name} is {value}, more than 31 bits", fix="build the kernel again"
                )
        for argument, buffer in zip(manifest.arguments, self._buffers, strict=True):
            if buffer.size() < manifest.size_of(argument):
                raise Unavailable(f"XRT gave a buffer of {buffer.size()} bytes for {manifest.size_of(argument)}")
        run = self._flow.x.run(context.kernel)
        for index, value in enumerate([manifest.opcode, context.instructions, context.words, *self._buffers]):
            run.set_arg(index, value)
        return run
