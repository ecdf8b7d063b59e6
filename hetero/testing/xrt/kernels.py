"""Finding what a kernel is and computes through the installed plugins; this package imports no kernels itself."""

from __future__ import annotations

from hetero.errors import OptionError
from hetero.plugins import Plugins
from hetero.program import Program
from hetero.testing.xrt.design import Reference


def kernel_program(name: str) -> Program:
    """The program of a kernel's name, from the first installed plugin that knows it.

    Raises:
        OptionError: None does.
    """
    plugins = Plugins()
    plugins.discover()
    program = plugins.program(name)
    if program is None:
        raise OptionError(
            f"no installed plugin knows a kernel {name!r}",
            fix=f"install the package that brings it; known: {', '.join(plugins.program_names())}",
        )
    return program


def reference_of(program: Program) -> Reference:
    """The exact answer of a kernel's program: the `reference` of its `kernel` artifact's payload.

    Raises:
        OptionError: It has none.
    """
    for artifact in program.artifacts:
        reference = getattr(artifact.payload, "reference", None)
        if artifact.kind == "kernel" and callable(reference):
            found: Reference = reference
            return found
    raise OptionError(
        f"{program.name!r} has no kernel with a reference that a simulator could run",
        fix="hand the simulator a function: simulated_pyxrt(kernels={name: function})",
    )
