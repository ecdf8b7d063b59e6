"""What tests of the simulated `librknnrt.so` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.testing.rknn.npu import SimulatedNpu
from tests import models
from tests.rknn.board import Board
from tests.rknn.sim_models import simulated_library, twin, wait_for


@pytest.fixture
def board() -> Iterator[Board]:
    """A fresh RK3588; a test that leaves a session alive in it fails."""
    library = simulated_library()
    library.configure(SimulatedNpu())
    made = Board(library)
    yield made
    library.release_hangs()
    for handle in made.made:
        made.call.rknn_destroy(handle)
    wait_for(lambda: library.counter("sessions") == 0)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A twin of y = x + x, float32 `[4]`."""
    return twin(models.double(tmp_path / "double.onnx"))[0]
