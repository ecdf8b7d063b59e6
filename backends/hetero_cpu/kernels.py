"""Kernels on the CPU: their numpy reference, which needs no vendor's runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hetero.backend import Array, Artifact, Call, Executable, Unsupported


class KernelExecutable(Executable):
    """A kernel's exact answer, computed by numpy in the calling thread.

    Args:
        artifact: Of kind `kernel`; its payload has `reference(**inputs) -> {name: array}`.
        lanes: As for any executable; a reference keeps no state.

    Raises:
        Unsupported: The artifact holds no kernel.
    """

    def __init__(self, artifact: Artifact, lanes: int = 1) -> None:
        reference = getattr(artifact.payload, "reference", None)
        if not callable(reference):
            raise Unsupported(f"the kernel {artifact.name!r} has no reference that the CPU could run")
        self._reference: Callable[..., Mapping[str, Array]] = reference
        self.lanes = lanes
        self.details = {"runs": "numpy reference"}

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        """The reference's answer; see `Executable.run`."""
        return self._reference(**inputs)
