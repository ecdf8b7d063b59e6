"""The vendor's enumerations, as pybind11 makes them: they convert to int and are equal only to themselves."""

from __future__ import annotations

import enum


class PybindEnum(enum.Enum):
    """Not an IntEnum: with pybind11 `state == 4` is False, whatever the state."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


class CommandState(PybindEnum):
    """`ert_cmd_state`. The vendor's module has no RUNNING either: a command in flight is NEW, as before its start."""

    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9
    ERT_CMD_STATE_SKERROR = 10
    ERT_CMD_STATE_SKCRASHED = 11


class SyncDirection(PybindEnum):
    """`xclBOSyncDirection`."""

    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1
    XCL_BO_SYNC_BO_GMIO_TO_AIE = 2
    XCL_BO_SYNC_BO_AIE_TO_GMIO = 3


class BufferFlags(PybindEnum):
    """`bo.flags`; only `cacheable` and `host_only` exist on an NPU."""

    normal = 0
    cacheable = 1 << 24
    device_only = 1 << 28
    host_only = 1 << 29
    p2p = 1 << 30
    svm = 1 << 27


class AccessMode(PybindEnum):
    """`hw_context.access_mode`, from XRT 2.23 on."""

    exclusive = 0
    shared = 1


class DeviceInfo(PybindEnum):
    """`xrt_info_device`: the keys that an NPU answers."""

    bdf = 0
    name = 5  # type: ignore[assignment]  # the vendor's member hides Enum's own attribute too
