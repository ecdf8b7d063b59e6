"""Work for a device, recorded once and submitted many times."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hetero.errors import ClosedError, DeviceLost, DeviceTimeout, ExecutionError, OptionError
from hetero_vulkan.failures import SUCCESS
from hetero_vulkan.hazards import Hazards
from hetero_vulkan.signals import signal_of
from hetero_vulkan.steps import Copy, Dispatch, Fill, Step, buffers_of, check_dispatch, parts_of

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

__all__ = ["Commands", "Copy", "Dispatch", "Fill", "Step"]

_SLICE = 0.1
"""Seconds: the longest single wait, after which a signal of the system is answered."""

_COMPUTE_POINT = 1  # VK_PIPELINE_BIND_POINT_COMPUTE
_COMPUTE_STAGE = 0x20  # VK_SHADER_STAGE_COMPUTE_BIT
_ALL_ENDED = 0x2000  # VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT


class Commands:
    """Recorded work. Made by `VulkanDevice.record`; a context manager. For one thread at a time.

    Steps take effect as if each one ended before the next began: barriers are set where one reads or writes what
    another wrote, or writes what it read. So do submissions to one lane.

    Attributes:
        steps: What was recorded.
        submissions: How many parts it is submitted in.
        barriers: How many barriers were set between steps.
    """

    def __init__(
        self, device: VulkanDevice, steps: Sequence[Step], *, lane: int, timed: bool, most_cost: float | None
    ) -> None:
        self.device = device
        self.steps = tuple(steps)
        self.barriers = 0
        self._queue = device.queues[lane]
        self._timed = timed
        self._closed = False
        self._pending = False
        self._pool: Any = None
        self._descriptors: Any = None
        self._queries: Any = None
        self._signal: Any = None
        vulkan = device.vulkan
        self._parts = parts_of(self.steps, most_cost)
        self.submissions = len(self._parts)
        for step in self.steps:
            if isinstance(step, Dispatch):
                check_dispatch(device, step)
            if any(buffer.device is not device for buffer in buffers_of(step)):
                raise OptionError(f"a buffer of another device is given to {device.name}")
        try:
            self._signal = signal_of(device)
            self._make_pools()
            sets = self._sets()
            self._buffers = self._allocate()
            self._record(sets)
        except BaseException:
            self._destroy()
            self._closed = True
            raise
        # Each part is a submission of its own, so that no watchdog sees the whole; the last one signals the end.
        self._infos = [
            vulkan.new("VkSubmitInfo", commandBufferCount=1, pCommandBuffers=[buffer]) for buffer in self._buffers
        ]
        self._signal.attach(self._infos[-1])

    def submit(self) -> None:
        """Hand it to the device.

        Raises:
            DeviceLost: The device is lost.
            ExecutionError: It is still running, or the driver refuses.
        """
        if self._closed:
            raise ClosedError("these commands are closed", fix="record them again")
        if self._pending and not self.done():
            raise ExecutionError("these commands are still running", fix="wait for them first")
        self.device.check_alive()
        queue, signal, null = self._queue, self._signal, self.device.vulkan.NULL
        last = self._infos[-1]
        with queue.lock:
            fence = signal.arm()
            for info in self._infos:
                result = queue.submit(queue.handle, 1, info, fence if info is last else null)
                if result:
                    signal.disarm()
                    self._refused(result, info is self._infos[0])
        self._pending = True

    def done(self) -> bool:
        """Whether it has ended, or was never submitted.

        Raises:
            DeviceLost: The device was lost meanwhile.
        """
        if self._pending and self._signal.wait(0) == SUCCESS:
            self._pending = False
        return not self._pending

    def wait(self, timeout: float = 10.0) -> None:
        """Wait until it has ended.

        Args:
            timeout: Seconds.

        Raises:
            DeviceTimeout: It has not ended; it goes on, and may be waited for again.
            DeviceLost: The device was lost meanwhile.
        """
        if not self._pending:
            return
        clock = self.device.clock
        until = clock() + timeout
        while True:
            left = until - clock()
            if self._signal.wait(int(max(0.0, min(left, _SLICE)) * 1e9)) == SUCCESS:
                self._pending = False
                return
            if left <= _SLICE:
                raise DeviceTimeout(
                    f"{self.device.name} has not ended its work in {timeout:g} s",
                    fix="raise the option vulkan.timeout, or use another device",
                )

    def run(self, timeout: float = 10.0) -> None:
        """Submit and wait."""
        self.submit()
        self.wait(timeout)

    def seconds(self) -> list[float]:
        """How long each step of the last run took on the device, from the end of the one before it.

        Raises:
            OptionError: It was not recorded with `timed=True`, or the device has no timestamps.
        """
        if self._queries is None:
            raise OptionError("these commands are not timed", fix="record(..., timed=True)")
        device, ffi = self.device, self.device.vulkan.ffi
        count = len(self.steps) + 1
        ticks = ffi.new("uint64_t[]", count)
        flags = device.vulkan.constant("VK_QUERY_RESULT_64_BIT")
        result = device.functions.vkGetQueryPoolResults(
            device.handle, self._queries, 0, count, 8 * count, ticks, 8, flags
        )
        device.check(result, "reading timestamps")
        mask = (1 << self._queue.family.timestamp_bits) - 1
        period = device.physical.limits["timestampPeriod"] * 1e-9
        return [((ticks[i + 1] - ticks[i]) & mask) * period for i in range(count - 1)]

    def close(self) -> None:
        """Free it, when it has ended; if it does not, the device is given up. A second time does nothing."""
        if self._closed:
            return
        self._closed = True
        if self.device.hangs:
            return
        try:
            self.wait()
        except DeviceTimeout:
            self.device.stuck("work that was to be freed has not ended")
            return
        except DeviceLost:
            self._pending = False
        if self.device.lost:
            # What was running ends with the device; so do first parts of a submission whose rest was refused.
            self.device.settle()
        self._destroy()

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _refused(self, result: int, first: bool) -> None:
        try:
            self.device.check(result, "submitting work")
        except DeviceLost:
            raise
        except ExecutionError:
            if not first:
                self.device.stuck("the first parts of some work run, and the rest was refused")
            raise

    def _destroy(self) -> None:
        device, null = self.device, self.device.vulkan.NULL
        functions = device.functions
        if self._pool is not None:
            functions.vkDestroyCommandPool(device.handle, self._pool, null)
        if self._descriptors is not None:
            functions.vkDestroyDescriptorPool(device.handle, self._descriptors, null)
        if self._queries is not None:
            functions.vkDestroyQueryPool(device.handle, self._queries, null)
        if self._signal is not None:
            self._signal.close()
        self._pool = self._descriptors = self._queries = self._signal = None
        device.forget(self)

    def _make_pools(self) -> None:
        device, vulkan = self.device, self.device.vulkan
        made = vulkan.ffi.new("VkCommandPool *")
        info = vulkan.new("VkCommandPoolCreateInfo", queueFamilyIndex=self._queue.family.index)
        doing = "making room for commands"
        device.check(device.functions.vkCreateCommandPool(device.handle, info, vulkan.NULL, made), doing)
        self._pool = made[0]
        bound = [step for step in self.steps if isinstance(step, Dispatch) and step.buffers]
        if bound:
            size = vulkan.new(
                "VkDescriptorPoolSize",
                type=vulkan.constant("VK_DESCRIPTOR_TYPE_STORAGE_BUFFER"),
                descriptorCount=sum(len(step.buffers) for step in bound),
            )
            info = vulkan.new("VkDescriptorPoolCreateInfo", maxSets=len(bound), poolSizeCount=1, pPoolSizes=[size])
            made = vulkan.ffi.new("VkDescriptorPool *")
            device.check(device.functions.vkCreateDescriptorPool(device.handle, info, vulkan.NULL, made), doing)
            self._descriptors = made[0]
        if self._timed and self._queue.family.timestamp_bits:
            info = vulkan.new(
                "VkQueryPoolCreateInfo",
                queryType=vulkan.constant("VK_QUERY_TYPE_TIMESTAMP"),
                queryCount=len(self.steps) + 1,
            )
            made = vulkan.ffi.new("VkQueryPool *")
            device.check(device.functions.vkCreateQueryPool(device.handle, info, vulkan.NULL, made), doing)
            self._queries = made[0]

    def _sets(self) -> list[Any]:
        """A descriptor set for each step that has buffers, all written in one call."""
        device, vulkan = self.device, self.device.vulkan
        ffi = vulkan.ffi
        bound = [step for step in self.steps if isinstance(step, Dispatch) and step.buffers]
        if not bound:
            return []
        layouts = ffi.new("VkDescriptorSetLayout[]", [step.pipeline.set_layout for step in bound])
        info = vulkan.new(
            "VkDescriptorSetAllocateInfo",
            descriptorPool=self._descriptors,
            descriptorSetCount=len(bound),
            pSetLayouts=layouts,
        )
        sets = ffi.new("VkDescriptorSet[]", len(bound))
        doing = "making room for descriptors"
        device.check(device.functions.vkAllocateDescriptorSets(device.handle, info, sets), doing)
        count = sum(len(step.buffers) for step in bound)
        ranges = ffi.new("VkDescriptorBufferInfo[]", count)
        writes = ffi.new("VkWriteDescriptorSet[]", count)
        template = vulkan.new(
            "VkWriteDescriptorSet",
            descriptorCount=1,
            descriptorType=vulkan.constant("VK_DESCRIPTOR_TYPE_STORAGE_BUFFER"),
        )
        at = 0
        for step, target in zip(bound, sets, strict=True):
            for (number, _), buffer in zip(step.pipeline.shader.bindings, step.buffers, strict=True):
                place, write = ranges[at], writes[at]
                place.buffer, place.offset, place.range = buffer.block.handle, buffer.offset, buffer.nbytes
                ffi.memmove(ffi.addressof(write), template, ffi.sizeof("VkWriteDescriptorSet"))
                write.dstSet, write.dstBinding, write.pBufferInfo = target, number, ffi.addressof(place)
                at += 1
        device.functions.vkUpdateDescriptorSets(device.handle, count, writes, 0, vulkan.NULL)
        return list(sets)

    def _allocate(self) -> list[Any]:
        device, vulkan = self.device, self.device.vulkan
        info = vulkan.new("VkCommandBufferAllocateInfo", commandPool=self._pool, commandBufferCount=len(self._parts))
        buffers = vulkan.ffi.new("VkCommandBuffer[]", len(self._parts))
        device.check(
            device.functions.vkAllocateCommandBuffers(device.handle, info, buffers), "making room for commands"
        )
        return list(buffers)

    def _record(self, sets: list[Any]) -> None:
        device, vulkan = self.device, self.device.vulkan
        functions, null = device.functions, vulkan.NULL
        begin = vulkan.new("VkCommandBufferBeginInfo")
        remaining = iter(sets)
        # What was submitted before on this lane may still be running.
        hazards = Hazards(device, self._buffers[0])
        number = 0
        for index, (part, target) in enumerate(zip(self._parts, self._buffers, strict=True)):
            device.check(functions.vkBeginCommandBuffer(target, begin), "recording commands")
            hazards.into(target)
            if index == 0:
                if self._queries is not None:
                    functions.vkCmdResetQueryPool(target, self._queries, 0, len(self.steps) + 1)
                hazards.barrier()
                self._stamp(target, 0)
            for step in part:
                if isinstance(step, Dispatch):
                    self._dispatch(target, step, next(remaining) if step.buffers else null, hazards)
                else:
                    self._transfer(target, step, hazards)
                number += 1
                self._stamp(target, number)
            if index + 1 == len(self._parts):
                hazards.to_host()
            device.check(functions.vkEndCommandBuffer(target), "recording commands")
        self.barriers = hazards.count - 1

    def _dispatch(self, target: Any, step: Dispatch, described: Any, hazards: Hazards) -> None:
        functions, vulkan = self.device.functions, self.device.vulkan
        pipeline = step.pipeline
        shader = pipeline.shader
        hazards.before(
            [buffer for (_, reads), buffer in zip(shader.bindings, step.buffers, strict=True) if reads],
            [buffer for (_, reads), buffer in zip(shader.bindings, step.buffers, strict=True) if not reads],
        )
        point = _COMPUTE_POINT
        functions.vkCmdBindPipeline(target, point, pipeline.handle)
        if step.buffers:
            holder = vulkan.ffi.new("VkDescriptorSet *", described)
            functions.vkCmdBindDescriptorSets(target, point, pipeline.layout, 0, 1, holder, 0, vulkan.NULL)
        if shader.push_bytes:
            packed = pipeline.packed(step.push, step.buffers)
            functions.vkCmdPushConstants(target, pipeline.layout, _COMPUTE_STAGE, 0, len(packed), packed)
        functions.vkCmdDispatch(target, *step.groups)

    def _transfer(self, target: Any, step: Copy | Fill, hazards: Hazards) -> None:
        functions, into = self.device.functions, step.target
        if isinstance(step, Copy):
            if step.source.nbytes > into.nbytes:
                raise OptionError(f"a copy of {step.source.nbytes} bytes to a buffer of {into.nbytes}")
            hazards.before([step.source], [into])
            region = self.device.vulkan.new(
                "VkBufferCopy", srcOffset=step.source.offset, dstOffset=into.offset, size=step.source.nbytes
            )
            functions.vkCmdCopyBuffer(target, step.source.block.handle, into.block.handle, 1, region)
        else:
            if into.nbytes % 4:
                raise OptionError(f"filling a buffer of {into.nbytes} bytes, expected a multiple of 4")
            hazards.before([], [into])
            functions.vkCmdFillBuffer(target, into.block.handle, into.offset, into.nbytes, step.word)

    def _stamp(self, target: Any, number: int) -> None:
        if self._queries is not None:
            self.device.functions.vkCmdWriteTimestamp(target, _ALL_ENDED, self._queries, number)
