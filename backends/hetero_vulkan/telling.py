"""What `explain()` says of how a program's numbers are stored on a device."""

from __future__ import annotations

from collections import Counter

from hetero.graph.node import Shapes
from hetero.graph.partition import Partition
from hetero_vulkan.executable import GraphExecutable
from hetero_vulkan.ops.tensors import Kind
from hetero_vulkan.precision import Precision
from hetero_vulkan.storage import GREATEST_HALF, HALF

_NAMES: dict[Kind, str] = {"f32": "fp32", "f16": "fp16", "i8": "int8", "i32": "whole numbers"}


def told_of_storage(
    precision: Precision, executable: GraphExecutable, cut: Partition, shapes: Shapes
) -> dict[str, str]:
    """Precision, memory, and what stayed float32, for `Executable.details`.

    Args:
        precision: What was asked for.
        executable: With its plans made.
        cut: The graph for the shapes.
        shapes: Of the inputs.
    """
    plans = executable.plans(shapes)
    own = any(kind.dtype == HALF for kind in cut.whole.types.values())
    halves = own or precision.values == "f16"
    wide = precision.weights == "f16" and not halves
    told = f"{precision.name}: {precision.meaning}, sums in fp32"
    if own:
        told += "; what is float16 in the model stays so"
    if halves:
        told += f"; finite numbers beyond {GREATEST_HALF:.0f} are stored as {GREATEST_HALF:.0f}"
    sizes = ", ".join(f"{_NAMES[kind]} {_megabytes(nbytes)}" for kind, nbytes in sorted(executable.sizes.items()))
    details = {
        "precision": told,
        "memory": f"{_megabytes(sum(plan.arena_bytes for plan in plans))} for values in between, "
        f"{_megabytes(sum(plan.scratch_bytes for plan in plans))} that single nodes need besides, "
        f"{_megabytes(sum(plan.end_bytes for plan in plans))} for inputs and outputs",
        "weights": f"{_megabytes(executable.memory)} on the device: {sizes or 'none'}",
    }
    if executable.rounding:
        details["weights"] += (
            f"; fp16 changes a number by at most {executable.rounding:.1g} of the largest of its constant"
        )
    kept = sum((plan.kept for plan in plans), Counter[str]())
    widened = sum((plan.widened for plan in plans), Counter[tuple[str, str]]())
    if wide:
        details["kept in fp32"] = (
            f"values in between, {_megabytes(sum(plan.wide_bytes for plan in plans))} more than in fp16 (fp16-fp16 has "
            "them so: compare its answers); constants that are vectors, or that fp16 does not hold"
        )
    elif halves:
        values = ", ".join(f"{op} {count}" for op, count in kept.most_common())
        details["kept in fp32"] = "inputs and outputs of float32, constants that are vectors" + (
            f"; values given by {values}" if values else ""
        )
    if widened:
        details["by way of fp32"] = "; ".join(f"{op} {count} ({why})" for (op, why), count in widened.most_common())
    return details


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB"
