"""What a Runtime's governor says of each device, and what it has decided, for a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hetero.monitor.status import GovernorStatus, HeatEvent, HeatStatus

if TYPE_CHECKING:
    from hetero.thermal.governor import Governor
    from hetero.thermal.samples import Sample

_SHOWN = 8


def governor_status(governor: Governor | None, now: float) -> GovernorStatus | None:
    """How heat is dealt with; None where it is not.

    Args:
        governor: Of the Runtime.
        now: Seconds on its clock.
    """
    if governor is None:
        return None
    events = tuple(HeatEvent(now - event.at, str(event)) for event in list(governor.events)[-_SHOWN:])
    return GovernorStatus(governor.profile.name, governor.on_hot, events)


def heat_of(governor: Governor | None, device: str) -> HeatStatus | None:
    """A device as the governor saw it last; None where none watches it, or it has not looked yet."""
    sample = governor.samples.get(device) if governor is not None else None
    return None if governor is None or sample is None else heat_status(sample, governor.tokens(device))


def heat_status(sample: Sample, tokens: float) -> HeatStatus:
    """What a tick has seen and decided for a device that has so many lane-seconds to spend."""
    reading, grant = sample.reading, sample.grant
    return HeatStatus(
        celsius=reading.celsius,
        source=reading.source,
        direct=reading.direct,
        state=grant.state,
        duty=grant.duty,
        tokens=tokens,
        used=sample.used,
        why=f"{reading.reason}; {grant.why}" if reading.reason else grant.why,
    )
