"""A stand-in for `aie.iron`: the same design runs here, in threads of which one runs at a time.

What is modelled: bounded FIFOs with their buffers on both sides, splits and joins in a memory tile, access patterns
(on a joined FIFO for each segment), the queues of a shim, task groups, and a core's functions through their host build.
Time is counted in cycles for each actor and carried by what passes between them, so that neither the machine's speed
nor the order of threads changes a result. The cycles are a model, not a measurement.

What it finds: actors that all wait (a deadlock), elements that are acquired or released wrongly, arguments of the wrong
kind, size or order, transfers that nobody waits for, columns that run one after the other.
"""

from hetero_kernels.aie2.simulate.design import stand_in
from hetero_kernels.aie2.simulate.run import Outcome, run

__all__ = ["Outcome", "run", "stand_in"]
