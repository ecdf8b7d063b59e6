"""Which placement is the quicker one for a model, a context a core or one over all cores: by trying both."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hetero.backend import Array, Call, Executable
from hetero_rknn.model_file import ModelFile

_WARM = 1
_LEAST_JOBS = 4
_SECONDS = 0.5


@dataclass(frozen=True)
class Measured:
    """What one placement did.

    Attributes:
        jobs_per_second: With a job in every context all the time.
        job_seconds: Median time of a job meanwhile.
    """

    jobs_per_second: float
    job_seconds: float

    def __str__(self) -> str:
        return f"{self.jobs_per_second:.4g} jobs/s at {self.job_seconds * 1e3:.3g} ms a job"


def measure(executable: Executable, model: ModelFile, seconds: float = _SECONDS) -> Measured:
    """Keep every lane busy for a while.

    Args:
        executable: What to measure.
        model: Its inputs' names, dtypes and shapes; the numbers are drawn at random.
        seconds: How long, at least; every lane does at least a few jobs.

    Raises:
        Exception: What a job raised.
    """
    inputs = _inputs(model)
    times: list[float] = []
    errors: list[BaseException] = []
    start = threading.Barrier(executable.lanes + 1)

    def work(lane: int) -> None:
        call = Call(lane)
        try:
            for _ in range(_WARM):
                executable.run(inputs, call)
        except BaseException as error:
            errors.append(error)
        start.wait()
        begun, done = time.perf_counter(), 0
        while not errors and (done < _LEAST_JOBS or time.perf_counter() - begun < seconds):
            job = time.perf_counter()
            try:
                executable.run(inputs, call)
            except BaseException as error:
                errors.append(error)
            times.append(time.perf_counter() - job)
            done += 1

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in range(executable.lanes)]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return Measured(len(times) / (time.perf_counter() - begun), statistics.median(times))


def quickest(
    makes: Mapping[str, Callable[[], Executable]], model: ModelFile
) -> tuple[str, Executable, dict[str, Measured | str]]:
    """Make, measure and close one placement after another, and make the one of most jobs per second again.

    Args:
        makes: By name, what makes a placement's executable.
        model: For the inputs.

    Returns:
        The winner's name, the winner, and what each one did, or why it could not be measured.

    Raises:
        Exception: What the last one raised, when none works.
    """
    results: dict[str, Measured | str] = {}
    failure: Exception | None = None
    for name, make in makes.items():
        try:
            executable = make()
            try:
                results[name] = measure(executable, model)
            finally:
                executable.close()
        except Exception as error:
            failure = error
            results[name] = f"could not be measured: {error}"
    measured = {name: result for name, result in results.items() if isinstance(result, Measured)}
    if not measured:
        assert failure is not None
        raise failure
    winner = max(measured, key=lambda name: measured[name].jobs_per_second)
    return winner, makes[winner](), results


def _inputs(model: ModelFile) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {tensor.name: _values(rng, tensor.dtype, tensor.shape) for tensor in model.inputs}


def _values(rng: np.random.Generator, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    if dtype.kind in "iub":
        return np.zeros(shape, dtype)
    return (rng.standard_normal(shape) * 0.5).astype(dtype)
