import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxsal import zoo
from jaxsal.engine.geometry import geometry
from jaxsal.splitting import split


def centre_of_receptive_field(head, x, voxel):
    """Textbook: the middle of the input voxels that reach one feature voxel, by brute force."""
    reach = jax.jacobian(lambda x: head(x)[(0, *voxel)].sum())(x)[0, ..., 0] != 0
    return tuple(np.mean([hits.min(), hits.max()]) for hits in map(np.asarray, jnp.nonzero(reach)))


def conv(kernel, stride, pads, **dilation):
    def call(x):
        rank = x.ndim - 2
        names = ("NHC", "HIO", "NHC") if rank == 1 else ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x,
            jnp.ones((kernel,) * rank + (1, 1)),
            (stride,) * rank,
            [pads] * rank,
            dimension_numbers=names,
            **dilation,
        )

    return call


def pool(window, stride):
    def call(x):
        sizes, strides = ((1, *(n,) * (x.ndim - 2), 1) for n in (window, stride))
        return lax.reduce_window(x, 0.0, lax.add, sizes, strides, "VALID")

    return call


def ruled(fn):
    """The function with a derivative of its own."""
    call = jax.custom_jvp(fn)
    call.defjvp(lambda primals, tangents: jax.jvp(fn, primals, tangents))
    return call


@pytest.mark.parametrize(
    "layers",
    [
        (conv(3, 1, (1, 1)),),
        (conv(4, 2, (1, 2)), pool(2, 2)),
        (conv(7, 2, (0, 0)), pool(3, 2), conv(4, 1, (0, 0)), pool(2, 2)),
        (conv(3, 1, (4, 4), rhs_dilation=(4, 4)), pool(2, 1)),
        (conv(3, 1, (2, 2), lhs_dilation=(2, 2)),),
        (lambda x: x[:, 5:, ::3], conv(3, 1, (0, 0))),
        (lambda x: jnp.pad(x, ((0, 0), (3, 1), (0, 2), (0, 0))), pool(2, 2)),
        (lambda x: x[:, ::-1], conv(3, 2, (0, 0))),
        (
            jax.checkpoint(conv(3, 2, (1, 1))),
            jax.nn.relu,
            ruled(pool(2, 2)),
            jax.jit(jax.checkpoint(conv(4, 1, (0, 0)))),
        ),
        (jax.jit(jax.nn.relu), lambda x: jnp.swapaxes(jnp.swapaxes(x, 1, 2), 1, 2), pool(3, 3)),
        (lambda x: jnp.concatenate([x, 2 * x], -1) @ jnp.ones((2, 1)), pool(4, 4)),
        (lambda x: conv(3, 2, (1, 1))(x) + conv(3, 2, (1, 1))(x),),
    ],
)
def test_it_is_the_middle_of_the_receptive_field(layers):
    def head(x):
        for layer in layers:
            x = layer(x)
        return x

    x = jax.random.uniform(jax.random.key(0), (1, 41, 43, 1)) + 1
    found, shape = geometry(head, x), head(x).shape[1:-1]
    for voxel in (tuple(n // 2 for n in shape), tuple(n // 2 - 1 for n in shape)):
        expected = centre_of_receptive_field(head, x, voxel)
        assert np.allclose(np.array(found.start) + np.array(found.step) * voxel, expected)


def test_the_third_block_of_the_ad_network_sits_at_8_i_plus_13():
    def head(x):
        for kernel, stride, window in ((7, 2, 3), (4, 1, 2)):
            weights = jnp.ones((kernel,) * 3 + (1, 1))
            x = lax.conv_general_dilated(
                x, weights, (stride,) * 3, "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
            )
            x = nnx.max_pool(x, (window,) * 3, (2,) * 3)
        return x

    x = jax.ShapeDtypeStruct((1, 182, 218, 182, 1), jnp.float32)
    assert jax.eval_shape(head, x).shape == (1, 20, 24, 20, 1)
    assert geometry(head, x) == ((13.0,) * 3, (8.0,) * 3)


def test_the_published_network_is_followed_through_same_padding():
    model = zoo.MorphometryVGG(rngs=nnx.Rngs(0))
    model.eval()
    x = jax.ShapeDtypeStruct((1, 164, 172, 202, 1), jnp.float32)
    found = geometry(split(model, x, "relu2").head, x)
    assert found.step == (12.0, 12.0, 12.0)
    # convolution 11/3 padded by 4, 5, 5 before; pool 3/2; convolution 5/2 padded by 2, 1, 2 before
    assert found.start == (1 + 3 * 1 + 6 * 0, 0 + 3 * 1 + 6 * 1, 0 + 3 * 1 + 6 * 0)


def test_a_flattened_head_has_no_geometry():
    with pytest.raises(ValueError, match="do not lie on a grid"):
        geometry(lambda x: x.reshape(1, -1), jnp.ones((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="split at an earlier layer"):
        geometry(lambda x: x.reshape(1, 2, 8, 1), jnp.ones((1, 4, 4, 1)))
