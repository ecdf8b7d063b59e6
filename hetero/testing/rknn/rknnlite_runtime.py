"""What an object of the simulated RKNNLite has between `init_runtime` and `release`: a model, and cores.

Exceptions are for the class, which logs them as the vendor's does; their words are the vendor's.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hetero.errors import ProgramInvalid
from hetero.testing.rknn.cores import Cores, Job, core_count, family
from hetero.testing.rknn.twin import read_twin

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnxruntime
    from numpy.typing import NDArray

_FORMAT = 6
# In the order of rknn_tensor_type.
_DTYPES = ("float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool")
_NHWC, _UNDEFINED = 1, 3
# What each fault makes of `rknn_run`; a hang that was released is a timeout.
_CODES = {"fail": -1, "timeout": -2, "hang": -2, "lost": -3}
_NAMES = {-1: "RKNN_ERR_FAIL", -2: "RKNN_ERR_TIMEOUT", -3: "RKNN_ERR_DEVICE_UNAVAILABLE"}


class Machine:
    """What all objects share.

    Args:
        cores: The NPU's.
        log: The vendor's logger.
        stale_outputs: See `simulated_rknnlite`.

    Attributes:
        cores: The NPU's.
        log: The vendor's logger.
        lock: Guards `misuse` and the runtimes' own counts.
        misuse: Calls that met another thread's in one object.
        runtimes: Those that are open.
        sessions: ONNX Runtime's, by the model's digest.
    """

    def __init__(self, cores: Cores, log: logging.Logger, *, stale_outputs: bool = False) -> None:
        self.stale_outputs = stale_outputs
        self.cores = cores
        self.log = log
        self.lock = threading.Lock()
        self.misuse = 0
        self.runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
        self.sessions: weakref.WeakValueDictionary[bytes, onnxruntime.InferenceSession] = weakref.WeakValueDictionary()

    def session(self, model: bytes) -> onnxruntime.InferenceSession:
        """ONNX Runtime's session for a model: one for all objects that have it open."""
        import onnxruntime

        key = hashlib.sha256(model).digest()
        with self.lock:
            session = self.sessions.get(key)
            if session is None:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                session = self._loaded(onnxruntime.InferenceSession, model, options)
                self.sessions[key] = session
        return session

    def _loaded(self, make: Callable[..., onnxruntime.InferenceSession], *how: Any) -> onnxruntime.InferenceSession:
        try:
            session = make(*how, providers=["CPUExecutionProvider"])
            ends = [*session.get_inputs(), *session.get_outputs()]
            foreign = [end.name for end in ends if _dtype_of(end.type).name not in _DTYPES]
        except Exception as error:
            # ONNX Runtime has a dozen classes for it, none of them public.
            _say("the model cannot be used: %s", error)
            raise Refused("RKNN_ERR_MODEL_INVALID") from error
        if foreign:
            _say("the dtype of %s is not for this NPU", ", ".join(foreign))
            raise Refused("RKNN_ERR_MODEL_INVALID")
        return session


class Refused(Exception):
    """With the vendor's name of an error code."""


