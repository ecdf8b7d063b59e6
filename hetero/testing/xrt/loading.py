"""The vendor's classes that load things: `uuid`, `xclbin`, `device`, `hw_context`, `kernel`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from hetero.kernel_manifest import FIRST_DATA_ARGUMENT
from hetero.testing.xrt.bound import Bound, incompatible, unsigned
from hetero.testing.xrt.enums import AccessMode, DeviceInfo
from hetero.testing.xrt.launch import DATA_BANK, INSTRUCTION_BANK, Context
from hetero.testing.xrt.stand_in import Image, read_image

BDF = "0000:c5:00.1"


class Uuid(Bound):
    """`uuid`: names an xclbin."""

    def __init__(self, text: str) -> None:
        self._text = text

    def to_string(self) -> str:
        """The usual form, with dashes."""
        return self._text


class XclbinKernel:
    """`xclbin.xclbinkernel`."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def get_name(self) -> str:
        """As in the xclbin."""
        return self._image.design.name

    def get_num_args(self) -> int:
        """All of them: opcode, instructions, their count, then data."""
        return FIRST_DATA_ARGUMENT + len(self._image.design.arguments)


class Xclbin(Bound):
    """`xclbin`: a file, read. One that is empty or truncated takes the process down."""

    def __init__(self, filename: str) -> None:
        if not isinstance(filename, str):
            raise incompatible("__init__(): xclbin", (filename,))
        path = Path(filename)
        if not path.is_file():
            raise RuntimeError(f"Failed to open file '{filename}' for reading")
        image = read_image(path.read_bytes())
        if image is None:
            self.npu.ledger.crash("bad_xclbin", f"{filename} is empty or truncated: segmentation fault")
        self.image = image

    def get_uuid(self) -> Any:
        """Its identity."""
        return self.module.uuid(self.image.uuid)

    def get_kernels(self) -> list[XclbinKernel]:
        """The one kernel of a stand-in."""
        return [XclbinKernel(self.image)]

    def get_xsa_name(self) -> str:
        """What it was built for."""
        return "simulated"


class Device(Bound):
    """`device`, as XRT up to 2.15 has it: by index or by address."""

    def __init__(self, device: Any = None) -> None:
        self.images: dict[str, Image] = {}
        # The context that `kernel(device, uuid, name)` makes, kept by the device as the vendor's load does.
        self.implicit: dict[str, Context] = {}
        self.loaded: str | None = None
        if device is None:
            return
        npu = self.npu
        if device != BDF and (isinstance(device, str) or unsigned("__init__(): device", device) >= npu.phoenix.devices):
            raise RuntimeError(f" No such device with index '{device}'")
        if not npu.phoenix.devices:
            raise RuntimeError(f" No such device '{device}'")
        if not npu.phoenix.permitted:
            raise RuntimeError("Open /dev/accel/accel0 failed (err=-13): Permission denied")
        npu.enter()

    def load_xclbin(self, xclbin: Any) -> Any:
        """Take in an xclbin, by path or read; deprecated from 2.23 on."""
        if self.npu.phoenix.version >= (2, 23):
            warnings.warn(
                "pyxrt.device.load_xclbin() is deprecated; use pyxrt.hw_context(device, xclbin) or "
                "pyxrt.hw_context(device, xclbin_path) instead",
                DeprecationWarning,
                stacklevel=2,
            )
        return self.register(xclbin if isinstance(xclbin, Xclbin) else self.module.xclbin(xclbin))

    def register(self, xclbin: Xclbin) -> Any:
        """Take in an xclbin; no part of the vendor's class."""
        self.npu.enter()
        self.loaded = xclbin.image.uuid
        self.images[xclbin.image.uuid] = xclbin.image
        return xclbin.get_uuid()

    def get_xclbin_uuid(self) -> Any:
        """Of the xclbin that was taken in last."""
        return self.module.uuid(self.loaded or "00000000-0000-0000-0000-000000000000")

    def get_info(self, key: DeviceInfo) -> str:
        """Name and address."""
        return {DeviceInfo.bdf: BDF, DeviceInfo.name: "NPU Phoenix (simulated)"}[key]

    def image(self, uuid: Any) -> Image:
        """The xclbin of that uuid; no part of the vendor's class."""
        if not isinstance(uuid, Uuid):
            raise incompatible("__init__()", (self, uuid))
        if uuid.to_string() not in self.images:
            raise RuntimeError(f"No xclbin with uuid '{uuid.to_string()}' is registered")
        return self.images[uuid.to_string()]


class RegisteringDevice(Device):
    """`device` from 2.16 on."""

    def register_xclbin(self, xclbin: Any) -> Any:
        """Take in an xclbin for contexts to be made of."""
        if not isinstance(xclbin, Xclbin):
            raise incompatible("register_xclbin()", (xclbin,))
        return self.register(xclbin)


class HwContext(Bound):
    """`hw_context` from 2.16 on: of the uuid of a registered xclbin."""

    def __init__(self, device: Any, uuid: Any) -> None:
        if not isinstance(device, Device):
            raise incompatible("__init__(): hw_context", (device, uuid))
        self.context = self.npu.make_context(device.image(uuid))


class ModalContext(HwContext):
    """`hw_context` from 2.23 on: of an xclbin or its path too; a third argument is the mode, or the QoS."""

    access_mode = AccessMode
    exclusive = AccessMode.exclusive
    shared = AccessMode.shared

    def __init__(self, device: Any, source: Any, mode: Any = None) -> None:
        if mode is not None and not isinstance(mode, AccessMode | dict):
            raise incompatible("__init__(): hw_context", (device, source, mode))
        if isinstance(source, str):
            source = self.module.xclbin(source)
        if isinstance(device, Device) and isinstance(source, Xclbin):
            source = device.register(source)
        super().__init__(device, source)


class Kernel(Bound):
    """`kernel`: of a context, or of a device and a uuid, which makes a context."""

    def __init__(self, *args: Any) -> None:
        if len(args) == 2 and isinstance(args[0], HwContext):
            self.context = args[0].context
        elif len(args) in (3, 4) and isinstance(args[0], Device):
            if self.npu.phoenix.version >= (2, 23):
                warnings.warn(
                    "kernel(device, uuid, name[, mode]) is deprecated; use kernel(hw_context, name) instead.",
                    DeprecationWarning,
                    stacklevel=2,
                )
            device, image = args[0], args[0].image(args[1])
            if image.uuid not in device.implicit:
                device.implicit[image.uuid] = self.npu.make_context(image)
            self.context = device.implicit[image.uuid]
        else:
            raise incompatible("__init__(): kernel", args)
        name = args[1] if len(args) == 2 else args[2]
        if name != self.context.image.design.name:
            raise RuntimeError(f"No compute units matching '{name}'")

    def group_id(self, index: int) -> int:
        """Where a buffer for that argument is to be made; scalars have none."""
        arguments = self.context.image.design.arguments
        if index != 1 and index not in {argument.index for argument in arguments}:
            raise IndexError(f"group_id of argument {index}, which is none or a scalar")
        return (INSTRUCTION_BANK if index == 1 else DATA_BANK) | self.context.slot << 16

    def __call__(self, *args: Any) -> Any:
        """Set what can be converted, and start. The run that comes back must be kept until it has ended."""
        run = self.module.run(self)
        for index, argument in enumerate(args):
            run.take(index, argument)
        run.start()
        return run
