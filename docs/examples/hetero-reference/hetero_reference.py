"""A backend in forty lines: ONNX models on the reference evaluator of the `onnx` package, in plain numpy."""

import hetero
from hetero.backend import Backend, Device, Executable, ExecutionError, Option, Unavailable, Unsupported


class ReferenceBackend(Backend):
    name = "reference"
    options = (Option("verbose", int, 0, "How much the evaluator prints: 0 to 4.", minimum=0),)

    def probe(self):
        if self.host.environ.get("HETERO_REFERENCE") == "off":
            raise Unavailable("HETERO_REFERENCE is off", fix="unset HETERO_REFERENCE")
        return [Device("reference", kind="cpu", rank=900, description="onnx.reference, numpy")]

    def load(self, program, device, options):
        from onnx.reference import ReferenceEvaluator

        artifact = program.artifact("onnx")  # raises Unsupported when there is none
        try:
            evaluator = ReferenceEvaluator(str(artifact.file), verbose=options["verbose"] or 0)
        except Exception as error:  # an op that it does not know, a file that is no model
            raise Unsupported(f"onnx.reference: {error}") from error
        return ReferenceExecutable(evaluator)


class ReferenceExecutable(Executable):
    def __init__(self, evaluator):
        self._evaluator = evaluator
        self.details = {"opset": evaluator.opsets.get("")}

    def run(self, inputs, call):
        try:
            outputs = self._evaluator.run(None, dict(inputs))
        except Exception as error:
            raise ExecutionError(f"onnx.reference: {error}") from error
        return dict(zip(self._evaluator.output_names, outputs, strict=True))


@hetero.hookimpl
def hetero_backend():
    return ReferenceBackend
