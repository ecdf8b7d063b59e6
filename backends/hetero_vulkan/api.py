"""libvulkan, as raw functions: the `ffi` of the `vulkan` package, without its wrappers.

The wrappers cost 10 to 40 times as much as the call, and lose nested structs (`docs/vulkan.md` has the figures).
Functions are asked for by name when they are first used, of the driver itself where there is a device: the loader
exports no extensions, and an older one not all of the core.
"""

from __future__ import annotations

import importlib
import itertools
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hetero.errors import Unavailable
from hetero_vulkan.failures import INCOMPLETE, failure

Wrap = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Puts something around a function, by its name: the seam through which tests make Vulkan fail."""

_MADE = re.compile(r"vk(Create|Allocate)(?!DescriptorSets|CommandBuffers)(\w+?)s?$")
_ENDED = re.compile(r"vk(Destroy|Free)(?!DescriptorSets|CommandBuffers)(\w+?)s?$")


class LiveHandles:
    """Counts what was made and not yet destroyed, by kind; command buffers and descriptor sets go with their pools."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, count: int) -> None:
        """So many more."""
        with self._lock:
            self._counts[kind] += count

    def __iter__(self) -> Iterator[tuple[str, int]]:
        with self._lock:
            return iter([(kind, count) for kind, count in sorted(self._counts.items()) if count])

    def __len__(self) -> int:
        return sum(count for _, count in self)


class Functions:
    """Functions by name, as attributes: `functions.vkCreateBuffer(...)`.

    Args:
        vulkan: The library.
        resolve: Gives the address of a function, or NULL.
        owner: Whose they are, for messages.
    """

    def __init__(self, vulkan: Vulkan, resolve: Callable[[bytes], Any], owner: str) -> None:
        self._vulkan = vulkan
        self._resolve = resolve
        self._owner = owner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("vk"):
            raise AttributeError(name)
        vulkan = self._vulkan
        address = self._resolve(name.encode())
        if address == vulkan.NULL:
            raise Unavailable(f"{self._owner} has no {name}", fix="update the GPU's driver and libvulkan1")
        function = vulkan.prepared(name, vulkan.ffi.cast(f"PFN_{name}", address))
        setattr(self, name, function)
        return function


