"""The rewired network against the network itself, over many kinds of networks."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import composites, rules
from jaxsal.engine.rewire import rewire, sites
from tests.engine.networks import NETWORKS, PLAIN, TEXTBOOK

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
