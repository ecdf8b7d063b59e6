"""Rockchip's SoCs with an NPU that this backend knows, and which of them this machine is.

What is here can be looked up: the numbers of cores in the vendor's kernel driver (`rknpu_drv.c`: `core_mask` 7 on
RK3588, 3 on RK3576, 1 on RK356x), the masks in its `rknn_api.h`, and that RK3566 and RK3568 share their models in the
vendor's own examples (`RK3566_RK3568/mobilenet_v1.rknn`). RV1103, RV1106 and RK2118 have NPUs too, but run another
runtime (`librknnmrt`) without Python; RV1126B is left out until its number of cores is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hetero.backend import Host

# `rknn_core_mask` of the vendor's rknn_api.h. It has no mask for cores 0 and 2, or 1 and 2.
_MASKS = {"0": 1, "1": 2, "2": 4, "0_1": 3, "0_1_2": 7}
_CORES_OF = {"0": (0,), "1": (1,), "2": (2,), "0_1": (0, 1), "0_1_2": (0, 1, 2)}


@dataclass(frozen=True)
class Platform:
    """A SoC as far as its NPU goes.

    Attributes:
        name: In lower case: `rk3588s`.
        target: What the vendor's toolkit is told to compile for: `rk3588`.
        targets: The `target_platform` of every model that runs here, `target` included.
        cores: How many NPU cores it has.
        aliases: Further names, as people and device trees write them.
    """

    name: str
    target: str
    targets: tuple[str, ...]
    cores: int
    aliases: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What a person calls it: `RK3588S`."""
        return self.name.upper()

    @property
    def masks(self) -> Mapping[str, int]:
        """The vendor's core mask by its word: `auto`, single cores, groups of cores, `all`.

        On a chip with one core every word means 0, the vendor's AUTO: there `rknn_set_core_mask` fails with -13
        whatever it is given.
        """
        if self.cores == 1:
            return MappingProxyType({"auto": 0, "0": 0, "all": 0})
        masks = {word: mask for word, mask in _MASKS.items() if max(_CORES_OF[word]) < self.cores}
        return MappingProxyType({"auto": 0, **masks, "all": max(masks.values())})

    def core_text(self) -> str:
        """`NPU core 0` or `NPU cores 0, 1 and 2`."""
        if self.cores == 1:
            return "NPU core 0"
        numbers = [str(core) for core in range(self.cores)]
        return f"NPU cores {', '.join(numbers[:-1])} and {numbers[-1]}"


PLATFORMS: tuple[Platform, ...] = (
    Platform("rk3588", "rk3588", ("rk3588",), cores=3, aliases=("rk3588j", "rk3588m")),
    Platform("rk3588s", "rk3588", ("rk3588",), cores=3, aliases=("rk3588s2",)),
    Platform("rk3576", "rk3576", ("rk3576",), cores=2, aliases=("rk3576j", "rk3576m")),
    Platform("rk3566", "rk3566", ("rk3566", "rk3568"), cores=1),
    Platform("rk3568", "rk3568", ("rk3568", "rk3566"), cores=1, aliases=("rk3568b2", "rk3568j")),
    Platform("rk3562", "rk3562", ("rk3562",), cores=1, aliases=("rk3562j",)),
)

_BY_NAME = {name: platform for platform in PLATFORMS for name in (platform.name, *platform.aliases)}


def platform_named(name: str) -> Platform | None:
    """The platform of that name or alias, in any case; None when it is not known here."""
    return _BY_NAME.get(name.strip().lower())


def platform_of(host: Host) -> Platform | None:
    """The SoC that the device tree names.

    Returns:
        None where there is no device tree, or it names no SoC of the table.
    """
    return platform_in(compatibles(host))


def compatibles(host: Host) -> tuple[str, ...]:
    """The root node's `compatible` strings, the most specific first; empty where there is no device tree."""
    try:
        content = (host.sysroot / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return ()
    return tuple(text for text in content.decode("utf-8", "replace").split("\0") if text.strip())


def platform_in(compatible: Iterable[str]) -> Platform | None:
    """The first known SoC among `compatible` strings such as `rockchip,rk3588`.

    A string that is a SoC's name goes before one that begins with it: `rockchip,rk3588s-tablet` is a board, and some
    vendors' device trees have nothing else.
    """
    names = [text.partition(",")[2].lower() for text in compatible if text.lower().startswith("rockchip,")]
    for name in [*names, *(re.split("[^a-z0-9]", name)[0] for name in names)]:
        if name in _BY_NAME:
            return _BY_NAME[name]
    return None
