"""`Linear` and `Attention`: found in every form that exporters write; what only looks like them is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hetero.graph.passes import fuse_activations, fuse_attention, fuse_linear, fuse_residuals, merge_linears
from tests.graph.building import Builder, fused, weights

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


LOWEST = float(np.finfo(np.float32).min)


def chosen(build: Builder, low: float, *, scores_first: bool = True, added: int = 0, many: bool = False) -> str:
    """Attention of q, k and v [2, 3, 5, 4] whose scores are replaced where a condition [5, 5] is not true."""
    q, k, v = (build.input(name, 2, 3, 5, 4) for name in "qkv")
    scores = build.op("MatMul", q, build.op("Transpose", k, perm=(0, 1, 3, 2)))
    condition = build.op("Greater", build.input("seen", *((4, 1, 1, 5, 5) if many else (5, 5))), build.constant(-0.5))
    ways = (scores, build.constant(low)) if scores_first else (build.constant(low), scores)
    scores = build.op("Where", condition, *ways)
    for place in range(added):
        scores = build.op("Add", scores, build.input(f"mask{place}", 2, 1, 1, 5))
    return build.op("MatMul", build.op("Softmax", scores, axis=-1), v)


@pytest.mark.parametrize("low", [LOWEST, -np.inf])
@pytest.mark.parametrize("scores_first", [True, False])
@pytest.mark.parametrize("added", [0, 1, 3])
def test_scores_that_where_replaces_have_a_mask(low: float, scores_first: bool, added: int) -> None:
    graph = fused(fuse_attention, lambda build: chosen(build, low, scores_first=scores_first, added=added))
    expected = {"Greater": 1, "Where": 1, "Attention": 1, **({"Add": added} if added else {})}
    assert graph.count() == expected


@pytest.mark.parametrize("change", [{"low": -100.0}, {"low": 0.0}, {"low": np.inf}, {"low": LOWEST, "many": True}])
def test_a_replaced_score_that_a_sum_would_not_give_stays(change: dict[str, Any]) -> None:
    build = Builder()
    before = build.graph(chosen(build, **change))
    assert "Attention" not in fuse_attention(before).count()


def joined_heads(build: Builder, *, mask: tuple[int, ...] = (), wrong: bool = False, flat: bool = False) -> str:
    """As `multi_head`, with batch and heads as one dimension, and the queries scaled before they are split."""

    def split(value: str, length: int) -> str:
        apart = build.op("Transpose", build.op("Reshape", value, shape=(2, length, 2, 4)), perm=(0, 2, 1, 3))
        return build.op("Reshape", apart, shape=(4, length, 4))

    q = split(build.op("Mul", build.input("q", 2, 5, 8), build.constant(0.5)), 5)
    k, v = split(build.input("k", 2, 6, 8), 6), split(build.input("v", 2, 6, 8), 6)
    scores = build.op("MatMul", q, build.op("Transpose", k, perm=(0, 2, 1)))
    scores = build.op("Add", scores, build.input("mask", *mask)) if mask else scores
    y = build.op("MatMul", build.op("Softmax", scores, axis=2), v)
    y = build.op("Transpose", build.op("Reshape", y, shape=(1, 4, 5, 4) if wrong else (2, 2, 5, 4)), perm=(0, 2, 1, 3))
    return build.op("Reshape", y, shape=(10, 8) if flat else (1, 5, 16) if wrong else (2, 5, 8))


@pytest.mark.parametrize("mask", [(), (5, 6), (6,)])
def test_heads_that_are_one_with_the_batch_go_into_the_attention(mask: tuple[int, ...]) -> None:
    graph = fused(fuse_attention, lambda build: joined_heads(build, mask=mask))
    assert graph.count() == {"Attention": 1}
    assert graph.nodes[0].inputs[:3] == ("q", "k", "v")
    assert graph.nodes[0].attributes == {"heads": 2, "scale": 0.5}


def test_a_result_that_is_made_flat_keeps_one_reshape() -> None:
    assert fused(fuse_attention, lambda build: joined_heads(build, flat=True)).count() == {"Attention": 1, "Reshape": 1}


@pytest.mark.parametrize("change", [{"mask": (4, 1, 6)}, {"wrong": True}])
def test_heads_that_are_not_those_of_the_attention_stay_split(change: dict[str, Any]) -> None:
    graph = fused(fuse_attention, lambda build: joined_heads(build, **change))
    assert graph.count()["Attention"] == 1
    assert all(node.integer("heads") == 0 for node in graph.nodes)


@pytest.mark.parametrize("perm", [(0, 2, 1), (0, 1, 2)])
def test_keys_that_are_turned_with_batch_and_heads_as_one(perm: tuple[int, ...]) -> None:
    def write(build: Builder) -> str:
        q, k, v = (build.input(name, 2, 3, 5, 5) for name in "qkv")
        keys = build.op("Transpose", build.op("Reshape", k, shape=(6, 5, 5)), perm=perm)
        keys = build.op("Reshape", keys, shape=(2, 3, 5, 5))
        scores = build.op("MatMul", q, build.op("Mul", keys, build.constant(0.5)))
        return build.op("MatMul", build.op("Softmax", scores, axis=-1), v)

    graph = fused(fuse_attention, write)
    assert graph.count()["Attention"] == 1
    assert ("Transpose" in graph.count()) == (perm != (0, 2, 1))
