"""DeepLIFT's rule reveal-cancel: sums over single contributions in double precision, cases by hand, completeness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import deep_lift, reveal_cancel
from tests.attribution.residual import image, network


def _conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    out = lax.conv_general_dilated(x, kernel, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return out + bias.reshape(1, 1, 1, -1)


def _layers(rng: np.random.Generator):
    """Linear maps of one image, flat, and the activations behind them."""
    kernel, b1 = rng.normal(size=(3, 3, 2, 3)), rng.normal(size=3)
    (w2, b2), (w3, b3) = ((rng.normal(size=s), rng.normal(size=s[1])) for s in ((36, 5), (5, 2)))
    kernel, w2, w3, b1, b2, b3 = map(jnp.asarray, (kernel, w2, w3, b1, b2, b3))
    linear = (
        lambda v: _conv(v.reshape(1, 6, 4, 2), kernel, b1).reshape(-1),
        lambda v: v @ w2 + b2,
        lambda v: v @ w3 + b3,
    )

    def model(x: jax.Array) -> jax.Array:
        h = jax.nn.leaky_relu(_conv(x, kernel, b1))
        h = jax.nn.sigmoid(h.reshape(len(h), -1) @ w2 + b2.reshape(1, -1))
        return h @ w3 + b3.reshape(1, -1)

    return model, linear, (jax.nn.leaky_relu, jax.nn.sigmoid, lambda z: z)


def _textbook(linear, activations, x: np.ndarray, reference: np.ndarray, output: int) -> np.ndarray:
    """The paper's formulas for one image, one contribution after the other."""
    plus, minus = np.maximum(x - reference, 0), np.minimum(x - reference, 0)
    values, reference_values, passed = x, reference, []
    for layer, f in zip(linear, activations, strict=True):
        w = np.asarray(jax.jacobian(layer)(jnp.asarray(values)))
        contributions = w * (plus + minus)
        z_plus, z_minus = (np.where(c, contributions, 0).sum(1) for c in (contributions > 0, contributions < 0))
        z, z0 = (np.asarray(layer(jnp.asarray(v))) for v in (values, reference_values))
        np.testing.assert_allclose(z_plus + z_minus, z - z0, atol=1e-12)
        at = lambda change: np.asarray(f(jnp.asarray(z0 + change)))  # noqa: B023, E731
        y_plus = (at(z_plus) - at(0) + at(z_minus + z_plus) - at(z_minus)) / 2
        y_minus = (at(z_minus) - at(0) + at(z_plus + z_minus) - at(z_plus)) / 2
        passed.append((w, contributions, y_plus / z_plus, y_minus / z_minus))
        values, reference_values, plus, minus = at(z_plus + z_minus), at(0), y_plus, y_minus
    multiplier = np.eye(len(values))[output]
    for w, contributions, by_plus, by_minus in reversed(passed):
        m_plus, m_minus = multiplier * by_plus, multiplier * by_minus
        shares = np.where(contributions > 0, w * m_plus[:, None], w * m_minus[:, None])
        shares = np.where(contributions == 0, w * (m_plus + m_minus)[:, None] / 2, shares)
        multiplier = shares.sum(0)
    return multiplier * (x - reference)


@pytest.mark.usefixtures("x64")
def test_against_single_contributions():
    rng = np.random.default_rng(0)
    model, linear, activations = _layers(rng)
    x, reference = rng.normal(size=(3, 6, 4, 2)), rng.normal(size=(1, 6, 4, 2))
    reference[0, 0] = x[0, 0]  # places that do not change
    found = reveal_cancel(model, jnp.asarray(x), outputs="all", baseline=jnp.asarray(reference))
    for k in range(2):
        for i in range(3):
            expected = _textbook(linear, activations, x[i].ravel(), reference.ravel(), k)
            np.testing.assert_allclose(found[k, i].ravel(), expected, rtol=1e-9, atol=1e-12)
    targets = reveal_cancel(model, jnp.asarray(x), [1, 0, 1], baseline=jnp.asarray(reference))
    np.testing.assert_allclose(targets, found[jnp.array([1, 0, 1]), jnp.arange(3)], rtol=1e-9)


def test_what_cancels_shows():
    """A ReLU whose input rises by 3 and falls by 3, above 0 and at it: by hand."""
    x = jnp.array([[[3.0], [3.0]]])
    w = jnp.array([[1.0], [-1.0]])
    model = lambda x: jax.nn.relu(x[:, :, 0] @ w)  # noqa: E731
    np.testing.assert_allclose(reveal_cancel(model, x).ravel(), [1.5, -1.5])
    np.testing.assert_array_equal(deep_lift(model, x).sum(), 0)
    # dz+ = 4 and dz- = -2 from z' = 1: (relu(5) - relu(1) + relu(3) - relu(-1)) / 2 = 3.5, then 2 - 3.5
    off = lambda x: jax.nn.relu(x[:, :, 0] @ w + 1)  # noqa: E731
    np.testing.assert_allclose(reveal_cancel(off, jnp.array([[[4.0], [2.0]]])).ravel(), [3.5, -1.5])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, 3])
def test_complete_through_normalisation_pools_and_residual_sums(rank: int):
    model, x = network(rank), image(rank)
    for baseline in (image(rank, 1, seed=2), jnp.zeros(())):
        found = reveal_cancel(model, x, outputs="all", baseline=baseline, batch_size=2)
        change = model(x) - model(jnp.broadcast_to(baseline, x.shape))
        np.testing.assert_allclose(found.reshape(3, 2, -1).sum(-1), change.T, rtol=1e-9)


def test_overlapping_maxima_and_maxima_of_two_are_complete():
    def model(x: jax.Array) -> jax.Array:
        pooled = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 1), (1, 1, 1), "SAME")
        return (jnp.maximum(pooled, 1 - x) * jnp.arange(1.0, 7).reshape(1, 6, 1)).sum(1) + x.max(1)

    x = jnp.array([[[3.0], [-1.0], [0.5], [2.0], [2.0], [-4.0]]])
    for baseline in (0.0, -x, x[:, ::-1], x + 1):
        found = reveal_cancel(model, x, baseline=baseline)
        change = model(x) - model(jnp.broadcast_to(baseline, x.shape))
        assert float(found.sum()) == pytest.approx(float(change[0, 0]), rel=1e-5)


def test_what_has_no_rule_is_named():
    normalised = lambda x: ((x - x.mean((1,), keepdims=True)) / x.std((1,), keepdims=True)).sum(1)  # noqa: E731
    with pytest.raises(
        NotImplementedError, match=r"Reveal-cancel has no rule for .* at .*test_reveal_cancel.*deep_lift"
    ):
        reveal_cancel(normalised, jnp.array([[[1.0], [2.0]]]))
