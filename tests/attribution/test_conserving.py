"""Relevance at every layer."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import composites, conservation, lrp
from tests.attribution.residual import conv, image, max_pool


def _network(kernels, x: jax.Array) -> jax.Array:
    first, second, head = kernels
    h = max_pool(jax.nn.relu(conv(x, first)))
    return jax.nn.relu(conv(h, second)).mean((1, 2, 3)) @ head


def _model():
    rng = np.random.default_rng(0)
    shapes = (3, 3, 3, 1, 4), (3, 3, 3, 4, 4), (4, 3)
    return jax.tree_util.Partial(_network, [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes])


def test_without_bias_every_layer_has_the_score():
    model, x = _model(), image(3).astype(jnp.float32)
    report = conservation(model, x, [2, 0], composite=composites.gamma())
    np.testing.assert_allclose(report.score, model(x)[jnp.arange(2), jnp.array([2, 0])], rtol=1e-5)
    np.testing.assert_allclose(report.total, np.broadcast_to(report.score, report.total.shape), rtol=1e-3)
    assert [site.kind for site in report.sites] == [
        "convolution", "activation", "pool", "convolution", "activation", "average", "dense",
    ]  # fmt: skip
    assert [r.shape for r in report.relevance] == [site.shape for site in report.sites]
    np.testing.assert_allclose(report.map, lrp(model, x, [2, 0], composite=composites.gamma()), atol=1e-5)
    header, *rows, last = str(report).splitlines()
    assert header.split() == ["site", "kind", "layer", "relevance", "of", "each", "image"]
    assert [row.split()[0] for row in rows] == ["image", *map(str, (site.index for site in report.sites))]
    assert [float(value) for value in last.split()[1:]] == [float(f"{value:.4g}") for value in report.score]


def test_where_a_network_branches_the_branches_add_up_and_a_bias_shows():
    kernel = jnp.array([[1.0, 2.0], [0.5, 1.0]])

    def model(x: jax.Array) -> jax.Array:
        h = x[..., 0] @ kernel + 1.0
        return (h + jax.nn.relu(h @ kernel)).sum(1, keepdims=True)

    x = jnp.array([[[1.0], [2.0]]])
    report = conservation(model, x, composite=composites.z())
    by_kind = {}
    for site, total in zip(report.sites, report.total[1:, 0], strict=True):
        by_kind.setdefault(site.kind, []).append(float(total))
    score = float(report.score[0])
    np.testing.assert_allclose([by_kind["sum"][0], by_kind["average"][0]], score, rtol=1e-5)
    # through the branch goes its part; to the first layer's output comes everything; of its 3 and 5 the bias has 1 each
    first, second = by_kind["dense"]
    np.testing.assert_allclose([first, second], [score, 5.5 + 11], rtol=1e-5)
    assert float(report.total[0, 0]) < score
