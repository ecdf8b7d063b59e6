"""What the layer over Vulkan costs, beside the wrappers of the `vulkan` package: `python benchmarks/vulkan_layer.py`.

The first device that `HETERO_VK_DEVICE` names, software too. The shader adds 64 numbers: nearly all is overhead.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable

import numpy as np
import vulkan as vk

from hetero_vulkan.buffers import Buffer
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.opening import open_device
from hetero_vulkan.pipelines import Pipeline

MANY = 100


def microseconds(turn: Callable[[], object], repeats: int) -> float:
    """Median of a turn."""
    gc.disable()
    try:
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            turn()
            times.append(time.perf_counter() - begun)
    finally:
        gc.enable()
    return float(np.median(times) * 1e6)


def ours(device: VulkanDevice, pipeline: Pipeline, buffers: list[Buffer], repeats: int) -> dict[str, float]:
    step = Dispatch(pipeline, buffers, (1, 1, 1), {"count": 64})
    # Reads alone need no barrier; the writes to one buffer do, as they would between layers of a model.
    one = microseconds(lambda: device.record([step]).close(), repeats)
    many = microseconds(lambda: device.record([step] * (MANY + 1)).close(), max(1, repeats // 20))
    with device.record([step]) as commands:
        run = microseconds(commands.run, repeats)

        def submit_only() -> None:
            commands.submit()
            while not commands.done():
                pass

        polled = microseconds(submit_only, repeats)
    return {
        "one step: record and free": one,
        "each further step, with its barrier and descriptors": (many - one) / MANY,
        "submit and wait, recorded before": run,
        "submit and poll, recorded before": polled,
    }


def wrapped(device: VulkanDevice, pipeline: Pipeline, buffers: list[Buffer], repeats: int) -> dict[str, float]:
    family = device.queues[0].family.index
    pool = vk.vkCreateCommandPool(device.handle, vk.VkCommandPoolCreateInfo(queueFamilyIndex=family, flags=2), None)
    size = vk.VkDescriptorPoolSize(type=vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, descriptorCount=3)
    descriptors = vk.vkCreateDescriptorPool(
        device.handle, vk.VkDescriptorPoolCreateInfo(maxSets=1, poolSizeCount=1, pPoolSizes=[size]), None
    )
    layouts = [pipeline.set_layout]
    info = vk.VkDescriptorSetAllocateInfo(descriptorPool=descriptors, descriptorSetCount=1, pSetLayouts=layouts)
    (described,) = vk.vkAllocateDescriptorSets(device.handle, info)
    info = vk.VkCommandBufferAllocateInfo(commandPool=pool, level=0, commandBufferCount=1)
    (target,) = vk.vkAllocateCommandBuffers(device.handle, info)
    count = vk.ffi.new("uint32_t *", 64)
    access = vk.VK_ACCESS_SHADER_WRITE_BIT | vk.VK_ACCESS_SHADER_READ_BIT
    barrier = vk.VkMemoryBarrier(srcAccessMask=access, dstAccessMask=access)
    stage = vk.VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT

    def describe() -> None:
        writes = [
            vk.VkWriteDescriptorSet(
                dstSet=described,
                dstBinding=number,
                descriptorCount=1,
                descriptorType=vk.VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                pBufferInfo=[
                    vk.VkDescriptorBufferInfo(buffer=buffer.block.handle, offset=buffer.offset, range=buffer.nbytes)
                ],
            )
            for number, buffer in enumerate(buffers)
        ]
        vk.vkUpdateDescriptorSets(device.handle, 3, writes, 0, None)

    def step() -> None:
        vk.vkCmdPipelineBarrier(target, stage, stage, 0, 1, [barrier], 0, None, 0, None)
        vk.vkCmdBindPipeline(target, vk.VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.handle)
        vk.vkCmdBindDescriptorSets(
            target, vk.VK_PIPELINE_BIND_POINT_COMPUTE, pipeline.layout, 0, 1, [described], 0, None
        )
        vk.vkCmdPushConstants(target, pipeline.layout, vk.VK_SHADER_STAGE_COMPUTE_BIT, 0, 4, count)
        vk.vkCmdDispatch(target, 1, 1, 1)

    def record(steps: int) -> None:
        vk.vkBeginCommandBuffer(target, vk.VkCommandBufferBeginInfo())
        for _ in range(steps):
            step()
        vk.vkEndCommandBuffer(target)

    describe()
    many, one = (microseconds(lambda steps=steps: record(steps), repeats // 20) for steps in (MANY + 1, 1))
    described_in = microseconds(describe, repeats)
    fence = vk.vkCreateFence(device.handle, vk.VkFenceCreateInfo(), None)
    submission = vk.VkSubmitInfo(commandBufferCount=1, pCommandBuffers=[target])

    def run() -> None:
        vk.vkQueueSubmit(device.queues[0].handle, 1, [submission], fence)
        vk.vkWaitForFences(device.handle, 1, [fence], True, 10**10)
        vk.vkResetFences(device.handle, 1, [fence])

    waited = microseconds(run, repeats)
    vk.vkDestroyFence(device.handle, fence, None)
    vk.vkDestroyDescriptorPool(device.handle, descriptors, None)
    vk.vkDestroyCommandPool(device.handle, pool, None)
    return {
        "each further step, with its barrier and descriptors": (many - one) / MANY + described_in,
        "submit and wait, recorded before": waited,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    with open_device("" if "HETERO_VK_DEVICE" in os.environ else "all") as device:
        print(f"{device.physical.name}, {device.physical.driver} {device.physical.driver_info}; medians of {repeats}")
        pipeline = device.pipeline("add", {"local_size_x": 64})
        buffers = [device.buffer(256) for _ in range(3)]
        for buffer in buffers:
            buffer.write(np.ones(64, np.float32))
        mine, theirs = ours(device, pipeline, buffers, repeats), wrapped(device, pipeline, buffers, repeats)
        print(f"{'':56}{'ours':>10}{'wrappers':>10}")
        for name, value in mine.items():
            other = f"{theirs[name]:8.1f}us" if name in theirs else ""
            print(f"{name:56}{value:8.1f}us{other:>10}")
        for nbytes in (1 << 12, 1 << 20, 1 << 24):
            with device.buffer(nbytes) as large:
                data = np.ones(nbytes // 4, np.float32)
                copied = microseconds(lambda data=data: data.copy(), repeats // 20)
                written = microseconds(lambda large=large, data=data: large.write(data), repeats // 20)
                read = microseconds(lambda large=large, data=data: large.read(np.float32, data.size), repeats // 20)
            print(f"{nbytes >> 10} KiB: write {written:.1f} us, read {read:.1f} us; a copy in numpy {copied:.1f} us")


if __name__ == "__main__":
    main()
