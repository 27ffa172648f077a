"""Graphs as data from others: what is not a network is told, and nothing is run or allocated for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.graph import Graph

WEIGHTS = {"dense.weight": {"kind": "parameter", "shape": [2, 3], "dtype": "float32"}}


def entry(name, op, *args, **more):
    return {"name": name, "op": op, "args": list(args), **more}


def node(name):
    return {"node": name}


def network(*nodes, output="out", weights=None, **more):
    content = {"dialect": "aten", "input": "x", "nodes": list(nodes), "output": node(output), **more}
    return Graph(3, shape=(2, 2), channels=2, graph=content, weights=WEIGHTS if weights is None else weights)


MEAN = entry("mean", "mean.dim", node("x"), [2, 3])
DENSE = entry("out", "linear.default", node("mean"), {"weight": "dense.weight"})


def test_a_graph_that_is_one():
    assert network(MEAN, DENSE)(jnp.ones((4, 2, 2, 2))).shape == (4, 3)


NOT_BUILT_SO = {
    "another entry": ([{**MEAN, "code": "import os"}, DENSE], r"nodes.0.code: Extra inputs"),
    "no name": ([{"op": "relu.default"}, DENSE], r"nodes.0.name: Field required"),
    "operands that are no list": ([{**MEAN, "args": {"a": 1}}, DENSE], r"nodes.0.args: Input should be a valid list"),
    "a tag that is no text": ([{**MEAN, "tags": [1]}, DENSE], r"nodes.0.tags.0: Input should be a valid string"),
    "two names": ([MEAN, {**DENSE, "name": "mean"}, DENSE], r"the name 'mean' is given twice"),
    "the image's name": ([{**MEAN, "name": "x"}, MEAN, DENSE], r"the name 'x' is given twice"),
    "two kinds": ([{**MEAN, "args": [{"node": "x", "weight": "dense.weight"}]}, DENSE], r"operand .* is unknown"),
    "another kind": ([{**MEAN, "args": [{"file": "x"}]}, DENSE], r"operand \{'file': 'x'\} is unknown"),
    "a kind with a list": ([{**MEAN, "args": [{"node": ["x"]}]}, DENSE], r"operand .* is unknown"),
    "a long number": ([{**MEAN, "args": [node("x"), 10**40]}, DENSE], r"number 10+"),
    "numbers in words": ([{**MEAN, "args": [node("x"), {"number": "1e5"}]}, DENSE], r"operand .* is unknown"),
    "a dtype of JAX's names": ([{**MEAN, "kwargs": {"dtype": {"dtype": "sum"}}}, DENSE], r"dtype 'sum' is unknown"),
    "a dtype of objects": ([{**MEAN, "kwargs": {"dtype": {"dtype": "object_"}}}, DENSE], r"dtype 'object_' is unknown"),
    "later": ([entry("a", "relu.default", node("mean")), MEAN, DENSE], r"value 'mean' is read before it is computed"),
    "an unknown keyword": ([{**MEAN, "kwargs": {"where": 1}}, DENSE], r"TypeError in 'mean' \(mean.dim\): .*'where'"),
    "too many operands": ([{**MEAN, "args": [node("x"), [2], True, 1, 2]}, DENSE], r"TypeError in 'mean'"),
    "an axis too many": ([{**MEAN, "args": [node("x"), [7]]}, DENSE], r"IndexError in 'mean' \(mean.dim\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_BUILT_SO)
def test_what_is_not_built_so_is_told(case):
    nodes, message = NOT_BUILT_SO[case]
    with pytest.raises(ValueError, match=message):
        network(*nodes)
    with pytest.raises(ValueError, match="no network graph: more: Extra inputs"):
        network(MEAN, DENSE, more=1)


# JSON bears the first; whether going through its parts does is Python's affair: either is told
@pytest.mark.parametrize("depth", [800, 100_000])
def test_what_is_nested_without_end_is_told(depth):
    deep: list = []
    for _ in range(depth):
        deep = [deep]
    with pytest.raises(ValueError, match=r"no network graph: RecursionError|graph cannot be run: "):
        network({**MEAN, "args": [deep]}, DENSE)


HUGE = 2**40
TOO_MUCH = {
    "full": entry("big", "full.default", [HUGE, 4], 1.0),
    "arange": entry("big", "arange.default", HUGE),
    "repeat": entry("big", "repeat.default", node("x"), [HUGE, 1, 1, 1]),
    "expand": entry("big", "expand.default", node("mean"), [HUGE, -1, -1]),
    "padding": entry("big", "constant_pad_nd.default", node("x"), [HUGE, HUGE]),
    "upsampling": entry("big", "upsample_nearest2d.vec", node("x"), [HUGE, 2]),
    "interpolation": entry("big", "upsample_bilinear2d.vec", node("x"), [HUGE, 2], False),
    "pools": entry("big", "adaptive_max_pool2d.default", node("x"), [HUGE, 2]),
    "means": entry("big", "adaptive_avg_pool2d.default", node("x"), [HUGE, 2]),
    "texts": entry("big", "operator.mul", "a", HUGE),
    "lists": entry("big", "operator.mul", [1], HUGE),
    "formats": entry("big", "operator.mod", "%1000000000d", 1),
    "powers": entry("big", "operator.pow", 10, HUGE),
    "numbers": entry("big", "operator.mul", HUGE, HUGE),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MUCH)
def test_nothing_is_allocated_without_bound(case):
    with pytest.raises(ValueError, match=r"graph cannot be run: \w+ in 'big'|graph cannot be run: \w+: "):
        network(MEAN, TOO_MUCH[case], DENSE)


def test_all_weights_together_are_bounded_and_batches_are_not():
    many = {f"w{i}": {"kind": "buffer", "shape": [2**31], "dtype": "float32"} for i in range(3)}
    with pytest.raises(ValueError, match=r"weights of \d+ values, at most"):
        network(MEAN, DENSE, weights={**WEIGHTS, **many})
    scans = jax.ShapeDtypeStruct((2**31, 2, 2, 2), jnp.float32)
    assert jax.eval_shape(network(MEAN, DENSE), scans).shape == (2**31, 3)


def test_parts_without_number():
    """One by one, they would be gone through for hours."""
    big = entry("big", "full.default", [2**31], 1.0)
    for parts in (entry("parts", "unbind.int", node("big")), entry("parts", "split.Tensor", node("big"), 1)):
        with pytest.raises(ValueError, match="places along one axis"):
            network(MEAN, big, parts, DENSE)


def weights(**changed):
    return {"dense.weight": {**WEIGHTS["dense.weight"], **changed}}


@pytest.mark.parametrize(
    "described",
    [
        {"shape": [2**40, 3]},
        {"shape": [-2, 3]},
        {"shape": ["2", 3]},
        {"dtype": "object"},
        {"kind": "code"},
        {"more": 1},
    ],
)
def test_weights_that_are_none(described):
    with pytest.raises(ValueError, match=r"'dense.weight' is described by|weights of \d+ values"):
        network(MEAN, DENSE, weights=weights(**described))
    with pytest.raises(ValueError, match=r"an array of \d+ values"):
        Graph(3, shape=(2**20, 2**20), channels=2, graph={"dialect": "aten", "input": "x", "nodes": [],
                                                           "output": node("x")}, weights={})  # fmt: skip


def test_two_weights_in_one_place():
    with pytest.raises(ValueError, match=r"'dense' lies where another one does"):
        network(MEAN, DENSE, weights={**WEIGHTS, "dense": WEIGHTS["dense.weight"]})


def test_weights_of_any_name():
    """Neither the class's own names, nor those of what holds a layer's weights, are in the way."""
    names = ["fill.weight", "fill_.weight", "_program.weight", "__call__.weight", "train.weight", "a.items", "a.keys",
             "a._b", "sow", "_paths", "_pytree__state.weight"]  # fmt: skip
    nodes, last = [MEAN], "mean"
    for i, name in enumerate(names):
        nodes.append(entry(f"n{i}", "mul.Tensor", node(last), {"weight": name}))
        last = f"n{i}"
    described = {name: {"kind": "parameter", "shape": [2], "dtype": "float32"} for name in names}
    model = network(*nodes, output=last, weights=described)
    model.fill({name: np.full(2, 2.0) for name in names})
    model.eval()
    x = jnp.ones((1, 2, 2, 2))
    np.testing.assert_array_equal(jax.jit(lambda model, x: model(x))(model, x), [[2.0 ** len(names)] * 2])
