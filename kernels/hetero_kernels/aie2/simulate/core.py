"""A core's side: elements that it acquires and releases, and the functions that it calls with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hetero.errors import WrongAnswer
from hetero.tensors import Array
from hetero_kernels.aie2.simulate.baton import Actor
from hetero_kernels.aie2.simulate.design import Buffer, Handle, Kernel, text_of
from hetero_kernels.aie2.simulate.pool import Pool


class Element:
    """A buffer of a FIFO while a core holds it.

    Attributes:
        memory: Its bytes.
        handle: The side of the FIFO.
        held: False after its release.
    """

    def __init__(self, memory: Array, handle: Handle) -> None:
        self.memory, self.handle, self.held = memory, handle, True


class CorePort:
    """A handle of a FIFO in the hands of a core."""

    def __init__(self, actor: Actor, pool: Pool, place: int, handle: Handle) -> None:
        self._actor, self._pool, self._place, self._handle = actor, pool, place, handle
        self._held: list[Element] = []

    def acquire(self, count: int) -> Any:
        """`count` elements in all; one by itself, several as a list.

        Raises:
            WrongAnswer: They are all held already, so that it would be the same ones again.
        """
        if count <= len(self._held):
            raise WrongAnswer(
                f"{self._actor.name} acquires {count} of {self._handle.name} while it still holds {len(self._held)}: "
                "it gets the same element again",
                fix="release what was acquired before",
            )
        wait = self._pool.wait_to_write if self._handle.producer else self._pool.wait_to_read
        for ahead in range(len(self._held), count):
            self._held.append(Element(wait(self._actor, self._place, ahead), self._handle))
        return self._held[0] if count == 1 else list(self._held)

    def release(self, count: int) -> None:
        """Give back the oldest ones.

        Raises:
            WrongAnswer: It holds fewer.
        """
        if count > len(self._held):
            raise WrongAnswer(
                f"{self._actor.name} releases {count} of {self._handle.name} and holds {len(self._held)}",
                fix="release as many as were acquired",
            )
        for element in self._held[:count]:
            element.held = False
            if self._handle.producer:
                self._pool.wrote(self._actor, self._place)
            else:
                self._pool.release(self._actor, self._place)
        del self._held[:count]


def call_kernel(
    kernel: Kernel,
    arguments: Sequence[Any],
    functions: Mapping[str, Callable[..., None]],
    roles: Mapping[str, Sequence[str]],
) -> None:
    """Call a core's function with elements, each checked against the kernel's types and what it does with them.

    Raises:
        WrongAnswer: Something does not fit.
    """
    if kernel.name not in functions:
        raise WrongAnswer(f"no source has the function {kernel.name}", fix=f"there are {', '.join(functions)}")
    if len(arguments) != len(kernel.arg_types):
        raise WrongAnswer(
            f"{kernel.name} is called with {len(arguments)} arguments and declared with {len(kernel.arg_types)}",
            fix="give both the same",
        )
    given: list[Any] = []
    for index, (argument, kind, role) in enumerate(zip(arguments, kernel.arg_types, roles[kernel.name], strict=True)):
        where = f"{kernel.name}, argument {index}"
        if isinstance(argument, Buffer):
            if text_of(kind) != text_of(argument.obj_type):
                raise WrongAnswer(
                    f"{where} is declared {text_of(kind)}, and {argument.name} is {text_of(argument.obj_type)}",
                    fix="check the order of arguments, or give both one type",
                )
            given.append(argument.memory)
            continue
        if not isinstance(argument, Element):
            given.append(argument)
            continue
        handle = argument.handle
        if not argument.held:
            raise WrongAnswer(f"{where}: the element of {handle.name} was released before", fix="release it afterwards")
        if text_of(kind) != text_of(handle.fifo.obj_type):
            raise WrongAnswer(
                f"{where} is declared {text_of(kind)}, and {handle.name} gives {text_of(handle.fifo.obj_type)}",
                fix="check the order of arguments, or give both one type",
            )
        if (role == "in" and handle.producer) or (role == "out" and not handle.producer):
            raise WrongAnswer(
                f"{where} is an {role}put, and the core holds {handle.name} to "
                + ("write" if handle.producer else "read"),
                fix="check the order of arguments",
            )
        given.append(argument.memory)
    functions[kernel.name](*given)
