"""Backends that answer rightly, computed by onnx's own reference, and ones that err in a way a test decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from hetero.backend import Array, Backend, Call, Device, Executable, Option, Program, Unsupported

Spoil = Callable[[Mapping[str, Array]], Mapping[str, Array]]


class Evaluated(Executable):
    def __init__(self, answer: Callable[[Mapping[str, Array]], Mapping[str, Array]], spoil: Spoil) -> None:
        self._answer = answer
        self._spoil = spoil
        self.details = {"evaluated": True}

    def run(self, inputs: Mapping[str, Array], call: Call) -> Mapping[str, Array]:
        return self._spoil(self._answer(inputs))


class ReferenceBackend(Backend):
    """Make variants with `reference(...)`."""

    options = (Option("threads", int, 2, "How many threads.", minimum=1), Option("mode", str, "a", "How.", ("a", "b")))
    simulates = ("rk3588",)
    device: ClassVar[Device]
    kernels: ClassVar[bool]
    spoil: ClassVar[Spoil]

    def probe(self) -> Sequence[Device]:
        return [self.device]

    def load(self, program: Program, device: Device, options: Mapping[str, Any]) -> Executable:
        if any(artifact.kind == "kernel" for artifact in program.artifacts):
            if not self.kernels:
                raise Unsupported("kernels are not for this device")
            kernel = program.artifact("kernel").payload
            return Evaluated(lambda inputs: kernel.reference(**inputs), type(self).spoil)
        from onnx.reference import ReferenceEvaluator

        model = ReferenceEvaluator(str(program.artifact("onnx").file))
        names = [spec.name for spec in program.outputs]
        return Evaluated(lambda inputs: dict(zip(names, model.run(None, dict(inputs)), strict=True)), type(self).spoil)


def reference(
    name: str,
    kind: Any = "cpu",
    *,
    simulated: bool = False,
    kernels: bool = True,
    spoil: Spoil = lambda outputs: outputs,
    **device: Any,
) -> type[ReferenceBackend]:
    """A backend class of that name with one device; `spoil` may change its right answers, or raise."""
    members = {
        "name": name,
        "device": Device(name, kind=kind, simulated=simulated, **device),
        "kernels": kernels,
        "spoil": staticmethod(spoil),
    }
    return type(f"Reference_{name}", (ReferenceBackend,), members)
