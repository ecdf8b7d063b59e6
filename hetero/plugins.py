"""Plugins: the hooks they can implement, and finding them without letting a broken one do harm.

A plugin is whatever an entry point of the group `hetero.backends` (or `hetero.programs`) leads to, a module as a rule,
with functions marked `@hetero.hookimpl`. Hooks only register; nothing of pluggy is on the way of a request.

The environment decides which of the installed ones are taken in; those that are not are not even imported:

| variable | meaning |
|---|---|
| `HETERO_DISABLE_PLUGINS=1` | only those that come with hetero itself (also `true`, `yes`, `on`, `all`) |
| `HETERO_DISABLE_PLUGINS=a,b` | not the plugins (entry points) `a` and `b`, whoever brings them |
| `HETERO_ALLOW_PLUGINS=a,b` | besides those that come with hetero itself only `a` and `b` |

What is disabled stays disabled when it is allowed too. An empty value is as good as none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from hetero.errors import HeteroError, PluginError
from hetero.program import Program

if TYPE_CHECKING:
    from hetero.backend import Backend
    from hetero.kernel_tools import KernelTools
    from hetero.scheduler.policy import Policy

_log = logging.getLogger(__name__)

GROUPS = ("hetero.backends", "hetero.programs")
DISABLE = "HETERO_DISABLE_PLUGINS"
ALLOW = "HETERO_ALLOW_PLUGINS"

_OWN = "hetero"
_YES = {"1", "true", "yes", "on", "all"}
_NO = {"0", "false", "no", "off"}

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

    @hookspec
    def hetero_kernel_tools(self) -> KernelTools:  # type: ignore[empty-body]
        """What checks and builds the plugin's kernels, for `hetero kernels`; see `hetero.kernel_tools`."""


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


