"""Eigen-CAM against numpy's singular vectors."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import Split
from jaxsal.attribution.cam_eigen import eigen_cam
from jaxsal.engine.geometry import geometry
from tests.attribution.cam_networks import SPACE, images, network, resized


@pytest.mark.parametrize(("rank", "channels"), [(2, 4), (3, 4), (2, 30)])
def test_maps_are_features_along_their_first_singular_vector(x64, rank, channels):
    """With more voxels than channels, and with fewer."""
    parts, x = network(rank, channels=channels), images(rank)
    where, features = geometry(parts.head, x), np.asarray(parts.head(x))
    found = eigen_cam(parts, x, batch_size=1 if rank == 2 else None)
    assert found.shape == (2, *SPACE[rank])
    for map, feature in zip(found, features, strict=True):
        matrix = feature.reshape(-1, channels)
        vector = np.linalg.svd(matrix, full_matrices=False)[2][0]
        vector = vector * np.sign(vector.sum())
        expected = (matrix @ vector).reshape(feature.shape[:-1])
        np.testing.assert_allclose(map, resized(expected, *where, SPACE[rank]), atol=1e-10)
        assert (map > -1e-10).all()


def test_the_sign_goes_along_with_the_sum_over_channels():
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(4, 6, 6, 3)), jnp.float32)
    for turn in (1.0, -1.0):
        found = eigen_cam(Split(lambda x, s=turn: s * x, lambda f: f.sum((1, 2))), x)
        assert ((found * turn * x.sum(-1)).sum((1, 2)) > 0).all()


def test_no_features_and_two_examples_apart():
    split = Split(lambda x: x, lambda f: f.sum((1, 2)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 2, 15)), jnp.float32).at[0].set(0)
    for count in (2, 15):  # fewer channels than voxels, and more
        found = eigen_cam(split, x[..., :count])
        assert (found[0] == 0).all()
        np.testing.assert_allclose(found[1:], eigen_cam(split, x[1:, ..., :count]), atol=1e-5)


def test_features_without_space_are_refused():
    with pytest.raises(ValueError, match="split at a layer before the flatten"):
        eigen_cam(Split(lambda x: x.reshape(1, -1), lambda f: f), jnp.ones((1, 3, 3, 1)))
