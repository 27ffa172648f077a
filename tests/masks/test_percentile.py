"""Percentiles by bisection are numpy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.masks import keep_top
from jaxsal.masks.percentile import percentile

MAPS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),
    "nearly zero": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, -1e-30),
    "constant": lambda rng, shape: np.full(shape, -3.5),
    "wide": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-37, 37, shape),
    "signed zeros": lambda rng, shape: rng.choice([-0.0, 0.0, 1.0], shape),
}


@pytest.mark.parametrize("q", [0, 3.3, 37.5, 50, 95, 99.99, 100])
@pytest.mark.parametrize("shape", [(1,), (2,), (7,), (24, 25, 11)])
@pytest.mark.parametrize("kind", MAPS)
def test_they_are_numpys(q, shape, kind):
    x = MAPS[kind](np.random.default_rng(0), shape).astype(np.float32)
    found = float(percentile(jnp.asarray(x), q, range(len(shape))).squeeze())
    in_order = np.sort(x.ravel()).astype(np.float64)
    position = q / 100 * (x.size - 1)
    low, high = in_order[int(np.floor(position))], in_order[int(np.ceil(position))]
    if position == round(position) or low == high:
        assert found == low
    else:
        slack = 1e-6 * max(abs(low), abs(high))
        assert low - slack <= found <= high + slack
        # a float32 knows the place between the neighbours to 4 digits here
        assert abs(found - np.percentile(x.astype(np.float64), q)) <= slack + 1e-3 * (high - low)


def test_each_map_has_its_own():
    x = jax.random.normal(jax.random.key(0), (2, 3, 20, 21))
    found = percentile(x, 95.0, (-2, -1))
    assert found.shape == (2, 3, 1, 1)
    np.testing.assert_allclose(found[..., 0, 0], np.percentile(np.asarray(x), 95, axis=(2, 3)), rtol=1e-5)
    mapped = jax.jit(jax.vmap(lambda one, q: percentile(one, q, (1, 2)), (0, 0)))(x, jnp.array([95.0, 50.0]))
    np.testing.assert_allclose(mapped[0], found[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_short_floats_hold_long_ranks(dtype):
    x = jax.random.normal(jax.random.key(0), (70, 40, 30)).astype(dtype)  # more voxels than float16 can count
    found = percentile(x, 95, (0, 1, 2))
    assert found.dtype == dtype
    expected = np.percentile(np.asarray(x, np.float64), 95)
    np.testing.assert_allclose(float(found.squeeze()), expected, rtol=float(jnp.finfo(dtype).eps))
    assert 0.045 < float((keep_top(x, 95, rank=3) > 0).mean()) < 0.05


def test_long_floats():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=1000))
        np.testing.assert_allclose(percentile(x, 12.5, (0,))[0], np.percentile(np.asarray(x), 12.5), rtol=1e-14)


def test_the_largest_is_found_where_float32_rounds_the_count_up():
    x = jnp.zeros(2**24 + 4).at[5].set(2.0)
    assert float(percentile(x, 100, (0,))[0]) == 2.0


def test_what_is_not_finite():
    inf = jnp.inf
    cases = ([-inf, 0.0, 1.0], 0, -inf), ([1.0, 2.0, inf], 100, inf), ([1.0, 2.0, inf], 50, 2.0)
    for values, q, expected in cases:
        np.testing.assert_equal(float(percentile(jnp.array(values), q, (0,))[0]), expected)
    assert np.isnan(percentile(jnp.array([1.0, jnp.nan]), 0, (0,))[0])
    largest = float(jnp.finfo(jnp.float32).max)
    assert float(percentile(jnp.array([-largest, largest]), 50, (0,))[0]) == 0
    assert (keep_top(jnp.array([1.0, jnp.nan, 2.0, 0.0]), 50, rank=1) == 0).all()


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"an array of int32, floating-point numbers are needed"):
        percentile(jnp.arange(3), 50, (0,))