@dataclass(frozen=True)
class InstalledPlugin:
    """An entry point of an installed distribution, and what became of it.

    Attributes:
        group: The entry points' group: `hetero.backends` or `hetero.programs`.
        name: The entry point's name.
        value: Where it leads: `package.module`.
        distribution: The installed distribution that brings it.
        version: Of the distribution.
        state: `ok`, `broken` (it could not be taken in, or not all of it), or `disabled` by the environment.
        reason: Why it is not ok.
        fix: What the user can do about that.
        backends: Names of the backends that it gives.
        programs: Names of the programs that it gives.
    """

    group: str
    name: str
    value: str
    distribution: str
    version: str
    state: Literal["ok", "broken", "disabled"] = "ok"
    reason: str = ""
    fix: str = ""
    backends: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Module and distribution, in words."""
        return f"{self.value}, from {self.distribution} {self.version}".strip()


class Plugins:
    """The plugins of one Runtime.

    Attributes:
        broken: Those that could not be taken in, with the reason.
        disabled: Those that the environment keeps out; they are not imported.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("hetero")
        self._manager.add_hookspecs(Hooks)
        self._installed: list[InstalledPlugin] = []
        self.broken: list[BrokenPlugin] = []

    @property
    def disabled(self) -> tuple[InstalledPlugin, ...]:
        """The installed plugins that the environment keeps out."""
        return tuple(plugin for plugin in self._installed if plugin.state == "disabled")

    def discover(self, environ: Mapping[str, str] | None = None) -> None:
        """Take in every installed entry point, each on its own: one that fails is noted in `broken`.

        Args:
            environ: Environment variables: `HETERO_DISABLE_PLUGINS`, `HETERO_ALLOW_PLUGINS`; the process's by default.
        """
        import importlib.metadata

        switches = _Switches(os.environ if environ is None else environ)
        # One look for all groups: it reads a file of every installed distribution.
        installed = importlib.metadata.entry_points()
        origins: dict[int, tuple[str, str]] = {}
        for group in GROUPS:
            for point in sorted(installed.select(group=group), key=lambda point: point.name):
                # Each of the two reads the distribution's metadata anew.
                if point.dist is not None and id(point.dist) not in origins:
                    origins[id(point.dist)] = point.dist.name, point.dist.version
                distribution, version = origins[id(point.dist)] if point.dist is not None else ("unknown", "")
                reason, fix = switches.against(point.name, distribution)
                state: Literal["ok", "disabled"] = "disabled" if reason else "ok"
                self._installed.append(
                    InstalledPlugin(group, point.name, point.value, distribution, version, state, reason, fix)
                )
                if reason:
                    continue
                try:
                    self.register(point.load(), f"{group}:{point.name}")
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    self._broke(f"{group}:{point.name}", reason, point.value, distribution)
        for variable, name in switches.unknown({plugin.name for plugin in self._installed}):
            _log.warning("%s names %r, and no plugin of that name is installed", variable, name)

    def installed(self) -> list[InstalledPlugin]:
        """The plugins that `discover` found, with the backends and programs that each one gives."""
        backends = [(plugin, backend.name) for plugin, backend in self._given()]
        programs = [
            (plugin, name) for plugin, names in self._each(self._manager.hook.hetero_program_names) for name in names
        ]
        return [self._report(plugin, backends, programs) for plugin in self._installed]

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
        return [backend for _, backend in self._given()]

    def _given(self) -> list[tuple[str, type[Backend]]]:
        """The Backend classes of all plugins, each with its plugin."""
        from hetero.backend import Backend

        found: dict[str, tuple[str, type[Backend]]] = {}
        for plugin, given in self._each(self._manager.hook.hetero_backend):
            for backend in given if isinstance(given, list | tuple) else [given]:
                if not (isinstance(backend, type) and issubclass(backend, Backend)):
                    self._broke(plugin, f"hetero_backend() gave {backend!r}, expected a subclass of hetero.Backend")
                elif not isinstance(getattr(backend, "name", None), str) or not backend.name:
                    self._broke(plugin, f"{backend.__qualname__} has no name: set the class attribute `name`")
                elif backend.name in found:
                    _, other = found[backend.name]
                    self._broke(
                        plugin, f"backend name {backend.name!r} is taken by {other.__module__}.{other.__qualname__}"
                    )
                else:
                    found[backend.name] = (plugin, backend)
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

    def kernel_tools(self) -> list[KernelTools]:
        """What the plugins give to check and build their kernels."""
        return [tools for _, tools in self._each(self._manager.hook.hetero_kernel_tools)]

    def _report(
        self, plugin: InstalledPlugin, backends: list[tuple[str, str]], programs: list[tuple[str, str]]
    ) -> InstalledPlugin:
        key = f"{plugin.group}:{plugin.name}"
        reasons = [
            broken.reason for broken in self.broken if (broken.group, broken.name) == (plugin.group, plugin.name)
        ]
        told = replace(
            plugin,
            backends=tuple(name for owner, name in backends if owner == key),
            programs=tuple(sorted(name for owner, name in programs if owner == key)),
        )
        if not reasons:
            return told
        fix = f"reinstall or remove {plugin.distribution}"
        return replace(told, state="broken", reason="; ".join(reasons), fix=fix)

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


class _Switches:
    """What the environment says about which installed plugins are taken in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        disable, allow = environ.get(DISABLE, "").strip(), environ.get(ALLOW, "").strip()
        self._only_own = disable.lower() in _YES
        self._disabled = set() if self._only_own or disable.lower() in _NO else _names(disable)
        self._allowed = _names(allow) if allow else None

    def against(self, name: str, distribution: str) -> tuple[str, str]:
        """Why a plugin is kept out, and what to do about it; empty when it is taken in."""
        if name in self._disabled:
            return f"disabled by {DISABLE}", f"take {name!r} out of {DISABLE}"
        if distribution == _OWN:
            return "", ""
        if self._only_own:
            return f"disabled by {DISABLE}", f"unset {DISABLE}, or name in it only those that are not wanted"
        if self._allowed is not None and name not in self._allowed:
            return f"disabled by {ALLOW}, which does not name it", f"add {name!r} to {ALLOW}"
        return "", ""

    def unknown(self, installed: set[str]) -> Iterator[tuple[str, str]]:
        """Variable and name of those that are switched and not installed: a typing error, as a rule."""
        for variable, names in ((DISABLE, self._disabled), (ALLOW, self._allowed or set())):
            for name in sorted(names - installed):
                yield variable, name


def _names(text: str) -> set[str]:
    return {name.strip() for name in text.split(",") if name.strip()}
