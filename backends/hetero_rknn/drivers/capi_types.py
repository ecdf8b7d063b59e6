"""Rockchip's C interface (`rknn_api.h` 2.3.2), declared for ctypes, and finding the library that has it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Mapping
from ctypes import (
    POINTER,
    byref,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int8,
    c_int32,
    c_uint8,
    c_uint32,
    c_uint64,
)
from pathlib import Path
from typing import Any, Final

import numpy as np

from hetero.backend import Unavailable
from hetero_rknn.drivers.errors import error_of

ENVIRONMENT = "HETERO_RKNN_LIBRARY"
PATHS = ("/usr/lib/librknnrt.so", "/usr/lib64/librknnrt.so", "/usr/lib/aarch64-linux-gnu/librknnrt.so")
_NAME = "librknnrt.so"

MAX_DIMS: Final = 16
MAX_NAME: Final = 256

FLAG_DISABLE_FLUSH_INPUT: Final = 0x4000
FLAG_DISABLE_FLUSH_OUTPUT: Final = 0x8000

QUERY_IN_OUT_NUM: Final = 0
QUERY_INPUT: Final = 1
QUERY_OUTPUT: Final = 2
QUERY_SDK_VERSION: Final = 5
QUERY_NATIVE_INPUT: Final = 8

NCHW: Final = 0
NHWC: Final = 1
NC1HWC2: Final = 2
UNDEFINED: Final = 3

QNT_NONE: Final = 0

SYNC_TO_DEVICE: Final = 1
SYNC_FROM_DEVICE: Final = 2

FLOAT32: Final = 0
FLOAT16: Final = 1
# By the vendor's number of the type; its int4 and bfloat16 have no numpy dtype.
DTYPES: Final[Mapping[int, np.dtype[Any]]] = {
    number: np.dtype(name)
    for number, name in enumerate(
        ("float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool")
    )
}
TYPES: Final[Mapping[np.dtype[Any], int]] = {dtype: number for number, dtype in DTYPES.items()}

# 32 bits in 32-bit programs on Arm, 64 everywhere else.
_SMALL = ctypes.sizeof(ctypes.c_void_p) == 4 and platform.machine().startswith(("arm", "aarch64"))
Handle = c_uint32 if _SMALL else c_uint64


class InOutNum(ctypes.Structure):
    """How many inputs and outputs a model has."""

    _fields_ = (("n_input", c_uint32), ("n_output", c_uint32))


class TensorAttr(ctypes.Structure):
    """What the runtime says of an input or output."""

    _fields_ = (
        ("index", c_uint32),
        ("n_dims", c_uint32),
        ("dims", c_uint32 * MAX_DIMS),
        ("name", c_char * MAX_NAME),
        ("n_elems", c_uint32),
        ("size", c_uint32),
        ("fmt", c_int),
        ("type", c_int),
        ("qnt_type", c_int),
        ("fl", c_int8),
        ("zp", c_int32),
        ("scale", c_float),
        ("w_stride", c_uint32),
        ("size_with_stride", c_uint32),
        ("pass_through", c_uint8),
        ("h_stride", c_uint32),
    )

    def shape(self) -> tuple[int, ...]:
        """The dimensions, in the order that `fmt` names."""
        return tuple(self.dims[: self.n_dims])


class SdkVersion(ctypes.Structure):
    """Versions of the runtime and of the kernel driver."""

    _fields_ = (("api_version", c_char * 256), ("drv_version", c_char * 256))


class TensorMem(ctypes.Structure):
    """Memory that the processor and the NPU share."""

    _fields_ = (
        ("virt_addr", ctypes.c_void_p),
        ("phys_addr", c_uint64),
        ("fd", c_int32),
        ("offset", c_int32),
        ("size", c_uint32),
        ("flags", c_uint32),
        ("priv_data", ctypes.c_void_p),
    )


class Input(ctypes.Structure):
    """An input to be copied."""

    _fields_ = (
        ("index", c_uint32),
        ("buf", ctypes.c_void_p),
        ("size", c_uint32),
        ("pass_through", c_uint8),
        ("type", c_int),
        ("fmt", c_int),
    )


class Output(ctypes.Structure):
    """An output to be copied."""

    _fields_ = (
        ("want_float", c_uint8),
        ("is_prealloc", c_uint8),
        ("index", c_uint32),
        ("buf", ctypes.c_void_p),
        ("size", c_uint32),
    )


# Result, then arguments. Every other call than these two kinds returns a code.
_MEM = POINTER(TensorMem)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "rknn_init": (c_int, POINTER(Handle), c_char_p, c_uint32, c_uint32, ctypes.c_void_p),
    "rknn_dup_context": (c_int, POINTER(Handle), POINTER(Handle)),
    "rknn_destroy": (c_int, Handle),
    "rknn_query": (c_int, Handle, c_int, ctypes.c_void_p, c_uint32),
    "rknn_set_core_mask": (c_int, Handle, c_int),
    "rknn_inputs_set": (c_int, Handle, c_uint32, POINTER(Input)),
    "rknn_run": (c_int, Handle, ctypes.c_void_p),
    "rknn_outputs_get": (c_int, Handle, c_uint32, POINTER(Output), ctypes.c_void_p),
    "rknn_outputs_release": (c_int, Handle, c_uint32, POINTER(Output)),
    "rknn_create_mem": (_MEM, Handle, c_uint32),
    "rknn_destroy_mem": (c_int, Handle, _MEM),
    "rknn_set_io_mem": (c_int, Handle, _MEM, POINTER(TensorAttr)),
    "rknn_mem_sync": (c_int, Handle, _MEM, c_int),
}


class Runtime:
    """`librknnrt.so`, loaded. A call through ctypes lets other Python threads run meanwhile.

    Args:
        path: Of the library; None looks at `HETERO_RKNN_LIBRARY`, then where the vendor's packages put it, then where
            the dynamic linker looks.

    Attributes:
        path: What was loaded; a bare name when the dynamic linker found it.

    Raises:
        Unavailable: There is none, it is for another machine, or too old.
    """

    def __init__(self, path: Path | None = None) -> None:
        chosen = str(path) if path else os.environ.get(ENVIRONMENT)
        self.path = chosen or next((found for found in PATHS if os.path.exists(found)), _NAME)
        try:
            library = ctypes.CDLL(self.path)
        except OSError as error:
            raise _not_loaded(self.path, bool(chosen), error) from None
        for name, (result, *arguments) in _FUNCTIONS.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                raise Unavailable(
                    f"{self.path} has no {name}: it is older than librknnrt 1.4, or not Rockchip's",
                    fix="install the current librknnrt.so from github.com/airockchip/rknn-toolkit2, rknpu2/runtime",
                ) from None
            function.restype, function.argtypes = result, arguments
        self.functions: Any = library

    def query(self, handle: Any, command: int, into: ctypes.Structure) -> None:
        """Fill a structure in.

        Raises:
            HeteroError: The runtime refuses.
        """
        code = self.functions.rknn_query(handle, command, byref(into), ctypes.sizeof(into))
        if code < 0:
            raise error_of(code, f"rknn_query({command})")

    def attributes(self, handle: Any, command: int, count: int) -> list[TensorAttr]:
        """What the runtime says of each of the inputs or outputs."""
        found = []
        for index in range(count):
            attribute = TensorAttr(index=index)
            self.query(handle, command, attribute)
            found.append(attribute)
        return found

    def version_in_file(self) -> str | None:
        """The version that is written in the library's file; None when the file has none or cannot be read."""
        try:
            content = Path(self.path).read_bytes()
        except OSError:
            return None
        found = re.search(rb"librknnrt version: (\d+(?:\.\d+)+)", content)
        return found.group(1).decode() if found else None


def _not_loaded(path: str, chosen: bool, error: OSError) -> Unavailable:
    if os.path.exists(path):
        return Unavailable(
            f"{path} cannot be loaded: {error}",
            fix=f"install the librknnrt.so for {platform.machine()}, or mend its dependencies",
        )
    if chosen:
        return Unavailable(f"there is no {path}", fix=f"correct {ENVIRONMENT}, or unset it to search the usual places")
    return Unavailable(
        f"Rockchip's runtime {_NAME} is not installed (looked at {', '.join(PATHS)} and the linker's places)",
        fix=f"install {_NAME} (github.com/airockchip/rknn-toolkit2, rknpu2/runtime), or set {ENVIRONMENT} to its path",
    )
