"""Compute pipelines, made of a shader and its specialization constants, and kept."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.spirv import Constant, Shader, read_shader

if TYPE_CHECKING:
    from hetero_vulkan.buffers import Buffer
    from hetero_vulkan.device import VulkanDevice

Number = int | float | bool


class Pipeline:
    """A shader, ready to be dispatched. Made by `VulkanDevice.pipeline`, and freed with the device.

    Attributes:
        name: For messages.
        shader: What it was made of.
        constants: The value of each specialization constant.
        local_size: Invocations in a workgroup.
        handle: The VkPipeline.
        layout: Its VkPipelineLayout.
        set_layout: Its VkDescriptorSetLayout.
        ran: It ran before, so that the driver compiles nothing any more; see `hetero_vulkan.warming`.
    """

    def __init__(
        self,
        name: str,
        shader: Shader,
        constants: Mapping[str, Number],
        local_size: tuple[int, int, int],
        handle: Any,
        layouts: tuple[Any, Any],
    ) -> None:
        self.name = name
        self.shader = shader
        self.constants = constants
        self.local_size = local_size
        self.handle = handle
        self.set_layout, self.layout = layouts
        self.ran = False

    def packed(self, push: bytes | Mapping[str, Number], buffers: Sequence[Buffer] = ()) -> bytes:
        """Push constants as the shader has them.

        Args:
            push: By name, all of them; or bytes, which are passed on as they are.
            buffers: Those that are bound, in the order of the bindings; shaders may be told where they are.

        Raises:
            OptionError: Not those that the shader has.
        """
        shader = self.shader
        if isinstance(push, bytes):
            if len(push) != shader.push_bytes:
                raise OptionError(f"{self.name}: {len(push)} bytes of push constants, expected {shader.push_bytes}")
            return push
        if push.keys() != shader.push.keys():
            raise OptionError(f"{self.name}: push constants {sorted(push)}, expected {sorted(shader.push)}")
        packed = bytearray(shader.push_bytes)
        for name, member in shader.push.items():
            try:
                struct.pack_into(f"<{member.format}", packed, member.offset, push[name])
            except struct.error as error:
                raise OptionError(f"{self.name}: push constant {name} is {push[name]!r}: {error}") from None
        for (number, _), buffer in zip(shader.bindings, buffers, strict=False):
            if number in shader.addresses:
                struct.pack_into("<Q", packed, shader.addresses[number], buffer.device_address)
        return bytes(packed)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name} {dict(self.constants)}>"


class Pipelines:
    """The pipelines of a device, by shader, constants and subgroup size.

    Args:
        device: The device.
        cache: The VkPipelineCache, or NULL.
    """

    def __init__(self, device: VulkanDevice, cache: Any) -> None:
        self._device = device
        self._cache = cache
        self._lock = threading.Lock()
        self._made: dict[tuple[Any, ...], Pipeline] = {}
        self._layouts: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        self.compiled = 0

    def get(self, name: str, code: bytes, constants: Mapping[str, Number], subgroup: int | None) -> Pipeline:
        """The pipeline, made when it is first asked for.

        Raises:
            Unsupported: The device lacks what the shader needs, or its workgroups are too large.
            OptionError: No such constant, or a value that it cannot have.
            OutOfMemory: There is no memory for it.
        """
        shader = read_shader(code)
        values = _values(name, shader, constants)
        key = (shader.digest, tuple(sorted(values.items())), subgroup)
        made = self._made.get(key)
        if made is None:
            # Compiled without the lock: it takes seconds on some drivers, and several threads may compile at once.
            made = self._new(name, shader, values, subgroup)
            with self._lock:
                first = self._made.setdefault(key, made)
                self.compiled += first is made
            if first is not made:
                device = self._device
                device.functions.vkDestroyPipeline(device.handle, made.handle, device.vulkan.NULL)
                made = first
        return made

    def close(self) -> None:
        """Destroy all of them."""
        device = self._device
        functions, handle, null = device.functions, device.handle, device.vulkan.NULL
        with self._lock:
            for pipeline in self._made.values():
                functions.vkDestroyPipeline(handle, pipeline.handle, null)
            for set_layout, layout in self._layouts.values():
                functions.vkDestroyPipelineLayout(handle, layout, null)
                functions.vkDestroyDescriptorSetLayout(handle, set_layout, null)
            self._made.clear()
            self._layouts.clear()

    def _new(self, name: str, shader: Shader, values: Mapping[str, Number], subgroup: int | None) -> Pipeline:
        local_size = _local_size(shader, values)
        self._check(name, shader, local_size, subgroup)
        device, vulkan = self._device, self._device.vulkan
        layouts = self._layout(name, shader)
        module = vulkan.ffi.new("VkShaderModule *")
        code = vulkan.ffi.from_buffer("char[]", shader.code)
        info = vulkan.new("VkShaderModuleCreateInfo", codeSize=len(shader.code), pCode=code)
        device.check(
            device.functions.vkCreateShaderModule(device.handle, info, vulkan.NULL, module),
            f"reading the shader {name}",
        )
        try:
            handle = self._compiled(name, shader, values, local_size, subgroup, module[0], layouts[1])
        finally:
            device.functions.vkDestroyShaderModule(device.handle, module[0], vulkan.NULL)
        return Pipeline(name, shader, values, local_size, handle, layouts)

    def _compiled(
        self,
        name: str,
        shader: Shader,
        values: Mapping[str, Number],
        local_size: tuple[int, int, int],
        subgroup: int | None,
        module: Any,
        layout: Any,
    ) -> Any:
        device, vulkan = self._device, self._device.vulkan
        used = [(shader.constants[constant], value) for constant, value in values.items()]
        data = b"".join(_four_bytes(constant, value) for constant, value in used)
        entries = [
            vulkan.new("VkSpecializationMapEntry", constantID=constant.number, offset=4 * index, size=4)
            for index, (constant, _) in enumerate(used)
        ]
        specialization = vulkan.new(
            "VkSpecializationInfo", mapEntryCount=len(entries), pMapEntries=entries, dataSize=len(data), pData=data
        )
        least, greatest = device.physical.subgroup_range
        asked = subgroup is not None and least < greatest
        required = (
            vulkan.new("VkPipelineShaderStageRequiredSubgroupSizeCreateInfo", requiredSubgroupSize=subgroup)
            if asked
            else None
        )
        full = asked and device.physical.features["computeFullSubgroups"] and local_size[0] % (subgroup or 1) == 0
        stage = vulkan.new(
            "VkPipelineShaderStageCreateInfo",
            pNext=required,
            flags=vulkan.constant("VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT") if full else 0,
            stage=vulkan.constant("VK_SHADER_STAGE_COMPUTE_BIT"),
            module=module,
            pName=shader.entry.encode(),
            pSpecializationInfo=specialization,
        )
        info = vulkan.new("VkComputePipelineCreateInfo", stage=stage, layout=layout, basePipelineIndex=-1)
        made = vulkan.ffi.new("VkPipeline *")
        result = device.functions.vkCreateComputePipelines(device.handle, self._cache, 1, info, vulkan.NULL, made)
        device.check(result, f"compiling {name}")
        return made[0]

    def _layout(self, name: str, shader: Shader) -> tuple[Any, Any]:
        device, vulkan = self._device, self._device.vulkan
        numbers = tuple(number for number, _ in shader.bindings)
        with self._lock:
            layouts = self._layouts.get((numbers, shader.push_bytes))
            if layouts is not None:
                return layouts
            stage = vulkan.constant("VK_SHADER_STAGE_COMPUTE_BIT")
            bindings = [
                vulkan.new(
                    "VkDescriptorSetLayoutBinding",
                    binding=number,
                    descriptorType=vulkan.constant("VK_DESCRIPTOR_TYPE_STORAGE_BUFFER"),
                    descriptorCount=1,
                    stageFlags=stage,
                )
                for number in numbers
            ]
            set_layout = vulkan.ffi.new("VkDescriptorSetLayout *")
            info = vulkan.new("VkDescriptorSetLayoutCreateInfo", bindingCount=len(bindings), pBindings=bindings)
            doing = f"making the layout of {name}"
            device.check(
                device.functions.vkCreateDescriptorSetLayout(device.handle, info, vulkan.NULL, set_layout), doing
            )
            ranges = [vulkan.new("VkPushConstantRange", stageFlags=stage, size=shader.push_bytes)]
            ranges = ranges if shader.push_bytes else []
            info = vulkan.new(
                "VkPipelineLayoutCreateInfo",
                setLayoutCount=1,
                pSetLayouts=[set_layout[0]],
                pushConstantRangeCount=len(ranges),
                pPushConstantRanges=ranges,
            )
            layout = vulkan.ffi.new("VkPipelineLayout *")
            result = device.functions.vkCreatePipelineLayout(device.handle, info, vulkan.NULL, layout)
            if result:
                device.functions.vkDestroyDescriptorSetLayout(device.handle, set_layout[0], vulkan.NULL)
            device.check(result, doing)
            layouts = self._layouts[numbers, shader.push_bytes] = (set_layout[0], layout[0])
            return layouts

    def _check(self, name: str, shader: Shader, local_size: tuple[int, int, int], subgroup: int | None) -> None:
        physical = self._device.physical
        limits = physical.limits
        missing = sorted(feature for feature in shader.features if not physical.features.get(feature, False))
        if missing:
            raise Unsupported(f"{name} needs {', '.join(missing)}, which {physical.name} does not have")
        if shader.subgroup_operations & ~physical.subgroup_operations:
            raise Unsupported(f"{name} needs operations on subgroups that {physical.name} does not have")
        most, each = limits["maxComputeWorkGroupInvocations"], limits["maxComputeWorkGroupSize"]
        if math.prod(local_size) > most or any(size > top for size, top in zip(local_size, each, strict=True)):
            raise Unsupported(
                f"{name} has workgroups of {local_size}, {physical.name} has at most {most} {tuple(each)}"
            )
        if shader.push_bytes > limits["maxPushConstantsSize"]:
            raise Unsupported(
                f"{name} takes {shader.push_bytes} bytes of push constants, {physical.name} has "
                f"{limits['maxPushConstantsSize']}"
            )
        if len(shader.bindings) > limits["maxPerStageDescriptorStorageBuffers"]:
            raise Unsupported(
                f"{name} takes {len(shader.bindings)} buffers, {physical.name} has "
                f"{limits['maxPerStageDescriptorStorageBuffers']}"
            )
        least, greatest = physical.subgroup_range
        if subgroup is not None and not least <= subgroup <= greatest:
            raise Unsupported(f"{name} wants subgroups of {subgroup}, {physical.name} has {least} to {greatest}")


def _values(name: str, shader: Shader, constants: Mapping[str, Number]) -> dict[str, Number]:
    unknown = sorted(constants.keys() - shader.constants.keys())
    if unknown:
        raise OptionError(
            f"{name} has no constant {', '.join(unknown)}", fix=f"there are: {', '.join(sorted(shader.constants))}"
        )
    values: dict[str, Number] = {}
    for constant, known in shader.constants.items():
        values[constant] = constants.get(constant, known.default)
        try:
            _four_bytes(known, values[constant])
        except struct.error as error:
            raise OptionError(f"{name}: constant {constant} is {values[constant]!r}: {error}") from None
    return values


def _four_bytes(constant: Constant, value: Number) -> bytes:
    if not constant.format:
        raise struct.error("it is no number of 32 bits")
    return struct.pack("<I", bool(value)) if constant.format == "?" else struct.pack(f"<{constant.format}", value)


def _local_size(shader: Shader, values: Mapping[str, Number]) -> tuple[int, int, int]:
    x, y, z = (int(values[size]) if isinstance(size, str) else size for size in shader.local_size)
    return x, y, z
