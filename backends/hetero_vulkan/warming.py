"""Shaders of drivers that compile when a shader first runs: run once, before any time counts.

Software drivers (lavapipe) do so, for seconds a shader; others compile when the pipeline is made.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hetero_vulkan.pipelines import Pipeline
from hetero_vulkan.steps import Dispatch, Step

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

_log = logging.getLogger(__name__)

COMPILING = 600.0
"""Seconds that a driver may take for one shader: no work is waited for, but a compiler on a busy machine."""

_SOON = 2.0
"""Seconds after which the user is told what takes so long."""


def warm_up(device: VulkanDevice, steps: Sequence[Step], *, lane: int = 0) -> None:
    """Have the driver compile the shaders of some steps that never ran; nothing where it has done so already.

    A single workgroup of each is run on the steps' own buffers, which must be of no value yet.

    Args:
        device: The device.
        steps: What will be run.
        lane: The queue.

    Raises:
        DeviceTimeout: A compiler does not end.
        DeviceLost: The device is lost.
    """
    if not device.physical.software:
        return
    new: dict[Pipeline, Dispatch] = {}
    for step in steps:
        if isinstance(step, Dispatch) and not step.pipeline.ran:
            new.setdefault(step.pipeline, step)
    begun = time.monotonic()
    told = False
    for number, (pipeline, step) in enumerate(new.items()):
        # Each by itself, so that no wait is for more than one of them.
        with device.record([dataclasses.replace(step, groups=(1, 1, 1))], lane=lane) as commands:
            commands.run(COMPILING)
        pipeline.ran = True
        if time.monotonic() - begun > _SOON and not told:
            told = True
            left = len(new) - number - 1
            _log.warning(
                "%s: the driver compiles shaders, %d more, which it keeps for the next start", device.name, left
            )
    if told:
        # What took long is kept at once, as this process may be ended.
        device.save_pipelines()
