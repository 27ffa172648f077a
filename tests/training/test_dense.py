"""The dense stage: shares of cells, crops of a cohort and the loss that convolutions learn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from jaxsal.data.synthetic.anatomy import GRID
from jaxsal.engine.lower import lower
from jaxsal.training import crops, dense, stages
from jaxsal.training.morphometry import network
from jaxsal.training.pool import CELL, CELLS, PAINTED, REACHED, Pool
from jaxsal.training.warm_start import sum_cells


def small_network() -> nnx.Module:
    """Five blocks with the layer names of the shipped network's."""
    strides = ((3, 2), (3, 2), (3, 1), (2, 2), (3, 2))
    blocks = tuple(zoo.ConvBlock(3 + i, k, s, bias=i < 3, pool=1) for i, (k, s) in enumerate(strides))
    return zoo.MorphometryVGG(14, shape=(32, 32, 32), blocks=blocks, dense=(16, 15), dropout=0.0, rngs=nnx.Rngs(0))


def test_coarse_cells_hold_the_mean_share_and_nothing_lies_outside():
    fine = jax.random.uniform(jax.random.key(0), (2, 5, 4, 6, 14))
    coarse = dense.coarsen(fine, 2)
    assert coarse.shape == (2, 3, 2, 3, 14)
    np.testing.assert_allclose(coarse[1, 1, 0, 2], fine[1, 2:4, 0:2, 4:6].mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(8 * coarse.sum((1, 2, 3)), fine.sum((1, 2, 3)), rtol=1e-5)


def test_the_loss_is_that_of_its_definition_before_the_first_step():
    model = small_network()
    stored = np.random.default_rng(0).integers(0, 120, (6, 8, 8, 8, 14)).astype(np.uint8)
    mean, sigma = dense.average(stored), 1e4 * jnp.ones(14)
    shares = jnp.asarray(stored[:2], jnp.float32) / 255.0
    loss = dense.place_loss(model, mean, sigma)
    x = jax.random.uniform(jax.random.key(2), (1, 32, 32, 32, 1))
    found = loss(dense.initial(model, mean, x), (jnp.repeat(x, 2, axis=0), shares))

    o = stored.astype(np.float64) / 255.0
    pairs = o.reshape(6, 8, 8, 8, 7, 2).sum(-1)
    prior = pairs.mean(0)
    entropy = -(pairs[:2] * np.log(prior) + (1 - pairs[:2]) * np.log1p(-prior)).mean()
    squares = []
    for factor in (2, 4):
        n = 8 // factor
        cells = o.reshape(6, n, factor, n, factor, n, factor, 14).mean((2, 4, 6))
        away = cells - cells.mean(0)
        squares.append(((away[:2] ** 2).mean((0, 1, 2, 3)) / (away**2).mean((0, 1, 2, 3))).mean())
    volume = 512.0 * (o[:2].sum((1, 2, 3)) - o.mean(0).sum((0, 1, 2)))
    z = np.abs(volume / 1e4)
    huber = np.where(z < 1, 0.5 * z**2, z - 0.5).mean()
    assert float(found) == pytest.approx(300.0 * entropy + sum(squares) + huber, rel=1e-4)


@pytest.fixture
def pool() -> Pool:
    """Two members of one anatomy, one cell of the left hippocampus marked."""
    images = np.zeros((2, 83, 101, 83), np.uint8)
    cell = (8, 12, 6)
    first = [c * CELL - 1 - r.start for c, r in zip(cell, REACHED, strict=True)]
    images[(slice(None), *(slice(a, a + CELL) for a in first))] = 100
    occupancy = np.zeros((2 // PAINTED, *CELLS, 14), np.uint8)
    occupancy[(0, *cell, 2)] = 255
    return Pool(images, np.zeros((2, 14), np.float32), np.zeros(2, np.float32), occupancy, np.array([0]), np.array([2]))


def test_crops_keep_cells_on_their_voxels(pool):
    images, shares = crops.take(pool, np.array([1, 0]))
    assert images.shape == (2, *crops.SHAPE)
    assert shares.shape == (2, *crops.CELLS, 14)
    for image, share in zip(images, shares, strict=True):
        (cell,) = np.argwhere(share.any(-1))
        assert share[tuple(cell)].argmax() == 2
        bright = np.argwhere(image > 0)
        np.testing.assert_array_equal(bright.min(0), cell * CELL - 1)
        np.testing.assert_array_equal(bright.max(0), cell * CELL + 2)


def test_shaken_crops_keep_the_structure_and_tell_their_mirror_images(pool):
    rng = np.random.default_rng(0)
    images, flips = crops.shaken(pool, np.zeros(16, int), rng)
    assert set(flips.tolist()) == {True, False}
    places = set()
    for image, flip in zip(images, flips, strict=True):
        bright = np.argwhere(image[::-1] if flip else image)
        assert len(bright) == CELL**3
        offset = bright.min(0) - (np.array([8, 12, 6]) * CELL - 1 - crops.FIRST)
        assert (np.abs(offset) <= crops.JITTER).all()
        places.add(tuple(offset.tolist()))
    assert len(places) > 4


def test_the_loss_of_volumes_is_zero_where_the_mean_is_right():
    model = small_network()
    stored = np.random.default_rng(0).integers(0, 120, (6, 8, 8, 8, 14)).astype(np.uint8)
    mean, sigma = dense.average(stored), 1e4 * jnp.ones(14)
    loss = dense.size_loss(model, mean, sigma)
    x = jnp.repeat(jax.random.uniform(jax.random.key(2), (1, 32, 32, 32, 1)), 2, axis=0)
    params = dense.initial(model, mean, x)
    right = 512.0 * stored.astype(np.float64).sum((1, 2, 3)).mean(0) / 255.0 / 1e4
    z = jnp.asarray(np.stack([right, right + 0.5]), jnp.float32)
    assert float(loss(params, (x, z))) == pytest.approx(0.5**2 / 4, rel=1e-3)


def test_a_crop_and_the_whole_grid_share_their_features_away_from_the_border():
    model = network(0)
    x = jax.random.uniform(jax.random.key(0), (1, *GRID, 1))
    part = x[:, *(slice(a, a + n) for a, n in zip(crops.FIRST, crops.SHAPE, strict=True))]
    whole, crop = (lower(lambda x: dense.maps(model, x)[dense.COARSE])(image) for image in (x, part))
    i, j, k = (a // 8 for a in crops.FIRST)
    inner = crop[:, 2:-2, 2:-2, 2:-2]
    expected = whole[:, i + 2 :, j + 2 :, k + 2 :][:, : inner.shape[1], : inner.shape[2], : inner.shape[3]]
    np.testing.assert_allclose(inner, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_a_crop_find_their_place_on_the_grid():
    model = network(0)
    cells = jax.eval_shape(
        lambda x: dense.maps(model, x)[dense.POOLED], jax.ShapeDtypeStruct((1, *crops.SHAPE, 1), jnp.float32)
    ).shape[1:-1]
    placed = stages.on_grid(model, np.ones((*cells, 2, 3)))
    occupied = np.argwhere(placed[..., 0, 0])
    assert placed.sum() == np.prod(cells) * 6
    # The centre of pooled cell i lies at voxel 16 i + 12, or 10 along the second axis.
    np.testing.assert_array_equal(16 * occupied.min(0) + (12, 10, 12), np.add(crops.FIRST, (12, 2, 4)))


def test_the_dense_layers_start_as_the_sum_over_cells():
    model = small_network()
    shape = dense.maps(model, jnp.zeros((1, 32, 32, 32, 1)))[dense.POOLED].shape
    rng = np.random.default_rng(0)
    kernel = rng.uniform(size=(*shape[1:], 14))
    sum_cells(model, kernel)
    x = jnp.asarray(rng.uniform(size=(2, 32, 32, 32, 1)), jnp.float32)
    features = np.asarray(dense.maps(model, x)[dense.POOLED], np.float64)
    expected = np.einsum("bijkc,ijkcn->bn", features, kernel)
    np.testing.assert_allclose(model(x), expected, rtol=1e-4)


def test_augmented_appearances_keep_the_background_and_the_anatomy():
    x = jnp.zeros((2, 6, 6, 6, 1)).at[:, 1:4].set(jax.random.uniform(jax.random.key(0), (2, 3, 6, 6, 1), minval=0.2))
    y, x = np.asarray(stages.augment(x, jax.random.key(1))), np.asarray(x)
    assert (y[:, 0] == 0).all()
    for before, after in zip(x[:, 1:4], y[:, 1:4], strict=True):
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.95
        assert np.abs(after / before - 1).max() > 0.01
        assert np.abs(after / before - 1).max() < 0.6


def test_mirrored_targets_exchange_the_sides():
    z = jnp.arange(14.0)[None]
    assert stages.mirrored(z)[0, :4].tolist() == [1.0, 0.0, 3.0, 2.0]
