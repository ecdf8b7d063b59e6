"""Plugins: the hooks they can implement, and finding them without letting a broken one do harm.

A plugin is whatever an entry point of the group `hetero.backends` (or `hetero.programs`) leads to, a module as a rule,
with functions marked `@hetero.hookimpl`. Hooks only register; nothing of pluggy is on the way of a request.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from hetero.errors import HeteroError, PluginError
from hetero.program import Program

if TYPE_CHECKING:
    from hetero.backend import Backend
    from hetero.scheduler.policy import Policy

_log = logging.getLogger(__name__)

GROUPS = ("hetero.backends", "hetero.programs")

hookspec = pluggy.HookspecMarker("hetero")
hookimpl = pluggy.HookimplMarker("hetero")


class Hooks:
    """The hooks that a plugin can implement, all of them optional."""

    @hookspec
    def hetero_backend(self) -> type[Backend] | Sequence[type[Backend]]:  # type: ignore[empty-body]
        """The plugin's Backend class, or several."""

    @hookspec
    def hetero_program(self, name: str) -> Program | None:
        """The program that `Runtime.load(name)` means, or None when this plugin knows no such name."""

    @hookspec
    def hetero_program_names(self) -> Iterable[str]:  # type: ignore[empty-body]
        """Names that `hetero_program` answers to, for listings and for error messages."""

    @hookspec
    def hetero_policy(self) -> Policy:  # type: ignore[empty-body]
        """A scheduling policy, for `Runtime.load(policy=NAME)`; see `hetero.scheduler.policy.Policy`."""


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be imported or registered.

    Attributes:
        group: The entry points' group: `hetero.backends` or `hetero.programs`.
        name: The entry point's name.
        value: Where it leads: `package.module`.
        distribution: The installed distribution that brings it.
        reason: Type and message of what went wrong.
    """

    group: str
    name: str
    value: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.name} of {self.group} ({self.value}, from {self.distribution}): {self.reason}"


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
                    self._broke(f"{group}:{point.name}", reason, point.value, distribution)

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
        """The Backend classes of all plugins. A plugin whose hook raises is noted in `broken`."""
        from hetero.backend import Backend

        found: dict[str, type[Backend]] = {}
        for plugin, given in self._each(self._manager.hook.hetero_backend):
            for backend in given if isinstance(given, list | tuple) else [given]:
                if not (isinstance(backend, type) and issubclass(backend, Backend)):
                    self._broke(plugin, f"hetero_backend() gave {backend!r}, expected a subclass of hetero.Backend")
                elif not isinstance(getattr(backend, "name", None), str) or not backend.name:
                    self._broke(plugin, f"{backend.__qualname__} has no name: set the class attribute `name`")
                elif backend.name in found:
                    other = found[backend.name]
                    self._broke(
                        plugin, f"backend name {backend.name!r} is taken by {other.__module__}.{other.__qualname__}"
                    )
                else:
                    found[backend.name] = backend
        return list(found.values())

    def program(self, name: str) -> Program | None:
        """The program of that name from the first plugin that knows it.

        Raises:
            HeteroError: The plugin knows the name and cannot make the program.
        """
        return next((found for _, found in self._each(self._manager.hook.hetero_program, name=name) if found), None)

    def program_names(self) -> list[str]:
        """All names that plugins offer."""
        return sorted({name for _, names in self._each(self._manager.hook.hetero_program_names) for name in names})

    def policies(self) -> dict[str, Policy]:
        """The policies of all plugins, by name."""
        return {policy.name: policy for _, policy in self._each(self._manager.hook.hetero_policy)}

    def _each(self, hook: pluggy.HookCaller, **arguments: str) -> Iterator[tuple[str, Any]]:
        """Each plugin's name and answer; one that raises is noted in `broken` and does the others no harm."""
        for implementation in hook.get_hookimpls():
            try:
                yield implementation.plugin_name, implementation.function(*arguments.values())
            except HeteroError:
                raise
            except Exception as error:
                self._broke(implementation.plugin_name, f"{type(error).__name__}: {error}")

    def _broke(self, plugin: str, reason: str, value: str = "", distribution: str = "") -> None:
        group, _, name = plugin.rpartition(":")
        self.broken.append(BrokenPlugin(group, name, value or plugin, distribution or name, reason))
        _log.warning("skipped %s", self.broken[-1])
