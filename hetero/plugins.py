"""Plugins: the hooks they can implement, and finding them without letting a broken one do harm.

A plugin is whatever an entry point of the group `hetero.backends` (or `hetero.programs`) leads to, a module as a rule,
with functions marked `@hetero.hookimpl`. Hooks only register; nothing of pluggy is on the way of a request.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

from hetero.errors import PluginError
from hetero.program import Program

if TYPE_CHECKING:
    from hetero.backend import Backend

_log = logging.getLogger(__name__)

GROUPS = ("hetero.backends", "hetero.programs")

hookspec = pluggy.HookspecMarker("hetero")
hookimpl = pluggy.HookimplMarker("hetero")


class Hooks:
    """The hooks that a plugin can implement, all of them optional."""

    @hookspec
    def hetero_backend(self) -> type[Backend] | Sequence[type[Backend]]:  # type: ignore[empty-body]
        """The plugin's Backend class, or several."""

    @hookspec(firstresult=True)
    def hetero_program(self, name: str) -> Program | None:
        """The program that `Runtime.load(name)` means, or None when this plugin knows no such name."""

    @hookspec
    def hetero_program_names(self) -> Iterable[str]:  # type: ignore[empty-body]
        """Names that `hetero_program` answers to, for listings and for error messages."""


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be imported or registered.

    Attributes:
        name: The entry point's name.
        value: Where it leads: `package.module`.
        distribution: The installed distribution that brings it.
        reason: Type and message of what went wrong.
    """

    name: str
    value: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name} ({self.value}, from {self.distribution}): {self.reason}"


class Plugins:
    """The plugins of one Runtime.

    Attributes:
        broken: Those that could not be taken in, with the reason.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("hetero")
        self._manager.add_hookspecs(Hooks)
        self.broken: list[BrokenPlugin] = []

    def discover(self) -> None:
        """Take in every installed entry point, each on its own: one that fails is noted in `broken`."""
        for group in GROUPS:
            for point in sorted(importlib.metadata.entry_points(group=group), key=lambda point: point.name):
                try:
                    self.register(point.load(), f"{group}:{point.name}")
                except Exception as error:
                    distribution = point.dist.name if point.dist else "unknown"
                    reason = f"{type(error).__name__}: {error}"
                    self.broken.append(BrokenPlugin(point.name, point.value, distribution, reason))
                    _log.warning("skipped %s", self.broken[-1])

    def register(self, plugin: object, name: str | None = None) -> None:
        """Take in one plugin object.

        Raises:
            PluginError: Its hooks do not fit the specifications, or its name is taken.
        """
        try:
            self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            if name is not None and self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)
            raise PluginError(f"cannot register plugin {name or plugin!r}: {error}") from error

    def backends(self) -> list[type[Backend]]:
        """The Backend classes of all plugins. One whose hook raises is noted in `broken`."""
        from hetero.backend import Backend

        found: list[type[Backend]] = []
        for implementation in self._manager.hook.hetero_backend.get_hookimpls():
            name = implementation.plugin_name
            try:
                given = implementation.function()
                for backend in given if isinstance(given, list | tuple) else [given]:
                    if not (isinstance(backend, type) and issubclass(backend, Backend)):
                        raise PluginError(f"hetero_backend() gave {backend!r}, expected a subclass of hetero.Backend")
                    if not isinstance(getattr(backend, "name", None), str) or not backend.name:
                        raise PluginError(f"{backend.__qualname__} has no name: set the class attribute `name`")
                    taken = next((other for other in found if other.name == backend.name), None)
                    if taken:
                        raise PluginError(
                            f"backend name {backend.name!r} is taken by {taken.__module__}.{taken.__qualname__}"
                        )
                    found.append(backend)
            except Exception as error:
                self.broken.append(BrokenPlugin(name, name, name, f"{type(error).__name__}: {error}"))
                _log.warning("skipped %s", self.broken[-1])
        return found

    def program(self, name: str) -> Program | None:
        """The program of that name from the first plugin that knows it."""
        program: Program | None = self._manager.hook.hetero_program(name=name)
        return program

    def program_names(self) -> list[str]:
        """All names that plugins offer."""
        return sorted({name for names in self._manager.hook.hetero_program_names() for name in names})
