"""Score-CAM against a loop over channels, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsal import Split
from jaxsal.attribution.cam_score import score_cam
from jaxsal.engine.geometry import geometry
from tests.attribution.cam_networks import SPACE, images, network, resized, tail


def book(parts, x, y_of, baseline, weigh=lambda increases: increases):
    """One image ``[*space, c]``: every channel's own forward pass, then the weighted sum on the features' grid."""
    where = geometry(parts.head, x[None])
    features = np.asarray(parts.head(x[None])[0])
    nothing = np.broadcast_to(baseline, x.shape)
    increases = []
    for c in range(features.shape[-1]):
        shown = resized(features[..., c], *where, x.shape[:-1])
        spread = shown.max() - shown.min()
        shown = (shown - shown.min()) / spread if spread else 0 * shown
        masked = nothing + shown[..., None] * (np.asarray(x) - nothing)
        increases.append(y_of(masked) - y_of(nothing))
    weights = weigh(np.array(increases))
    map = sum(weights[c] * features[..., c] for c in range(features.shape[-1]))
    return resized(map, *where, x.shape[:-1])


def output(parts, index):
    run = jax.jit(lambda image: parts.tail(parts.head(image[None]))[0, index])
    return lambda image: float(run(jnp.asarray(image)))


def softmax(increases):
    shares = np.exp(increases - increases.max())
    return shares / shares.sum()


@pytest.mark.parametrize("rank", [2, 3])
def test_maps_are_those_of_a_loop_over_channels(x64, rank):
    parts, x = network(rank), images(rank)
    found = score_cam(parts, x, 1, batch_size=3)
    assert found.shape == (2, *SPACE[rank])
    for map, image in zip(found, x, strict=True):
        expected = book(parts, image, output(parts, 1), 0.0)
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(map, expected, atol=1e-12)


def test_softmax_units_and_a_baseline_for_each_image(x64):
    parts, x = network(2), images(2)
    baseline = np.random.default_rng(3).normal(size=x.shape)
    found = score_cam(parts, x, outputs=[2, 0], baseline=baseline, weigh=jax.nn.softmax, sigma=[0.1, 1.0, 0.5])
    assert found.shape == (2, 2, *SPACE[2])
    for place, (index, sigma) in enumerate(((2, 0.5), (0, 0.1))):
        for example in range(2):
            run = output(parts, index)
            expected = book(
                parts, x[example], run, baseline[example], lambda increases, s=sigma: softmax(increases / s)
            )
            np.testing.assert_allclose(found[place, example], expected, atol=1e-12)
    one = score_cam(parts, x, 0, baseline=baseline[:1])
    np.testing.assert_allclose(one[1], book(parts, x[1], output(parts, 0), baseline[0]), atol=1e-12)


def test_batches_outputs_and_targets(x64):
    parts, x = network(2), images(2, 3)
    every = score_cam(parts, x, outputs="all")
    for example in range(3):
        np.testing.assert_allclose(every[1, example], score_cam(parts, x[example : example + 1], 1)[0], atol=1e-12)
    np.testing.assert_allclose(score_cam(parts, x, [2, 0, 1]), every[jnp.array([2, 0, 1]), jnp.arange(3)], atol=1e-12)
    np.testing.assert_allclose(score_cam(parts, x, lambda y: -y[:, 1], batch_size=None), -every[1], atol=1e-12)


def test_falling_outputs_keep_their_map_and_channels_of_one_value_show_nothing(x64):
    def head(x):
        # the second channel is the same everywhere, the third is dead
        return jnp.concatenate([x, jnp.full_like(x, 0.1), jnp.zeros_like(x)], -1)

    parts = Split(head, lambda f: -f[..., 0].sum((1, 2), keepdims=True)[:, 0] - 5)
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (1, 5, 5, 1)))
    found = score_cam(parts, x)
    spread = (x - x.min()) / jnp.ptp(x)
    np.testing.assert_allclose(found, -(spread * x).sum() * x[..., 0], atol=1e-12)
    assert (score_cam(parts, x, positive=True) == 0).all()


def test_new_weights_do_not_trace_again():
    traces = []

    def counting(kernel, dense, bias, features):
        traces.append(1)
        return tail(kernel, dense, bias, features)

    x = images(2).astype(jnp.float32)
    parts = [jax.tree.map(lambda a: a.astype(jnp.float32), network(2, seed=seed)) for seed in (0, 1)]
    one, other = (Split(p.head, Partial(counting, *p.tail.args)) for p in parts)
    first = score_cam(one, x, 0)
    before = len(traces)
    second = score_cam(other, x, [1, 2], baseline=0.5)
    assert len(traces) == before
    assert first.dtype == jnp.float32
    np.testing.assert_allclose(second, score_cam(parts[1], x, [1, 2], baseline=0.5), atol=1e-5)


def test_what_cannot_be_explained_is_refused():
    parts, x = jax.tree.map(lambda a: a.astype(jnp.float32), network(2)), images(2).astype(jnp.float32)
    with pytest.raises(ValueError, match=r"baseline has shape \(3,\)"):
        score_cam(parts, x, 0, baseline=jnp.ones(3))
    with pytest.raises(ValueError, match="baseline holds NaN"):
        score_cam(parts, x, 0, baseline=np.nan)
    with pytest.raises(ValueError, match="batch_size got 0"):
        score_cam(parts, x, 0, batch_size=0)
    with pytest.raises(ValueError, match="has 3 outputs"):
        score_cam(parts, x)
