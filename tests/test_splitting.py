import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

from jaxsal import zoo
from jaxsal.model import Layer, check_model
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


def test_weights_changed_in_place_are_seen():
    class Scaled(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(()))

        def __call__(self, x):
            return checkpoint_name(x * self.weight[...], "scaled").sum((1, 2))

    model, x = Scaled(), jnp.ones((1, 2, 2, 1))
    before = split(model, x, "scaled")
    assert float(before.tail(before.head(x))[0, 0]) == 4
    model.weight[...] = jnp.full((), 3.0)
    after = split(model, x, "scaled")
    assert float(after.tail(after.head(x))[0, 0]) == 12


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


class Residual(nnx.Module):
    """A network whose layers are not applied one after the other."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Conv(2, 2, (3, 3), rngs=rngs), nnx.Conv(2, 2, (3, 3), rngs=rngs)])

    def __call__(self, x):
        for layer in self.layers:
            x = checkpoint_name(x + layer(x), "sum" if layer is self.layers[0] else "end")
        return x.mean((1, 2))


class Named(Residual):
    def named_layers(self):
        yield from (Layer(str(i), layer) for i, layer in enumerate(self.layers))
        yield Layer("mean", lambda x: x.mean((1, 2)))


class Halved(nnx.Sequential):
    def __call__(self, x):
        return super().__call__(x) / 2


def test_a_list_of_layers_is_no_composition():
    model, x = Residual(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    assert [(row.name, row.kind) for row in layers(model, x)] == [("sum", "tag"), ("end", "tag")]
    with pytest.raises(ValueError, match="has the tags sum, end"):
        split(model, x, 0)
    halved = Halved(jax.nn.relu, lambda x: x.mean((1, 2)))
    assert not layers(halved, x)
    with pytest.raises(ValueError, match="no tag was found"):
        split(halved, x, "0")


def test_a_tag_goes_before_a_layer():
    model, x = Named(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    assert [row.name for row in layers(model, x)] == ["0", "1", "mean", "sum", "end"]
    head, tail = split(model, x, "sum")
    assert (head(x) == x + model.layers[0](x)).all()
    chex.assert_trees_all_close(tail(head(x)), model(x), rtol=1e-6)


def test_layers_that_do_not_give_the_network_are_refused():
    model, x = Named(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    with pytest.raises(ValueError, match=r"values up to .*checkpoint_name\(value, tag\)"):
        split(model, x, "0")

    class Swapped(Named):
        def named_layers(self):
            first, second, mean = super().named_layers()
            return second, first, mean

        def __call__(self, x):
            for _, layer in super().named_layers():
                x = layer(x)
            return x

    # the same operations with each other's weights
    with pytest.raises(ValueError, match="values up to"):
        split(Swapped(nnx.Rngs(0)), x, "0")

    class Short(Swapped):
        def named_layers(self):
            return tuple(super().named_layers())[:2]

    with pytest.raises(ValueError, match=r"shape \[\(2, 6, 6, 2\)\] where the network gives \[\(2, 2\)\]"):
        split(Short(nnx.Rngs(0)), jax.ShapeDtypeStruct(x.shape, x.dtype), "0")


def test_layers_that_are_the_network_in_other_operations_are_accepted():
    class Twice(nnx.Module):
        def named_layers(self):
            return Layer("double", lambda x: x + x), Layer("mean", lambda x: x.mean((1, 2)))

        def __call__(self, x):
            return (2 * x).mean((1, 2))

    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 2))
    head, tail = split(Twice(), x, "double")
    chex.assert_trees_all_close(tail(head(x)), Twice()(x), rtol=1e-6)


def test_a_layered_network_is_not_run_to_be_split(network, x, monkeypatch):
    calls = []
    call = type(network).__call__
    monkeypatch.setattr(type(network), "__call__", lambda self, x: calls.append(x) or call(self, x))
    split(network, x, "relu1")
    assert calls
    assert all(isinstance(seen, jax.core.Tracer) for seen in calls)


def test_training_mode_is_answered_before_anything_is_traced():
    class Tagged(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(2, rngs=rngs)

        def __call__(self, x):
            return checkpoint_name(self.norm(x), "norm").mean((1, 2))

    model, x = Tagged(nnx.Rngs(0)), jnp.ones((2, 4, 4, 2))
    for wrapped in (model, Partial(model), nnx.Sequential(model, jnp.tanh)):
        for look in (lambda m: split(m, x, "norm"), lambda m: layers(m, x)):
            with pytest.raises(ValueError, match=r"training mode \(model.*use_running_average is False\)"):
                look(wrapped)
    with pytest.raises(ValueError, match=r"model\.func\.norm\.use_running_average"):
        check_model(Partial(model))
    model.eval()
    assert split(model, x, "norm").head(x).shape == (2, 4, 4, 2)
    assert split(Partial(model), x, "norm").head(x).shape == (2, 4, 4, 2)
