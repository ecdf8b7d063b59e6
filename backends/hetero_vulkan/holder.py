"""A device over the life of a backend: opened and tested when it is first needed, opened once more when it was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hetero.errors import BackendError, DeviceLost, Unavailable
from hetero_vulkan.choosing import Choice
from hetero_vulkan.device import VulkanDevice
from hetero_vulkan.instance import Instance
from hetero_vulkan.selftest import check_device

_log = logging.getLogger(__name__)

HEALTHY_SECONDS = 600.0
"""A device that has worked for so long since it was opened again has earned another time."""


class DeviceHolder:
    """One device.

    Args:
        instance: Where it is from.
        choice: The device.
        cache: Folder for compiled pipelines; None: they are not kept.
        clock: Seconds.
    """

    def __init__(
        self, instance: Instance, choice: Choice, cache: Path | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.choice = choice
        self._instance = instance
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._device: VulkanDevice | None = None
        self._wrong: Unavailable | None = None
        self._reopened: float | None = None
        self._closed = False

    def take(self) -> VulkanDevice:
        """The device, for as long as the caller needs it: who has it calls `returned()` once, when all is freed.

        After a DeviceLost take it again: it is another one then, and nothing of the old one works with it.

        Raises:
            Unavailable: It computes wrongly, or cannot be opened.
            DeviceLost: It was lost again soon after it had been opened anew.
        """
        with self._lock:
            if self._wrong is not None:
                raise Unavailable(self._wrong.problem, fix=self._wrong.fix)
            if self._closed:
                raise Unavailable(f"{self.choice.name} is closed", fix="make a new Runtime")
            device = self._device
            if device is not None and device.lost:
                self._give_up_on(device)
                device = None
            if device is None:
                device = self._device = self._opened()
            device.lease()
            return device

    def close(self) -> None:
        """Close it, when nobody has it any more."""
        with self._lock:
            self._closed = True
            if self._device is not None:
                self._device.close()

    def _give_up_on(self, device: VulkanDevice) -> None:
        now = self._clock()
        if self._reopened is not None and now - self._reopened < HEALTHY_SECONDS:
            raise DeviceLost(
                f"{device.lost}; it had been opened anew {now - self._reopened:.0f} s before, and is not used any more",
                fix="look into the kernel's log (dmesg), update the GPU's driver, make a new Runtime",
            )
        self._reopened = now
        _log.warning("%s is opened anew: %s", device.name, device.lost)
        self._device = None
        device.close()

    def _opened(self) -> VulkanDevice:
        device = VulkanDevice(
            self._instance, self.choice.physical, name=self.choice.name, cache=self._cache, clock=self._clock
        )
        try:
            device.quirks = check_device(device)
        except BackendError as error:
            device.close()
            if isinstance(error, Unavailable):
                self._wrong = error
            raise
        return device
