"""What the cases of the conformance kit are given: the backend under test, its devices, loaded programs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hetero.backend import Backend, Host
from hetero.errors import Unavailable
from hetero.testing.choice import chosen_backend
from hetero.testing.harness import LIMIT, Loaded, Subject, complain, probe
from hetero.testing.programs import ReferenceProgram, reference_programs


class Fixtures:
    """What a test class sets, and the fixtures made of it; see `BackendConformance`."""

    backend: ClassVar[type[Backend] | None] = None
    device: ClassVar[str | None] = None
    simulate: ClassVar[Sequence[str]] = ()
    options: ClassVar[Mapping[str, Any]] = {}
    programs: ClassVar[Sequence[ReferenceProgram]] = reference_programs()
    tolerance: ClassVar[float] = 0.01
    limit: ClassVar[float] = LIMIT
    memory: ClassVar[int] = 40 << 20

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One case for each program; an unknown backend is told of here, once."""
        chosen_backend(type(self).__name__, self.backend, metafunc.config)
        if "reference" in metafunc.fixturenames:
            metafunc.parametrize("reference", self.programs, ids=[program.name for program in self.programs])

    @pytest.fixture
    def host(self, request: pytest.FixtureRequest, tmp_path: Path) -> Host:
        """The machine that the backend sees: this one, with an empty cache. Override it to hand in another one."""
        environ = {name: value for name, value in os.environ.items() if name not in ("HETERO_BACKENDS",)}
        machines = request.config.getoption("hetero_simulate", None) or self.simulate
        return Host(environ=environ, cache=tmp_path / "cache", simulate=tuple(machines))

    @pytest.fixture
    def kind(self, request: pytest.FixtureRequest) -> type[Backend]:
        """The Backend class under test."""
        return chosen_backend(type(self).__name__, self.backend, request.config)

    @pytest.fixture
    def subject(
        self, request: pytest.FixtureRequest, kind: type[Backend], host: Host, tmp_path: Path
    ) -> Iterator[Subject]:
        """The backend and its devices; skips where it is not available."""
        backend = kind(host)
        try:
            devices = probe(backend, self.limit)
        except Unavailable as error:
            reason = f"{kind.name} is not available here: {error.problem}" + (error.fix and f" (fix: {error.fix})")
            if request.config.getoption("hetero_require", False):
                complain("the backend is available, as --hetero-require says", reason, error.fix or "mend the machine")
            pytest.skip(reason)
        wanted = request.config.getoption("hetero_device", None) or self.device
        chosen = [device for device in devices if wanted in (None, device.name)]
        if not chosen:
            names = ", ".join(device.name for device in devices) or "none"
            complain(
                f"there is a device {wanted or ''}", f"probe() gave {names}", "give a device, or raise Unavailable"
            )
        subject = Subject(backend, devices, chosen[0], self.options, tmp_path, self.limit, self.tolerance)
        yield subject
        subject.close()

    @pytest.fixture
    def loaded(self, subject: Subject, reference: ReferenceProgram) -> Loaded:
        """A reference program, loaded; skips where it is not supported."""
        return subject.load(reference)

    @pytest.fixture
    def any_loaded(self, subject: Subject) -> Loaded:
        """The first program that the backend supports."""
        return subject.any_of(self.programs)
