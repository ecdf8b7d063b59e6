"""The one path of a request: candidates in order, the first that answers, the record of it all."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from hetero.errors import AllDevicesFailed, FallbackForbidden
from hetero.scheduler.candidate import Candidate
from hetero.telemetry.records import Attempt, Record, Records
from hetero.tensors import Array

_log = logging.getLogger(__name__)

Fallback = Literal["allow", "forbid"]


def load_first(program: str, candidates: Sequence[Candidate], fallback: Fallback) -> list[Attempt]:
    """Load a program on the first candidate that takes it.

    Returns:
        What was tried, the last attempt being the one that loaded.

    Raises:
        AllDevicesFailed: None takes it.
        FallbackForbidden: The first does not, and `fallback` is `forbid`.
        ProgramError: The program is broken for every device.
    """
    attempts: list[Attempt] = []
    for candidate in candidates:
        tried = candidate.load() or candidate.passed_over or candidate.attempt("load", "ok")
        attempts.append(tried)
        if candidate.ready and candidate.passed_over is None:
            return attempts
        if fallback == "forbid":
            raise FallbackForbidden(
                f"{program!r} could not be loaded on {candidate.name}, and fallback is forbidden", attempts
            )
    raise AllDevicesFailed(
        f"no device can run {program!r}", attempts, fix="`hetero doctor` tells what each device needs"
    )


def dispatch(
    inputs: Mapping[str, Array], candidates: Sequence[Candidate], fallback: Fallback, record: Record, records: Records
) -> Mapping[str, Array]:
    """Run a request on the first candidate that answers.

    A candidate that fails is set aside for the rest of the session, while others remain; one that only refuses these
    shapes is not.

    Returns:
        The outputs by name.

    Raises:
        AllDevicesFailed: None answered.
        FallbackForbidden: The first did not, and `fallback` is `forbid`.
        InputError: A backend found the input to be wrong.
    """
    started = time.perf_counter()
    attempts = record.attempts
    try:
        for candidate in candidates:
            if candidate.passed_over is not None:
                attempts.append(candidate.passed_over)
            else:
                if not candidate.ready:
                    candidate.load()
                if candidate.passed_over is not None:
                    attempts.append(candidate.passed_over)
                else:
                    outputs, waited = candidate.run(inputs, attempts)
                    record.wait_seconds += waited
                    if outputs is not None:
                        return outputs
                    _after_failure(candidate, candidates, attempts[-1])
            if fallback == "forbid":
                raise FallbackForbidden(
                    f"{record.program!r} did not run on {candidate.name}, and fallback is forbidden", attempts
                )
        raise AllDevicesFailed(
            f"no device answered for {record.program!r}", attempts, fix="`hetero doctor` tells what each device needs"
        )
    except BaseException as error:
        record.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        record.total_seconds = time.perf_counter() - started
        records.add(record)


def _after_failure(candidate: Candidate, candidates: Sequence[Candidate], attempt: Attempt) -> None:
    _log.warning("%s", attempt)
    others = any(other is not candidate and other.passed_over is None for other in candidates)
    if attempt.outcome == "failed" and others:
        candidate.set_aside(attempt)
