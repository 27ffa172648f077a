"""One network written in two ways has one map."""

import functools
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import composites, rules
from jaxsal.engine.rewire import rewire, sites
from tests.engine.networks import conv

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(2, 3, 3, 2))
KERNEL, W, G, Q = (RANDOM.normal(size=shape) for shape in ((3, 3, 2, 4), (18, 4), (18, 4), (4, 4)))
SCALE, SHIFT = np.array([-1.0, 2.0, -0.5, 1.0]), np.array([1.0, -2.0, 0.5, 3.0])
V = RANDOM.normal(size=(4, 1))


def relevance(model, composite, x):
    y, back = jax.vjp(rewire(model, composite), x)
    return back(y)[0]


def kinds(model, composite=None, x=X):
    return " ".join(site.kind for site, _ in sites(model, jnp.asarray(x), composite or composites.epsilon_plus()))


def flat(x):
    return x.reshape(len(x), -1)


def one_image(x):
    z = conv(x[None], KERNEL)[0]
    return jax.nn.relu(z * SCALE[None, None] + SHIFT[None, None]).sum((0, 1)) @ V


def images(x):
    z = conv(x, KERNEL)
    return jax.nn.relu(z * SCALE[None, None, None] + SHIFT[None, None, None]).sum((1, 2)) @ V


def shuffled(x, behind):
    """The scale behind a pixel shuffle, or before it."""
    z = conv(x, KERNEL)

    def shuffle(z):
        return z.reshape(2, 3, 3, 2, 2).transpose(0, 1, 3, 2, 4).reshape(2, 6, 3, 2)

    scale = SCALE[:2]
    z = shuffle(z) * scale[None, None, None] if behind else shuffle(z * np.tile(scale, 2)[None, None, None])
    return jax.nn.relu(z).reshape(2, -1)[:, ::5]


def cast(x, between):
    """A layer in half of the precision with its bias, and the scale in the whole."""
    half = jnp.bfloat16 if between else x.dtype
    z = (flat(x).astype(half) @ jnp.asarray(W, half) + jnp.asarray(SHIFT, half)[None]).astype(x.dtype)
    return jax.nn.relu(z * SCALE.astype(x.dtype)[None] + 1) @ V.astype(x.dtype)


def gated(gate):
    return lambda x: (gate(flat(x) @ G) * (flat(x) @ W)) @ V


def divided(quotient):
    return lambda x: quotient(flat(x) @ W, 1 + jnp.abs(flat(x) @ G)) @ V


def normalised(by_power):
    """Local response normalisation."""

    def model(x):
        n = 1 + 0.1 * lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, 2), (1, 1, 1, 1), "SAME")
        return (x * n**-0.75 if by_power else x / n**0.75).reshape(2, -1) @ W

    return model


def leaky(z):
    return jnp.where(z > 0, z, 0.1 * z)


