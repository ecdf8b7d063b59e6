"""Ten thousand jobs on a simulated NPU that fails in every way, one core of which hangs for good: nothing is lost."""

from __future__ import annotations

import collections
import threading
from pathlib import Path

import numpy as np
import pytest

from hetero.testing.rknn.npu import SimulatedNpu
from tests import models
from tests.rknn.runtimes import DRIVERS, on_board

JOBS = 10_000
TIMEOUT = 1000.0  # two seconds of the jobs' time
KINDS = ("fail", "timeout", "lost", "nan", "garbage")


class Clock:
    """The scheduler's time, which runs five hundred times as fast as that of the jobs: pauses pass in a moment."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("share", [0.01, 0.05])
def test_every_job_is_answered_once_and_in_order_whatever_the_npu_does(
    driver: str, share: float, tmp_path: Path
) -> None:
    npu = SimulatedNpu(
        faults=dict.fromkeys(KINDS, share), hung_core=2, hung_after=50, job_seconds=0.0002, seed=round(share * 100)
    )
    clock, stop = Clock(), threading.Event()
    with on_board(driver, npu, clock=clock, keep_records=JOBS + 1) as runtime:

        def pass_time() -> None:
            while not stop.wait(0.001):
                clock.now += 0.5
                runtime.timers.run_due()

        session = runtime.load(models.double(tmp_path / "double.onnx"), verify=1, timeout=TIMEOUT, canary=False)
        clockwork = threading.Thread(target=pass_time)
        clockwork.start()
        try:
            items = (np.full(4, number, np.float32) for number in range(JOBS))
            answers = [float(answer[0]) for answer in session.map(items, in_flight=24)]
        finally:
            stop.set()
            clockwork.join()
        assert answers == [2.0 * number for number in range(JOBS)]

        records = list(runtime.records)
        assert len({record.id for record in records}) == JOBS
        assert all(record.error is None for record in records)
        attempts = [attempt for record in records for attempt in record.attempts]
        answered = collections.Counter(attempt.device for attempt in attempts if attempt.outcome == "ok")
        assert answered["rknn"] > JOBS // 20, "the NPU comes back from its failures and does its share"
        assert answered["cpu"] > 0
        failures = [attempt.reason for attempt in attempts if attempt.outcome == "failed"]
        reasons = " ".join(failures)
        for sign in (
            "RKNN_ERR_FAIL",
            "RKNN_ERR_TIMEOUT",
            "RKNN_ERR_DEVICE_UNAVAILABLE",
            "NaN",
            "differs from the reference",
        ):
            assert sign in reasons, "each kind of fault was met"
        assert f"core2: DeviceTimeout: no answer within {TIMEOUT:g} s" in reasons
        assert "core2" in session.explain().candidates[0].reason, "the core that hangs is still set aside"
        # The core that hangs is met once a context, not again and again.
        assert sum("no answer within" in reason for reason in failures) <= 2
        lanes = {attempt.lane for attempt in attempts if attempt.device == "rknn" and attempt.outcome == "ok"}
        assert lanes >= {0, 1}
