"""The start of the convolutions: unit variance on data."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal import zoo
from jaxsal.training import warm_start


def small_network() -> nnx.Module:
    blocks = (zoo.ConvBlock(4, kernel=3, stride=2, pool=2), zoo.ConvBlock(6, kernel=3, pool=2))
    return zoo.MorphometryVGG(2, shape=(16, 16, 16), blocks=blocks, dense=(16, 8), dropout=0.0, rngs=nnx.Rngs(0))


def examples(count: int):
    """A cube of random size in noise; the targets are its size and its brightness."""
    rng = np.random.default_rng(0)
    size, bright = rng.integers(3, 12, count), rng.uniform(0.5, 1.5, count)
    x = 0.05 * rng.normal(size=(count, 16, 16, 16, 1)).astype(np.float32)
    for image, s, v in zip(x, size, bright, strict=True):
        image[2 : 2 + s, 2 : 2 + s, 2 : 2 + s] += v
    z = np.stack([(size - size.mean()) / size.std(), (bright - bright.mean()) / bright.std()], 1)
    return jnp.asarray(x), jnp.asarray(z, jnp.float32)


def test_convolutions_are_scaled_channel_by_channel():
    model, (x, _) = small_network(), examples(8)
    warm_start.scale_convolutions(model, x)
    y = model.conv1(x)
    np.testing.assert_allclose(y.mean((0, 1, 2, 3)), 0.0, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2, 3)), 1.0, atol=1e-3)
    y = model.conv2(model.pool1(jax.nn.relu(y)))
    np.testing.assert_allclose(y.std((0, 1, 2, 3)), 1.0, atol=1e-3)
