"""The vendor's classes that run things: `bo`, `run`, `runlist`."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from hetero.kernel_manifest import FIRST_DATA_ARGUMENT
from hetero.tensors import Array
from hetero.testing.xrt.bound import Bound, incompatible, unsigned
from hetero.testing.xrt.enums import BufferFlags, CommandState, SyncDirection
from hetero.testing.xrt.launch import Command, Job
from hetero.testing.xrt.loading import Device, HwContext, Kernel
from hetero.testing.xrt.memory import Buffer

_SIGNED = 1 << 31


class Bo(Bound):
    """`bo`: a buffer, or a part of one."""

    flags = BufferFlags
    normal = BufferFlags.normal
    cacheable = BufferFlags.cacheable
    device_only = BufferFlags.device_only
    host_only = BufferFlags.host_only
    p2p = BufferFlags.p2p
    svm = BufferFlags.svm

    def __init__(self, *args: Any) -> None:
        what = "__init__(): bo"
        if len(args) == 3 and isinstance(args[0], Bo):
            size, offset = unsigned(what, args[1]), unsigned(what, args[2])
            if offset + size > args[0].buffer.size:
                raise RuntimeError("invalid sub buffer size or offset (err=-22)")
            self.buffer: Buffer = args[0].buffer.part(size, offset)
            return
        owners: tuple[type, ...] = (Device, HwContext) if self.npu.phoenix.version >= (2, 23) else (Device,)
        if len(args) == 3 and HwContext in owners and isinstance(args[0], HwContext):
            args = (args[0], args[1], BufferFlags.host_only, args[2])
        if len(args) != 4 or not isinstance(args[0], owners) or not isinstance(args[2], BufferFlags):
            raise incompatible(what, args)
        size, group = unsigned(what, args[1]), unsigned(what, args[3])
        self.npu.enter()
        if args[2] not in (BufferFlags.cacheable, BufferFlags.host_only):
            raise RuntimeError(f"Unsupported buffer type: {args[2].name} (err=-95): Operation not supported")
        if not size:
            raise RuntimeError("DRM_IOCTL_AMDXDNA_CREATE_BO IOCTL failed (err=-22): Invalid argument")
        self.buffer = self.npu.memory.allocate(size, group)

    def write(self, data: Any, seek: Any) -> None:
        """Copy to the host's side, with the GIL held."""
        content = np.frombuffer(memoryview(data).cast("B"), np.uint8)
        offset = unsigned("write()", seek)
        self.npu.enter()
        if offset + len(content) > self.buffer.size:
            raise RuntimeError("attempting to write past buffer size (err=-22)")
        self.buffer.host[offset : offset + len(content)] = content

    def read(self, size: Any, skip: Any) -> Array:
        """A copy of the host's side as int8, made with the GIL held."""
        count, offset = unsigned("read()", size), unsigned("read()", skip)
        self.npu.enter()
        if offset + count > self.buffer.size:
            raise RuntimeError("attempting to read past buffer size (err=-22)")
        content: Array = self.buffer.host[offset : offset + count].view(np.int8).copy()
        return content

    def sync(self, direction: Any, *rest: Any) -> None:
        """Move data between the sides; the whole buffer at once from 2.16 on."""
        old = self.npu.phoenix.version < (2, 16)
        if not isinstance(direction, SyncDirection) or len(rest) not in ((2,) if old else (0, 2)):
            raise incompatible("sync()", (direction, *rest))
        size, offset = (unsigned("sync()", value) for value in rest or (self.buffer.size, 0))
        self.npu.enter()
        if offset + size > self.buffer.size:
            raise RuntimeError("attempting to sync past buffer size (err=-22)")
        self.npu.synced(self.buffer)
        if direction is SyncDirection.XCL_BO_SYNC_BO_TO_DEVICE:
            self.buffer.to_device(size, offset)
        elif direction is SyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE:
            self.buffer.from_device(size, offset)
        else:
            raise RuntimeError(f"{direction.name} is not supported (err=-95): Operation not supported")

    def map(self) -> memoryview:
        """The host's side, to read and to write."""
        # Of the memory, not of the buffer: like the vendor's, it does not keep the buffer alive.
        return self.buffer.host.data

    def size(self) -> int:
        """In bytes."""
        return self.buffer.size

    def address(self) -> int:
        """On the device."""
        return self.buffer.address


