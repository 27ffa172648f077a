"""Networks to explain, small enough to know everything about."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

DIMS = {2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def images(shape, seed=0, dtype=None):
    """Standard normal numbers, in the widest floating point there is."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype or jnp.result_type(float))


def small_network(x, outputs=3, width=4, seed=0):
    """Convolution, ReLU, max-pool, convolution, ReLU, dense, for the grid, the channels and the dtype of x."""
    rng = np.random.default_rng(seed)
    rank, c = x.ndim - 2, x.shape[-1]

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), x.dtype)

    params = [draw(*(3,) * rank, c, width), draw(width), draw(*(2,) * rank, width, width), draw(width)]
    features = jax.eval_shape(_features, params, x)
    return Partial(_network, [*params, draw(features.shape[1], outputs), draw(outputs)])


def linear_network(x, outputs=3, seed=0):
    """Dense, with a bias."""
    weights = np.random.default_rng(seed).normal(size=(x[0].size, outputs))
    return Partial(_linear, jnp.asarray(weights, x.dtype), jnp.ones((1, outputs), x.dtype))


def _linear(weights, bias, x):
    return x.reshape(len(x), -1) @ weights + bias


def _network(params, x):
    return _features(params[:4], x) @ params[4] + params[5][None]


def _features(params, x):
    rank = x.ndim - 2
    first, bias, second, shift = params
    one, two = (1,) * rank, (2,) * rank
    beside = (1,) * (rank + 1)
    h = lax.conv_general_dilated(x, first, one, "SAME", dimension_numbers=DIMS[rank]) + bias.reshape(*beside, -1)
    h = lax.reduce_window(jax.nn.relu(h), -jnp.inf, lax.max, (1, *two, 1), (1, *two, 1), "VALID")
    h = lax.conv_general_dilated(h, second, one, "SAME", dimension_numbers=DIMS[rank]) + shift.reshape(*beside, -1)
    return jax.nn.relu(h).reshape(len(x), -1)
