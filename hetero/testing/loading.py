"""The cases of the conformance kit before anything is run: what a backend says, what it finds, what it loads."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hetero.backend import Backend, Device, Host, Option
from hetero.errors import HeteroError, OptionError, Unsupported
from hetero.options import check_options
from hetero.testing import leaks
from hetero.testing.checks import bad_model, check_probe, fault_of, unknown_program
from hetero.testing.choice import installed_backends
from hetero.testing.fixtures import Fixtures
from hetero.testing.harness import Loaded, Subject, complain, probe, told

_ASK = 'ask for it: program.artifact("onnx") raises Unsupported when there is none'


class LoadingCases(Fixtures):
    """Discovery and load."""

    # Discovery: what the class says, what probe() finds.

    def test_is_found_by_its_name(self, kind: type[Backend]) -> None:
        """An entry point of the group `hetero.backends` leads to it."""
        found = installed_backends().get(kind.name)
        if found is None:
            pytest.skip(f"no installed plugin gives {kind.name!r}, the class alone is tested; pip install -e . first")
        if (found.__module__, found.__qualname__) != (kind.__module__, kind.__qualname__):
            complain(
                "a backend's name is its own",
                f"the {kind.name!r} that is installed is {found.__module__}.{found.__qualname__}",
                "rename one of the two",
            )

    def test_has_a_name_that_can_be_written_on_a_command_line(self, kind: type[Backend]) -> None:
        """The class attribute `name`: letters, digits, `_` and `-`."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(getattr(kind, "name", ""))):
            complain(
                "`name` is made of letters, digits, `_` and `-`",
                repr(getattr(kind, "name", None)),
                "rename the backend",
            )

    def test_declares_options_with_help_and_valid_defaults(self, kind: type[Backend]) -> None:
        """Each default passes the check that a user's value meets; a wrong option is refused."""
        names = [option.name for option in kind.options if isinstance(option, Option)]
        if len(names) != len(kind.options) or len(set(names)) != len(names):
            complain("`options` holds Option objects, each name once", repr(kind.options), "mend the class attribute")
        for option in kind.options:
            where = f"option {kind.name}.{option.name}"
            if not option.help.strip():
                complain(f"{where} has a help text", "it is empty", "say in a sentence what it does")
            try:
                check_options(kind.name, kind.options, {option.name: option.default})
            except OptionError as error:
                complain(f"the default of {where} is allowed", error.problem, "mend type, choices, minimum or default")
        with pytest.raises(OptionError):
            check_options(kind.name, kind.options, {"no such option": 1})

    def test_probe_gives_devices_or_says_why_not_and_what_to_do(self, kind: type[Backend], host: Host) -> None:
        """Unavailable has a reason and a fix."""
        check_probe(kind(host), self.limit)

    def test_probe_of_a_bare_machine_gives_devices_or_unavailable(
        self, kind: type[Backend], host: Host, tmp_path: Path
    ) -> None:
        """With no environment variables and nothing under /sys, /proc and /dev."""
        bare = replace(host, environ={}, sysroot=tmp_path / "nothing", simulate=())
        check_probe(kind(bare), self.limit)

    def test_probe_gives_the_same_again(self, subject: Subject, kind: type[Backend], host: Host) -> None:
        """`hetero devices` and each Runtime probe anew, and nothing is left behind."""
        before = leaks.holdings()
        for backend in [subject.backend] * 5 + [kind(host)]:
            again = [device.name for device in probe(backend, self.limit)]
            if again != [device.name for device in subject.devices]:
                complain("probe() is repeatable", f"{again}, then {subject.devices}", "keep no state in probe()")
        found = leaks.growth(before, leaks.holdings(), threads=2, files=2, memory=sys.maxsize)
        if found:
            complain("probe() leaves nothing behind", "; ".join(found), "close what probe() opens")

    def test_devices_are_described_as_the_contract_says(self, subject: Subject) -> None:
        """Names, kinds, lanes."""
        name = subject.backend.name
        for device in subject.devices:
            if not isinstance(device, Device):
                complain("probe() gives hetero.Device objects", repr(device), "wrap it in a Device")
            wrong = fault_of(device, name)
            if wrong:
                complain(f"the device {device.name!r} is well described", wrong, "mend the Device that probe() gives")
        names = [device.name for device in subject.devices]
        if len(set(names)) != len(names):
            complain("devices have names of their own", str(names), f"call them {name}:0, {name}:1, ...")

    # Load.

    def test_takes_at_least_one_program(self, subject: Subject) -> None:
        """Else nothing of the rest is tested."""
        subject.any_of(self.programs)

    def test_an_executable_says_how_many_calls_it_takes(self, any_loaded: Loaded) -> None:
        """`lanes`, `batch` and `details`."""
        executable = any_loaded.executable
        for attribute in ("lanes", "batch"):
            value = getattr(executable, attribute)
            if type(value) is not int or value < 1:
                complain(f"`{attribute}` of an executable is an int, at least 1", repr(value), "set it in __init__")
        if not isinstance(executable.details, Mapping):
            complain("`details` is a mapping", repr(executable.details), "give a dict")

    def test_load_refuses_what_it_does_not_know_by_unsupported(self, subject: Subject) -> None:
        """A program without any artifact of its kinds."""
        program = unknown_program()
        try:
            subject.attempt(
                "load() of an unknown artifact", lambda: subject.backend.load(program, subject.device, subject.values())
            )
        except Unsupported as error:
            if error.problem.strip():
                return
            complain("Unsupported says why", "it is empty", "name what is missing")
        except HeteroError as error:
            complain("load() of a program without its artifacts raises Unsupported", told(error), _ASK)
        complain("load() of a program without its artifacts raises Unsupported", "it gave an executable", _ASK)

    @pytest.mark.parametrize("fault", ["unknown-op", "damaged-file"])
    def test_load_of_a_bad_model_raises_an_error_of_hetero(self, subject: Subject, fault: str, tmp_path: Path) -> None:
        """At load, so that another device is tried before anything is run; which error is the backend's to say."""
        program = bad_model(fault, tmp_path)
        what = f"load() of a model with a fault ({fault})"
        try:
            subject.attempt(what, lambda: subject.backend.load(program, subject.device, subject.values()))
        except HeteroError:
            return
        complain(f"{what} raises Unsupported or a ProgramError", "it gave an executable", "check it in load()")

    def test_none_leaves_an_option_to_the_backend(self, subject: Subject, any_loaded: Loaded) -> None:
        """Every option may be None."""
        values = dict.fromkeys((option.name for option in subject.backend.options), None)
        subject.try_load(any_loaded.reference, values=values).check(1, when="with every option None")
