"""The Runtimes of tests of the whole backend: closed at the end, and none of their calls left in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hetero
from hetero_xrt.flights import FLIGHTS
from tests.xrt.bench import Bench


@pytest.fixture
def bench(host: hetero.Host) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(host, **options))
        return made[-1]

    yield make
    for each in made:
        each.runtime.close()
        each.npu.release_hangs()
        each.clock.advance(10.0)
    FLIGHTS.sweep()
