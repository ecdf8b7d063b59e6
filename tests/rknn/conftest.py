"""What tests of the simulated Rockchip interfaces share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.testing.rknn.npu import SimulatedNpu
from hetero.testing.rknn.rknnlite import LOGGER
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


class Said(logging.Handler):
    """What the class RKNNLite logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


@pytest.fixture
def said() -> Iterator[Said]:
    """Hears what the class RKNNLite logs."""
    handler = Said()
    logging.getLogger(LOGGER).addHandler(handler)
    yield handler
    logging.getLogger(LOGGER).removeHandler(handler)


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Puts `logging` back, whatever the test does to it: making a simulated RKNNLite breaks its level names."""
    module, root = vars(logging), logging.getLogger()
    names, levels = module["_levelToName"], module["_nameToLevel"]
    module["_levelToName"], module["_nameToLevel"] = dict(names), dict(levels)
    handlers, level = root.handlers[:], root.level
    yield
    module["_levelToName"], module["_nameToLevel"] = names, levels
    root.handlers[:] = handlers
    root.setLevel(level)
