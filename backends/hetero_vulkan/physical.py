"""What a driver tells of one of its devices."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hetero_vulkan.api import chained
from hetero_vulkan.instance import Instance, version_of

Sort = Literal["discrete", "integrated", "virtual", "cpu", "other"]

_SORTS: tuple[Sort, ...] = ("other", "integrated", "discrete", "virtual", "cpu")
"""By VkPhysicalDeviceType."""

_FEATURES: tuple[tuple[str, tuple[int, int], str, tuple[str, ...]], ...] = (
    (
        "16BitStorage",
        (1, 1),
        "VK_KHR_16bit_storage",
        ("storageBuffer16BitAccess", "uniformAndStorageBuffer16BitAccess"),
    ),
    ("VulkanMemoryModel", (1, 2), "VK_KHR_vulkan_memory_model", ("vulkanMemoryModel", "vulkanMemoryModelDeviceScope")),
    ("8BitStorage", (1, 2), "VK_KHR_8bit_storage", ("storageBuffer8BitAccess", "uniformAndStorageBuffer8BitAccess")),
    ("ShaderFloat16Int8", (1, 2), "VK_KHR_shader_float16_int8", ("shaderFloat16", "shaderInt8")),
    ("TimelineSemaphore", (1, 2), "VK_KHR_timeline_semaphore", ("timelineSemaphore",)),
    ("ScalarBlockLayout", (1, 2), "VK_EXT_scalar_block_layout", ("scalarBlockLayout",)),
    (
        "ShaderSubgroupExtendedTypes",
        (1, 2),
        "VK_KHR_shader_subgroup_extended_types",
        ("shaderSubgroupExtendedTypes",),
    ),
    (
        "SubgroupSizeControl",
        (1, 3),
        "VK_EXT_subgroup_size_control",
        ("subgroupSizeControl", "computeFullSubgroups"),
    ),
    ("ShaderIntegerDotProduct", (1, 3), "VK_KHR_shader_integer_dot_product", ("shaderIntegerDotProduct",)),
    ("BufferDeviceAddress", (1, 2), "", ("bufferDeviceAddress",)),
    ("CooperativeMatrixKHR", (9, 9), "VK_KHR_cooperative_matrix", ("cooperativeMatrix",)),
)
"""Structs of features: name between VkPhysicalDevice and Features, the core version that has it, else its extension,
and what of it we use. Without an extension: shaders that use it are made for that version. All that is there is
switched on."""

_CORE_FEATURES = ("shaderInt16", "shaderInt64", "shaderFloat64")

_EXTENSIONS = ("VK_EXT_external_memory_host", "VK_KHR_portability_subset")
"""Those without a feature that are switched on where they are; the second one has to be."""

_TYPES = {0: "f16", 1: "f32", 2: "f64", 3: "i8", 4: "i16", 5: "i32", 6: "i64", 7: "u8", 8: "u16", 9: "u32", 10: "u64"}


@dataclass(frozen=True)
class MemoryType:
    """A type of memory.

    Attributes:
        index: Vulkan's.
        heap: Index of its heap.
        local: The device's own.
        visible: The host can map it.
        coherent: Needs no flush.
        cached: Cached by the host; else reading it is slow.
    """

    index: int
    heap: int
    local: bool
    visible: bool
    coherent: bool
    cached: bool


@dataclass(frozen=True)
class QueueFamily:
    """A family of queues that can compute.

    Attributes:
        index: Vulkan's.
        count: How many queues it has.
        graphics: It draws too.
        timestamp_bits: Valid bits of a timestamp; 0: none.
    """

    index: int
    count: int
    graphics: bool
    timestamp_bits: int


@dataclass(frozen=True)
class CooperativeMatrix:
    """A shape of matrices that a subgroup multiplies together: `m`x`k` of type `a` by `k`x`n` of `b`, summed in `c`."""

    m: int
    n: int
    k: int
    a: str
    b: str
    c: str

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k} {self.a}*{self.b}+{self.c}"


@dataclass(frozen=True)
class Physical:
    """A device as its driver tells it.

    Attributes:
        handle: The VkPhysicalDevice.
        name: `AMD Radeon 780M (RADV GFX1103_R1)`.
        sort: What kind of device.
        vendor: PCI vendor.
        model: PCI device.
        uuid: Of the device, the same with each driver; None when the driver gives none.
        cache_uuid: Compiled pipelines are good for this.
        driver: Name of the driver; empty when it does not tell.
        driver_id: VkDriverId; 0 when it does not tell.
        driver_info: The driver's version in its own words.
        driver_version: As a number, of the vendor's own making.
        version: Vulkan's version, of device and instance, major and minor.
        subgroup: Invocations in a subgroup.
        subgroup_range: The least and the greatest that can be asked for; the same when none can.
        subgroup_operations: VkSubgroupFeatureFlags that compute shaders have.
        features: What is there and will be switched on.
        limits: VkPhysicalDeviceLimits, those that count here.
        extensions: Those that will be switched on.
        memory_types: All.
        heaps: Bytes of each heap, and whether it is the device's own.
        queues: Families that can compute, an asynchronous one first.
        matrices: Shapes of cooperative matrices; none without the extension.
    """

    handle: Any
    name: str
    sort: Sort
    vendor: int
    model: int
    uuid: uuid.UUID | None
    cache_uuid: bytes
    driver: str
    driver_id: int
    driver_info: str
    driver_version: int
    version: tuple[int, int]
    subgroup: int
    subgroup_range: tuple[int, int]
    subgroup_operations: int
    features: Mapping[str, bool]
    limits: Mapping[str, Any]
    extensions: tuple[str, ...]
    memory_types: tuple[MemoryType, ...]
    heaps: tuple[tuple[int, bool], ...]
    queues: tuple[QueueFamily, ...]
    matrices: tuple[CooperativeMatrix, ...] = field(default=())

    @property
    def software(self) -> bool:
        """The driver computes on the CPU."""
        return self.sort == "cpu"

    @property
    def unified(self) -> bool:
        """The device works in the host's memory, so that there is nothing to be copied to it."""
        return self.sort in ("integrated", "cpu")


