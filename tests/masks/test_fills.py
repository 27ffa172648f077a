import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsal.masks import fills

ALL = {
    "constant": fills.constant(0.7),
    "image": fills.constant(np.full((9, 10, 11, 2), 3.0)),
    "noise": fills.noise(1.0, 0.5),
    "blur": fills.blur(3.0),
    "pyramid": fills.pyramid(3.0),
    "crossfade": fills.crossfade(2.0),
    "median": fills.median(3),
}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (2, 9, 10, 11, 2))


def under(fill, x, mask, key=KEY):
    """One image, as the fills see it."""
    return fill.apply(fill.expand(jax.tree.map(lambda a: a[0], fill.prepare(x))), mask, key)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_of_ones_keeps_the_image_exactly(name, x):
    for image in (x, x[:, 0]):
        if name == "image" and image is not x:
            continue
        assert (under(ALL[name], image, jnp.ones(image.shape[1:-1])) == image[0]).all()


@pytest.mark.parametrize("name", ALL)
def test_a_mask_of_zeros_keeps_nothing_of_a_voxel(name, x):
    found = under(ALL[name], x, jnp.zeros(x.shape[1:-1]))
    space = (0, 1, 2)
    expected = {
        "constant": np.full_like(found, 0.7),
        "image": np.full_like(found, 3.0),
        "noise": 1 + 0.5 * jax.random.normal(KEY, found.shape),
        "blur": ndimage.gaussian_filter(x[0], 3.0, axes=space, mode="nearest"),
        "pyramid": ndimage.gaussian_filter(x[0], 3.0, axes=space, mode="constant"),
        "crossfade": ndimage.gaussian_filter(x[0], 2.0, axes=space, mode="nearest"),
        "median": ndimage.median_filter(x[0], 3, axes=space, mode="nearest"),
    }
    np.testing.assert_allclose(found, expected[name], atol=2e-6)


@pytest.mark.parametrize("mask", [0.0, 0.05, 0.33, 0.5, 0.77, 0.95])
def test_blur_is_a_gaussian_of_sigma_0_times_one_minus_m(mask, x64):
    x = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(1, 30, 34, 1)), (0, 1, 1, 0))
    found = under(fills.blur(4.0, levels=16), jnp.asarray(x), jnp.full((30, 34), mask))
    exact = ndimage.gaussian_filter(x[0], 4 * (1 - mask), axes=(0, 1), mode="nearest")
    assert np.abs(found - exact).max() < 0.01 * np.abs(x).max()


def test_blur_is_exact_where_a_width_was_computed(x64):
    x = np.random.default_rng(0).normal(size=(1, 20, 21, 22, 1))
    for level in range(5):
        found = under(fills.blur(4.0, levels=5), jnp.asarray(x), jnp.full((20, 21, 22), 1 - level / 4))
        exact = ndimage.gaussian_filter(x[0], float(level), axes=(0, 1, 2), mode="nearest")
        np.testing.assert_allclose(found, exact, atol=1e-12)


def test_the_pyramid_is_linear_in_the_mask_between_its_levels(x64):
    x = np.random.default_rng(0).normal(size=(1, 20, 21, 1))
    widths = [4 * level / 7 for level in range(8)]
    levels = [ndimage.gaussian_filter(x[0], width, axes=(0, 1), mode="constant") for width in widths]
    mask = np.random.default_rng(1).uniform(size=(20, 21))
    found = under(fills.pyramid(4.0), jnp.asarray(x), jnp.asarray(mask))
    position = (1 - mask) * 7
    lower = np.clip(np.floor(position).astype(int), 0, 6)
    pick = np.stack(levels)[..., 0]
    rows, columns = np.indices(mask.shape)
    weight = position - lower
    expected = (1 - weight) * pick[lower, rows, columns] + weight * pick[lower + 1, rows, columns]
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-12)


def test_every_voxel_has_its_own_blur():
    x = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10].set(1.0)
    mask = jnp.ones((21, 21)).at[:, :10].set(0.0)
    found = under(fills.blur(2.0), x, mask)[..., 0]
    blurred = ndimage.gaussian_filter(np.asarray(x[0, ..., 0]), 2.0, mode="nearest")
    np.testing.assert_allclose(found[:, :10], blurred[:, :10], atol=1e-6)
    assert (found[:, 10:] == x[0, :, 10:, 0]).all()


@pytest.mark.parametrize("name", ["constant", "noise", "blur", "pyramid", "crossfade"])
def test_slopes_are_those_of_finite_differences(name, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 7, 1)))
    mask = jnp.asarray(np.random.default_rng(1).uniform(0.1, 0.9, (6, 7)))
    step = jnp.asarray(np.random.default_rng(2).normal(size=(6, 7)))

    def value(t):
        return (under(ALL[name], x, mask + t * step) ** 2).sum()

    assert np.isclose(jax.grad(value)(0.0), (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-6)


def test_noise_depends_on_its_key(x):
    mask = jnp.full(x.shape[1:-1], 0.5)
    first, again, other = (under(fills.noise(), x, mask, jax.random.key(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


BAD = [
    (lambda x: fills.constant([1.0, 2.0, 3.0]).prepare(x), r"shape \(3,\): give a number, one per channel \(2\)"),
    (lambda x: fills.constant(np.nan).prepare(x), "NaN or infinite"),
    (lambda x: fills.noise(std=-1.0), "std=-1.0"),
    (lambda x: fills.blur(0.0), "sigma=0.0 and 16 levels"),
    (lambda x: fills.blur(1.0, levels=1), "two levels are needed"),
    (lambda x: fills.crossfade(-1.0), "sigma=-1.0"),
    (lambda x: fills.median(0), "0 voxels"),
    (lambda x: fills.named_fill("grey"), "'grey': give one of blur, noise, constant"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_fills_are_answered(make, message, x):
    with pytest.raises(ValueError, match=message):
        make(x)
