"""A device, opened: what kernels are run with.

::

    with open_device() as device:  # of hetero_vulkan.opening
        add = device.pipeline("add", {"local_size_x": 64})
        x, y, z = (device.buffer(4 * 1000) for _ in range(3))
        x.write(a), y.write(b)
        commands = device.record([Dispatch(add, [x, y, z], (16, 1, 1), {"count": 1000})])
        commands.run(timeout=1.0)                       # as often as you like
        c = z.read(np.float32, 1000)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hetero.errors import ClosedError, DeviceLost, OptionError, Unsupported
from hetero.memory.statistics import PoolStatistics
from hetero.tensors import Array
from hetero_kernels import vulkan as kernels
from hetero_vulkan.buffers import Buffer
from hetero_vulkan.commands import Commands, Copy, Step
from hetero_vulkan.failures import SUCCESS, failure
from hetero_vulkan.instance import Instance
from hetero_vulkan.memory import ALIGNMENT, Arena, Block, Purpose
from hetero_vulkan.physical import Physical, QueueFamily, switch_on
from hetero_vulkan.pipeline_cache import PipelineCache
from hetero_vulkan.pipelines import Number, Pipeline, Pipelines

_log = logging.getLogger(__name__)

MOST_LANES = 4
"""Queues that are used at most: each lane needs buffers of its own."""


class Queue:
    """A VkQueue.

    Attributes:
        handle: Vulkan's.
        family: Where it is from.
        lock: Held in a submission; Vulkan wants one at a time.
        submit: `vkQueueSubmit`.
    """

    def __init__(self, handle: Any, family: QueueFamily, submit: Callable[..., int]) -> None:
        self.handle = handle
        self.family = family
        self.lock = threading.Lock()
        self.submit = submit


class VulkanDevice:
    """A logical device. A context manager; usable from any thread, except that `Commands` are for one at a time.

    Args:
        instance: Where it is from, which it keeps open.
        physical: The device.
        name: For messages and statistics: `vulkan:0`.
        cache: Folder for compiled pipelines; None: they are not kept.
        memory_limit: Bytes that its buffers may come to; None for no limit.
        clock: Seconds, for time-outs.

    Attributes:
        lost: Why it is of no use any more; empty as long as it works.
        notes: Remarks for people: a cache that could not be used.
        quirks: Where it differs from numpy as Vulkan allows; see `hetero_vulkan.selftest`.

    Raises:
        BackendError: The driver does not give the device.
    """

    def __init__(
        self,
        instance: Instance,
        physical: Physical,
        *,
        name: str = "vulkan",
        cache: Path | None = None,
        memory_limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.instance = instance
        self.vulkan = instance.vulkan
        self.physical = physical
        self.name = name
        self.clock = clock
        self.lost = ""
        self.notes: list[str] = []
        self.quirks: frozenset[str] = frozenset()
        self.handle: Any = None
        self._lock = threading.RLock()
        self._commands: set[Commands] = set()
        self._stuck = False
        self._closed = False
        self._leases = 0
        family = physical.queues[0]
        count = min(family.count, MOST_LANES)
        self._imported: set[Block] = set()
        self._arena = Arena(self, memory_limit)
        self._cache: PipelineCache | None = None
        self._pipelines: Pipelines | None = None
        self._make(family, count)
        self.functions = self.vulkan.device_functions(self.handle, physical.driver or physical.name)
        self.queues: list[Queue] = []
        try:
            self.queues += [self._queue(family, index) for index in range(count)]
            self._cache = PipelineCache(self, cache)
            self._pipelines = Pipelines(self, self._cache.handle)
        except BaseException:
            self._destroy()
            raise

    @property
    def lanes(self) -> int:
        """Queues that work goes to, independent of each other."""
        return len(self.queues)

    @property
    def memory(self) -> PoolStatistics:
        """What of its memory is in use."""
        return self._arena.statistics

    def pipeline(
        self,
        name: str,
        constants: Mapping[str, Number] | None = None,
        *,
        subgroup: int | None = None,
        code: bytes | None = None,
    ) -> Pipeline:
        """A kernel, compiled; the same one when it was asked for before.

        Args:
            name: A kernel of `hetero_kernels.vulkan`.
            constants: Specialization constants by name; the others have their defaults.
            subgroup: The size of subgroups that it needs; None: the driver's own.
            code: SPIR-V, for one that is not of `hetero_kernels`.

        Raises:
            Unsupported: The device lacks what the kernel needs.
            OptionError: No such constant.
            ProgramInvalid: No such kernel, or no SPIR-V.
            ExecutionError: The driver cannot compile it.
        """
        self.check_alive()
        assert self._pipelines is not None
        return self._pipelines.get(name, kernels.spirv(name) if code is None else code, constants or {}, subgroup)

    def buffer(self, nbytes: int, purpose: Purpose = "device", *, alignment: int = ALIGNMENT) -> Buffer:
        """A buffer; it holds whatever was there.

        Args:
            nbytes: Bytes, at least 1.
            purpose: `device`; `upload` and `download` for memory that the host sees, where the device has its own.
            alignment: Of its beginning, bytes; a power of 2.

        Raises:
            OutOfMemory: There is no room.
        """
        self.check_alive()
        if nbytes < 1:
            raise OptionError(f"a buffer of {nbytes} bytes, expected at least 1")
        block, offset, size = self._arena.take(nbytes, purpose, max(alignment, ALIGNMENT))
        return Buffer(self, block, offset, nbytes, purpose, size=size)

    def import_host(self, array: Array) -> Buffer:
        """A buffer over the memory of an array, without a copy. The buffer keeps the array.

        Args:
            array: C-contiguous, at an address and of a size that are multiples of `import_alignment`.

        Raises:
            Unsupported: The driver cannot do it, or not with this array.
        """
        self.check_alive()
        step = self.import_alignment
        address = array.ctypes.data
        if not step:
            raise Unsupported(f"{self.physical.name} cannot work in memory of the host's", fix="copy it to a buffer")
        if not array.flags.c_contiguous or address % step or array.nbytes % step or not array.nbytes:
            raise Unsupported(
                f"an array of {array.nbytes} bytes at {address:#x}, expected whole units of {step} bytes in order",
                fix="take it from Runtime.buffer(access='streaming')",
            )
        kind = self._importable(address)
        block = Block(self, array.nbytes, kind, alone=True, host=address)
        with self._lock:
            self._imported.add(block)
        return Buffer(self, block, 0, array.nbytes, "device", keeps=array)

    @property
    def import_alignment(self) -> int:
        """Bytes that `import_host` takes multiples of; 0: it does not work here."""
        return int(self.physical.limits["minImportedHostPointerAlignment"])

    def record(
        self, steps: Sequence[Step], *, lane: int = 0, timed: bool = False, most_cost: float | None = None
    ) -> Commands:
        """Record work, to be submitted as often as you like.

        Args:
            steps: In order; see `Commands`.
            lane: The queue, from 0 to `lanes - 1`.
            timed: Measure each step; see `Commands.seconds`.
            most_cost: Submit in parts of about so many floating-point operations, by the steps' `cost`.

        Raises:
            Unsupported: A step is beyond the device's limits.
            OptionError: Push constants that the kernel does not have, or sizes that do not fit.
            OutOfMemory: There is no room for them.
        """
        self.check_alive()
        commands = Commands(self, steps, lane=lane, timed=timed, most_cost=most_cost)
        with self._lock:
            self._commands.add(commands)
        return commands

    def copy(self, source: Buffer, target: Buffer, timeout: float = 60.0) -> None:
        """Copy on the device, and wait for it."""
        with self.record([Copy(source, target)]) as commands:
            commands.run(timeout)

    def save_pipelines(self) -> None:
        """Keep what was compiled, for the next process; nothing when there is nothing new."""
        if self._cache is not None and self._pipelines is not None:
            self._cache.save(self._pipelines.compiled)

    def check(self, result: int, doing: str) -> None:
        """Raise what a VkResult means.

        Raises:
            BackendError: It is no success; a DeviceLost ends the use of the device.
        """
        if result == SUCCESS:
            return
        error = failure(result, f"{self.name}: {doing}")
        if isinstance(error, DeviceLost):
            self.lost = self.lost or error.problem
        raise error

    def check_alive(self) -> None:
        """Raise where the device is of no use any more.

        Raises:
            DeviceLost: It was lost, or hangs.
            ClosedError: It is closed.
        """
        if self.lost:
            raise DeviceLost(self.lost, fix="look into the kernel's log (dmesg)")
        if self._closed:
            raise ClosedError(f"{self.name} is closed", fix="make a new Runtime")

    def stuck(self, why: str) -> None:
        """Give the device up: something runs on it that does not end, so nothing of it may be freed."""
        _log.error("%s is given up, and its memory with it: %s", self.name, why)
        self._stuck = True
        self.lost = self.lost or f"{self.name} hangs: {why}"

    @property
    def hangs(self) -> bool:
        """It was given up with something running on it."""
        return self._stuck

    def freed(self, block: Block, offset: int, size: int) -> None:
        """A buffer is freed."""
        if self._stuck or block.handle is None:
            return
        if size:
            self._arena.give(block, offset, size)
        else:
            with self._lock:
                self._imported.discard(block)
            block.destroy()

    def forget(self, commands: Commands) -> None:
        """Commands are closed."""
        with self._lock:
            self._commands.discard(commands)

    def lease(self) -> None:
        """Somebody uses it: it is not closed before `returned` was called as often."""
        with self._lock:
            self._leases += 1

    def returned(self) -> None:
        """One of those who use it no longer does."""
        with self._lock:
            self._leases -= 1
            if self._closed and not self._leases:
                self._finish()

    def close(self) -> None:
        """Destroy it and all that is of it, once nobody uses it any more. A second time does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                if not self._leases:
                    self._finish()

    def __enter__(self) -> VulkanDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def settle(self) -> None:
        """Wait for what a lost device still does: it says so at once."""
        for queue in self.queues:
            queue.lock.acquire()
        try:
            self.functions.vkDeviceWaitIdle(self.handle)
        finally:
            for queue in self.queues:
                queue.lock.release()

    def _make(self, family: QueueFamily, count: int) -> None:
        vulkan = self.vulkan
        queue = vulkan.new(
            "VkDeviceQueueCreateInfo", queueFamilyIndex=family.index, queueCount=count, pQueuePriorities=[1.0] * count
        )
        extensions = [extension.encode() for extension in self.physical.extensions]
        info = vulkan.new(
            "VkDeviceCreateInfo",
            pNext=switch_on(self.instance, self.physical),
            queueCreateInfoCount=1,
            pQueueCreateInfos=[queue],
            enabledExtensionCount=len(extensions),
            ppEnabledExtensionNames=extensions,
        )
        made = vulkan.ffi.new("VkDevice *")
        result = self.instance.functions.vkCreateDevice(self.physical.handle, info, vulkan.NULL, made)
        self.check(result, "opening the device")
        self.handle = made[0]
        self.instance.retain()

    def _queue(self, family: QueueFamily, index: int) -> Queue:
        made = self.vulkan.ffi.new("VkQueue *")
        self.functions.vkGetDeviceQueue(self.handle, family.index, index, made)
        return Queue(made[0], family, self.functions.vkQueueSubmit)

    def _importable(self, address: int) -> Any:
        vulkan = self.vulkan
        told = vulkan.new("VkMemoryHostPointerPropertiesEXT")
        result = self.functions.vkGetMemoryHostPointerPropertiesEXT(
            self.handle,
            vulkan.constant("VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT"),
            vulkan.ffi.cast("void *", address),
            told,
        )
        self.check(result, "asking about memory of the host's")
        # What is not mapped by Vulkan cannot be flushed either.
        able = [kind for kind in self.physical.memory_types if told.memoryTypeBits >> kind.index & 1 and kind.coherent]
        if not able:
            raise Unsupported(f"{self.physical.name} takes no memory of the host's of this kind", fix="copy it")
        return max(able, key=lambda kind: kind.cached)

    def _finish(self) -> None:
        for commands in list(self._commands):
            commands.close()
        if not self.lost:
            self.save_pipelines()
        self._destroy()

    def _destroy(self) -> None:
        if self._stuck or self.handle is None:
            return
        if self.lost:
            self.settle()
        if self._pipelines is not None:
            self._pipelines.close()
        if self._cache is not None:
            self._cache.close()
        for block in self._imported:
            block.destroy()
        self._arena.close()
        self.functions.vkDestroyDevice(self.handle, self.vulkan.NULL)
        self.handle = None
        self.instance.release()
