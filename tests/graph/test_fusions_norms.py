"""Normalisations and GELU: found in every form that exporters write; what only looks like them is left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hetero.graph.passes import fuse, fuse_gelu, fuse_layer_norm
from tests.graph.building import Builder, fused, weights

# LayerNormalization


def layer_norm(
    build: Builder,
    *,
    square: str = "Pow",
    divide: str = "Div",
    exponent: float = 2.0,
    axes: tuple[int, ...] = (2,),
    variance_axes: tuple[int, ...] | None = None,
    epsilon: float = 1e-5,
    scale: tuple[int, ...] | None = (4,),
    bias: tuple[int, ...] | None = (4,),
    swapped: bool = False,
    leak: str = "",
) -> str:
    """The chain for x [2, 3, 4]; `leak` names a value in between that something else uses."""
    x = build.input("x", 2, 3, 4)
    made = {}
    made["mean"] = build.op("ReduceMean", x, axes=axes, keepdims=1)
    made["centred"] = d = build.op("Sub", x, made["mean"])
    made["square"] = build.op("Mul", d, d) if square == "Mul" else build.op("Pow", d, build.constant(exponent))
    made["variance"] = build.op("ReduceMean", made["square"], axes=variance_axes or axes, keepdims=1)
    made["deviation"] = build.op("Sqrt", build.op("Add", made["variance"], build.constant(epsilon)))
    if divide == "Div":
        y = build.op("Div", d, made["deviation"])
    else:
        y = build.op("Mul", d, build.op("Reciprocal", made["deviation"]))
    made["quotient"] = y
    for op, shape in (("Mul", scale), ("Add", bias)):
        if shape is not None:
            pair = (y, build.constant(weights(*shape)))
            y = build.op(op, *(pair[::-1] if swapped else pair))
    if leak:
        build.op("Neg", made[leak], output="leaked")
        return build.op("Concat", build.op("Reshape", y, shape=(24,)), _flat(build, "leaked", leak), axis=0)
    return y


def _flat(build: Builder, value: str, leak: str) -> str:
    return build.op("Reshape", value, shape=(6 if leak in ("mean", "variance", "deviation") else 24,))


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("divide", ["Div", "Reciprocal"])
@pytest.mark.parametrize("swapped", [False, True])
def test_layer_norm_in_every_form(square: str, divide: str, swapped: bool) -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, square=square, divide=divide, swapped=swapped))
    assert graph.count() == {"LayerNormalization": 1}
    assert graph.nodes[0].attributes == {"axis": 2, "epsilon": pytest.approx(1e-5)}


@pytest.mark.parametrize("scale", [(4,), (1, 1, 4), (), None])
@pytest.mark.parametrize("bias", [(4,), (1, 4), None])
def test_layer_norm_with_and_without_scale_and_bias(
    scale: tuple[int, ...] | None, bias: tuple[int, ...] | None
) -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, scale=scale, bias=bias))
    assert graph.count() == {"LayerNormalization": 1}
    assert len(graph.nodes[0].inputs) == (2 if bias is None else 3)


def test_layer_norm_over_several_dimensions() -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, axes=(1, 2), scale=(3, 4)))
    assert graph.count() == {"LayerNormalization": 1}
    assert {str(graph.types[value]) for value in graph.nodes[0].inputs[1:]} == {"float32[3, 4]"}


@pytest.mark.parametrize(
    "change",
    [
        {"exponent": 3.0},
        {"axes": (1,)},
        {"axes": (1, 2), "variance_axes": (2,)},
        {"axes": (0, 2)},
        {"epsilon": -1e-9},
        {"leak": "mean"},
        {"leak": "centred"},
        {"leak": "square"},
        {"leak": "variance"},
        {"leak": "deviation"},
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_only_looks_like_layer_norm_is_left(change: dict[str, object]) -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, **change), 1e-3)  # type: ignore[arg-type]
    assert "LayerNormalization" not in graph.count()


@pytest.mark.parametrize("between", ["ReduceMean", "Sub", "Pow", "Sqrt"])
def test_a_chain_of_which_a_value_is_an_output_is_left(between: str) -> None:
    build = Builder()
    end = layer_norm(build)
    value = next(node.output for node in build.nodes if node.op == between)
    assert "LayerNormalization" not in fuse_layer_norm(build.graph(end, value)).count()


def test_a_gelu_of_which_a_value_is_an_output_is_left() -> None:
    build = Builder()
    x = build.input("x", 2, 3)
    t = _erf_part(build, x)
    end = _outer(build, x, t, "(half*x)*(1+t)")
    assert "Gelu" not in fuse_gelu(build.graph(end, t)).count()


def test_a_normalised_value_that_is_used_before_its_scale_is_fused_without_it() -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, leak="quotient"))
    assert graph.count()["LayerNormalization"] == 1
    assert graph.count()["Mul"] == 1


def test_a_scale_that_differs_between_rows_stays_outside() -> None:
    graph = fused(fuse_layer_norm, lambda build: layer_norm(build, scale=(3, 4), bias=None))
    assert graph.count() == {"LayerNormalization": 1, "Mul": 1}


def test_a_scale_that_is_computed_stays_outside() -> None:
    def write(build: Builder) -> str:
        return build.op("Mul", layer_norm(build, scale=None, bias=None), build.input("scale", 2, 1, 4))

    assert fused(fuse_layer_norm, write).count() == {"LayerNormalization": 1, "Mul": 1}


def test_a_mean_of_another_value_is_left() -> None:
    def write(build: Builder) -> str:
        x, other = build.input("x", 3, 4), build.input("other", 3, 4)
        d = build.op("Sub", x, build.op("ReduceMean", other, axes=(1,), keepdims=1))
        v = build.op("ReduceMean", build.op("Mul", d, d), axes=(1,), keepdims=1)
        return build.op("Div", d, build.op("Sqrt", build.op("Add", v, build.constant(1e-5))))

    assert "LayerNormalization" not in fused(fuse_layer_norm, write).count()


# Gelu


def _erf_part(build: Builder, x: str, factor: float = math.sqrt(0.5), divide: bool = False) -> str:
    inner = build.op("Div", x, build.constant(1 / factor)) if divide else build.op("Mul", x, build.constant(factor))
    return build.op("Erf", inner)


def _tanh_part(build: Builder, x: str, cubic: float = 0.044715, power: str = "Pow") -> str:
    factor = build.constant(math.sqrt(2 / math.pi))
    if power == "Horner":
        # x * sqrt(2/pi) * (1 + 0.044715 * x * x)
        square = build.op("Mul", build.op("Mul", x, build.constant(cubic)), x)
        return build.op(
            "Tanh", build.op("Mul", build.op("Mul", x, factor), build.op("Add", square, build.constant(1.0)))
        )
    cube = build.op("Pow", x, build.constant(3.0)) if power == "Pow" else build.op("Mul", build.op("Mul", x, x), x)
    return build.op("Tanh", build.op("Mul", factor, build.op("Add", x, build.op("Mul", build.constant(cubic), cube))))


def _outer(build: Builder, x: str, t: str, form: str, half: float = 0.5, one: float = 1.0) -> str:
    c, u = build.constant(half), build.constant(one)
    if form == "(x*(1+t))*half":
        return build.op("Mul", build.op("Mul", x, build.op("Add", t, u)), c)
    if form == "(half*x)*(1+t)":
        return build.op("Mul", build.op("Mul", c, x), build.op("Add", u, t))
    if form == "x*(half*(1+t))":
        return build.op("Mul", x, build.op("Mul", c, build.op("Add", u, t)))
    if form == "x/2*(1+t)":
        return build.op("Mul", build.op("Div", x, build.constant(1 / half)), build.op("Add", u, t))
    if form == "half*x + half*x*t":
        scaled = build.op("Mul", x, c)
        return build.op("Add", scaled, build.op("Mul", scaled, t))
    assert form == "x*(half + half*t)"
    return build.op("Mul", x, build.op("Add", c, build.op("Mul", c, t)))


OUTER = ["(x*(1+t))*half", "(half*x)*(1+t)", "x*(half*(1+t))", "x/2*(1+t)", "half*x + half*x*t", "x*(half + half*t)"]


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("divide", [False, True])
def test_gelu_with_erf_in_every_form(outer: str, divide: bool) -> None:
    def write(build: Builder) -> str:
        x = build.op("Add", build.input("x", 2, 3), build.constant(1.0))
        return _outer(build, x, _erf_part(build, x, divide=divide), outer)

    graph = fused(fuse_gelu, write)
    assert graph.count() == {"Add": 1, "Gelu": 1}
    assert graph.nodes[-1].text("approximate") == "none"


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("power", ["Pow", "Mul", "Horner"])
def test_gelu_with_tanh_in_every_form(outer: str, power: str) -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 2, 3)
        return _outer(build, x, _tanh_part(build, x, power=power), outer)

    graph = fused(fuse_gelu, write)
    assert graph.count() == {"Gelu": 1}
    assert graph.nodes[-1].text("approximate") == "tanh"


def test_gelu_in_half_precision() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 64, dtype=np.float16)
        root, one, half = (build.constant(value, np.float16) for value in (math.sqrt(2), 1.0, 0.5))
        t = build.op("Erf", build.op("Div", x, root))
        return build.op("Mul", build.op("Mul", x, build.op("Add", t, one)), half)

    assert fused(fuse_gelu, write, 4e-3).count() == {"Gelu": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"half": 0.4},
        {"one": 1.1},
        {"factor": 0.7},
        {"other": "input"},
        {"other": "constant"},
        {"leak": True},
        {"tanh": True},
    ],
)
def test_what_only_looks_like_gelu_is_left(change: dict[str, object]) -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 2, 3)
        t = _erf_part(build, x, float(change.get("factor", math.sqrt(0.5))))  # type: ignore[arg-type]
        if "tanh" in change:
            t = _tanh_part(build, x, cubic=0.044)
        outside = {"input": lambda: build.input("z", 2, 3), "constant": lambda: build.constant(weights(2, 3))}
        z = outside[str(change["other"])]() if "other" in change else x
        numbers = {key: float(change[key]) for key in ("half", "one") if key in change}  # type: ignore[arg-type]
        y = _outer(build, z, t, "(x*(1+t))*half", **numbers)
        return build.op("Add", y, t) if "leak" in change else y

    assert "Gelu" not in fused(fuse_gelu, write).count()


def test_gelu_of_a_value_that_broadcasts_is_left() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 3)
        y = build.op("Mul", x, build.op("Add", _erf_part(build, x), build.constant(1.0)))
        return build.op("Mul", y, build.constant([[0.5], [0.5]]))

    assert "Gelu" not in fused(fuse_gelu, write).count()


# Together


def test_fuse_does_all_of_it() -> None:
    def write(build: Builder) -> str:
        x = layer_norm(build)
        y = build.op("Add", build.op("MatMul", x, build.constant(weights(4, 4))), build.constant(weights(4)))
        return build.op("Add", x, _outer(build, y, _erf_part(build, y), "(x*(1+t))*half"))

    assert fused(fuse, write).count() == {"LayerNormalization": 1, "Linear": 1, "Gelu": 1, "Add": 1}
    everything = fused(lambda graph: fuse(graph, activations=["Gelu"], residuals=True, merge=2), write)
    assert everything.count() == {"LayerNormalization": 1, "Linear": 1}
