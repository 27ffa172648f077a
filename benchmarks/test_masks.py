"""One gradient step of the shipped network's 14 masks, with and without shared products of the first convolution.

``python -m pytest benchmarks/test_masks.py --benchmark-only``: compare the rows' medians.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxsal
from jaxsal.engine.lower import lower
from jaxsal.engine.masked import masked


@pytest.fixture(scope="module")
def problem():
    loaded = jaxsal.load_model("morphometry-2mm")
    x = jax.random.uniform(jax.random.key(0), (1, *loaded.record.input.shape, 1))
    split = jaxsal.split(loaded.model, x, at=loaded.record.layer)
    features = lower(split.head)(x)
    masks = jnp.full((len(loaded.record.outputs), *features.shape[1:-1]), 0.01)
    return split.tail, features, masks


def gradients(under, count):
    def value(mask, index):
        return under(mask)[0, index]

    return jax.jit(lambda masks: jax.vmap(jax.grad(value))(masks, jnp.arange(count)))


@pytest.mark.parametrize("way", ["native", "lowered", "shared products"])
def test_a_step_of_all_masks(benchmark, problem, way):
    tail, features, masks = problem
    under = {
        "native": lambda mask: tail(features * mask[None, ..., None]),
        "lowered": lower(lambda mask: tail(features * mask[None, ..., None])),
        "shared products": masked(tail, features),
    }[way]
    step = gradients(under, len(masks))
    jax.block_until_ready(step(masks))
    benchmark(lambda: jax.block_until_ready(step(masks)))
