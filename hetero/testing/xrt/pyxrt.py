"""The vendor's Python module `pyxrt`, for a simulated NPU.

Signatures, states and messages follow XRT's `pyxrt.cpp` and `xrt_kernel.cpp`; what exists depends on the simulated
version. Among what surprises: a command in flight has the state NEW; `wait2` and `runlist.wait` take no time-out, as
the vendor's module is built without pybind11's chrono casts; the states of runs in a runlist mean nothing.
"""

from __future__ import annotations

import types
from collections.abc import Mapping

from hetero.testing.xrt.bound import Bound
from hetero.testing.xrt.clock import Clock, RealClock
from hetero.testing.xrt.design import Reference
from hetero.testing.xrt.enums import CommandState, DeviceInfo, SyncDirection
from hetero.testing.xrt.loading import Device, HwContext, Kernel, ModalContext, RegisteringDevice, Uuid, Xclbin
from hetero.testing.xrt.npu import Npu
from hetero.testing.xrt.phoenix import SimulatedPhoenix
from hetero.testing.xrt.running import Bo, Run, Runlist, WaitingRun


def simulated_pyxrt(
    phoenix: SimulatedPhoenix | None = None,
    *,
    kernels: Mapping[str, Reference] | None = None,
    clock: Clock | None = None,
) -> types.ModuleType:
    """A module like `pyxrt`, of a machine of its own.

    Args:
        phoenix: What is simulated; by default an NPU without faults and XRT 2.20.
        kernels: Exact answers by logical kernel; those that are not here come from the installed plugins.
        clock: By default real time: modelled seconds pass as such.

    Returns:
        The module. Its attribute `npu`, which the vendor's has not, is the machine behind it: counters, faults.
    """
    phoenix = phoenix or SimulatedPhoenix()
    npu = Npu(phoenix, kernels or {}, clock or RealClock())
    version = phoenix.version
    module = types.ModuleType("pyxrt", "Simulated: a Phoenix NPU behind the vendor's interface.")
    classes: dict[str, type[Bound]] = {
        "uuid": Uuid,
        "xclbin": Xclbin,
        "device": RegisteringDevice if version >= (2, 16) else Device,
        "kernel": Kernel,
        "bo": Bo,
        "run": WaitingRun if version >= (2, 20) else Run,
    }
    if version >= (2, 16):
        classes["hw_context"] = ModalContext if version >= (2, 23) else HwContext
    if version >= (2, 20):
        classes["runlist"] = Runlist
    for name, base in classes.items():
        setattr(module, name, type(name, (base,), {"npu": npu, "module": module, "__module__": "pyxrt"}))
    if version >= (2, 17):
        vars(module)["enumerate_devices"] = lambda: phoenix.devices
    enumerations = {"ert_cmd_state": CommandState, "xclBOSyncDirection": SyncDirection, "xrt_info_device": DeviceInfo}
    vars(module).update(enumerations, XCL_BO_FLAGS_NONE=0, npu=npu)
    return module