_LIMITS = (
    "maxStorageBufferRange",
    "maxPushConstantsSize",
    "maxBoundDescriptorSets",
    "maxPerStageDescriptorStorageBuffers",
    "maxComputeSharedMemorySize",
    "maxComputeWorkGroupInvocations",
    "minStorageBufferOffsetAlignment",
    "nonCoherentAtomSize",
    "minMemoryMapAlignment",
    "timestampPeriod",
    "maxMemoryAllocationCount",
)


def features_chain(instance: Instance, version: tuple[int, int], extensions: set[str]) -> tuple[dict[str, Any], Any]:
    """VkPhysicalDeviceFeatures2 with what follows it: structs by name, and the first."""
    vulkan = instance.vulkan
    structs = {"": vulkan.new("VkPhysicalDeviceFeatures2")}
    for name, core, extension, _ in _FEATURES:
        if version >= core or extension in extensions:
            structs[name] = vulkan.new(_features_struct(name))
    return structs, chained(vulkan, list(structs.values()))


def describe(instance: Instance, handle: Any) -> Physical | None:
    """What the driver tells of a device; None for one of Vulkan 1.0, or that cannot compute."""
    vulkan, functions = instance.vulkan, instance.functions
    first = vulkan.new("VkPhysicalDeviceProperties2")
    functions.vkGetPhysicalDeviceProperties(handle, vulkan.ffi.addressof(first[0], "properties"))
    version = min(version_of(first.properties.apiVersion)[:2], instance.version)
    queues = _queues(instance, handle)
    if version < (1, 1) or not queues:
        return None
    there = _extensions(instance, handle)
    structs = {"": first, "ID": vulkan.new("VkPhysicalDeviceIDProperties")}
    structs["Subgroup"] = vulkan.new("VkPhysicalDeviceSubgroupProperties")
    structs["Maintenance3"] = vulkan.new("VkPhysicalDeviceMaintenance3Properties")
    for name, core, extension in (
        ("Driver", (1, 2), "VK_KHR_driver_properties"),
        ("SubgroupSizeControl", (1, 3), "VK_EXT_subgroup_size_control"),
        ("ExternalMemoryHost", (9, 9), "VK_EXT_external_memory_host"),
    ):
        if version >= core or extension in there:
            suffix = "EXT" if name == "ExternalMemoryHost" else ""
            structs[name] = vulkan.new(f"VkPhysicalDevice{name}Properties{suffix}")
    functions.vkGetPhysicalDeviceProperties2(handle, chained(vulkan, list(structs.values())))
    told, driver, ident = first.properties, structs.get("Driver"), structs["ID"]
    sizes = structs.get("SubgroupSizeControl")
    subgroup = int(structs["Subgroup"].subgroupSize)
    features = _features(instance, handle, version, there)
    compute = vulkan.constant("VK_SHADER_STAGE_COMPUTE_BIT")
    controlled = (
        sizes is not None and features["subgroupSizeControl"] and bool(sizes.requiredSubgroupSizeStages & compute)
    )
    limits = {name: getattr(told.limits, name) for name in _LIMITS}
    limits["maxComputeWorkGroupCount"] = tuple(told.limits.maxComputeWorkGroupCount)
    limits["maxComputeWorkGroupSize"] = tuple(told.limits.maxComputeWorkGroupSize)
    limits["maxMemoryAllocationSize"] = int(structs["Maintenance3"].maxMemoryAllocationSize)
    limits["maxPerSetDescriptors"] = int(structs["Maintenance3"].maxPerSetDescriptors)
    host = structs.get("ExternalMemoryHost")
    limits["minImportedHostPointerAlignment"] = int(host.minImportedHostPointerAlignment) if host is not None else 0
    types, heaps = _memory(instance, handle)
    device_uuid = uuid.UUID(bytes=bytes(ident.deviceUUID))
    return Physical(
        handle=handle,
        name=vulkan.text(told.deviceName),
        sort=_SORTS[told.deviceType] if told.deviceType < len(_SORTS) else "other",
        vendor=int(told.vendorID),
        model=int(told.deviceID),
        uuid=device_uuid if device_uuid.int else None,
        cache_uuid=bytes(told.pipelineCacheUUID),
        driver=vulkan.text(driver.driverName) if driver is not None else "",
        driver_id=int(driver.driverID) if driver is not None else 0,
        driver_info=vulkan.text(driver.driverInfo) if driver is not None else "",
        driver_version=int(told.driverVersion),
        version=version,
        subgroup=subgroup,
        subgroup_range=(int(sizes.minSubgroupSize), int(sizes.maxSubgroupSize))
        if sizes is not None and controlled
        else (subgroup, subgroup),
        subgroup_operations=int(structs["Subgroup"].supportedOperations)
        if structs["Subgroup"].supportedStages & compute
        else 0,
        features=features,
        limits=limits,
        extensions=_used_extensions(version, there),
        memory_types=types,
        heaps=heaps,
        queues=queues,
        matrices=_matrices(instance, handle) if features["cooperativeMatrix"] else (),
    )


