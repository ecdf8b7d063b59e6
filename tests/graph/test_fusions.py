"""Each fusion finds every form that exporters write, and leaves alone what only looks like it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hetero.graph import Graph, evaluate
from hetero.graph.passes import (
    fuse,
    fuse_activations,
    fuse_attention,
    fuse_gelu,
    fuse_layer_norm,
    fuse_linear,
    fuse_residuals,
    merge_linears,
)
from tests.graph.building import Builder, random_inputs, weights

Pass = Callable[[Graph], Graph]
Write = Callable[[Builder], str]


def fused(passing: Pass, write: Write, tolerance: float = 1e-5) -> Graph:
    """The graph after a pass, which must compute what it did before."""
    build = Builder()
    before = build.graph(write(build))
    after = passing(before)
    after.verify()
    given = random_inputs(before)
    for name, array in evaluate(before, given).items():
        np.testing.assert_allclose(evaluate(after, given)[name], array, rtol=tolerance, atol=tolerance)
    return after


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


# Linear and Conv


def test_a_product_with_a_known_matrix_and_its_bias_is_a_linear() -> None:
    def write(build: Builder) -> str:
        y = build.op("MatMul", build.input("x", 2, 3, 4), build.constant(weights(4, 5)))
        return build.op("Add", build.constant(weights(5)), y)

    graph = fused(fuse_linear, write)
    assert graph.count() == {"Linear": 1}
    assert graph.nodes[0].inputs == ("x", "c0", "c1")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 5), (5,)])
def test_biases_that_are_one_row(shape: tuple[int, ...]) -> None:
    def write(build: Builder) -> str:
        y = build.op("MatMul", build.input("x", 2, 3, 4), build.constant(weights(4, 5)))
        return build.op("Add", y, build.constant(weights(*shape)))

    graph = fused(fuse_linear, write)
    assert graph.count() == {"Linear": 1}
    assert graph.types[graph.nodes[0].inputs[2]].shape == (5,)


@pytest.mark.parametrize("shape", [(3, 5), (3, 1), (2, 1, 5), (1, 1, 1, 5)])
def test_what_is_no_row_is_no_bias(shape: tuple[int, ...]) -> None:
    def write(build: Builder) -> str:
        y = build.op("MatMul", build.input("x", 2, 3, 4), build.constant(weights(4, 5)))
        return build.op("Add", y, build.constant(weights(*shape)))

    assert fused(fuse_linear, write).count() == {"Linear": 1, "Add": 1}


def test_a_product_that_something_else_uses_keeps_its_bias_apart() -> None:
    def write(build: Builder) -> str:
        y = build.op("MatMul", build.input("x", 2, 4), build.constant(weights(4, 5)))
        return build.op("Mul", y, build.op("Add", y, build.constant(weights(5))))

    assert fused(fuse_linear, write).count() == {"Linear": 1, "Add": 1, "Mul": 1}


def test_products_of_two_inputs_and_of_stacks_of_matrices_are_left() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 2, 4, 4)
        y = build.op("MatMul", x, build.constant(weights(2, 4, 4)))
        return build.op("MatMul", build.op("MatMul", y, x), build.input("w", 4, 5))

    assert fused(fuse_linear, write).count() == {"MatMul": 3}


@pytest.mark.parametrize(
    ("shape", "count"), [((6, 1), {"Conv": 1}), ((1, 1), {"Conv": 1}), ((6, 8), {"Conv": 1, "Add": 1})]
)
def test_a_bias_for_each_channel_goes_into_the_convolution(shape: tuple[int, ...], count: dict[str, int]) -> None:
    def write(build: Builder) -> str:
        y = build.op("Conv", build.input("x", 2, 4, 8), build.constant(weights(6, 4, 3)), pads=(1, 1))
        return build.op("Add", y, build.constant(weights(*shape)))

    assert fused(fuse_linear, write).count() == count


def _linear(build: Builder, x: str, size: int = 4, bias: bool = True, seed: int = 1, **attributes: object) -> str:
    inputs = [x, build.constant(weights(4, size, seed=seed))] + [build.constant(weights(size, seed=seed))] * bias
    return build.op("Linear", *inputs, **attributes)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Relu", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Gelu", {"approximate": "tanh"}),
        ("Clip", {"min": -0.5, "max": 0.5}),
    ],
)
def test_activations_go_into_the_linear_with_their_attributes(op: str, attributes: dict[str, float | str]) -> None:
    graph = fused(fuse_activations, lambda build: build.op(op, _linear(build, build.input("x", 3, 4)), **attributes))
    assert graph.count() == {"Linear": 1}
    assert graph.nodes[0].attributes == {"activation": op, **attributes}


def test_activations_that_nobody_asked_for_or_that_share_stay() -> None:
    def two(build: Builder) -> str:
        return build.op("Tanh", build.op("Relu", _linear(build, build.input("x", 3, 4))))

    def shared(build: Builder) -> str:
        y = _linear(build, build.input("x", 3, 4))
        return build.op("Add", build.op("Relu", y), y)

    assert fused(lambda graph: fuse_activations(graph, ["Tanh"]), two).count() == {"Linear": 1, "Relu": 1, "Tanh": 1}
    assert fused(fuse_activations, two).count() == {"Linear": 1, "Tanh": 1}
    assert fused(fuse_activations, shared).count() == {"Linear": 1, "Relu": 1, "Add": 1}


def test_residuals_go_into_the_linear_and_an_activation_behind_them_does_not() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 3, 4)
        return build.op("Relu", build.op("Add", x, build.op("Gelu", _linear(build, x))))

    assert fused(lambda graph: fuse_residuals(fuse_activations(graph)), write).count() == {"Linear": 1, "Relu": 1}


def test_an_activation_of_a_sum_with_the_residual_stays_behind_it() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 3, 4)
        return build.op("Relu", build.op("Add", x, _linear(build, x)))

    assert fused(lambda graph: fuse_activations(fuse_residuals(graph)), write).count() == {"Linear": 1, "Relu": 1}


@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 3, 4)])
def test_what_is_broadcast_is_no_residual(shape: tuple[int, ...]) -> None:
    def write(build: Builder) -> str:
        return build.op("Add", build.input("r", *shape), _linear(build, build.input("x", 3, 4)))

    assert fused(fuse_residuals, write).count() == {"Linear": 1, "Add": 1}


def test_linears_of_one_input_become_one() -> None:
    def write(build: Builder) -> str:
        x = build.input("x", 2, 3, 4)
        parts = [_linear(build, x, size, bias, seed=size) for size, bias in ((4, True), (2, False), (3, True))]
        return build.op("Concat", *parts, axis=2)

    graph = fused(merge_linears, write)
    assert graph.count() == {"Slice": 3, "Linear": 1, "Concat": 1}
    assert graph.types[graph.nodes[0].output].shape == (2, 3, 9)
    assert fused(lambda graph: merge_linears(graph, 4), write).count()["Linear"] == 3


def test_linears_with_activation_or_of_other_inputs_stay_apart() -> None:
    def write(build: Builder) -> str:
        x, z = build.input("x", 3, 4), build.input("z", 3, 4)
        parts = _linear(build, x), _linear(build, x, activation="Relu"), _linear(build, z, seed=2)
        return build.op("Concat", *parts, axis=1)

    assert fused(merge_linears, write).count()["Linear"] == 3


# Attention


def attention(
    build: Builder,
    *,
    scale: str = "",
    mask: tuple[int, ...] | None = None,
    turned: bool = True,
    axis: int = 3,
    leak: str = "",
    late_scale: bool = False,
    factor: float = 0.25,
) -> str:
    """Of q [2, 3, 5, 4], k [2, 3, 6, 4] (or [2, 3, 4, 6]) and v [2, 3, 6, 7]."""
    q = build.input("q", 2, 3, 5, 4)
    k = build.input("k", 2, 3, 6, 4) if turned else build.input("k", 2, 3, 4, 6)
    root = factor**0.5
    if scale in ("q", "both"):
        q = build.op("Mul", q, build.constant(factor if scale == "q" else root))
    if scale in ("k before", "both"):
        k = build.op("Mul", build.constant(factor if scale == "k before" else root), k)
    if turned:
        k = build.op("Transpose", k, perm=(0, 1, 3, 2))
    if scale == "k behind":
        k = build.op("Div", k, build.constant(1 / factor))
    made = {"scores": build.op("MatMul", q, k)}
    y = made["scores"]
    if scale in ("Mul", "Div") and not late_scale:
        y = build.op(scale, y, build.constant(factor if scale == "Mul" else 1 / factor))
    if mask is not None:
        y = build.op("Add", y, build.input("mask", *mask))
    if late_scale:
        y = build.op("Mul", y, build.constant(factor))
    made["softmax"] = y = build.op("Softmax", y, axis=axis)
    y = build.op("MatMul", y, build.input("v", 2, 3, 6, 7))
    if leak:
        return build.op("Add", y, build.op("ReduceMax", made[leak], axes=(3,), keepdims=1))
    return y


@pytest.mark.parametrize("scale", ["", "Mul", "Div", "q", "k before", "k behind", "both"])
@pytest.mark.parametrize("mask", [None, (5, 6), (2, 1, 1, 6)])
@pytest.mark.parametrize("turned", [True, False])
def test_attention_in_every_form(scale: str, mask: tuple[int, ...] | None, turned: bool) -> None:
    graph = fused(fuse_attention, lambda build: attention(build, scale=scale, mask=mask, turned=turned))
    found = graph.nodes[-1]
    assert found.op == "Attention"
    assert found.number("scale", 1.0) == pytest.approx(0.25 if scale else 1.0)
    assert len(found.inputs) == (3 if mask is None else 4)
    assert found.integer("k_transposed") == (0 if turned else 1)
    assert len(graph.nodes) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"axis": 2},
        {"leak": "scores"},
        {"leak": "softmax"},
        {"scale": "Mul", "late_scale": True, "mask": (5, 6)},
    ],
)
def test_what_only_looks_like_attention_is_left(change: dict[str, object]) -> None:
    graph = fused(fuse_attention, lambda build: attention(build, **change))  # type: ignore[arg-type]
    assert "Attention" not in graph.count()


def test_a_mask_that_makes_more_scores_is_no_mask() -> None:
    def write(build: Builder) -> str:
        q, k, v = (build.input(name, 5, 4) for name in "qkv")
        scores = build.op("MatMul", q, build.op("Transpose", k, perm=(1, 0)))
        masked = build.op("Add", scores, build.input("mask", 3, 5, 5))
        return build.op("MatMul", build.op("Softmax", masked, axis=2), v)

    assert "Attention" not in fused(fuse_attention, write).count()


def test_a_scale_for_each_head_is_no_scale() -> None:
    def write(build: Builder) -> str:
        q, k, v = (build.input(name, 3, 5, 4) for name in "qkv")
        scores = build.op("MatMul", q, build.op("Transpose", k, perm=(0, 2, 1)))
        scaled = build.op("Mul", scores, build.constant([[[0.5]], [[0.25]], [[0.1]]]))
        return build.op("MatMul", build.op("Softmax", scaled, axis=2), v)

    assert "Attention" not in fused(fuse_attention, write).count()


def multi_head(build: Builder, back: tuple[int, ...] = (0, 2, 1, 3)) -> str:
    """Of q [2, 5, 8], k and v [2, 6, 8], split into two heads."""

    def split(value: str, length: int, perm: tuple[int, ...]) -> str:
        return build.op("Transpose", build.op("Reshape", value, shape=(2, length, 2, 4)), perm=perm)

    q = split(build.input("q", 2, 5, 8), 5, (0, 2, 1, 3))
    k = split(build.input("k", 2, 6, 8), 6, (0, 2, 3, 1))
    v = split(build.input("v", 2, 6, 8), 6, (0, 2, 1, 3))
    scores = build.op("Mul", build.op("MatMul", q, k), build.constant(0.5))
    y = build.op("MatMul", build.op("Softmax", scores, axis=3), v)
    y = build.op("Transpose", y, perm=back)
    return build.op("Reshape", y, shape=(2, 5, 8))


def test_the_split_into_heads_goes_into_the_attention() -> None:
    graph = fused(fuse_attention, multi_head)
    assert graph.count() == {"Attention": 1}
    assert graph.nodes[0].inputs == ("q", "k", "v")
    assert graph.nodes[0].attributes == {"heads": 2, "scale": 0.5}


def test_a_result_whose_heads_are_not_put_back_keeps_its_split() -> None:
    graph = fused(fuse_attention, lambda build: multi_head(build, back=(0, 1, 2, 3)))
    assert graph.count()["Attention"] == 1
    assert graph.count()["Reshape"] == 4
    assert all(node.integer("heads") == 0 for node in graph.nodes)


def test_keys_that_come_transposed_keep_the_split() -> None:
    def write(build: Builder) -> str:
        q = build.op("Transpose", build.op("Reshape", build.input("q", 2, 5, 8), shape=(2, 5, 2, 4)), perm=(0, 2, 1, 3))
        k, v = build.input("k", 2, 2, 4, 6), build.input("v", 2, 2, 6, 4)
        y = build.op("MatMul", build.op("Softmax", build.op("MatMul", q, k), axis=3), v)
        return build.op("Reshape", build.op("Transpose", y, perm=(0, 2, 1, 3)), shape=(2, 5, 8))

    graph = fused(fuse_attention, write)
    assert graph.count() == {"Reshape": 2, "Transpose": 2, "Attention": 1}


def test_fuse_does_all_of_it() -> None:
    def write(build: Builder) -> str:
        x = layer_norm(build)
        y = build.op("Add", build.op("MatMul", x, build.constant(weights(4, 4))), build.constant(weights(4)))
        return build.op("Add", x, _outer(build, y, _erf_part(build, y), "(x*(1+t))*half"))

    assert fused(fuse, write).count() == {"LayerNormalization": 1, "Linear": 1, "Gelu": 1, "Add": 1}
    everything = fused(lambda graph: fuse(graph, activations=["Gelu"], residuals=True, merge=2), write)
    assert everything.count() == {"LayerNormalization": 1, "Linear": 1}