class Vulkan:
    """The library, opened.

    Args:
        wrap: Put around every function, for tests.

    Attributes:
        ffi: cffi's, with the types of Vulkan 1.3.275.
        NULL: The pointer.
        functions: Those that need no instance.
        live: What was made and not destroyed.

    Raises:
        Unavailable: The `vulkan` package or the loader is missing.
    """

    def __init__(self, wrap: Wrap | None = None) -> None:
        module = _module()
        self.ffi: Any = module.ffi
        self.NULL: Any = self.ffi.NULL
        self.live = LiveHandles()
        self._lib: Any = module.lib
        self._wrap = wrap
        prefix = "VK_STRUCTURE_TYPE_"
        self._structure_types = {
            name.removeprefix(prefix).replace("_", "").lower(): value
            for name, value in self.ffi.typeof("VkStructureType").relements.items()
        }
        # cffi frees a struct that nobody holds though another one points at it: each holds on to what it points at.
        self._held: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()
        self.functions = self.functions_of(None, "libvulkan")

    def functions_of(self, instance: Any, owner: str) -> Functions:
        """The functions of an instance; None for those that need none."""
        handle = self.NULL if instance is None else instance
        return Functions(self, lambda name: self._lib.vkGetInstanceProcAddr(handle, name), owner)

    def device_functions(self, device: Any, owner: str) -> Functions:
        """The functions of a device, in its driver."""
        return Functions(self, lambda name: self._lib.vkGetDeviceProcAddr(device, name), owner)

    def constant(self, name: str) -> int:
        """The value of an enumerator: `VK_BUFFER_USAGE_STORAGE_BUFFER_BIT`."""
        value: int = self.ffi.integer_const(name)
        return value

    def flags(self, *names: str) -> int:
        """Bits, together: `flags("VK_BUFFER_USAGE_STORAGE_BUFFER_BIT")`."""
        return sum(map(self.constant, names))

    def new(self, kind: str, **fields: Any) -> Any:
        """A new struct with its `sType`, which holds on to all that it points at.

        Args:
            kind: `VkBufferCreateInfo`.
            fields: Values: numbers, handles, structs made by `new` (for a pointer or for a struct inside), bytes for
                strings and data, and sequences of these for arrays.

        Returns:
            A pointer to it.
        """
        ffi = self.ffi
        made = ffi.new(f"{kind} *")
        types = dict(ffi.typeof(kind).fields)
        if "sType" in types:
            made.sType = self._structure_types[kind.removeprefix("Vk").lower()]
        held: list[Any] = []
        for name, value in fields.items():
            setattr(made, name, self._value(types[name].type, value, held))
        self._held[made] = tuple(held)
        return made

    def hold(self, pointer: Any, *things: Any) -> Any:
        """Keep things alive as long as a pointer."""
        self._held[pointer] = (*self._held.get(pointer, ()), *things)
        return pointer

    def enumerate(self, kind: str, call: Callable[[Any, Any], int | None], doing: str) -> list[Any]:
        """All that one of Vulkan's two-step questions gives, as handles or pointers to structs."""
        count = self.ffi.new("uint32_t *")
        while True:
            result = call(count, self.NULL)
            if result:
                raise failure(result, doing)
            found = self.ffi.new(f"{kind}[]", count[0])
            first = self.new(kind)[0] if self.ffi.typeof(kind).kind == "struct" else None
            for index in range(count[0] if first is not None else 0):
                found[index] = first
            result = call(count, found) if count[0] else 0
            if result == INCOMPLETE:
                continue
            if result:
                raise failure(result, doing)
            # An entry of a C array is a view of it: the array has to stay.
            return self._kept_entries(found, count[0])

    def text(self, chars: Any) -> str:
        """A C string."""
        told: str = self.ffi.string(chars).decode("utf-8", "replace")
        return told

    def prepared(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with what tests put around it, and counted where it makes or destroys a handle."""
        if self._wrap is not None:
            function = self._wrap(name, function)
        made, ended = _MADE.match(name), _ENDED.match(name)
        live = self.live
        if made:
            kind, many = made[2], name == "vkCreateComputePipelines"
            kind = "Pipeline" if many else kind

            def counted(*arguments: Any) -> Any:
                result = function(*arguments)
                if not result:
                    live.add(kind, arguments[2] if many else 1)
                return result

            return counted
        if ended:
            kind = ended[2]

            def uncounted(*arguments: Any) -> None:
                function(*arguments)
                live.add(kind, -1)

            return uncounted
        return function

    def _kept_entries(self, array: Any, count: int) -> list[Any]:
        entries = list(array)[:count]
        if self.ffi.typeof(array).item.kind == "struct":
            entries = [self.hold(self.ffi.addressof(entry), array) for entry in entries]
        return entries

    def _value(self, kind: Any, value: Any, held: list[Any]) -> Any:
        ffi = self.ffi
        if kind.kind == "pointer":
            if value is None:
                return ffi.NULL
            if isinstance(value, bytes):
                value = ffi.new("char[]", value)
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = self._array(kind.item, value, held)
            held.append(value)
            return ffi.cast(kind, value)
        if kind.kind in ("struct", "union") and isinstance(value, ffi.CData) and ffi.typeof(value).kind == "pointer":
            held.append(value)
            return value[0]
        return value

    def _array(self, item: Any, values: Sequence[Any], held: list[Any]) -> Any:
        ffi = self.ffi
        if item.kind == "pointer":
            entries = [self._value(item, value, held) for value in values]
        else:
            held.extend(value for value in values if isinstance(value, ffi.CData))
            entries = [
                value[0]
                if isinstance(value, ffi.CData) and item.kind == "struct" and ffi.typeof(value).kind == "pointer"
                else value
                for value in values
            ]
        return ffi.new(ffi.getctype(item, "[]"), entries)


def chained(vulkan: Vulkan, structs: Sequence[Any]) -> Any:
    """Link structs through their `pNext`, in order; the first one, which holds on to the others."""
    for before, after in itertools.pairwise(structs):
        before.pNext = vulkan.ffi.cast("void *", after)
        vulkan.hold(before, after)
    return structs[0] if structs else vulkan.NULL


def _module() -> Any:
    try:
        return importlib.import_module("vulkan._vulkan")
    except ImportError as error:
        raise Unavailable(
            f"the Python package vulkan cannot be imported: {error}", fix="pip install 'hetero[vulkan]'"
        ) from error
    except OSError as error:
        raise Unavailable(
            "there is no Vulkan loader (libvulkan.so.1)",
            fix="install it and a driver: apt install libvulkan1 mesa-vulkan-drivers",
        ) from error
