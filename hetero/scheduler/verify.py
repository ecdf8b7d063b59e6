"""Checking answers at run time against the reference: every one before it is given, or a share of them afterwards."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hetero.errors import ClosedError, HeteroError, WrongAnswer
from hetero.scheduler.canary import TOLERANCE, compare
from hetero.scheduler.workers import Workers
from hetero.tensors import Array

if TYPE_CHECKING:
    from hetero.scheduler.candidate import Candidate

_log = logging.getLogger(__name__)


class Verifier:
    """Compares a session's answers with those of its reference.

    Args:
        reference: The candidate whose answers count as right.
        share: Of the answers that are checked. 1 checks each before the caller gets it; less checks afterwards, in the
            background, on copies.
        workers: For the checks in the background.
        tolerance: As a share of the largest number in each output.
        draw: Uniform in [0, 1), for tests.
    """

    def __init__(
        self,
        reference: Candidate,
        share: float,
        workers: Workers,
        tolerance: float = TOLERANCE,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._reference = reference
        self._share = share
        self._workers = workers
        self._tolerance = tolerance
        self._draw = draw

    def check(self, candidate: Candidate, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Check an answer of `candidate` now, or have it checked later, or not, as the share has it.

        While heat has stopped the reference, nothing is checked that nobody waits for.

        Raises:
            WrongAnswer: It is wrong, and every answer is checked.
            ClosedError: Every answer is checked, and the session was closed before this one could be.
        """
        if candidate is self._reference:
            return
        if self._share >= 1:
            self._compare(candidate, inputs, outputs)
        elif self._draw() < self._share and not self._reference.stopped:
            # The caller may change its arrays as soon as it has its answer.
            kept = {name: array.copy() for name, array in inputs.items()}
            given = {name: array.copy() for name, array in outputs.items()}
            self._workers.do(lambda: self._check_later(candidate, kept, given))

    def _check_later(self, candidate: Candidate, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        try:
            self._compare(candidate, inputs, outputs)
        except ClosedError:
            return
        except WrongAnswer as error:
            _log.error("%s gave a wrong answer: %s", candidate.name, error.problem)
            candidate.distrust(error)

    def _compare(self, candidate: Candidate, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        try:
            expected = self._reference.answer(inputs)
        except ClosedError:
            raise  # the reference is gone: an answer that nobody could check is not given
        except HeteroError as error:
            # What cannot be checked is told, not held against the device.
            _log.warning("an answer could not be checked, %s failed: %s", self._reference.name, error)
            return
        for name, array in expected.items():
            compare(name, outputs[name], array, self._tolerance, candidate.min_cosine)
