import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxsal.masks.presets import preset
from jaxsal.masks.separable import along_axes, gaussian, linear, linear_between_corners, nearest, nearest_blurred

SIZES, GRID = (13, 16, 20), (3, 4, 7)


@pytest.mark.parametrize(("matrix", "corners"), [(linear, False), (linear_between_corners, True)])
def test_interpolation_is_torchs(matrix, corners, x64):
    torch = pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    mask = np.random.default_rng(0).uniform(size=GRID)
    found = along_axes(jnp.asarray(mask), [matrix(size, n) for size, n in zip(SIZES, GRID, strict=True)])
    peer = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], SIZES, mode="trilinear", align_corners=corners
    )
    np.testing.assert_allclose(found, peer[0, 0].numpy(), atol=1e-12)


def test_nearest_repeats_whole_voxels():
    assert (nearest(12, 3) == np.repeat(np.eye(3), 4, axis=0)).all()


def test_blurs_of_masks_are_scipys(x64):
    mask = np.random.default_rng(0).uniform(size=(3, 4))
    found = along_axes(jnp.asarray(mask), [nearest_blurred(5.0, 24, 3), nearest_blurred(5.0, 32, 4)])
    expected = ndimage.gaussian_filter(np.kron(mask, np.ones((8, 8))), 5.0, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["fong", "fong-torch", "jacobgil", "kan", None])
@pytest.mark.parametrize("size", [5, 8, 29])
def test_a_mask_of_ones_stays_one_on_the_image(name, size):
    recipe = preset(name)
    for matrix in (recipe.upsampling, recipe.shown):
        rows = matrix(size, max(1, size // recipe.factor))
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-12)


def test_kans_filter_is_almost_a_mean_of_five_voxels():
    row = gaussian(11, 10.0, radius=2)[5]
    assert np.count_nonzero(row) == 5
    np.testing.assert_allclose(row[3:8], 0.2, atol=0.003)
