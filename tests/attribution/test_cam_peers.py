"""Grad-CAM of a published 3-D network against PyTorch's gradients, and captum's own where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsal import Split
from jaxsal.attribution.cam_gradient import grad_cam
from tests.peers import ad_network, to_torch


def test_grad_cam_of_a_published_network(shared):
    torch = pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    network = ad_network(shared, fold=0)
    features = jax.nn.leaky_relu(jax.random.normal(jax.random.key(0), (2, 20, 24, 20, 40)), 0.01)
    # cut at the third block's input: the features themselves are the image, on their own grid
    parts = Split(Partial(_same), network.split.tail)

    found = grad_cam(parts, features)

    leaf = to_torch(features).requires_grad_()
    score = network.tail(leaf)
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    _close(found, (gradient.mean((2, 3, 4), keepdim=True) * leaf).sum(1))

    attr = pytest.importorskip("captum.attr", reason="the peer needs captum==0.9.0")
    module = torch.nn.Sequential(torch.nn.Identity(), _module(network.tail))
    _close(found, attr.LayerGradCam(module, module[0]).attribute(to_torch(features), target=0)[:, 0])


def _module(fn):
    import torch

    class Called(torch.nn.Module):
        def forward(self, x):
            return fn(x)

    return Called()


def _close(found, expected):
    expected = expected.detach().numpy()
    assert jnp.shape(found) == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def _same(x):
    return x
