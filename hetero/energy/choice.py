"""Which meter counts a device: by the device's kind and what the meter counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hetero.backend import Device
from hetero.energy.meters import Meter, Scope, display_controllers, find_meters
from hetero.errors import OptionError, Unavailable

# One meter for all devices makes their joules comparable, and the host's part in a run belongs to the run: so the wider
# ones go first. A device's own leaves that part out. A battery's is never chosen: it takes minutes.
_ORDER: tuple[Scope, ...] = ("package", "board", "device")


def meter_for(device: Device, devices: Sequence[Device], meters: Sequence[Meter], sysroot: Path) -> Meter:
    """The meter that counts what a device takes, of those that can be read now.

    Args:
        device: Whose energy is to be measured.
        devices: All of this machine.
        meters: As `find_meters` gave them.
        sysroot: Root of `/sys`.

    Raises:
        Unavailable: There is none, or none can be read: why, and what can be done.
    """
    if device.simulated:
        raise Unavailable(f"{device.name} is simulated: what this machine takes says nothing of it")
    fitting = sorted(
        (meter for meter in meters if _counts(meter, device, devices, meters, sysroot)),
        key=lambda meter: _ORDER.index(meter.scope),
    )
    refused: list[Unavailable] = []
    for meter in fitting:
        try:
            meter.read()
        except Unavailable as error:
            refused.append(error)
        else:
            return meter
    if refused:
        raise refused[0]
    if not meters:
        raise Unavailable("no power meter is on this machine")
    if all(meter.scope == "battery" for meter in meters):
        raise Unavailable(
            "only the battery tells what this machine takes, and slowly",
            fix="hetero bench --meter battery, unplugged: some minutes for each device",
        )
    named = ", ".join(meter.name for meter in meters)
    raise Unavailable(
        f"it is not known whether a power meter counts {device.name}; there are: {named}",
        fix="name the one that does: hetero bench --meter NAME",
    )


def sources_of(devices: Sequence[Device], sysroot: Path) -> dict[str, str]:
    """From what the joules of an item can be known on each device, for people.

    Args:
        devices: All of this machine.
        sysroot: Root of `/sys`.
    """
    meters = find_meters(sysroot)
    told = {}
    for device in devices:
        try:
            source = f"{meter_for(device, devices, meters, sysroot)} measures them: hetero bench, or in a pause"
        except Unavailable as error:
            source = f"not measured: {error.problem}"
        declared = "nothing declared" if device.watts is None else f"declared: {device.watts:g} W while it runs"
        told[device.name] = f"{source}; {declared}"
    return told


def meter_named(name: str, meters: Sequence[Meter]) -> Meter:
    """The meter of that name.

    Raises:
        OptionError: There is none.
    """
    for meter in meters:
        if name in (meter.name, meter.label):
            return meter
    known = ", ".join(str(meter) for meter in meters) or "this machine has none"
    raise OptionError(f"there is no power meter {name!r}", fix=f"known: {known}")


def _counts(meter: Meter, device: Device, devices: Sequence[Device], meters: Sequence[Meter], sysroot: Path) -> bool:
    """Whether it is known that the meter counts the device."""
    if meter.scope in ("rail", "battery"):
        return False
    if meter.scope == "board":
        return True
    if device.kind != "gpu":
        return meter.scope == "package" or meter.kind == device.kind
    # A graphics processor may be in the package or on a card, which a Device does not tell. With a single one on the
    # buses the driver's meter says which it is; a board's, which is on no PCI bus, has no such meter and is in the SoC.
    cards = [other for other in meters if other.kind == "gpu"]
    integrated = any(other.scope == "package" and other.name.startswith("amdgpu") for other in meters)
    if display_controllers(sysroot) > 1 or len([other for other in devices if other.kind == "gpu"]) > 1:
        return False
    return meter in cards if cards else meter.scope == "package" and integrated