SAME = {
    "one image mapped over": (jax.vmap(one_image), images),
    "a scale behind a pixel shuffle": (
        functools.partial(shuffled, behind=True), functools.partial(shuffled, behind=False),
    ),
    "a sigmoid the other way round": (gated(lambda g: 1 - jax.nn.sigmoid(g)), gated(lambda g: jax.nn.sigmoid(-g))),
    "a sigmoid written out": (gated(lambda g: 1 / (1 + jnp.exp(-g))), gated(jax.nn.sigmoid)),
    "a quotient": (divided(lambda a, b: a * (1 / b)), divided(lambda a, b: a / b)),
    "a quotient, held": (divided(lambda a, b: a / b), divided(lambda a, b: a / lax.stop_gradient(b))),
    "normalised by a power": (normalised(True), normalised(False)),
    "a leaky ReLU as a scale": (
        lambda x: (lambda z: z * jnp.where(z > 0, 1.0, 0.1))(flat(x) @ W) @ V, lambda x: leaky(flat(x) @ W) @ V,
    ),
    "a softmax by a reciprocal": (
        gated(lambda g: jnp.exp(g) * (1 / jnp.exp(g).sum(1, keepdims=True))), gated(jax.nn.softmax),
    ),
    "broadcast, divided": (
        lambda x: (SHIFT[None] / (2 + jnp.abs(x).mean((1, 2, 3))[:, None])) @ V,
        lambda x: jnp.broadcast_to(1 / (2 + jnp.abs(x).mean((1, 2, 3))[:, None]), (2, 4)) @ (SHIFT[:, None] * V),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_two_spellings_of_a_network(x64, name):
    composite = composites.z_plus()

    @quick
    def run(x):
        return [(model(x), rewire(model, composite)(x), relevance(model, composite, x)) for model in SAME[name]]

    first, second = run(jnp.asarray(X))
    assert float(jnp.abs(second[2]).max()) > 1e-3
    chex.assert_trees_all_close(first, second, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(first[0], first[1], rtol=1e-10)


def test_a_cast_between_a_layer_and_its_scale():
    x = jnp.asarray(X, jnp.float32)
    runs = [functools.partial(cast, between=between) for between in (True, False)]
    assert kinds(runs[0], x=x) == kinds(runs[1], x=x) == "dense activation dense"
    found, expected = (quick(functools.partial(relevance, run, composites.z_plus()))(x) for run in runs)
    chex.assert_trees_all_close(found, expected, atol=0.03 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("composite", [composites.plain(), composites.z_plus(False)], ids=["gradient", "z+"])
def test_a_layer_that_gives_another_dtype_than_it_gets(composite):
    def model(x):
        z = lax.dot_general(
            flat(x), jnp.asarray(W, x.dtype), (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        scaled = (z * SCALE.astype(np.float32)[None]).astype(x.dtype) + SHIFT.astype(x.dtype)[None]
        return jax.nn.relu(scaled) @ jnp.asarray(V, x.dtype)

    x = jnp.asarray(X, jnp.bfloat16)
    y, back = jax.vjp(rewire(model, composite), x)
    assert y.dtype == model(x).dtype == back(y)[0].dtype == jnp.bfloat16
    chex.assert_trees_all_close(y.astype(jnp.float32), model(x).astype(jnp.float32), atol=0.2)


def test_a_quotient_loses_nothing(x64):
    def model(x):
        a = jnp.abs(flat(x))
        return (a @ np.abs(W)) / (a @ W**2)

    x = jnp.asarray(X)
    composite = composites.epsilon(1e-12, bias=False)
    assert kinds(lambda x: (flat(x) @ np.abs(W)) / (flat(x) @ W**2)) == "dense statistic affine"
    found = quick(functools.partial(relevance, model, composite))(x)
    chex.assert_trees_all_close(found.sum((1, 2, 3)), model(x).sum(1), rtol=1e-8)


def test_a_bias_behind_an_average_is_none_of_its_parts(x64):
    def model(x):
        return (jax.nn.relu(x).mean((1, 2)) + np.array([-0.2, -0.3])[None]) @ V[:2]

    x = jnp.asarray(X)
    found = quick(functools.partial(relevance, model, composites.z(bias=False)))(x)
    chex.assert_trees_all_close(found.sum((1, 2, 3)), model(x)[:, 0], rtol=1e-4)
    assert kinds(model) == "activation average affine dense"


@pytest.mark.parametrize("rectify", [lambda h: jnp.maximum(h, 0), lambda h: jnp.where(h >= 0, h, 0)])
def test_a_relu_of_zeros_passes_nothing_on(rectify):
    for composite in (composites.plain(), composites.guided_backprop()):
        y, back = jax.vjp(rewire(lambda x: rectify(x).sum((1, 2)), composite), jnp.zeros((1, 2, 2)))
        assert not back(jnp.ones_like(y))[0].any()


def test_a_relu_that_is_added_to_its_own_input_is_still_one():
    x = jnp.array([[[1.0, 1.0]]])

    def model(x):
        return (x + 2 * jax.nn.relu(x)).sum(1) @ jnp.array([[-1.0], [1.0]])

    for composite in (composites.guided_backprop(), composites.deconvnet()):
        y, back = jax.vjp(rewire(model, composite), x)
        assert back(jnp.ones_like(y))[0].ravel().tolist() == [-1.0, 3.0]


def hard_swish(x):
    return x * jax.nn.relu6(x + 3) / 6


def test_a_relu_that_scales_its_own_input_is_part_of_an_activation():
    assert kinds(hard_swish) == "activation affine"


def test_a_maximum_of_two_values_has_a_rule(x64):
    def model(x):
        return jnp.maximum(flat(x) @ W, flat(x) @ G) @ V

    x = jnp.asarray(X)
    assert kinds(model) == "dense dense pool dense"
    halves = replace(composites.plain(), pool=rules.repeated)
    found = quick(functools.partial(relevance, model, halves))(x)
    chex.assert_trees_all_close(flat(found), model(x) @ V.T @ (W + G).T, rtol=1e-10)


def test_a_dilated_pool_is_repeated_where_its_window_lies(x64):
    def pooled(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID", window_dilation=(1, 2, 1))

    def model(x):
        return pooled(x).sum(1)

    y, back = jax.vjp(rewire(model, replace(composites.plain(), pool=rules.repeated)), jnp.ones((1, 5, 1)))
    assert back(jnp.ones_like(y))[0].ravel().tolist() == [1, 1, 2, 1, 1]


def normed(x):
    h = flat(x) @ W
    return (h - h.mean(1, keepdims=True)) @ V


def test_the_rule_of_a_statistic_is_asked_and_called(x64):
    x = jnp.asarray(X)
    assert kinds(normed) == "dense statistic affine dense"
    doubled = replace(composites.epsilon(bias=True), statistic=lambda mean: 2 * lax.stop_gradient(mean))
    h = flat(X) @ W
    chex.assert_trees_all_close(rewire(normed, doubled)(x), (h - 2 * h.mean(1, keepdims=True)) @ V, rtol=1e-10)
    for model in (gated(jax.nn.sigmoid), divided(lambda a, b: a / b)):
        assert " statistic affine dense" in kinds(model)
        free = replace(composites.epsilon(), statistic=rules.gradient)
        assert " product dense" in kinds(model, free)


def deep(x):
    h = jax.nn.relu(flat(x) @ W + SHIFT[None])
    return ((h + jax.nn.softplus(h @ Q)) * jax.nn.sigmoid(flat(x) @ G)) @ V


@pytest.mark.parametrize("composite", [composites.epsilon(1e-2), composites.gamma()], ids=["epsilon", "gamma"])
def test_relevance_can_be_differentiated(x64, composite):
    x, direction = jnp.asarray(X), jnp.asarray(RANDOM.normal(size=X.shape))

    def total(x):
        return (relevance(deep, composite, x) ** 2).sum()

    @quick
    def run(x):
        step = 1e-5 * direction
        return jax.jvp(total, (x,), (direction,))[1], (total(x + step) - total(x - step)) / 2e-5

    chex.assert_trees_all_close(*run(x), rtol=1e-5)


def test_an_infinite_derivative_that_is_not_asked_for():
    y, back = jax.vjp(rewire(lambda x: jnp.sqrt(x).sum(1), composites.epsilon()), jnp.zeros((1, 2, 1)))
    assert bool(jnp.isfinite(back(y)[0]).all())
    mapped = jax.vmap(lambda x: relevance(lambda x: jnp.sqrt(x).sum(1), composites.epsilon(), x))
    assert bool(jnp.isfinite(jax.jit(mapped)(jnp.zeros((2, 1, 2, 1)))).all())
