"""A network cut at its input and at several layers: the pieces are the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxsal
from jaxsal import zoo
from jaxsal.masks import smocam

BLOCKS = (zoo.ConvBlock(4, kernel=3, pool=2), zoo.ConvBlock(6, kernel=3, pool=2))


@pytest.fixture(scope="module")
def model():
    model = zoo.MorphometryVGG(2, shape=(12, 14, 12), blocks=BLOCKS, dense=(8,), rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 12, 14, 12, 1))


def tagged(x):
    first = checkpoint_name(jnp.tanh(x @ jnp.ones((1, 4))), "first")
    second = checkpoint_name(first[:, 1::2, ::2] * 2, "second")
    return checkpoint_name(second.mean((1, 2)), "pooled") @ jnp.ones((4, 3))


def run(stages, x):
    values = [x]
    for stage in stages:
        values.append(stage(values[-1]))
    return values


def test_the_stages_of_a_layered_network_are_the_network(model, x):
    cut = jaxsal.chain(model, x, ["relu1", "relu2"])
    values = run(cut.stages, x)
    assert len(cut.stages) == 3
    for value, at in zip(values[1:-1], ["relu1", "relu2"], strict=True):
        np.testing.assert_array_equal(value, jaxsal.split(model, x, at).head(x))
    np.testing.assert_allclose(values[-1], model(x), rtol=1e-6)


def test_positions_count_in_the_whole_network(model, x):
    names = [row.name for row in jaxsal.layers(model, x)]
    positions = [names.index("relu1"), names.index("relu2") - len(names)]
    found, expected = (run(jaxsal.chain(model, x, at).stages, x) for at in (positions, ["relu1", "relu2"]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_tail_can_be_looked_at_and_split_again(model, x):
    outer = jaxsal.split(model, x, "relu1")
    features = outer.head(x)
    names = [row.name for row in jaxsal.layers(model, x)]
    assert [row.name for row in jaxsal.layers(outer.tail, features)] == names[names.index("relu1") + 1 :]
    inner = jaxsal.split(outer.tail, features, "relu2")
    np.testing.assert_allclose(inner.tail(inner.head(features)), model(x), rtol=1e-6)


def test_the_stages_of_a_tagged_function_are_the_function():
    x = jax.random.normal(jax.random.key(0), (2, 8, 9, 1))
    values = run(jaxsal.chain(tagged, x, ["first", "second"]).stages, x)
    assert [value.shape for value in values[1:]] == [(2, 8, 9, 4), (2, 4, 5, 4), (2, 3)]
    np.testing.assert_allclose(values[-1], tagged(x), rtol=1e-6)


BAD = [
    ("relu1", TypeError, r"at got 'relu1', a sequence of layers is needed: \['relu1'\]"),
    (3, TypeError, "at got 3, a sequence"),
    ([], ValueError, "at got no layers"),
    (["relu9"], ValueError, "There is no layer 'relu9'; this network has: conv1"),
    (["relu2", "relu1"], ValueError, "Cannot cut at 'relu1' behind 'relu2': give each layer once, in the order"),
    (["relu1", "relu1"], ValueError, "Cannot cut at 'relu1' behind 'relu1'"),
    ([99], ValueError, "There is no layer 99"),
]


@pytest.mark.parametrize(("at", "error", "message"), BAD)
def test_places_that_cannot_be_cut_are_answered(at, error, message, model, x):
    with pytest.raises(error, match=message):
        jaxsal.chain(model, x, at)


@pytest.mark.parametrize("shape", [(12, 10), (8, 9, 10)])
def test_a_mask_on_the_input_lies_on_the_images_grid(shape):
    """The network looks at a bright square, in one corner of the image."""
    x = jnp.ones((2, *shape, 1)).at[:, 1:4, 5:8].set(9.0)

    def network(x):
        return x[:, :4, 4:].mean(range(1, x.ndim))[:, None]

    split = jaxsal.at_input(network)
    result = smocam(split, x, sigma=0.05, gamma=1.0, max_steps=300, percentile=80)
    assert result.mask.shape == result.saliency.shape == (1, 2, *shape)
    assert result.config.geometry == jaxsal.Geometry((0.0,) * len(shape), (1.0,) * len(shape))
    np.testing.assert_array_equal(result.null_prediction, network(jnp.zeros_like(x)).T)
    mask = np.asarray(result.mask)
    assert (mask[..., :4, 4:, :] if len(shape) == 3 else mask[..., :4, 4:]).mean() > 2 * mask.mean()
    kept = np.where(np.asarray(result.saliency) != 0, mask, 0)
    np.testing.assert_array_equal(result.saliency, kept)  # nothing between mask and image
    by_hand = network(x * result.mask[0][..., None])[:, 0]
    np.testing.assert_allclose(result.masked_prediction[0], by_hand, rtol=1e-4)


def test_a_mask_on_the_input_of_a_network_with_weights(model, x):
    split = jaxsal.at_input(model)
    result = smocam(split, x, outputs=[1], sigma=0.1, max_steps=2)
    assert result.mask.shape == (1, 2, 12, 14, 12)
    np.testing.assert_allclose(result.prediction[0], model(x)[:, 1], rtol=1e-5)
    np.testing.assert_allclose(result.masked_prediction[0], model(x * result.mask[0][..., None])[:, 1], rtol=1e-4)