class Runtime:
    """What an object has between `init_runtime` and `release`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._session: onnxruntime.InferenceSession | None = None
        self._cores, self._every = frozenset(range(core_count(machine.cores.npu.platform))), False
        self._inside = 0
        self._torn = False
        self._feeds: dict[str, NDArray[Any]] = {}
        self._code, self._frame = 0, 0
        self._outputs: list[NDArray[Any]] = []
        self._reused: list[NDArray[Any]] = []
        machine.runtimes.add(self)

    def build_graph(self, data: bytes) -> None:
        """Open the model that the file's bytes hold."""
        npu = self._machine.cores.npu
        try:
            model, platforms = parts(data)
            if family(npu.platform) not in map(family, platforms):
                raise Refused("RKNN_ERR_TARGET_PLATFORM_UNMATCH")
            self._session = self._machine.session(model)
        except Refused as refusal:
            self._machine.runtimes.discard(self)
            raise Exception(f"RKNN init failed. error code: {refusal}") from None

    def set_core_mask(self, mask: int) -> bool:
        """Choose cores; False when the vendor's class refuses."""
        log, count = self._machine.log, core_count(self._machine.cores.npu.platform)
        if mask == 0:
            return True
        if count == 1:
            log.error(
                "The core_mask is only supported by ['RK3588', 'RK3576']. Please do not set this parameter on other "
                "platforms."
            )
            return False
        if mask not in (1, 2, 4, 3, 7, 0xFFFF):
            log.error("The core mode %s is not supported currently.", mask)
            return False
        if count == 2 and mask in (4, 7):
            asked, taken = ("NPU_CORE_2", "NPU_CORE_0") if mask == 4 else ("NPU_CORE_0_1_2", "NPU_CORE_0_1")
            log.warning(
                'The RK3576 platform has only two NPU cores. "%s" is not supported and will be automatically replaced '
                'with "%s".',
                asked,
                taken,
            )
            mask = {4: 1, 7: 3}[mask]
        self._cores = frozenset(core for core in range(count) if mask >> core & 1)
        self._every = True
        return True

    @contextmanager
    def used(self) -> Iterator[None]:
        """Watch for calls that overlap: they get wrong answers."""
        with self._machine.lock:
            self._inside += 1
            if self._inside > 1:
                self._machine.misuse += 1
                self._torn = True
        try:
            yield
        finally:
            with self._machine.lock:
                self._inside -= 1
                self._torn = self._torn and self._inside > 0

    def release(self) -> None:
        """Close the model."""
        with self._machine.lock:
            self._machine.misuse += self._inside > 0
        self._session = None
        self._machine.runtimes.discard(self)

    def set_inputs(self, inputs: Any, data_type: Any, data_format: Any) -> None:
        """Take inputs: the order of elements and the dtypes are those of the graph afterwards."""
        session = self._opened()
        ends = session.get_inputs()
        if len(inputs) > len(ends):
            raise Exception("Query tensor attribute of input node(s) failed, error code: RKNN_ERR_PARAM_INVALID")
        if len(inputs) < len(ends):
            raise Exception("E Inputs are invalid.")
        formats = _per_input("nhwc" if data_format is None else data_format, inputs, "data_format")
        types_ = _per_input(data_type, inputs, "data_type")
        feeds = {}
        for index, (end, array, wanted, layout) in enumerate(zip(ends, inputs, types_, formats, strict=True)):
            feeds[end.name] = self._input(index, end, array, wanted, layout)
            # The vendor's class leaves its own codes in the caller's lists: the same list works once.
            if isinstance(data_format, list):
                data_format[index] = _NHWC if array.ndim == 4 else _UNDEFINED
            if isinstance(data_type, list):
                data_type[index] = _DTYPES.index(array.dtype.name)
        self._feeds = feeds

    def run(self, get_frame_id: bool = False) -> int | tuple[int, int]:
        """One job on the cores: the code of `rknn_run`, which the class drops; with the frame's number where asked."""
        session, cores = self._opened(), self._machine.cores
        job = cores.acquire(self._cores, self._every)
        try:
            outputs: list[NDArray[Any]] = []
            if job.fault in (None, "nan", "garbage"):
                with np.errstate(over="ignore", invalid="ignore"):
                    outputs = [
                        self._halved(np.asarray(output, np.float32)) for output in session.run(None, self._feeds)
                    ]
            cores.spend(job)
        finally:
            cores.release(job)
        self._frame += 1
        self._code = _CODES.get(job.fault or "", 0)
        if job.fault == "fail":
            _say("failed to submit, job %d", job.number)
        if self._code == 0:
            self._outputs = self._spoiled(outputs, job, session)
        return (self._code, self._frame) if get_frame_id else self._code

    def get_outputs(self, get_frame_id: bool = False, reuse_outputs: bool = False) -> list[NDArray[Any]]:
        """The answer of the last job, all of it float32; new arrays, or the ones of the call before."""
        if (self._code < 0 and not self._machine.stale_outputs) or not self._outputs:
            raise Exception(f"E Get outputs failed, error code: {_NAMES.get(self._code, 'RKNN_ERR_FAIL')}")
        if reuse_outputs:
            return self._into_reused(self._outputs)
        return [np.array(output) for output in self._outputs]

    def _spoiled(
        self, outputs: list[NDArray[Any]], job: Job, session: onnxruntime.InferenceSession
    ) -> list[NDArray[Any]]:
        """With what the job's fault makes of them."""
        if job.fault == "garbage" or self._torn:
            noise = np.random.default_rng(job.number)
            outputs = [noise.normal(0, 128, output.shape).astype(np.float32) for output in outputs]
        if job.fault == "nan":
            _spoil(outputs, [_dtype_of(end.type) for end in session.get_outputs()], job.number)
        return outputs

    def _opened(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise ctypes.ArgumentError("argument 1: TypeError: wrong type")
        return self._session

    def _input(self, index: int, end: Any, array: Any, wanted: Any, layout: Any) -> NDArray[Any]:
        shape, dtype = tuple(end.shape), _dtype_of(end.type)
        if array.size == 0 or not isinstance(array, np.ndarray):
            raise Exception(f"E Type of inputs[{index}] is not np.ndarray!")
        if array.dtype.name not in _DTYPES:
            raise Exception(f"E Unsupport inputs[{index}].dtype: {array.dtype}")
        if wanted is not None and wanted != array.dtype.name:
            raise Exception(f"E inputs[{index}].dtype: {array.dtype} is not same as data_type")
        if layout not in ("nhwc", "nchw"):
            raise Exception(f"Unsupport data format: {layout}")
        if array.ndim != len(shape):
            raise Exception(f"The input[{index}] need {len(shape)}dims input, but {array.ndim}dims input buffer feed.")
        if array.size != int(np.prod(shape)):
            raise Exception("Set inputs failed. error code: RKNN_ERR_INPUT_INVALID")
        if array.ndim == 4:
            if layout == "nchw":
                self._machine.log.warning(
                    "The input[%d] need NHWC data format, but NCHW set, the data format and data buffer will be "
                    "changed to NHWC.",
                    index,
                )
                array = array.transpose(0, 2, 3, 1)
            # The buffer is taken as NHWC of the model's own sizes, whatever shape it came in.
            n, c, h, w = shape
            array = np.ascontiguousarray(array).reshape(n, h, w, c).transpose(0, 3, 1, 2)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._halved(np.ascontiguousarray(array).reshape(shape).astype(dtype))

    def _halved(self, array: NDArray[Any]) -> NDArray[Any]:
        if not self._machine.cores.npu.fp16 or array.dtype != np.float32:
            return array
        return array.astype(np.float16).astype(np.float32)

    def _into_reused(self, outputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        if not self._reused:
            self._reused = [np.empty_like(output) for output in outputs]
        for buffer, output in zip(self._reused, outputs, strict=True):
            np.copyto(buffer, output)
        return list(self._reused)


def parts(data: bytes) -> tuple[bytes, Sequence[str]]:
    """A twin file's ONNX model and platforms.

    Raises:
        Refused: After saying what the vendor's library says.
    """
    if len(data) < 24 or not data.startswith(b"RKNN\0\0\0\0"):
        _say("parseRKNN from buffer: Invalid RKNN format!")
        raise Refused("RKNN_ERR_MODEL_INVALID")
    (version,) = struct.unpack_from("<Q", data, 8)
    if version > _FORMAT:
        _say("Invalid RKNN model version %d", version)
        raise Refused("RKNN_ERR_MODEL_INVALID")
    try:
        model, described = read_twin(data)
    except ProgramInvalid as error:
        _say("%s", error.problem)
        raise Refused("RKNN_ERR_MODEL_INVALID") from None
    return model, tuple(map(str, described.get("target_platform", ())))


def _say(line: str, *arguments: object) -> None:
    """A line of the C library's: on stderr, past the class's logger."""
    sys.stderr.write(f"E RKNN: {line % arguments}\n")


def _per_input(value: Any, inputs: Sequence[Any], name: str) -> list[Any]:
    if not isinstance(value, list):
        return [value] * len(inputs)
    if len(value) != len(inputs):
        raise Exception(f"The lengths of {name} and inputs are not equal.")
    return list(value)


def _dtype_of(onnx_type: str) -> np.dtype[Any]:
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def _spoil(outputs: Sequence[NDArray[Any]], dtypes: Sequence[np.dtype[Any]], number: int) -> None:
    """Make one element of the first output of floating-point numbers not a number."""
    for output, dtype in zip(outputs, dtypes, strict=True):
        if dtype.kind == "f" and output.size:
            output.reshape(-1)[number % output.size] = np.nan
            return
