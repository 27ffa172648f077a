"""Tails under masks: the products of the first convolution, wherever it stands, and every tail that has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal import jaxpr
from jaxsal.engine.lower import lower
from jaxsal.engine.masked import masked


def features_and_masks(shape, channels):
    k_features, k_mask = jax.random.split(jax.random.key(0))
    return jax.random.normal(k_features, (1, *shape, channels)), jax.random.normal(k_mask, (3, *shape))


def agree(tail, features, masks):
    under = masked(tail, features)
    found, found_gradient = jax.vmap(jax.value_and_grad(lambda m: (under(m) ** 2).sum()))(masks)
    expected = [jax.value_and_grad(lambda m: (tail(features * m[None, ..., None]) ** 2).sum())(mask) for mask in masks]
    np.testing.assert_allclose(found, [value for value, _ in expected], rtol=1e-4)
    scale = max(float(jnp.abs(gradient).max()) for _, gradient in expected)
    np.testing.assert_allclose(found_gradient, [g for _, g in expected], atol=1e-5 * scale)


def convolutions(fn, *args):
    """How many convolutions a function runs, calls and both branches of a choice counted."""

    def count(program):
        total = 0
        for eqn in program.eqns:
            bodies = [jaxpr.inner(eqn)[0]] if jaxpr.inner(eqn) else [b.jaxpr for b in eqn.params.get("branches", ())]
            total += (eqn.primitive.name == "conv_general_dilated") + sum(map(count, bodies))
        return total

    return count(jaxpr.trace(fn, *args).jaxpr)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((9, 7, 8), (2, 2, 2), 2, "SAME"),
        ((9, 7, 8), (3, 3, 3), 1, "SAME"),
        ((9, 7, 8), (3, 2, 1), (1, 2, 3), "VALID"),
        ((11, 10), (5, 5), 2, ((2, 4), (0, 1))),
    ],
)
def test_a_convolution_first_is_done_once(shape, kernel, stride, padding):
    first = nnx.Conv(4, 6, kernel, strides=stride, padding=padding, rngs=nnx.Rngs(0))
    second = nnx.Conv(6, 2, (1,) * len(shape), rngs=nnx.Rngs(1))
    features, masks = features_and_masks(shape, 4)

    def tail(f):
        return second(jax.nn.relu(first(f))).sum(range(1, len(shape) + 1))

    agree(tail, features, masks)
    whole = convolutions(lower(lambda m: tail(features * m[None, ..., None])), masks[0])
    assert convolutions(masked(tail, features), masks[0]) == whole - convolutions(lower(first), features)


def test_it_is_found_inside_calls_that_share_their_operations():
    conv = jax.jit(nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0)))  # twice the same call: only the first is of the features
    features, masks = features_and_masks((8, 8), 4)

    def tail(f):
        return conv(conv(f))

    agree(tail, features, masks)
    assert convolutions(tail, features) == 2
    assert convolutions(masked(tail, features), masks[0]) == 1


@pytest.mark.parametrize("kind", ["relu first", "residual", "grouped", "no convolution", "twice in one operation"])
def test_other_tails_see_the_masked_features(kind):
    conv = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    grouped = nnx.Conv(4, 4, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    tails = {
        "relu first": lambda f: conv(jax.nn.relu(f)),
        "residual": lambda f: conv(f) + f,
        "grouped": grouped,
        "no convolution": lambda f: f.sum((1, 2)),
        "twice in one operation": lambda f: f * f,
    }
    agree(tails[kind], *features_and_masks((8, 8), 4))


def test_a_gradient_of_its_own_is_kept():
    conv = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    tail = jax.custom_vjp(lambda f: conv(f))
    tail.defvjp(lambda f: (conv(f), f), lambda f, g: (jnp.full_like(f, 7),))
    features, masks = features_and_masks((8, 8), 4)
    under = masked(tail, features)
    np.testing.assert_allclose(under(masks[0]), tail(features * masks[0][None, ..., None]), rtol=1e-5)
    gradient = jax.grad(lambda m: under(m).sum())(masks[0])
    np.testing.assert_allclose(gradient, 7 * features[0].sum(-1), rtol=1e-5)


@pytest.mark.parametrize(("limit", "most"), [("_MOST", 10), ("_MOST_TAPS", 8)])
def test_products_that_would_not_fit_are_not_made(monkeypatch, limit, most):
    monkeypatch.setattr(f"jaxsal.engine.masked.{limit}", most)
    conv = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
    features, masks = features_and_masks((8, 8), 4)
    agree(conv, features, masks)
    assert convolutions(masked(conv, features), masks[0]) == 1


def test_the_precision_asked_for_is_that_of_the_products():
    conv = nnx.Conv(4, 4, (3, 3), precision="highest", rngs=nnx.Rngs(0))
    features, masks = features_and_masks((8, 8), 4)
    agree(conv, features, masks)
    program = jaxpr.trace(lambda f, m: masked(conv, f)(m), features, masks[0]).jaxpr

    def products(program):
        for eqn in program.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn.params["precision"]
            elif jaxpr.inner(eqn):
                yield from products(jaxpr.inner(eqn)[0])

    found = list(products(program))
    assert len(found) == 9 + 1
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_mixed_precision_is_left_to_the_convolution():
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 4, 2), jnp.bfloat16)
    features, masks = (a.astype(jnp.bfloat16) for a in features_and_masks((8, 8), 4))

    def tail(f):
        return jax.lax.conv_general_dilated(
            f, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=jnp.float32
        )

    found, expected = masked(tail, features)(masks[0]), tail(features * masks[0][None, ..., None])
    assert found.dtype == expected.dtype == jnp.float32
    assert (found == expected).all()
