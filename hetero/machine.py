"""The machine: its backends, the devices they give, the order of those, and what is not here and why."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hetero.backend import Backend, BackendFactory, Host
from hetero.errors import OptionError, Unavailable
from hetero.options import Options, check_call_options, check_options
from hetero.plugins import Plugins
from hetero.scheduler.policy import Owned, default_chain, named, pick
from hetero.scheduler.reasons import reason_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Absent:
    """A backend, or one named in the chain, that gives no device on this machine.

    Attributes:
        backend: Its name.
        reason: Why.
        fix: What the user can do.
    """

    backend: str
    reason: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.backend}: {self.reason}" + (f" (fix: {self.fix})" if self.fix else "")


class Machine:
    """The backends of a Runtime and their devices.

    Args:
        host: The machine to look at.
        plugins: Those that were found.
        factories: Backend classes.
        chain: Devices or backends in the order of preference; None for the environment's, else the usual order.
        isolate: Whether, or which, backends run in a process of their own.

    Attributes:
        host: The machine looked at.
        backends: By name, those without a device here included.
        absent: The backends that give no device here.
        chain: The devices in order, and in their places the absent ones that the user's chain names.

    Raises:
        OptionError: An unknown backend, device or simulated machine, or a backend that cannot be isolated.
    """

    def __init__(
        self,
        host: Host,
        plugins: Plugins,
        factories: Iterable[BackendFactory],
        chain: str | Sequence[str] | None,
        isolate: bool | str | Sequence[str],
    ) -> None:
        self.host = host
        self.backends: dict[str, Backend] = {}
        self.absent: list[Absent] = []
        self._plugins = plugins
        self._make(factories, isolate)
        self._check_simulated()
        self.chain = self._order(self._probe(), chain)

    @property
    def present(self) -> list[Owned]:
        """The devices, first choice first, each behind its backend's name."""
        return [entry for entry in self.chain if not isinstance(entry, Absent)]

    def wanted(self, names: str | Sequence[str]) -> list[Owned]:
        """The devices that a user's names mean, in the order given.

        Raises:
            OptionError: A name that is not known here.
            Unavailable: One that is known, but not on this machine; the reason and the fix.
        """
        present = self.present
        names = names_of(names)
        for name in names:
            absent = self._absence(name)
            if absent is not None and not named(name, present, _keys(present)):
                raise Unavailable(f"the device {name!r} is not available: {absent.reason}", fix=absent.fix)
        try:
            return pick(names, present, _keys(present))
        except OptionError as error:
            raise OptionError(error.problem, fix=error.fix + self._perhaps_disabled()) from None

    def check_options(self, options: Options) -> Options:
        """Options by backend, as they were given, once they are known to be right.

        Raises:
            OptionError: An unknown backend or option, or a bad value.
        """
        for name, values in options.items():
            if name not in self.backends and not any(entry.backend == name for entry in self.absent):
                raise OptionError(
                    f"options are given for the backend {name!r}, which is not known here",
                    fix=f"known: {', '.join(sorted(self.backends)) or 'none'}{self._perhaps_disabled()}",
                )
            if not isinstance(values, Mapping):
                raise OptionError(f"options for {name!r} are {values!r}, expected a mapping from option to value")
            if name in self.backends:
                check_options(name, self.backends[name].options, values)
        return options

    def check_call_options(self, options: Options) -> Options:
        """Options of one call, checked.

        Raises:
            OptionError: An unknown backend or option, a bad value, or one that is settled at load.
        """
        self.check_options(options)
        return {
            name: check_call_options(name, self.backends[name].options, values)
            for name, values in options.items()
            if name in self.backends
        }

    def _make(self, factories: Iterable[BackendFactory], isolate: bool | str | Sequence[str]) -> None:
        apart = None if isinstance(isolate, bool) else set(names_of(isolate))
        known: set[str] = set()
        for factory in factories:
            name = getattr(factory, "name", getattr(factory, "__name__", repr(factory)))
            known.add(name)
            if isolate is True or (apart is not None and name in apart):
                from hetero.isolation import isolated

                factory = isolated(factory)
            try:
                backend = factory(self.host)
            except Exception as error:
                self.absent.append(Absent(str(name), f"cannot be made: {reason_of(error)}"))
                continue
            if backend.name in self.backends:
                raise OptionError(f"two backends are called {backend.name!r}", fix="rename one, or leave one out")
            self.backends[backend.name] = backend
        for broken in self._plugins.broken:
            if broken.group == "hetero.backends":
                reason = f"the plugin is broken: {broken.reason}"
                self.absent.append(Absent(broken.name, reason, f"reinstall or remove {broken.distribution}"))
        for disabled in self._plugins.disabled:
            if disabled.group == "hetero.backends":
                # Which backends it brings is only known to who imports it, and that is what was not wanted.
                reason = f"{disabled.reason}, with every backend that the plugin brings ({disabled.origin})"
                self.absent.append(Absent(disabled.name, reason, disabled.fix))
        for unknown in sorted((apart or set()) - known - {entry.backend for entry in self.absent}):
            raise OptionError(
                f"isolate= names the backend {unknown!r}, which is not known here",
                fix=f"known: {', '.join(sorted(known)) or 'none'}{self._perhaps_disabled()}",
            )

    def _perhaps_disabled(self) -> str:
        """What a message about a name that is not known should add: a plugin that is disabled may bring it."""
        return "".join(
            f"; a backend of the disabled plugin {disabled.name!r} ({disabled.origin})? {disabled.fix}"
            for disabled in self._plugins.disabled
            if disabled.group == "hetero.backends"
        )

    def _probe(self) -> list[Owned]:
        found: list[Owned] = []
        for name, backend in self.backends.items():
            try:
                devices = list(backend.probe())
            except Unavailable as error:
                self.absent.append(Absent(name, error.problem, error.fix))
                continue
            except Exception as error:
                _log.warning("probing the backend %s failed", name, exc_info=True)
                self.absent.append(Absent(name, f"probe failed: {reason_of(error)}"))
                continue
            for device in devices:
                if any(device.name == other.name for _, other in found):
                    self.absent.append(Absent(name, f"a second device is called {device.name!r}"))
                else:
                    found.append((name, device))
        return found

    def _order(self, found: list[Owned], chain: str | Sequence[str] | None) -> list[Owned | Absent]:
        """The devices in order, and in their places the absent ones that an explicit chain names."""
        ordered = default_chain(found)
        said = "the chain"
        if chain is None:
            chain = [name for name in names_of(self.host.environ.get("HETERO_BACKENDS", "")) if name]
            said = "HETERO_BACKENDS"
            if not chain:
                return list(ordered)
        picked: list[Owned | Absent] = []
        for name in names_of(chain):
            chosen = named(name, ordered, _keys(ordered))
            absent = self._absence(name)
            if chosen:
                picked += [owned for owned in chosen if owned not in picked]
            elif absent is not None:
                picked.append(absent)
            else:
                known = sorted({*self.backends, *(device.name for _, device in found)})
                raise OptionError(
                    f"{said} names {name!r}, which is not known here",
                    fix=f"known: {', '.join(known)}{self._perhaps_disabled()}",
                )
        return picked

    def _absence(self, name: str) -> Absent | None:
        """Why a device that a user names is not here; None when its backend is not known at all."""
        backend = name.partition(":")[0]
        for entry in self.absent:
            if entry.backend == backend:
                return replace(entry, backend=name)
        if backend in self.backends and backend != name:
            return Absent(name, f"the backend {backend!r} has no such device on this machine")
        return None

    def _check_simulated(self) -> None:
        known = {machine for backend in self.backends.values() for machine in backend.simulates}
        for machine in self.host.simulate:
            if machine not in known:
                raise OptionError(
                    f"no backend can simulate {machine!r}", fix=f"known: {', '.join(sorted(known)) or 'none'}"
                )


def names_of(names: str | Sequence[str]) -> list[str]:
    """Names that a user gave in a list or as `a,b`."""
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def host_of(host: Host | None, simulate: str | Sequence[str] | None) -> Host:
    """The machine to look at, with what the user or the environment wants simulated."""
    host = host or Host()
    if simulate is None:
        simulate = [name for name in names_of(host.environ.get("HETERO_SIMULATE", "")) if name]
    return replace(host, simulate=tuple(names_of(simulate)) or host.simulate)


def _keys(owned: Iterable[Owned]) -> list[tuple[str, str]]:
    return [(backend, device.name) for backend, device in owned]
