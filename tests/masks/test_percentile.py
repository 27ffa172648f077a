"""Percentiles by bisection are numpy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.masks.percentile import percentile


@pytest.mark.parametrize("q", [0, 3.3, 50, 95, 99.99, 100])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (24, 25, 11)])
def test_they_are_numpys(q, shape):
    rng = np.random.default_rng(0)
    for x in (
        rng.normal(size=shape),
        rng.integers(-2, 3, shape),  # ties, and zeros
        np.where(rng.random(shape) < 0.5, 0.0, -1e-30),
        np.full(shape, -3.5),
        rng.normal(size=shape) * 10.0 ** rng.integers(-37, 37, shape),
    ):
        x = x.astype(np.float32)
        found = percentile(jnp.asarray(x), q, range(len(shape)))
        expected = np.percentile(x.astype(np.float64), q)
        # the position between two neighbours is a float32
        slack = 1e-6 * len(x.ravel()) * np.abs(np.diff(np.sort(x.ravel()))).max(initial=0)
        np.testing.assert_allclose(float(found.squeeze()), expected, rtol=1e-6, atol=min(slack, np.ptp(x) * 1e-4))


def test_each_map_has_its_own():
    x = jax.random.normal(jax.random.key(0), (2, 3, 20, 21))
    found = percentile(x, 95.0, (-2, -1))
    assert found.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(found[..., 0, 0], np.percentile(np.asarray(x), 95, axis=(2, 3)), rtol=1e-5)
    mapped = jax.jit(jax.vmap(lambda one, q: percentile(one, q, (1, 2)), (0, 0)))(x, jnp.array([95.0, 50.0]))
    np.testing.assert_allclose(mapped[0], found[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_short_floats(dtype):
    x = jnp.arange(101).astype(dtype)
    assert float(percentile(x, 95, (0,))[0]) == 95


def test_long_floats():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=1000))
        np.testing.assert_allclose(percentile(x, 12.5, (0,))[0], np.percentile(np.asarray(x), 12.5), rtol=1e-14)
