"""That the engine knows every operation that layers consist of in this version of JAX, and the layers' names."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.tree_util import Partial

from jaxsal import composites, zoo
from jaxsal.engine.rewire import sites

RNGS = nnx.Rngs(0)
IMAGE, SIGNAL = (2, 6, 6, 4), (2, 5, 4)
ACTIVATIONS = (
    jax.nn.celu, jax.nn.elu, jax.nn.gelu, jax.nn.hard_sigmoid, jax.nn.hard_silu, jax.nn.hard_swish, jax.nn.hard_tanh,
    jax.nn.leaky_relu, jax.nn.log_sigmoid, jax.nn.mish, jax.nn.relu, jax.nn.relu6, jax.nn.selu, jax.nn.sigmoid,
    jax.nn.silu, jax.nn.soft_sign, jax.nn.softplus, jax.nn.squareplus, jnp.tanh, nnx.PReLU(),
)  # fmt: skip


LAYERS = {
    "Conv": (nnx.Conv(4, 3, (3, 3), rngs=RNGS), IMAGE, "convolution"),
    "Conv, circular": (nnx.Conv(4, 3, (3, 3), padding="CIRCULAR", rngs=RNGS), IMAGE, "convolution"),
    "Conv, grouped": (nnx.Conv(4, 4, (3, 3), feature_group_count=2, strides=2, rngs=RNGS), IMAGE, "convolution"),
    "ConvTranspose": (nnx.ConvTranspose(4, 3, (3, 3), strides=(2, 2), rngs=RNGS), IMAGE, "convolution"),
    "Linear": (nnx.Linear(4, 3, rngs=RNGS), IMAGE, "dense"),
    "LinearGeneral": (nnx.LinearGeneral((6, 4), (2, 3), axis=(2, 3), rngs=RNGS), IMAGE, "dense"),
    "Einsum": (nnx.Einsum("bhwc,cd->bhwd", (4, 3), (3,), rngs=RNGS), IMAGE, "dense"),
    "BatchNorm": (nnx.BatchNorm(4, use_running_average=True, rngs=RNGS), IMAGE, "affine"),
    "GroupNorm": (nnx.GroupNorm(4, num_groups=2, rngs=RNGS), IMAGE, "statistic affine"),
    "LayerNorm": (nnx.LayerNorm(4, rngs=RNGS), IMAGE, "statistic affine"),
    "InstanceNorm": (nnx.InstanceNorm(4, rngs=RNGS), IMAGE, "statistic affine"),
    "RMSNorm": (nnx.RMSNorm(4, rngs=RNGS), IMAGE, "statistic affine"),
    "Dropout": (nnx.Dropout(0.5, deterministic=True), IMAGE, ""),
    "avg_pool": (lambda x: nnx.avg_pool(x, (2, 2), (2, 2)), IMAGE, "average"),
    "avg_pool, counted": (lambda x: nnx.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False), IMAGE, "average"),
    "max_pool": (lambda x: nnx.max_pool(x, (2, 2), (2, 2)), IMAGE, "pool"),
    "min_pool": (lambda x: nnx.min_pool(x, (2, 2), (2, 2)), IMAGE, "pool"),
    "MultiHeadAttention": (
        nnx.MultiHeadAttention(2, 4, qkv_features=4, decode=False, rngs=RNGS), SIGNAL, "dense statistic average",
    ),
    **{getattr(fn, "__name__", "PReLU"): (fn, IMAGE, "activation") for fn in ACTIVATIONS},
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_flax(name):
    layer, shape, kinds = LAYERS[name]
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    # Flax divides by an integer in its pools
    with jax.numpy_dtype_promotion("standard"):
        found = [site.kind for site, _ in sites(layer, x, composites.epsilon_plus())]
    # the averages and affine sites that a statistic is computed by are not reached by relevance
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(kinds.split())), found


def test_the_morphometry_network():
    blocks = (zoo.ConvBlock(2, kernel=3, stride=2, pool=2), zoo.ConvBlock(3, kernel=3, bias=False, pool=2))
    model = zoo.MorphometryVGG(2, shape=(16, 16, 16), blocks=blocks, dense=(8, 4), rngs=RNGS)
    model.eval()
    found = sites(model, jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32), composites.epsilon_plus())
    assert [(site.kind, site.name) for site, _ in found] == [
        ("convolution", "conv1"), ("activation", ""), ("pool", ""),
        ("convolution", "conv2"), ("activation", ""), ("pool", ""),
        ("dense", "dense1"), ("activation", ""), ("dense", "dense2"), ("dense", "output"),
    ]  # fmt: skip


class Blocks(nnx.Module):
    """Layers in lists and by name, the norm behind a ReLU on its own."""

    def __init__(self):
        self.blocks = nnx.List([nnx.Conv(4, 4, (3, 3), rngs=RNGS), nnx.Conv(4, 4, (3, 3), rngs=RNGS)])
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=RNGS)

    def __call__(self, x):
        x = jax.nn.relu(self.blocks[0](x))
        return self.blocks[1](self.norm(x)).mean((1, 2))


def layer_names(model, shape=IMAGE):
    found = sites(model, jax.ShapeDtypeStruct(shape, jnp.float32), composites.epsilon_plus())
    return [site.name for site, _ in found if site.kind in ("convolution", "dense", "affine")]


def test_names_are_paths_of_parameters():
    assert layer_names(Blocks()) == ["blocks[0]", "norm", "blocks[1]"]

    def network(weights, x):
        for layer in weights["layers"]:
            # cast, transposed and reshaped on the way
            kernel = layer["kernel"].astype(jnp.float32).T.reshape(4, -1)
            x = jax.nn.relu(x @ kernel + layer["bias"].reshape(1, 1, 1, 4))
        return x.sum((1, 2)) @ weights["head"]["kernel"]

    layer = {"kernel": jnp.ones((4, 4), jnp.bfloat16), "bias": jnp.ones(4)}
    weights = {"layers": [layer, layer], "head": {"kernel": jnp.ones((4, 2))}}
    assert layer_names(Partial(network, weights)) == ["layers[0]", "layers[1]", "head"]


def test_a_function_that_closes_over_its_weights_has_no_names():
    weights = jnp.ones((4, 2))
    assert layer_names(lambda x: (x @ weights).sum((1, 2))) == [""]


def test_sites_print_as_a_table():
    layers = {"hidden": {"kernel": jnp.ones((4, 3))}}
    model = Partial(lambda layers, x: jax.nn.relu(x @ layers["hidden"]["kernel"]).mean((1, 2)), layers)
    found = sites(model, jax.ShapeDtypeStruct(IMAGE, jnp.float32), composites.epsilon_plus())
    here = [site.source for site, _ in found]
    assert all(source.startswith(__file__) for source in here)
    assert repr(found).splitlines() == [
        "site  kind        layer   operation    output         rule                   source",
        f"0     dense       hidden  dot_general  2 x 6 x 6 x 3  epsilon(1e-06, True)   {here[0]}",
        f"1     activation          relu         2 x 6 x 6 x 3  handed_on              {here[1]}",
        f"2     average             reduce_sum   2 x 3          epsilon(1e-06, False)  {here[2]}",
    ]
