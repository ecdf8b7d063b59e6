"""A compile request's samples as arrays that go through shared memory: they may be hundreds of megabytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hetero.compiling.report import CompileRequest, Sample
from hetero.tensors import Array


def pack_samples(request: CompileRequest) -> tuple[dict[str, Array], tuple[int, int]]:
    """All samples in one mapping.

    Returns:
        `PLACE/NAME` to array, those for calibration first; and how many samples there are for calibration, and to
        compare on.
    """
    samples = [*request.calibration, *request.checks]
    packed = {f"{place}/{name}": array for place, sample in enumerate(samples) for name, array in sample.items()}
    return packed, (len(request.calibration), len(request.checks))


def unpack_samples(packed: Mapping[str, Array], counts: tuple[int, int]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """The samples for calibration and those to compare on; arguments as `pack_samples` gave them."""
    samples: list[dict[str, Array]] = [{} for _ in range(sum(counts))]
    for key, array in packed.items():
        place, _, name = key.partition("/")
        samples[int(place)][name] = array
    return samples[: counts[0]], samples[counts[0] :]
