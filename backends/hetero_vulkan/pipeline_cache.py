"""Compiled pipelines, kept on disk between processes: on some drivers compiling takes seconds."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hetero.cache import key_of
from hetero.errors import BackendError
from hetero_vulkan.physical import Physical

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_log = logging.getLogger(__name__)

_MARK = b"hetero vulkan pipelines 1\n"
_HEADER = struct.Struct("<IIII16s")
"""VkPipelineCacheHeaderVersionOne: its size, its version, vendor, device, UUID."""


class PipelineCache:
    """A VkPipelineCache with the file that it is read from and saved to.

    Args:
        device: The device.
        folder: Where files are kept; None: nothing is kept.

    Attributes:
        handle: The VkPipelineCache.
        loaded: Bytes that were found.
        note: Why a file that was there is not used; empty when it is.
    """

    def __init__(self, device: VulkanDevice, folder: Path | None) -> None:
        self._device = device
        self._path = None if folder is None else folder / f"{file_stem(device.physical)}.bin"
        self._saved = 0
        self.note = ""
        data = self._read()
        self.loaded = len(data)
        vulkan = device.vulkan
        made = vulkan.ffi.new("VkPipelineCache *")
        held = vulkan.ffi.from_buffer("char[]", data)
        info = vulkan.new("VkPipelineCacheCreateInfo", initialDataSize=len(data), pInitialData=held if data else None)
        result = device.functions.vkCreatePipelineCache(device.handle, info, vulkan.NULL, made)
        device.check(result, "making a cache of pipelines")
        self.handle: Any = made[0]
        if self.note:
            _log.warning("%s: %s", device.name, self.note)
            device.notes.append(self.note)

    def save(self, compiled: int) -> None:
        """Write the file, where there is more to it than last time.

        Args:
            compiled: How many pipelines were made so far.
        """
        if self._path is None or compiled == self._saved:
            return
        try:
            data = self._data()
            write_whole(self._path, _MARK + hashlib.sha256(data).digest() + data)
        except (OSError, BackendError) as error:
            _log.warning("%s: compiled pipelines are not kept: %s", self._device.name, error)
            return
        self._saved = compiled

    def close(self) -> None:
        """Destroy it."""
        self._device.functions.vkDestroyPipelineCache(self._device.handle, self.handle, self._device.vulkan.NULL)

    def _read(self) -> bytes:
        if self._path is None:
            return b""
        try:
            whole = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.note = f"compiled pipelines cannot be read: {error}"
            return b""
        start = len(_MARK) + hashlib.sha256().digest_size
        data = whole[start:]
        if whole[: len(_MARK)] != _MARK or whole[len(_MARK) : start] != hashlib.sha256(data).digest():
            self.note = f"the compiled pipelines in {self._path.name} are damaged; they are made anew"
            return b""
        if not fits(data, self._device.physical):
            self.note = f"the compiled pipelines in {self._path.name} are of another driver; they are made anew"
            return b""
        return data

    def _data(self) -> bytes:
        device, ffi = self._device, self._device.vulkan.ffi
        size = ffi.new("size_t *")
        doing = "reading the cache of pipelines"
        read = device.functions.vkGetPipelineCacheData
        device.check(read(device.handle, self.handle, size, device.vulkan.NULL), doing)
        data = ffi.new("char[]", size[0])
        device.check(read(device.handle, self.handle, size, data), doing)
        return bytes(ffi.buffer(data, size[0]))


def file_stem(physical: Physical) -> str:
    """A file's name that changes with the device and with its driver."""
    driver = (physical.driver, physical.driver_info, str(physical.driver_version))
    return key_of(f"{physical.vendor}:{physical.model}", physical.cache_uuid.hex(), *driver)


def fits(data: bytes, physical: Physical) -> bool:
    """Whether data of a pipeline cache is of this device and driver, which the driver need not check well."""
    if len(data) < _HEADER.size:
        return False
    size, version, vendor, model, uuid = _HEADER.unpack_from(data)
    told = (version, vendor, model, uuid)
    return size >= _HEADER.size and told == (1, physical.vendor, physical.model, physical.cache_uuid)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, and its folder.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