class Run(Bound):
    """`run`: a launch that can be repeated."""

    # Class attributes, so that __del__ finds them when __init__ raised.
    _command: Command | None = None
    listed = False

    def __init__(self, kernel: Any) -> None:
        if not isinstance(kernel, Kernel):
            raise incompatible("__init__(): run", (kernel,))
        self.kernel = kernel
        self.arguments: dict[int, int | weakref.ref[Buffer]] = {}
        self.job: Job | None = None

    def __del__(self) -> None:
        if self._command is not None and not self.listed:
            self.npu.dropped(self._command, "run")

    def take(self, index: int, argument: Any) -> bool:
        """Set an argument where it can be converted; no part of the vendor's class."""
        if index >= FIRST_DATA_ARGUMENT + len(self.kernel.context.image.design.arguments):
            self.npu.ledger.crash("too_many_arguments", f"argument {index} of a kernel without it: segmentation fault")
        if isinstance(argument, Bo):
            self.arguments[index] = weakref.ref(argument.buffer)
            return True
        if isinstance(argument, float) or not hasattr(argument, "__index__"):
            return False
        number: int = argument.__index__()
        if not -_SIGNED <= number < _SIGNED:
            return False
        self.arguments[index] = number
        return True

    def set_arg(self, index: Any, argument: Any) -> None:
        """Set one argument: a buffer or an integer of 32 bits."""
        if not self.take(unsigned("set_arg()", index), argument):
            raise incompatible("set_arg()", (index, argument))

    def start(self) -> None:
        """Submit; blocks while the context's queue is full."""
        self.npu.enter()
        if self.listed:
            raise RuntimeError("Run object belongs to a runlist and cannot be explicitly started")
        if self._command is not None and not self._command.done:
            self.npu.ledger.note("restarted_run")
            raise RuntimeError("bad command state, can't launch")
        self._command = self.npu.submit(self.kernel.context, [self.launch()], in_list=False)

    def launch(self) -> Job:
        """The arguments as they are now, as one launch."""
        self.job = Job(self.kernel.context, dict(self.arguments))
        return self.job

    def state(self) -> CommandState:
        """NEW until it has ended; means nothing for a run in a runlist."""
        if self._command is not None:
            self.npu.polled(self._command)
        if self.job is None or self.listed:
            return CommandState.ERT_CMD_STATE_NEW
        return self.job.state

    def wait(self, timeout_ms: Any = 0) -> CommandState:
        """Wait with the GIL held; 0 is for ever. TIMEOUT is the caller's time-out, or the device's."""
        milliseconds = unsigned("wait()", timeout_ms)
        if self._command is None or self.job is None:
            return CommandState.ERT_CMD_STATE_NEW
        done = self.npu.wait(self._command, milliseconds / 1e3 or None)
        return self.job.state if done else CommandState.ERT_CMD_STATE_TIMEOUT


class WaitingRun(Run):
    """`run` from 2.20 on."""

    def wait2(self, *timeout: Any) -> None:
        """Wait for ever; raises where the run failed. With a time-out it is a TypeError in every version."""
        if timeout:
            raise incompatible("wait2()", timeout)
        state = self.wait()
        if state not in (CommandState.ERT_CMD_STATE_COMPLETED, CommandState.ERT_CMD_STATE_NEW):
            raise RuntimeError(f"Command failed to complete successfully ({state.name})")


class Runlist(Bound):
    """`runlist`: launches that are submitted as one command."""

    _command: Command | None = None

    def __init__(self, context: Any) -> None:
        if not isinstance(context, HwContext):
            raise incompatible("__init__(): runlist", (context,))
        self._context = context.context
        self._runs: list[Run] = []
        self._waited = True

    def __del__(self) -> None:
        if self._command is not None:
            self.npu.dropped(self._command, "runlist")
        for run in getattr(self, "_runs", []):
            run.listed = False

    def add(self, run: Any) -> None:
        """Take in a run of the same context, not started."""
        if not isinstance(run, Run):
            raise incompatible("add()", (run,))
        if not self._waited:
            raise RuntimeError("runlist must be idle before adding run objects, current state: running")
        if run.listed:
            raise RuntimeError("Run object is already part of a runlist")
        if run.kernel.context is not self._context:
            raise RuntimeError("runlist and run object must share the same hwctx")
        run.listed = True
        self._runs.append(run)

    def execute(self) -> None:
        """Submit them all."""
        if not self._waited:
            raise RuntimeError("runlist must be idle before submitting for execution, current state: running")
        if self._runs:
            self._command = self.npu.submit(self._context, [run.launch() for run in self._runs], in_list=True)
            self._waited = False

    def wait(self, *timeout: Any) -> None:
        """Wait for ever; raises where a run failed. With a time-out it is a TypeError in every version."""
        if timeout:
            raise incompatible("wait()", timeout)
        if self._command is None or self._waited:
            return
        self.npu.wait(self._command, None)
        self._waited = True
        for job in self._command.jobs:
            if job.state is not CommandState.ERT_CMD_STATE_COMPLETED:
                raise RuntimeError(f"runlist failed execution ({job.state.name})")