def _features_struct(name: str) -> str:
    stem, suffix = (name[:-3], "KHR") if name.endswith("KHR") else (name, "")
    return f"VkPhysicalDevice{stem}Features{suffix}"


def _features(instance: Instance, handle: Any, version: tuple[int, int], there: set[str]) -> dict[str, bool]:
    structs, first = features_chain(instance, version, there)
    instance.functions.vkGetPhysicalDeviceFeatures2(handle, first)
    features = {name: bool(getattr(first.features, name)) for name in _CORE_FEATURES}
    for name, _, _, used in _FEATURES:
        for feature in used:
            features[feature] = name in structs and bool(getattr(structs[name], feature))
    return features


def switch_on(instance: Instance, physical: Physical) -> Any:
    """VkPhysicalDeviceFeatures2 for making the device, with all that it has of what we use."""
    structs, first = features_chain(instance, physical.version, set(physical.extensions))
    for name in _CORE_FEATURES:
        setattr(first.features, name, physical.features[name])
    for name, _, _, used in _FEATURES:
        for feature in used if name in structs else ():
            setattr(structs[name], feature, physical.features[feature])
    return first


def _used_extensions(version: tuple[int, int], there: set[str]) -> tuple[str, ...]:
    used = [extension for _, core, extension, _ in _FEATURES if version < core and extension in there]
    used += [extension for extension in _EXTENSIONS if extension in there]
    return tuple(used)


