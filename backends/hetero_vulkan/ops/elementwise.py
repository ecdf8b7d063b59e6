"""Functions of each element, and of two tensors' elements that are broadcast to one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hetero.errors import OptionError, Unsupported
from hetero_vulkan.commands import Dispatch
from hetero_vulkan.ops.tensors import CODES, Tensor, lanes, merged, padded, spread, whole_words, words

if TYPE_CHECKING:
    from hetero_vulkan.device import VulkanDevice

UNARY = {
    "cast": 0,
    "relu": 1,
    "gelu": 2,
    "gelu_tanh": 3,
    "sigmoid": 4,
    "tanh": 5,
    "silu": 6,
    "erf": 7,
    "exp": 8,
    "log": 9,
    "sqrt": 10,
    "leaky_relu": 11,
    "clip": 12,
    "neg": 13,
    "abs": 14,
    "reciprocal": 15,
    "floor": 16,
    "ceil": 17,
    "round": 18,
    "sign": 19,
    "sin": 20,
    "cos": 21,
    "not": 22,
    "isnan": 23,
    "hard_sigmoid": 24,
    "hard_swish": 25,
    "softplus": 26,
    "elu": 27,
    "affine": 28,
}
"""The numbers that the shader `unary` knows its functions by."""

WHOLE = {"signed_bits": 29, "bits": 30}
"""Those of i32 alone: the lower bits, with their sign or without; how many is the first parameter."""

PARAMETERS: dict[str, tuple[float, float]] = {
    "leaky_relu": (0.01, 0.0),
    "clip": (-np.inf, np.inf),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
    "affine": (1.0, 0.0),
}
"""Functions with parameters, and what these are where none are given: the slope; the ends; slope and shift; ..."""

BINARY = {
    "add": 0,
    "sub": 1,
    "mul": 2,
    "div": 3,
    "pow": 4,
    "min": 5,
    "max": 6,
    "equal": 7,
    "not_equal": 8,
    "less": 9,
    "less_equal": 10,
    "greater": 11,
    "greater_equal": 12,
    "and": 13,
    "or": 14,
    "xor": 15,
    "mod": 16,
    "fmod": 17,
}
"""The numbers that the shader `binary` knows its functions by."""

_WHERE = 20
_MOST_DIMENSIONS = 6


def unary(
    device: VulkanDevice, function: str, x: Tensor, y: Tensor, parameters: tuple[float, float] | None = None
) -> list[Dispatch]:
    """Y = function(x).

    Args:
        device: The device.
        function: One of `UNARY`; or of `WHOLE`; `cast` changes the kind alone, `affine` is first * x + second.
        x: In order, of any kind.
        y: In order, of x's shape and any kind; to integers it is rounded towards 0, NaN becomes 0.
        parameters: Two, for those in `PARAMETERS`.

    Raises:
        OptionError: No such function, or shapes that differ.
        Unsupported: They do not lie in order.
    """
    if function not in UNARY and (function not in WHOLE or {x.kind, y.kind} != {"i32"}):
        raise OptionError(
            f"function {function!r} of {x.kind}", fix=f"there are: {', '.join(UNARY)}; of i32 {', '.join(WHOLE)}"
        )
    if x.shape != y.shape:
        raise OptionError(f"{function} of {x.shape} to {y.shape}, expected the same shape")
    if not x.size:
        return []
    if not x.contiguous:
        raise Unsupported(f"{function} of {x.shape} with strides {x.steps}", fix="copy it first")
    whole_words(y, "a result")
    local = lanes(device)
    pipeline = device.pipeline(
        "unary",
        {"local_size_x": local, "OPERATION": (UNARY | WHOLE)[function], "FROM": CODES[x.kind], "TO": CODES[y.kind]},
    )
    first, second = parameters or PARAMETERS.get(function, (0.0, 0.0))
    push = {"count": x.size, "x_offset": x.offset, "y_offset": y.offset, "first": first, "second": second}
    groups = spread(device, words(y.size, y.kind), local)
    return [Dispatch(pipeline, [x.buffer, y.buffer], groups, push, 10.0 * x.size)]


def binary(device: VulkanDevice, function: str, a: Tensor, b: Tensor, z: Tensor) -> list[Dispatch]:
    """Z = function(a, b), broadcast as numpy does.

    Args:
        device: The device.
        function: One of `BINARY`. Of two `i32`, all but `pow` are exact; division goes towards 0, by 0 gives 0.
            `mod` is of b's sign, `fmod` of a's.
        a: Of any kind and strides.
        b: Likewise.
        z: In order, of any kind; comparisons give 0 and 1.

    Raises:
        OptionError: No such function, or shapes that do not fit.
        Unsupported: More than six dimensions are left after merging, or z does not lie in order.
    """
    if function not in BINARY:
        raise OptionError(f"function {function!r}", fix=f"there are: {', '.join(BINARY)}")
    return _broadcast(device, BINARY[function], a, b, None, z)


def where(device: VulkanDevice, condition: Tensor, a: Tensor, b: Tensor, z: Tensor) -> list[Dispatch]:
    """Z = a where the condition (i32) is not 0, else b; broadcast as numpy does.

    Raises:
        OptionError: Kinds or shapes that do not fit.
        Unsupported: More than six dimensions are left after merging, or z does not lie in order.
    """
    if condition.kind != "i32":
        raise OptionError(f"a condition of {condition.kind}, expected i32")
    return _broadcast(device, _WHERE, a, b, condition, z)


def _broadcast(
    device: VulkanDevice, operation: int, a: Tensor, b: Tensor, c: Tensor | None, z: Tensor
) -> list[Dispatch]:
    expected = np.broadcast_shapes(a.shape, b.shape, c.shape if c else ()) if _fit(a, b, c) else None
    if z.shape != expected:
        given = [x.shape for x in (a, b, c) if x is not None]
        raise OptionError(f"{given} to {z.shape}, expected shapes that numpy would broadcast to it")
    if not z.size:
        return []
    whole_words(z, "a result")
    seen = [x.broadcast(z.shape) for x in (a, b, c or a)]
    shape, steps = merged(z.shape, *(x.steps for x in seen))
    if len(shape) > _MOST_DIMENSIONS:
        raise Unsupported(
            f"broadcasting over {len(shape)} dimensions, at most {_MOST_DIMENSIONS}", fix="copy one first"
        )
    local = lanes(device)
    pipeline = device.pipeline(
        "binary",
        {
            "local_size_x": local,
            "OPERATION": operation,
            "A_TYPE": CODES[a.kind],
            "B_TYPE": CODES[b.kind],
            "TO": CODES[z.kind],
            "RANK": max(1, len(shape)),
        },
    )
    push = {"count": z.size, "z_offset": z.offset}
    push |= {f"{name}_offset": x.offset for name, x in zip("abc", seen, strict=True)}
    push |= {f"d{i}": size for i, size in enumerate(padded(shape, 6, 1))}
    for name, strides in zip("abc", steps, strict=True):
        push |= {f"{name}{i}": step for i, step in enumerate(padded(strides, 6, 0))}
    groups = spread(device, words(z.size, z.kind), local)
    buffers = [a.buffer, b.buffer, (c or a).buffer, z.buffer]
    return [Dispatch(pipeline, buffers, groups, push, float(z.size))]


def _fit(a: Tensor, b: Tensor, c: Tensor | None) -> bool:
    try:
        np.broadcast_shapes(a.shape, b.shape, c.shape if c else ())
    except ValueError:
        return False
    return True
