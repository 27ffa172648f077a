import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxsal import zoo
from jaxsal.model import check_model
from jaxsal.splitting import layers


def test_the_default_is_the_published_network():
    model = zoo.MorphometryVGG(rngs=nnx.Rngs(0))
    model.eval()
    table = {row.name: row.shape for row in layers(model, jax.ShapeDtypeStruct((1, 164, 172, 202, 1), jnp.float32))}
    assert table["conv1"] == (1, 55, 58, 68, 144)
    assert table["pool1"] == (1, 27, 28, 33, 144)
    assert table["conv2"] == (1, 14, 14, 17, 192)
    assert table["pool2"] == (1, 6, 6, 8, 192)
    assert table["pool3"] == (1, 2, 2, 3, 192)
    assert table["output"] == (1, 165)
    count = sum(value.size for value in zoo.weights(model).values())
    convolutions = (11**3 * 144 + 144) + 5**3 * 144 * 192 + 3**3 * 192 * 192
    dense = (2 * 2 * 3 * 192 * 384 + 384) + (384 * 192 + 192) + (192 * 165 + 165)
    assert count == convolutions + dense


def test_dense_layers_have_a_relu_between_but_none_at_the_end():
    model = zoo.MorphometryVGG(2, shape=(16, 16), blocks=[zoo.ConvBlock(4, 3, pool=2)], dense=(8, 6), rngs=nnx.Rngs(0))
    assert model.names == (
        "conv1", "relu1", "pool1", "flatten", "dropout1", "dense1", "relu2", "dropout2", "dense2", "output",
    )  # fmt: skip


def test_two_and_three_dimensions_are_one_code():
    for shape in ((16, 14), (16, 14, 12)):
        model = zoo.MorphometryVGG(3, shape=shape, channels=2, blocks=[zoo.ConvBlock(4, 3, pool=2)], rngs=nnx.Rngs(0))
        model.eval()
        assert model(jnp.ones((2, *shape, 2))).shape == (2, 3)


def test_dropout_needs_training_mode_and_is_noticed():
    model = zoo.MorphometryVGG(1, shape=(16, 16), blocks=[zoo.ConvBlock(4, 3, pool=2)], rngs=nnx.Rngs(0))
    x = jnp.ones((1, 16, 16, 1))
    with pytest.raises(ValueError, match=r"training mode \(model.dropout1.deterministic is False\).*model.eval"):
        check_model(model)
    first, second = (model(x, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1))
    assert (first != second).any()
    model.eval()
    check_model(model)
    assert (model(x) == model(x)).all()


def test_a_grid_that_is_too_small_is_answered():
    with pytest.raises(ValueError, match="used up at block 2 of 3"):
        zoo.MorphometryVGG(1, shape=(20, 20, 20), rngs=nnx.Rngs(0))


def test_weights_that_are_not_finite_are_named():
    model = zoo.MorphometryVGG(1, shape=(16, 16), blocks=[zoo.ConvBlock(4, 3, pool=2)], rngs=nnx.Rngs(0))
    model.eval()
    model.conv1.kernel.set_value(model.conv1.kernel.get_value().at[0, 0, 0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"conv1.*kernel.* holds 1 NaN or infinite values"):
        check_model(model)
    with pytest.raises(TypeError, match="is a str, a callable"):
        check_model("network")
