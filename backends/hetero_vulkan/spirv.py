"""Reading of a compute shader in SPIR-V what a pipeline needs: bindings, push constants, specialization constants.

The binary form is that of the SPIR-V specification, chapters 2.3 (physical layout) and 3.49 (instructions).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from hetero.errors import ProgramInvalid

_MAGIC = 0x07230203

_NAME, _MEMBER_NAME, _ENTRY_POINT, _CAPABILITY = 5, 6, 15, 17
_TYPE_BOOL, _TYPE_INT, _TYPE_FLOAT, _TYPE_STRUCT, _TYPE_POINTER = 20, 21, 22, 30, 32
_SPEC_TRUE, _SPEC_FALSE, _SPEC_CONSTANT, _SPEC_COMPOSITE = 48, 49, 50, 51
_EXECUTION_MODE, _VARIABLE, _DECORATE, _MEMBER_DECORATE, _CONSTANT = 16, 59, 71, 72, 43
_SPEC_ID, _BUILT_IN, _NON_WRITABLE, _BINDING, _DESCRIPTOR_SET, _OFFSET = 1, 11, 24, 33, 34, 35
_PUSH_CONSTANT, _STORAGE_BUFFER, _WORKGROUP_SIZE, _LOCAL_SIZE, _GL_COMPUTE = 9, 12, 25, 17, 5

_FEATURES = {
    9: "shaderFloat16",
    10: "shaderFloat64",
    11: "shaderInt64",
    22: "shaderInt16",
    39: "shaderInt8",
    4433: "storageBuffer16BitAccess",
    4434: "uniformAndStorageBuffer16BitAccess",
    4448: "storageBuffer8BitAccess",
    4449: "uniformAndStorageBuffer8BitAccess",
    5345: "vulkanMemoryModel",
    5346: "vulkanMemoryModelDeviceScope",
    5347: "bufferDeviceAddress",
    6019: "shaderIntegerDotProduct",
    6022: "cooperativeMatrix",
}
"""The feature of a device that a capability asks for."""

_SUBGROUP = {61: 1, 62: 2, 63: 4, 64: 8, 65: 16, 66: 32, 67: 64, 68: 128}
"""The bit of VkSubgroupFeatureFlags that a capability of the group asks for: basic, vote, arithmetic, ballot, ..."""


@dataclass(frozen=True)
class Constant:
    """A specialization constant.

    Attributes:
        number: Its `constant_id`.
        format: Of its value, for `struct`: `I`, `i`, `f`, or `?` (passed on as 32 bits).
        default: Its value where none is given.
    """

    number: int
    format: str
    default: int | float | bool


@dataclass(frozen=True)
class Member:
    """A push constant: where it is, and its format for `struct`; empty for one that is no single number."""

    offset: int
    format: str


@dataclass(frozen=True, eq=False)
class Shader:
    """A compute shader.

    Attributes:
        code: The words, as bytes.
        digest: Of the code.
        entry: Name of the entry point.
        bindings: Numbers of the storage buffers of set 0, in order, and whether each is only read.
        constants: Specialization constants by name; the size of a workgroup is called `local_size_x` and so on where
            nothing else is said.
        push: Push constants by name.
        push_bytes: Bytes of push constants.
        addresses: Where among them it is told the addresses of buffers, by their bindings: `address_1_low` and
            `address_1_high` of binding 1. They are filled in when work is recorded.
        local_size: Invocations in a workgroup: numbers, or names of constants.
        features: What a device must have.
        subgroup_operations: VkSubgroupFeatureFlags that a device must have.
    """

    code: bytes
    digest: str
    entry: str
    bindings: tuple[tuple[int, bool], ...]
    constants: dict[str, Constant]
    push: dict[str, Member]
    push_bytes: int
    addresses: dict[int, int]
    local_size: tuple[int | str, int | str, int | str]
    features: frozenset[str]
    subgroup_operations: int


@lru_cache(maxsize=256)
def read_shader(code: bytes) -> Shader:
    """What a shader says about itself.

    Raises:
        ProgramInvalid: It is no SPIR-V, or no compute shader, or uses something else than storage buffers of set 0.
    """
    try:
        return _Reader(code).shader()
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise ProgramInvalid(f"SPIR-V that contradicts itself: {error!r}") from error


class _Reader:
    def __init__(self, code: bytes) -> None:
        self.code = code
        self.names: dict[int, str] = {}
        self.member_names: dict[tuple[int, int], str] = {}
        self.decorations: dict[tuple[int, int], tuple[int, ...]] = {}
        self.member_decorations: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self.types: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.specs: dict[int, tuple[int, int, int]] = {}
        self.plain: dict[int, int] = {}
        self.composites: dict[int, tuple[int, ...]] = {}
        self.variables: list[tuple[int, int, int]] = []
        self.capabilities: set[int] = set()
        self.fixed_size: tuple[int, ...] = ()
        self.entry = ""
        self.number_names: dict[int, str] = {}
        for operation, words in _instructions(code):
            self._take(operation, words)
        for target in self.specs:
            number = self.decorations.get((target, _SPEC_ID))
            if number is not None and self.names.get(target):
                self.number_names.setdefault(number[0], self.names[target])

    def _take(self, operation: int, words: tuple[int, ...]) -> None:
        if operation == _NAME:
            self.names[words[0]] = _text(words[1:])
        elif operation == _MEMBER_NAME:
            self.member_names[words[0], words[1]] = _text(words[2:])
        elif operation == _CAPABILITY:
            self.capabilities.add(words[0])
        elif operation == _ENTRY_POINT and words[0] == _GL_COMPUTE:
            self.entry = _text(words[2:])
        elif operation == _EXECUTION_MODE and words[1] == _LOCAL_SIZE:
            self.fixed_size = words[2:]
        elif operation == _DECORATE:
            self.decorations[words[0], words[1]] = words[2:]
        elif operation == _MEMBER_DECORATE:
            self.member_decorations[words[0], words[1], words[2]] = words[3:]
        elif operation in (_TYPE_BOOL, _TYPE_INT, _TYPE_FLOAT, _TYPE_STRUCT, _TYPE_POINTER):
            self.types[words[0]] = (operation, words[1:])
        elif operation in (_SPEC_TRUE, _SPEC_FALSE):
            self.specs[words[1]] = (operation, words[0], int(operation == _SPEC_TRUE))
        elif operation == _SPEC_CONSTANT:
            self.specs[words[1]] = (operation, words[0], words[2])
        elif operation == _CONSTANT:
            self.plain[words[1]] = words[2]
        elif operation == _SPEC_COMPOSITE:
            self.composites[words[1]] = words[2:]
        elif operation == _VARIABLE:
            self.variables.append((words[1], words[0], words[2]))

    def shader(self) -> Shader:
        if not self.entry:
            raise ProgramInvalid("the SPIR-V has no entry point for compute")
        local_size = self._local_size()
        push, push_bytes = self._push()
        addresses = _addresses(push)
        return Shader(
            code=self.code,
            digest=hashlib.sha256(self.code).hexdigest(),
            entry=self.entry,
            bindings=self._bindings(),
            constants=self._constants(),
            push=push,
            push_bytes=push_bytes,
            addresses=addresses,
            local_size=local_size,
            features=frozenset(_FEATURES[number] for number in self.capabilities & _FEATURES.keys()),
            subgroup_operations=sum(_SUBGROUP[number] for number in self.capabilities & _SUBGROUP.keys()),
        )

    def _local_size(self) -> tuple[int | str, int | str, int | str]:
        sizes: list[int | str] = list(self.fixed_size) or [1, 1, 1]
        for (target, kind), values in self.decorations.items():
            if kind == _BUILT_IN and values[0] == _WORKGROUP_SIZE:
                for axis, part in enumerate(self.composites.get(target, ())):
                    number = self.decorations.get((part, _SPEC_ID))
                    if number is None:
                        sizes[axis] = self.plain[part]
                    else:
                        sizes[axis] = self.number_names.setdefault(number[0], f"local_size_{'xyz'[axis]}")
        return (sizes[0], sizes[1], sizes[2])

    def _constants(self) -> dict[str, Constant]:
        found: dict[str, Constant] = {}
        # A number may occur several times: as a constant with a name, and as the size of a workgroup without one.
        for target in sorted(self.specs, key=lambda target: not self.names.get(target)):
            _, kind, value = self.specs[target]
            number = self.decorations.get((target, _SPEC_ID))
            if number is not None:
                form = self._format(kind)
                default = _word_as(form, value)
                name = self.number_names.setdefault(number[0], f"constant_{number[0]}")
                found.setdefault(name, Constant(number[0], form, default))
        return found

    def _bindings(self) -> tuple[tuple[int, bool], ...]:
        found: dict[int, bool] = {}
        for variable, pointer, storage in self.variables:
            number = self.decorations.get((variable, _BINDING))
            if number is None:
                continue
            if storage != _STORAGE_BUFFER or self.decorations.get((variable, _DESCRIPTOR_SET)) != (0,):
                raise ProgramInvalid(f"{self.names.get(variable, variable)!r} is no storage buffer of descriptor set 0")
            block = self.types[pointer][1][1]
            members = len(self.types[block][1])
            read_only = (variable, _NON_WRITABLE) in self.decorations or all(
                (block, index, _NON_WRITABLE) in self.member_decorations for index in range(members)
            )
            # Two names for one binding (float and vec4, say) are one buffer.
            found[number[0]] = found.get(number[0], True) and read_only
        return tuple(sorted(found.items()))

    def _push(self) -> tuple[dict[str, Member], int]:
        for _, pointer, storage in self.variables:
            if storage != _PUSH_CONSTANT:
                continue
            block = self.types[pointer][1][1]
            found, end = {}, 0
            for index, kind in enumerate(self.types[block][1]):
                offset = self.member_decorations[block, index, _OFFSET][0]
                form = self._format(kind)
                if not form:
                    raise ProgramInvalid("a push constant is no single number of 32 bits")
                found[self.member_names.get((block, index)) or f"push_{index}"] = Member(offset, form)
                end = max(end, offset + 4)
            return found, end
        return {}, 0

    def _format(self, kind: int) -> str:
        operation, details = self.types.get(kind, (0, ()))
        if operation == _TYPE_BOOL:
            return "?"
        if operation == _TYPE_INT and details[0] == 32:
            return "i" if details[1] else "I"
        return "f" if operation == _TYPE_FLOAT and details[0] == 32 else ""


def _addresses(push: dict[str, Member]) -> dict[int, int]:
    """Take the push constants that are halves of addresses out of the others: where each address is, by the binding."""
    found = {}
    for name in [name for name in push if re.fullmatch(r"address_\d+_low", name)]:
        low, high = push.pop(name), push.pop(name.replace("low", "high"))
        if high.offset != low.offset + 4:
            raise ProgramInvalid(f"the halves of {name.removesuffix('_low')} do not lie together, the low one first")
        found[int(name.split("_")[1])] = low.offset
    return found


def _instructions(code: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    if len(code) < 20 or len(code) % 4 or int.from_bytes(code[:4], "little") != _MAGIC:
        raise ProgramInvalid(f"{len(code)} bytes that are no SPIR-V")
    words = struct.unpack(f"<{len(code) // 4}I", code)
    at = 5
    while at < len(words):
        length = words[at] >> 16
        if not length or at + length > len(words):
            raise ProgramInvalid("the SPIR-V is truncated")
        yield words[at] & 0xFFFF, words[at + 1 : at + length]
        at += length


def _word_as(form: str, word: int) -> int | float | bool:
    if form in ("", "?"):
        return bool(word)
    value: int | float = struct.unpack(f"<{form}", struct.pack("<I", word))[0]
    return value


def _text(words: tuple[int, ...]) -> str:
    return struct.pack(f"<{len(words)}I", *words).split(b"\0")[0].decode("utf-8", "replace")
