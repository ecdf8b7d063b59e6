"""The most work that any governor could have got out of a machine without reaching its limits: a linear program.

Variables are the shares of each interval in which the NPU, the GPU and the CPU work, and by how much that has moved the
states of the model at its end; the model's matrices tie them together, what is left of each limit bounds the
temperatures, and the items are the objective. It knows the whole future, so nothing that lives in time can reach it
where the future holds surprises. Where the machine comes above a limit though nothing works, nothing may work.

The NPU runs at its highest clock: whoever lowers the clock, and with it the voltage, may come above this bound, and so
may a kernel that does it at the limit.
"""

from __future__ import annotations

import numpy as np

from hetero.testing.thermal.plant import CPU, DIE, GPU, HOT, NPU, STEP, Build, Floats, Plant
from hetero.testing.thermal.scenarios import Scenario
from hetero.thermal.limits import LIMITS


def most_items(scenario: Scenario, interval: float = 2.0) -> float:
    """The items of the best plan that there is.

    Args:
        scenario: What happens.
        interval: Seconds for which a duty is constant. Limits hold at the ends of intervals.

    Raises:
        ModuleNotFoundError: scipy is not installed (the extra `dev` has it).
        RuntimeError: The solver gave up.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    every = round(interval)
    count = scenario.seconds // every
    shape = (count, every)
    ambient = scenario.ambient[: count * every].reshape(shape).mean(axis=1)
    others = np.stack(
        [values[: count * every].reshape(shape).mean(axis=1) for values in (scenario.gpu, scenario.cpu)], axis=1
    )
    demand = scenario.demand[: count * every].reshape(shape).mean(axis=1)
    idle = _at_rest(scenario)
    blocks_x, blocks_u, bounds = [], [], np.zeros((count, 2))
    # What heats the CPU is not ours to stop; the package's limit holds for all of it where it is the higher one.
    package = scenario.limits.maximum
    limits = np.array([package, max(package, LIMITS["gpu"].maximum)])
    for place in range(count):
        build = scenario.build_at(place * every)
        a, b, c = _matrices(build, interval)
        watts = np.array([0.0, others[place, 0], others[place, 1] + build.idle_watts])
        idle = a @ idle + b @ watts + c * ambient[place]
        bounds[place] = np.maximum(0.0, limits - idle[DIE] - idle[[HOT + NPU, HOT + GPU]])
        host = b[:, CPU] * build.host_watts
        work = [b[:, NPU] * build.npu_watts + host, b[:, GPU] * build.gpu_watts + host, b[:, CPU] * build.cpu_watts]
        blocks_x.append(a)
        blocks_u.append(-np.stack(work, axis=1))
    rates = np.array([scenario.build.npu_rate, scenario.build.gpu_rate, scenario.build.cpu_rate])
    before = sparse.hstack(
        [sparse.vstack([sparse.csr_matrix((5, 5 * (count - 1))), sparse.block_diag(blocks_x[1:])]),
         sparse.csr_matrix((5 * count, 5))]
    )  # fmt: skip
    equal = sparse.hstack([sparse.block_diag(blocks_u), sparse.identity(5 * count) - before]).tocsc()
    seen = np.zeros((2, 5))
    seen[:, DIE] = 1
    seen[[NPU, GPU], [HOT + NPU, HOT + GPU]] = 1
    each = sparse.identity(count)
    upper = sparse.bmat(
        [[None, sparse.kron(each, sparse.csr_matrix(seen))], [sparse.kron(each, np.ones((1, 3))), None]]
    ).tocsc()
    objective = np.concatenate([-np.tile(rates, count), np.zeros(5 * count)])
    # The dual simplex is the quicker one; each of the ways gives up now and then.
    for method, presolve in (("highs-ds", True), ("highs-ds", False), ("highs-ipm", True), ("highs-ipm", False)):
        solved = linprog(
            objective,
            A_ub=upper,
            b_ub=np.concatenate([bounds.ravel(), demand]),
            A_eq=equal,
            b_eq=np.zeros(5 * count),
            bounds=[(0, 1)] * (3 * count) + [(0, None)] * (5 * count),
            method=method,
            options={"presolve": presolve},
        )
        if solved.status == 0:
            return float(-solved.fun * interval)
    raise RuntimeError(f"the linear program of {scenario.name!r} was not solved: {solved.message}")


def _at_rest(scenario: Scenario) -> Floats:
    plant = Plant([scenario.build], scenario.ambient[:1])
    plant.background[:, 0] = scenario.gpu[0], scenario.cpu[0]
    plant.settle()
    return np.array(plant.state[0])


def _matrices(build: Build, interval: float) -> tuple[Floats, Floats, Floats]:
    """Those of the plant, over an interval."""
    a, b, c = build.step_matrices
    whole_a, whole_b, whole_c = np.eye(5), np.zeros((5, 3)), np.zeros(5)
    for _ in range(round(interval / STEP)):
        whole_a, whole_b, whole_c = a @ whole_a, a @ whole_b + b, a @ whole_c + c
    return whole_a, whole_b, whole_c
