"""Scores pulled back to the image: which, from where, and how often the network is run for it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsal.attribution import choose, pull, score, seeds
from tests.attribution.goldens import golden
from tests.attribution.networks import images, relu_network


@jax.custom_vjp
def _half_back(x):
    return x


_half_back.defvjp(lambda x: (x, None), lambda _, g: (g / 2,))


@pytest.fixture
def case(x64):
    x = images((3, 4, 5, 2), seed=1)
    return relu_network(x, outputs=4), x


@functools.partial(jax.jit, static_argnames=("fn", "batch_size", "start"))
def pulled(model, x, choice, *, fn=None, batch_size=None, start="one"):
    return pull(model if fn is None else Partial(fn, model), x, choice, batch_size=batch_size, start=start)


@jax.jit
def each_output(model, x):
    """The gradient of every output, by the plain loop."""
    return jnp.stack([jax.grad(lambda x, k=k: model(x)[:, k].sum())(x) for k in range(4)])


def test_the_gradients_of_the_golden_network(x64, shared):
    reference = golden(shared)
    y, maps = jax.jit(lambda model, x: (model(x), pull(model, x, outputs="all")))(reference.model, reference.x)
    chex.assert_trees_all_close(y, reference.y, rtol=1e-12)
    chex.assert_trees_all_close(maps, np.stack([reference.maps[f"gradient/t{t}"] for t in (0, 1)]), rtol=1e-10)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_outputs_are_the_loop_over_them(case, batch_size):
    model, x = case
    found = pulled(model, x, choose(model, x, outputs=[2, 0, -1]), batch_size=batch_size)
    chex.assert_trees_all_close(found, each_output(model, x)[jnp.array([2, 0, 3])], rtol=1e-12)


def test_every_kind_of_target_is_the_gradient_of_its_score(case):
    model, x = case
    rows, each = jnp.arange(3), jnp.array([3, 0, 1])
    targets = [
        (-2, lambda y: y[:, 2]),
        (np.array([3, 0, 1]), lambda y: y[rows, each]),
        ([3, 0, 1], lambda y: y[rows, each]),
        (lambda y: y[:, 0] * y[:, 1], lambda y: y[:, 0] * y[:, 1]),
    ]
    for target, value in targets:

        @jax.jit
        def directly(model, x, value=value):
            y, back = jax.vjp(model, x)
            slope = jax.grad(lambda y: value(y).sum())(y)
            return y, back(slope)[0], back(y * slope)[0]

        y, expected, expected_from_value = directly(model, x)
        values = value(y)
        chex.assert_trees_all_close(score(y, target), values, rtol=1e-12)
        choice = choose(model, x, target)
        chex.assert_trees_all_close(pulled(model, x, choice), expected, rtol=1e-12)
        from_value = pulled(model, x, choice, start="value")
        chex.assert_trees_all_close(from_value, expected_from_value, rtol=1e-12)


def test_the_only_output_needs_no_target(case):
    model, x = case
    first = Partial(lambda model, x: model(x)[:, :1], model)
    chex.assert_trees_all_close(pulled(first, x, choose(first, x)), each_output(model, x)[0], rtol=1e-12)


def test_starting_from_the_value_of_several_outputs():
    y = images((3, 4))
    found = seeds(y, outputs="all", start="value")
    assert (np.asarray(found) == np.eye(4, dtype=np.float32)[:, None] * np.asarray(y)).all()
    assert (score(y, outputs=[1, 3]) == jnp.stack([y[:, 1], y[:, 3]])).all()


def test_a_backward_pass_of_its_own_is_used_as_it_is(case):
    model, x = case
    found = pulled(model, x, choose(model, x, 0), fn=lambda model, x: model(_half_back(x)))
    chex.assert_trees_all_close(found, each_output(model, x)[0] / 2, rtol=1e-12)


def test_the_forward_pass_runs_once_for_all_outputs(case):
    model, x = case
    runs = []

    def counted(model, x):
        jax.debug.callback(lambda: runs.append(1))
        return model(x)

    jax.block_until_ready(pulled(model, x, choose(model, x, outputs="all"), fn=counted, batch_size=1))
    jax.effects_barrier()
    assert len(runs) == 1


def test_targets_are_data(case):
    model, x = case
    expected, traces = each_output(model, x), []

    @jax.jit
    def compiled(model, x, choice):
        traces.append(1)
        return pull(model, x, choice)

    for target in (0, [1, 2, 3], np.array([3, 3, 0], np.int64)):
        found = compiled(model, x, choose(model, x, target))
        chex.assert_trees_all_close(found, expected[np.broadcast_to(target, 3), np.arange(3)], rtol=1e-12)
    for outputs in ([0, 1], [3, 2]):
        found = compiled(model, x, choose(model, x, outputs=outputs))
        chex.assert_trees_all_close(found, expected[np.array(outputs)], rtol=1e-12)
    assert len(traces) == 2  # one for targets, one for two outputs
    for k in (1, 2):  # a function with weights of its own
        found = compiled(model, x, choose(model, x, Partial(_weighted, jnp.eye(4)[k])))
        chex.assert_trees_all_close(found, expected[k], rtol=1e-12)
    assert len(traces) == 3


def _weighted(weights, y):
    return y @ weights


def test_a_traced_target_works_and_is_not_a_number_where_there_is_no_such_output(case):
    model, x = case
    expected = each_output(model, x)
    found = jax.jit(lambda model, x, target: pull(model, x, target))(model, x, jnp.array([1, 4, -1]))
    chex.assert_trees_all_close(found[0], expected[1, 0], rtol=1e-12)
    assert jnp.isnan(found[1]).any()
    chex.assert_trees_all_close(found[2], expected[3, 2], rtol=1e-12)
    several = jax.jit(lambda model, x, outputs: pull(model, x, outputs=outputs))(model, x, jnp.array([2, 7]))
    chex.assert_trees_all_close(several[0], expected[2], rtol=1e-12)
    assert jnp.isnan(several[1]).any()


BAD = [
    (dict(), "4 outputs: give target="),
    (dict(target=4), r"target got \[4\].*0 to 3"),
    (dict(target=[0, 1, -5]), r"target got \[-5\]"),
    (dict(target=[0, 1]), r"shape \(2,\).*one per image \(3\)"),
    (dict(target=1.0), "whole number"),
    (dict(target=True), "whole number"),
    (dict(target=0, outputs="all"), "Both target and outputs"),
    (dict(outputs="some"), "'some'"),
    (dict(outputs=[4]), r"\[4\]"),
    (dict(outputs=[]), "0 to 3"),
    (dict(outputs=1), "for a single one target="),
    (dict(outputs=[0.5]), "whole numbers"),
    (dict(target=lambda y: y), r"\(3, 4\).*one value per image"),
    (dict(target=0, start="f(x)"), '"one".*"value"'),
    (dict(outputs="all", batch_size=0), "batch_size got 0"),
]


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_what_cannot_be_answered_is_refused(asked, message):
    x = jnp.ones((3, 2, 2, 1))
    with pytest.raises((TypeError, ValueError), match=message):
        pull(lambda x: x.sum((1, 2)) @ jnp.ones((1, 4)), x, **asked)


def test_networks_that_return_something_else_are_refused():
    x = jnp.ones((3, 2, 2, 1))
    for bad in (lambda x: x, lambda x: x.sum((1, 2, 3)), lambda x: (x, x), lambda x: x.sum((1, 2))[:1]):
        with pytest.raises(ValueError, match="batch, outputs"):
            choose(bad, x, 0)
    with pytest.raises(TypeError, match="callable"):
        choose(3, x, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        choose(lambda x: x.sum((1, 2)), x.at[0, 0].set(jnp.nan))
