"""DeconvNet and guided backprop beside a peer, and with ReLUs written in every way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import composites, deconvnet, guided_backprop, saliency
from jaxsal.attribution import pull
from jaxsal.engine.rewire import rewire
from tests.attribution.residual import QUICKLY, channels_first, channels_last, image, in_torch, network


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, 3])
def test_as_in_captum(rank: int):
    pytest.importorskip("torch", reason="captum needs torch==2.13.0")
    attr = pytest.importorskip("captum.attr", reason="the peer is captum==0.9.0")
    import torch
    from torch import nn

    class Sum(nn.Module):
        def forward(self, parts):
            return parts.sum(-1)

    model, x, targets = network(rank), image(rank), [2, 1]

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def both(model, x):
        return [pull(rewire(model, c()), x, targets) for c in (composites.guided_backprop, composites.deconvnet)]

    for ours, peer in zip(both(model, x), (attr.GuidedBackprop, attr.Deconvolution), strict=True):
        theirs = in_torch(model, Sum())
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            found = peer(theirs).attribute(channels_first(x).requires_grad_(), target=torch.tensor(targets))
        expected = channels_last(found)
        assert np.abs(np.asarray(ours) - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("relu", [
    jax.nn.relu, lambda z: jnp.maximum(z, 0.0), lambda z: lax.max(jnp.zeros_like(z), z), jax.nn.relu6,
    jax.jit(lambda z: jnp.maximum(z, 0.0)), jax.checkpoint(jax.nn.relu),
    lambda z: jnp.where(z > 0, z, 0.0), lambda z: z * (z > 0).astype(z.dtype),
])  # fmt: skip
def test_every_relu_is_found_however_it_is_written_and_however_often_it_is_called(relu):
    w1, w2 = jnp.array([[1.0, -1.0], [2.0, 1.0]]), jnp.array([[1.0, -1.0], [-3.0, 1.0]])

    def model(x: jax.Array) -> jax.Array:
        return relu(relu(x[:, 0] @ w1) @ w2) @ jnp.array([[-1.0], [1.0]])

    x = jnp.array([[[2.0, 0.5]]])  # 3 and -1.5; behind the ReLU 3 and 0, then 3 and -3
    np.testing.assert_array_equal(saliency(model, x).ravel(), [-1, -2])
    np.testing.assert_array_equal(guided_backprop(model, x).ravel(), [0, 0])
    # 0 and 1 come to the second ReLU, w2 makes -1 and 1 of that, the first ReLU 0 and 1
    np.testing.assert_array_equal(deconvnet(model, x).ravel(), [-1, 1])


def test_other_activations_keep_their_derivative():
    x = jnp.array([[[0.5], [-0.5]]])
    for activation in (jnp.tanh, jax.nn.elu, jax.nn.leaky_relu, jax.nn.silu):
        model = lambda x, activation=activation: activation(x).sum(1) * jnp.array([[-2.0]])  # noqa: E731
        for method in (guided_backprop, deconvnet):
            np.testing.assert_allclose(method(model, x), jax.grad(lambda x, m=model: m(x)[0, 0])(x), rtol=1e-6)
