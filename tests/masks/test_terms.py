"""Objective terms: values by hand, and gradients where formulas break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxsal.masks import terms

RNG = np.random.default_rng(0)
MASKS = [RNG.uniform(0.1, 0.9, size=shape) for shape in [(5,), (4, 3), (3, 4, 2)]]

VARIATIONS = {
    "total": terms.total_variation,
    "isotropic total": terms.isotropic_total_variation,
    **{f"anisotropic {b}": lambda m, b=b: terms.anisotropic_variation(m, b) for b in (0.5, 1.0, 2.0, 3.0)},
    **{f"isotropic {b}": lambda m, b=b: terms.isotropic_variation(m, b) for b in (0.5, 1.0, 1.5, 3.0)},
}
ON_MASKS = {
    **VARIATIONS,
    "l1 sparsity": terms.l1_sparsity,
    "area": terms.area,
    "area distance": lambda m: terms.area_distance(m, 0.3),
    "entropy": terms.entropy,
    "binary entropy": terms.binary_entropy,
    "l1 norm": terms.l1_norm,
    "l2 norm": terms.l2_norm,
    "unit norm": terms.unit_norm,
}
DISTANCES = {
    "l1": terms.l1_distance,
    "l2": terms.l2_distance,
    "huber": terms.huber_distance,
    "relative": terms.relative_distance,
    "cosine": terms.cosine_distance,
}


def variation(mask, beta, isotropic):
    """With loops over voxels."""
    if isotropic:
        total = 0.0
        for index in np.ndindex(mask.shape):
            square = 0.0
            for axis in range(mask.ndim):
                if index[axis] + 1 < mask.shape[axis]:
                    beyond = tuple(i + (a == axis) for a, i in enumerate(index))
                    square += (mask[beyond] - mask[index]) ** 2
            total += square ** (beta / 2)
        return total / mask.size
    return np.mean([(np.abs(np.diff(mask, axis=a)) ** beta).mean() for a in range(mask.ndim)])


@pytest.mark.parametrize("mask", MASKS, ids=lambda m: str(m.shape))
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 3.0])
def test_variation_is_the_sum_over_voxels(x64, mask, beta):
    np.testing.assert_allclose(terms.isotropic_variation(jnp.asarray(mask), beta), variation(mask, beta, True))
    np.testing.assert_allclose(terms.anisotropic_variation(jnp.asarray(mask), beta), variation(mask, beta, False))
    if beta == 1:
        np.testing.assert_allclose(terms.total_variation(jnp.asarray(mask)), variation(mask, 1, False))
        np.testing.assert_allclose(terms.isotropic_total_variation(jnp.asarray(mask)), variation(mask, 1, True))


@pytest.mark.parametrize("term", VARIATIONS.values(), ids=VARIATIONS)
def test_a_uniform_mask_has_no_variation_and_no_slope(term):
    for value in (0.0, 0.3):
        found, slope = jax.value_and_grad(term)(jnp.full((3, 4, 2), value))
        assert float(found) == 0
        assert (slope == 0).all()


@pytest.mark.parametrize("term", ON_MASKS.values(), ids=ON_MASKS)
@pytest.mark.parametrize("mask", [np.zeros((3, 4)), np.ones((3, 4)), np.eye(3, 4)], ids=["zeros", "ones", "eye"])
def test_no_gradient_is_nan(term, mask):
    for dtype in (jnp.float32, jnp.bfloat16):
        value, slope = jax.value_and_grad(term)(jnp.asarray(mask, dtype))
        assert value.shape == ()
        assert value.dtype == slope.dtype == dtype
        assert jnp.isfinite(value)
        assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("term", ON_MASKS.values(), ids=ON_MASKS)
def test_gradients_are_those_of_finite_differences(x64, term):
    mask = jnp.asarray(RNG.permutation(12).reshape(3, 4) / 12 + 0.03)
    way = jnp.asarray(RNG.normal(size=(3, 4)))
    slope = (term(mask + 1e-6 * way) - term(mask - 1e-6 * way)) / 2e-6
    np.testing.assert_allclose(jnp.vdot(jax.grad(term)(mask), way), slope, rtol=1e-5, atol=1e-7)


def test_entropies_are_those_of_scipy(x64):
    for mask in MASKS:
        np.testing.assert_allclose(terms.entropy(jnp.asarray(mask)), stats.entropy(mask.ravel()))
        both = np.stack([mask.ravel(), 1 - mask.ravel()])
        np.testing.assert_allclose(terms.binary_entropy(jnp.asarray(mask)), stats.entropy(both).mean())


def test_area_distance_is_zero_for_a_mask_of_that_area_only():
    mask = jnp.array([0.0, 1.0, 1.0, 0.0, 0.0])
    assert float(terms.area_distance(mask, 0.4)) == 0
    np.testing.assert_allclose(terms.area_distance(mask, 0.2), 1 / 5)
    np.testing.assert_allclose(terms.area_distance(jnp.array([0.4, 0.6]), 0.5), (0.16 + 0.16) / 2, rtol=1e-6)


def test_distances_of_several_outputs_by_hand(x64):
    a, b, sigma = jnp.array([1.0, 5.0, -2.0]), jnp.array([3.0, 4.5, -2.0]), jnp.array([1.0, 0.5, 3.0])
    r = np.array([-2.0, 1.0, 0.0])
    np.testing.assert_allclose(terms.l1_distance(a, b, sigma), np.abs(r).mean())
    np.testing.assert_allclose(terms.l2_distance(a, b, sigma), (r**2).mean())
    np.testing.assert_allclose(terms.huber_distance(a, b, sigma, 1.5), (1.5 * (2 - 0.75) + 0.5) / 3)
    np.testing.assert_allclose(terms.relative_distance(a, b), (2 / 3 + 0.5 / 4.5) / 3)
    u, v = np.asarray(a / sigma), np.asarray(b / sigma)
    np.testing.assert_allclose(
        terms.cosine_distance(a, b, sigma), 1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v), rtol=1e-12
    )


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_equal_predictions_are_at_no_distance_and_on_no_slope(distance):
    at = jnp.array([1.0, -2.0, 5.0])
    value, slope = jax.value_and_grad(distance)(at, at)
    assert value.shape == ()
    np.testing.assert_allclose(value, 0, atol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    nothing, slope = jax.value_and_grad(distance)(jnp.zeros(3), jnp.zeros(3))
    assert jnp.isfinite(nothing)
    assert (slope == 0).all()


def test_one_output_is_a_number_without_axes():
    for distance in (terms.l1_distance, terms.l2_distance, terms.huber_distance):
        assert float(distance(jnp.float32(3.0), jnp.float32(1.0), jnp.float32(2.0))) in (1.0, 0.5)
