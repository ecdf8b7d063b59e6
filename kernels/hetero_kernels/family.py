"""Kernels of one kind whose sizes are in their names: `gemm_i8_i32_{K}x{N}` stands for `gemm_i8_i32_384x1536`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from hetero.errors import ProgramNotFound
from hetero_kernels.kernel import Kernel


@dataclass(frozen=True)
class Family:
    """All kernels of one kind.

    Attributes:
        pattern: Their names, with `{SIZE}` for each size.
        title: A few words for a listing.
        sizes: The values that each size may have.
        build: The kernel of the sizes that it is given in the order of the pattern.
        usual: Sizes that a model in wide use has, for listings and tests.
    """

    pattern: str
    title: str
    sizes: Mapping[str, range]
    build: Callable[..., Kernel]
    usual: tuple[Mapping[str, int], ...]

    def name(self, **sizes: int) -> str:
        """The name of the kernel of these sizes."""
        return self.pattern.format(**sizes)

    def find(self, name: str) -> Kernel | None:
        """The kernel of that name; None when the name is not of this pattern.

        Raises:
            ProgramNotFound: It is, but there is no kernel of these sizes.
        """
        match = self._expression.fullmatch(name)
        if match is None:
            return None
        sizes = {size: int(text) for size, text in match.groupdict().items()}
        wrong = [size for size, value in sizes.items() if value not in self.sizes[size]]
        if wrong:
            told = " and ".join(f"{size} = {sizes[size]}" for size in wrong)
            example = self.name(**{size: _nearest(value, self.sizes[size]) for size, value in sizes.items()})
            raise ProgramNotFound(
                f"there is no kernel {name!r}: {told} cannot be. Of {self.pattern}, {self._possible()}",
                fix=f"use {example!r} and pad with zeros, or another size",
            )
        return self.build(*sizes.values())

    def _possible(self) -> str:
        return "; ".join(f"{size} is {_text(values)}" for size, values in self.sizes.items())

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        # No leading zeros: one kernel has one name.
        return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[1-9][0-9]{0,8})", re.escape(self.pattern)))


def _text(values: range) -> str:
    if len(values) <= 3:
        return " or ".join(map(str, values))
    return f"a multiple of {values.step} from {values[0]} to {values[-1]}"


def _nearest(value: int, values: range) -> int:
    """The least of the values that holds so many, or the greatest."""
    return next((possible for possible in values if possible >= value), values[-1])
