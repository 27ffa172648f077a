"""DeepLIFT: complete on every network, and beside a peer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import deep_lift
from tests.attribution.residual import QUICKLY, channels_first, channels_last, image, in_torch, network


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, 3])
def test_as_in_captum_and_complete(rank: int):
    """Convolution, BatchNorm, ReLU, max-pool, residual sum, dense; and with an ELU before and a sigmoid behind."""
    # captum 0.9 is not complete where there are max-pools: it is a peer for pools by average
    model, averaging = network(rank), network(rank, average=True)
    x, baseline = image(rank), image(rank, 1, seed=2) * 0.5

    def with_more(model, x: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(model(jax.nn.elu(x)))

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(model, averaging, x, baseline):
        more = jax.tree_util.Partial(with_more, model)
        return (
            deep_lift(averaging, x, [2, 1], baseline=baseline),
            deep_lift(more, x, outputs="all", baseline=baseline),
            more(x) - more(baseline),
        )

    plain, more, change = map(np.asarray, everything(model, averaging, x, baseline))
    np.testing.assert_allclose(more.reshape(3, 2, -1).sum(-1), change.T, rtol=1e-9)

    pytest.importorskip("torch", reason="captum needs torch==2.13.0")
    attr = pytest.importorskip("captum.attr", reason="the peer is captum==0.9.0")
    import torch
    from torch import nn

    class Sum(nn.Module):
        def forward(self, parts):
            return parts.sum(-1)

    with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
        theirs = attr.DeepLift(in_torch(averaging, Sum())).attribute(
            channels_first(x).requires_grad_(),
            channels_first(jnp.broadcast_to(baseline, x.shape)),
            target=torch.tensor([2, 1]),
        )
    expected = channels_last(theirs)
    assert np.abs(plain - expected).max() < 1e-8 * np.abs(expected).max()


def test_overlapping_maxima_are_complete_where_they_rise_and_where_they_fall():
    def model(x: jax.Array) -> jax.Array:
        pooled = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 1), (1, 1, 1), "SAME")
        return (pooled * jnp.arange(1.0, 7).reshape(1, 6, 1)).sum(1) + x.max(1)

    x = jnp.array([[[3.0], [-1.0], [0.5], [2.0], [2.0], [-4.0]]])
    for baseline in (0.0, -x, x[:, ::-1], x + 1):
        found = deep_lift(model, x, baseline=baseline)
        change = model(x) - model(jnp.broadcast_to(baseline, x.shape))
        assert float(found.sum()) == pytest.approx(float(change[0, 0]), rel=1e-5)


def test_where_nothing_changes_nothing_is_given():
    model = lambda x: jax.nn.relu(x - 1).sum(1)  # noqa: E731
    x = jnp.array([[[3.0], [0.5], [4.0]]])
    np.testing.assert_allclose(deep_lift(model, x, baseline=x.at[0, 2].set(0)).ravel(), [0, 0, 3], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e5])
def test_small_and_large_numbers_are_complete_alike(scale: float):
    model = lambda x: jax.nn.relu(x.sum(1) - scale) / scale  # noqa: E731
    # -1 at the reference and 3 at the image, of which the ReLU leaves 3
    found = deep_lift(model, jnp.full((1, 4, 1), scale))
    np.testing.assert_allclose(found.ravel(), 0.75, rtol=1e-5)


def _transposed(w: jax.Array, x: jax.Array) -> jax.Array:
    return (jax.nn.relu(w @ x.reshape(len(x), -1).T)).T


def _slice_by_slice(w: jax.Array, x: jax.Array) -> jax.Array:
    slices = jax.nn.relu(jnp.moveaxis(x, 1, 0).reshape(-1, 2) @ w[:, :2].T)  # slices first, images behind
    return slices.reshape(3, len(x), 4).max(0)


@pytest.mark.parametrize("network", [_transposed, _slice_by_slice])
@pytest.mark.parametrize("images", [1, 2, 4])
def test_wherever_the_network_puts_the_batch(network, images: int):
    rng = np.random.default_rng(0)
    w, x, baseline = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 6), (images, 3, 2), (images, 3, 2)))
    model = lambda x: network(w, x) @ jnp.arange(1.0, 5)[:, None]  # noqa: E731
    found = deep_lift(model, x, baseline=baseline)
    np.testing.assert_allclose(found.sum((1, 2)), (model(x) - model(baseline))[:, 0], rtol=1e-4, atol=1e-5)


def test_contract():
    model, x = jax.tree.map(lambda a: a.astype(jnp.float32), (network(2), image(2, 3)))
    every = deep_lift(model, x, outputs="all", baseline=x[:1])
    assert every.shape == (3, *x.shape)
    own = deep_lift(model, x, [1, 2, 0], baseline=jnp.broadcast_to(x[:1], x.shape))
    np.testing.assert_allclose(own, jnp.stack([every[1, 0], every[2, 1], every[0, 2]]), atol=1e-5)
    np.testing.assert_array_equal(own[0], 0)
    np.testing.assert_allclose(deep_lift(model, x[2:], 0, baseline=x[:1])[0], own[2], atol=1e-5)
    np.testing.assert_allclose(
        deep_lift(model, x, outputs=[2, 0], baseline=x[:1], batch_size=1), every[jnp.array([2, 0])], atol=1e-5
    )
    with pytest.raises(ValueError, match="baseline"):
        deep_lift(model, x, 0, baseline=jnp.zeros((2, 6, 6, 1)))
