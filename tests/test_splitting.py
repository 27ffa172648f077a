import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from jaxsal import zoo
from jaxsal.splitting import layers, split


@pytest.fixture(scope="module")
def network():
    blocks = (zoo.ConvBlock(4, 5, 2, True, 2, 2), zoo.ConvBlock(6, 3, 1, False, 2, 2))
    model = zoo.MorphometryVGG(3, shape=(24, 20, 22), blocks=blocks, dense=(8, 4), rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (2, 24, 20, 22, 1))


def test_tail_of_head_is_the_model_at_every_layer(network, x):
    table = layers(network, x)
    assert [row.name for row in table] == list(network.names)
    for row in table:
        head, tail = split(network, x, row.name)
        assert head(x).shape == row.shape
        assert row.splits == (head(x).ndim > 2)
        assert (tail(head(x)) == network(x)).all(), row.name


def test_a_layer_by_position_is_the_layer_by_name(network, x):
    assert (split(network, x, 2).head(x) == split(network, x, "pool1").head(x)).all()
    assert (split(network, x, -1).head(x) == network(x)).all()


def test_a_sequential_splits_by_position():
    model = nnx.Sequential(nnx.Conv(1, 3, (3, 3), rngs=nnx.Rngs(0)), jax.nn.relu, lambda h: h.mean((1, 2)))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    head, tail = split(model, x, "1")
    assert head(x).shape == (2, 8, 8, 3)
    assert (tail(head(x)) == model(x)).all()


def test_the_weights_are_leaves_so_that_new_ones_do_not_compile_again(network, x):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(parts, x):
        return parts.tail(parts.head(x))

    run(split(network, x, "relu1"), x)
    other = zoo.MorphometryVGG(
        3, shape=(24, 20, 22), blocks=(zoo.ConvBlock(4, 5, 2, True, 2, 2), zoo.ConvBlock(6, 3, 1, False, 2, 2)),
        dense=(8, 4), rngs=nnx.Rngs(5),
    )  # fmt: skip
    other.eval()
    chex.assert_trees_all_close(run(split(other, x, "relu1"), x), other(x), rtol=1e-4, atol=1e-6)


def tagged(weight):
    def model(x):
        h = checkpoint_name(jax.nn.relu(x @ weight), "features")
        return jax.jit(lambda h: jnp.tanh(h).sum((1, 2)))(jax.nn.relu(2 * h) + jnp.sin(weight).sum())

    return model


def test_a_tag_splits_a_hand_written_function():
    x = jax.random.normal(jax.random.key(2), (2, 5, 4, 3))
    model = tagged(jax.random.normal(jax.random.key(3), (3, 6)))
    assert [(row.name, row.shape) for row in layers(model, x)] == [("features", (2, 5, 4, 6))]
    head, tail = split(model, x, "features")
    assert (tail(head(x)) == model(x)).all()
    # any batch, and under the transformations that masks need
    assert (tail(head(x)[:1]) == model(x)[:1]).all()
    slopes = jax.vmap(jax.grad(lambda h: tail(h[None])[0, 0]))(head(x))
    assert slopes.shape == (2, 5, 4, 6)
    chex.assert_trees_all_close(
        jax.jit(lambda s, x: s.tail(s.head(x)))(split(model, x, "features"), x), model(x), rtol=1e-6
    )


def test_values_that_go_around_the_tag_are_listed():
    def model(x):
        h = checkpoint_name(jnp.tanh(x), "features")
        return (h + x).sum((1, 2))

    with pytest.raises(ValueError, match=r"float32\[1,4,4,2\] computed from the input reaches the output through add"):
        split(model, jnp.ones((1, 4, 4, 2)), "features")


def test_unknown_places_are_answered_with_those_that_exist(network, x):
    with pytest.raises(ValueError, match=r"no layer 'conv9'; this network has: conv1, relu1, pool1"):
        split(network, x, "conv9")
    with pytest.raises(ValueError, match="has the tags features"):
        split(tagged(jnp.ones((1, 2))), jnp.ones((1, 4, 4, 1)), "other")
    with pytest.raises(ValueError, match="no tag was found"):
        split(lambda x: x.sum((1, 2)), jnp.ones((1, 4, 4, 1)), "other")
