"""The rewired network against the network itself, over many kinds of networks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import composites, rules
from jaxsal.engine.rewire import rewire, sites
from tests.engine.networks import NETWORKS, PLAIN, TEXTBOOK, conv

_Z = rules.z(1e-14)
EXACT = composites.uniform(_Z, affine=_Z, average=_Z, sum=rules.in_proportion(1e-14))
SHORT = {"convolution": "conv", "activation": "act"}
# tiny programs: what costs is compiling them
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
each = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


@each
def test_gradients_and_lrp_are_those_of_the_textbook(x64, network):
    x, model = network.image(), network.model(PLAIN)
    seed = np.random.default_rng(3)

    @quick
    def run(x):
        y, back = jax.vjp(model, x)
        g = jnp.asarray(seed.normal(size=y.shape))
        rewired, back_rewired = jax.vjp(rewire(model, composites.plain()), x)
        relevance = jax.vjp(rewire(model, EXACT), x)[1](g * y)[0]
        textbook = x * jax.vjp(network.model(TEXTBOOK), x)[1](g)[0]
        return (rewired, back_rewired(g)[0], relevance), (y, back(g)[0], textbook)

    found, expected = run(x)
    assert float(jnp.abs(expected[2]).max()) > 1e-3
    chex.assert_trees_all_close(found[:2], expected[:2], rtol=1e-10, atol=1e-12)
    # the rule of products is stabilised by 1e-6
    tolerance = 1e-3 if "product" in network.sites else 1e-8
    chex.assert_trees_all_close(found[2], expected[2], rtol=tolerance, atol=tolerance)


@each
def test_sites_are_those_of_the_network(x64, network):
    found = sites(network.model(PLAIN), network.image(), EXACT)
    assert " ".join(SHORT.get(site.kind, site.kind) for site, _ in found) == network.sites


def named(name):
    return next(network for network in NETWORKS if network.name == name)


def relevance(model, x, composite):
    y, back = jax.vjp(rewire(model, composite), x)
    return back(jnp.zeros_like(y).at[:, 0].set(y[:, 0]))[0]


def test_without_bias_relevance_sums_to_the_output(x64):
    """Through BatchNorm, ReLUs and a residual sum."""
    network = named("residual")
    model, x = network.model(PLAIN), network.image()
    rule = rules.z(1e-14, bias=False)
    composite = composites.uniform(rule, sum=rules.in_proportion(1e-14))
    found = quick(lambda x: relevance(model, x, composite))(x)
    chex.assert_trees_all_close(found.sum((1, 2, 3)), model(x)[:, 0], rtol=1e-9)


@pytest.mark.parametrize("name", ["instance_norm", "attention", "squeezed_and_excited"])
def test_what_is_held_constant_is_so_for_an_image_alone_too(x64, name):
    """A statistic of a single image has the shape of a scale per channel, and still is no part of the weights."""
    network = named(name)
    model, x = network.model(PLAIN), network.image()
    kinds = [[site.kind for site, _ in sites(model, part, EXACT)] for part in (x, x[:1])]
    assert kinds[0] == kinds[1]
    run = quick(lambda x: relevance(model, x, composites.gamma()))
    chex.assert_trees_all_close(run(x)[1:], run(x[1:]), rtol=1e-9, atol=1e-12)


def test_images_and_networks_may_be_mapped_over(x64):
    x = named("conv_bn").image()
    kernels = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 2, 3)))

    def one(kernel, x):
        return relevance(lambda x: jax.nn.relu(conv(x, kernel)).mean((1, 2)), x, composites.epsilon_plus())

    @quick
    def run(kernels, x):
        over_images = jax.vmap(lambda x: one(kernels[0], x[None])[0])(x)
        return over_images, jax.vmap(one, (0, None))(kernels, x), jnp.stack([one(kernel, x) for kernel in kernels])

    over_images, over_networks, expected = run(kernels, x)
    chex.assert_trees_all_close(over_images, expected[0], rtol=1e-9)
    chex.assert_trees_all_close(over_networks, expected, rtol=1e-9)


def test_a_scan_over_layers_is_the_loop(x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 3)))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 3)))

    def scanned(x):
        return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, weights)[0].sum(1)

    def looped(x):
        for w in weights:
            x = jax.nn.relu(x @ w)
        return x.sum(1)

    run = quick(lambda x: [relevance(model, x, composites.gamma()) for model in (scanned, looped)])
    chex.assert_trees_all_close(*run(x), rtol=1e-12)


def test_the_first_of_equal_maxima_takes_all():
    x = jnp.array([2.0, 2.0, 1.0, 2.0]).reshape(1, 4, 1)

    def pooled(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 2, 1), "VALID").sum(1)

    assert relevance(pooled, x, composites.epsilon()).ravel().tolist() == pytest.approx([2, 0, 0, 2], abs=1e-4)
    assert relevance(lambda x: x.max(1), x, composites.epsilon()).ravel().tolist() == [2, 0, 0, 0]


RELUS = {
    "relu": jax.nn.relu,
    "maximum": lambda h: jnp.maximum(h, 0),
    "maximum, the other way round": lambda h: jnp.maximum(0.0, h),
    "where": lambda h: jnp.where(h > 0, h, 0),
    "where, the other way round": lambda h: jnp.where(0 <= h, h, jnp.zeros_like(h)),  # noqa: SIM300
    "by its sign": lambda h: h * (h > 0).astype(h.dtype),
    "relu6": jax.nn.relu6,
    "clip": lambda h: jnp.clip(h, 0, 6),
    "of a square": lambda h: jax.nn.relu(h * jnp.abs(h)),
}


@pytest.mark.parametrize("name", RELUS)
def test_relus_are_told_from_what_they_compute(name):
    """Guided backprop lets nothing below 0 pass, DeconvNet nor what the ReLU stopped on the way forward."""
    weights = jnp.array([[1.0, -1.0], [1.0, 1.0]])
    x = jnp.array([[[-1.0, 2.0]]])  # sums of 1 and 3

    def model(x):
        return RELUS[name](x[:, 0] @ weights) @ jnp.array([[-1.0], [1.0]])

    for composite, seen in ((composites.guided_backprop(), [0.0, 1.0]), (composites.deconvnet(), [0.0, 1.0])):
        y, back = jax.vjp(rewire(model, composite), x)
        signal = jnp.array(seen) * (2 * jnp.array([1.0, 3.0]) if name == "of a square" else 1)
        assert jnp.allclose(back(jnp.ones_like(y))[0], (signal @ weights.T)[None, None])
