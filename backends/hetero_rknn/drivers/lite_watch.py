"""What RKNNLite does not tell: the code that `rknn_run` returned, and where the time of a call went.

`RKNNLite.inference` calls `set_inputs`, `run` and `get_outputs` of the object that it keeps as `rknn_runtime`, and
drops what `run` returns (seen in 2.3.2 and 2.5.0). A run that failed then shows only if `rknn_outputs_get` fails as
well, which nobody promises: if it does not, the answer is that of an earlier job.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any


class Watch:
    """Looks at the runs of one object of RKNNLite.

    Attributes:
        code: Of the last `rknn_run`; 0 for success, and where no run was come to.
        given: When the inputs were handed over, by `perf_counter`; 0 when they were not.
        ran: When the run ended; 0 when none did.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A call starts."""
        self.code = 0
        self.given = self.ran = 0.0


def watched(instance: Any) -> Watch | None:
    """Watch an object of RKNNLite from now on.

    Args:
        instance: After `init_runtime`, which makes the object that is watched.

    Returns:
        None where the class is built otherwise than those that were seen.
    """
    runtime = getattr(instance, "rknn_runtime", None)
    set_inputs, run = getattr(runtime, "set_inputs", None), getattr(runtime, "run", None)
    if runtime is None or not callable(set_inputs) or not callable(run):
        return None
    watch = Watch()

    def watched_set_inputs(*arguments: Any, **named: Any) -> Any:
        result = set_inputs(*arguments, **named)
        watch.given = perf_counter()
        return result

    def watched_run(*arguments: Any, **named: Any) -> Any:
        result = run(*arguments, **named)
        watch.ran = perf_counter()
        # With a frame's number behind it, where that was asked for.
        code = result[0] if isinstance(result, tuple) else result
        watch.code = code if isinstance(code, int) else 0
        return result

    runtime.set_inputs, runtime.run = watched_set_inputs, watched_run
    return watch