def _extensions(instance: Instance, handle: Any) -> set[str]:
    vulkan = instance.vulkan
    found = vulkan.enumerate(
        "VkExtensionProperties",
        lambda count, entries: instance.functions.vkEnumerateDeviceExtensionProperties(
            handle, vulkan.NULL, count, entries
        ),
        "asking for extensions",
    )
    return {vulkan.text(entry.extensionName) for entry in found}


def _queues(instance: Instance, handle: Any) -> tuple[QueueFamily, ...]:
    vulkan = instance.vulkan
    found = vulkan.enumerate(
        "VkQueueFamilyProperties",
        lambda count, entries: instance.functions.vkGetPhysicalDeviceQueueFamilyProperties(handle, count, entries),
        "asking for queues",
    )
    compute, graphics = vulkan.constant("VK_QUEUE_COMPUTE_BIT"), vulkan.constant("VK_QUEUE_GRAPHICS_BIT")
    families = [
        QueueFamily(index, entry.queueCount, bool(entry.queueFlags & graphics), entry.timestampValidBits)
        for index, entry in enumerate(found)
        if entry.queueFlags & compute and entry.queueCount
    ]
    return tuple(sorted(families, key=lambda family: family.graphics))


def _memory(instance: Instance, handle: Any) -> tuple[tuple[MemoryType, ...], tuple[tuple[int, bool], ...]]:
    vulkan = instance.vulkan
    told = vulkan.ffi.new("VkPhysicalDeviceMemoryProperties *")
    instance.functions.vkGetPhysicalDeviceMemoryProperties(handle, told)
    bits = [
        vulkan.constant(f"VK_MEMORY_PROPERTY_{name}_BIT")
        for name in ("DEVICE_LOCAL", "HOST_VISIBLE", "HOST_COHERENT", "HOST_CACHED")
    ]
    # Memory that is protected, made lazily or reset by a debugger is none for data.
    odd = ~sum(bits)
    types = []
    for index in range(told.memoryTypeCount):
        entry = told.memoryTypes[index]
        if not entry.propertyFlags & odd:
            types.append(MemoryType(index, entry.heapIndex, *(bool(entry.propertyFlags & bit) for bit in bits)))
    heaps = tuple(
        (
            int(told.memoryHeaps[index].size),
            bool(told.memoryHeaps[index].flags & vulkan.constant("VK_MEMORY_HEAP_DEVICE_LOCAL_BIT")),
        )
        for index in range(told.memoryHeapCount)
    )
    return tuple(types), heaps


def _matrices(instance: Instance, handle: Any) -> tuple[CooperativeMatrix, ...]:
    vulkan = instance.vulkan
    subgroup = vulkan.constant("VK_SCOPE_SUBGROUP_KHR")
    found = vulkan.enumerate(
        "VkCooperativeMatrixPropertiesKHR",
        lambda count, entries: instance.functions.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(
            handle, count, entries
        ),
        "asking for cooperative matrices",
    )
    return tuple(
        CooperativeMatrix(
            entry.MSize,
            entry.NSize,
            entry.KSize,
            *(_TYPES.get(kind, str(kind)) for kind in (entry.AType, entry.BType, entry.CType)),
        )
        for entry in found
        if entry.scope == subgroup
    )
