import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxsal.engine.lower import lower
from jaxsal.engine.unread import extents_read


def convolution(x, kernel, strides, padding):
    dims = ("NHWC", "HWIO", "NHWC") if x.ndim == 4 else ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dims)


def read_by(fn, *args):
    program = jax.make_jaxpr(fn)(*args).jaxpr
    return extents_read(program)[program.invars[0]]


X = jnp.ones((1, 9, 10, 8, 2))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda x: nnx.max_pool(jax.nn.relu(x), (3, 3, 3), (2, 2, 2)), (1, 9, 9, 7, 2)),
        (lambda x: lax.reduce_window(jnp.tanh(2 * x), 0.0, lax.add, *[(1, 4, 4, 4, 1)] * 2, "VALID"), (1, 8, 8, 8, 2)),
        (lambda x: nnx.max_pool(x, (3, 3, 3), (2, 2, 2), "SAME"), X.shape),
        (lambda x: nnx.max_pool(nnx.max_pool(x, (2,) * 3, (2,) * 3), (3,) * 3, (3,) * 3), (1, 6, 6, 6, 2)),
        (lambda x: (nnx.max_pool(x, (3, 3, 3), (3, 3, 3)), x[:, 8:]), X.shape),  # somebody else reads all of it
        (lambda x: nnx.max_pool(jnp.flip(x, 2), (3, 3, 3), (3, 3, 3)), X.shape),  # places change
        (lambda x: nnx.max_pool(jax.nn.softmax(x), (3, 3, 3), (3, 3, 3)), X.shape),  # channels see one another
        (lambda x: nnx.max_pool(jax.jit(lambda y: jnp.cumsum(y, 1))(x), (3, 3, 3), (3, 3, 3)), X.shape),
        (lambda x: nnx.max_pool(jax.nn.leaky_relu(x), (4, 4, 4), (4, 4, 4)), (1, 8, 8, 8, 2)),
        (lambda x: jnp.sum(x), X.shape),
    ],
)
def test_what_is_read(fn, expected):
    assert read_by(fn, X) == expected


CASES = [
    ((3, 3, 3), (1, 1, 1), "SAME", 9),
    ((5, 4, 3), (2, 1, 3), [(3, 1), (0, 4), (2, 2)], 9),
    ((3, 3, 3), (1, 1, 1), "VALID", 1),
]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("window", "strides", "padding", "channels"), CASES)
@pytest.mark.parametrize("pool", [2, 3, 4])
def test_a_network_is_the_same_without_what_is_not_read(x64, rank, window, strides, padding, channels, pool):
    keys = jax.random.split(jax.random.key(pool), 2)
    x = jax.random.normal(keys[0], (2, *(15, 13, 14)[-rank:], channels), jnp.float64)
    kernel = jax.random.normal(keys[1], (*window[-rank:], channels, 3), jnp.float64)
    padding = padding if isinstance(padding, str) else padding[-rank:]

    def network(x, kernel):
        y = jax.nn.relu(convolution(x, kernel, strides[-rank:], padding) + 0.3)
        return jnp.sin(nnx.max_pool(y, (pool,) * rank, (pool,) * rank)).sum()

    expected = jax.value_and_grad(network, (0, 1))(x, kernel)
    found = jax.jit(jax.value_and_grad(lower(network), (0, 1)))(x, kernel)
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-9)


def test_less_is_computed():
    x, kernel = jnp.ones((1, 6, 6, 8, 16)), jnp.ones((3, 3, 3, 16, 16))

    def network(x):
        return nnx.max_pool(jax.nn.relu(convolution(x, kernel, (1, 1, 1), "SAME")), (3, 3, 3), (2, 2, 2))

    def flops(fn):
        cost = jax.jit(fn).lower(x).compile().cost_analysis()
        return cost["flops"]

    def whole(x):
        return lower(lambda x: jax.nn.relu(convolution(x, kernel, (1, 1, 1), "SAME")))(x)

    assert flops(lower(network)) < 0.75 * flops(whole)
    assert np.allclose(jax.jit(lower(network))(x), network(x))


@pytest.mark.parametrize("after", [lambda y, s: jnp.log(s * y), lambda y, s: jnp.sqrt(y + s - 2.0)])
def test_what_is_not_read_has_no_slope_of_its_own(after):
    x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((1, 1, 1, 1))

    def network(s):
        return nnx.max_pool(after(convolution(x, kernel, (1, 1), "VALID"), s), (2, 2), (2, 2)).sum()

    assert np.allclose(jax.grad(lower(network))(2.0), jax.grad(network)(2.0))


def test_backward_rules_may_read_everything():
    @jax.custom_vjp
    def weighed(y):
        return y + 0.0

    weighed.defvjp(lambda y: (y, y), lambda y, g: (g * jnp.mean(y),))
    x, kernel = jnp.arange(25.0).reshape(1, 5, 5, 1), jnp.ones((1, 1, 1, 1))

    def network(x):
        return nnx.max_pool(weighed(convolution(x, kernel, (1, 1), "VALID")), (2, 2), (2, 2)).sum()

    assert np.allclose(jax.grad(lower(network))(x), jax.grad(network)(x))


def test_empty_and_whole_number_arrays_are_left_alone():
    assert lower(lambda x: nnx.max_pool(x, (4, 4), (4, 4)))(jnp.ones((1, 3, 8, 1))).shape == (1, 0, 2, 1)
    whole = jnp.ones((1, 3, 3, 3, 1), jnp.int32)
    kernel = jnp.ones((2, 2, 2, 1, 1), jnp.int32)
    assert int(lower(lambda x: convolution(x, kernel, (1, 1, 1), "VALID"))(whole).sum()) == 64
