"""Grad-CAM and its relatives: the papers' formulas in loops, recorded values, and what all of them promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from jaxsal import Split, split, zoo
from jaxsal.attribution.cam_gradient import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from jaxsal.attribution.cam_guiding import guide
from jaxsal.attribution.cam_weighted import weighted_cam, weighted_features
from jaxsal.attribution.cam_weights import grad_cam_plus_plus_weights, grad_cam_weights, xgrad_cam_weights
from jaxsal.engine.geometry import Geometry, geometry
from tests.attribution import goldens
from tests.attribution.cam_networks import SPACE, features_and_gradients, head, images, network, resized, tail, voxels

CAMS = {
    "grad": grad_cam,
    "plus_plus": grad_cam_plus_plus,
    "hires": hires_cam,
    "layer": layer_cam,
    "xgrad": xgrad_cam,
}


# ---- the papers' formulas, one channel and voxel after the other ----


def book_grad(features, gradient):
    map = np.zeros(features.shape[:-1])
    for c in range(features.shape[-1]):
        weight = sum(gradient[*v, c] for v in voxels(gradient)) / gradient[..., 0].size
        for v in voxels(features):
            map[v] += weight * features[*v, c]
    return map


def book_plus_plus(features, gradient, score):
    """Equations 10, 19 and 5 of the paper with Y = exp(score), divided by Y at the end."""
    first, second, third = (np.exp(score) * gradient**n for n in (1, 2, 3))
    map = np.zeros(features.shape[:-1])
    for c in range(features.shape[-1]):
        total, weight = features[..., c].sum(), 0.0
        for v in voxels(features):
            if gradient[*v, c] != 0:
                alpha = second[*v, c] / (2 * second[*v, c] + total * third[*v, c])
                weight += alpha * max(first[*v, c], 0)
        map += weight * features[..., c]
    return map / np.exp(score)


def book_hires(features, gradient):
    map = np.zeros(features.shape[:-1])
    for v in voxels(features):
        map[v] = sum(features[*v, c] * gradient[*v, c] for c in range(features.shape[-1]))
    return map


def book_layer(features, gradient):
    map = np.zeros(features.shape[:-1])
    for v in voxels(features):
        map[v] = sum(features[*v, c] * max(gradient[*v, c], 0) for c in range(features.shape[-1]))
    return map


def book_xgrad(features, gradient):
    map = np.zeros(features.shape[:-1])
    for c in range(features.shape[-1]):
        total = features[..., c].sum()
        if total:
            map += features[..., c] * sum(features[*v, c] / total * gradient[*v, c] for v in voxels(features))
    return map


BOOK = {"grad": book_grad, "hires": book_hires, "layer": book_layer, "xgrad": book_xgrad}


@pytest.mark.parametrize(("rank", "flipped", "names"), [(2, True, ("plus_plus", "layer")), (3, False, tuple(CAMS))])
def test_maps_are_the_papers_on_the_images_grid(x64, rank, flipped, names):
    parts, x = network(rank), images(rank)
    where = geometry(parts.head, x)
    assert where.step == (2.0,) * rank
    y = np.asarray(parts.tail(parts.head(x)))
    features, gradients = features_and_gradients(parts, x, 1)
    sign = -1 if flipped else 1
    for name in names:
        maps = CAMS[name](parts, x, 1, counterfactual=flipped)
        assert maps.shape == (2, *SPACE[rank])
        assert maps.dtype == jnp.float64
        for example, (feature, gradient) in enumerate(zip(features, sign * gradients, strict=True)):
            score = (sign * y[example, 1],) if name == "plus_plus" else ()
            expected = BOOK.get(name, book_plus_plus)(feature, gradient, *score)
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(maps[example], resized(expected, *where, SPACE[rank]), atol=1e-12)


def test_gradients_are_pooled_over_every_spatial_axis(x64):
    """A gradient that differs along the last axis alone has one mean for each channel."""
    slopes = jnp.arange(1.0, 4.0, dtype=jnp.float64)
    parts = Split(_same, lambda f: jnp.einsum("bxyzc,z->bc", f, slopes))
    x = jnp.ones((1, 2, 2, 3, 1), jnp.float64)
    np.testing.assert_allclose(grad_cam(parts, x), np.full((1, 2, 2, 3), 2.0))


# ---- recorded values ----


def test_recorded_3d_grad_cam(x64, shared):
    golden = goldens.golden(shared)
    parts = Split(Partial(_golden_head, golden.model.args[0]), Partial(_golden_tail, golden.model.args[0]))
    np.testing.assert_allclose(parts.tail(parts.head(golden.x)), golden.y, atol=1e-12)
    found = weighted_features(parts, golden.x, outputs="all", weigh=grad_cam_weights)
    for target in (0, 1):
        expected = golden.maps[f"captum_gradcam_raw/t{target}"][..., 0]
        np.testing.assert_allclose(found[target], expected, atol=1e-5 * np.abs(expected).max())


def _golden_head(params, x):
    h = goldens._convolution(x, params["c1.weight"]) + goldens._per_channel(params["c1.bias"])
    h = jax.nn.relu(goldens._norm(params, "b1", h))
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, goldens._TWO, goldens._TWO, "VALID")
    return jax.nn.relu(goldens._norm(params, "b2", goldens._convolution(h, params["c2.weight"])))


def _golden_tail(params, h):
    h = jax.lax.reduce_window(h, 0.0, jax.lax.add, goldens._TWO, goldens._TWO, "VALID") / 8
    return jnp.moveaxis(h, -1, 1).reshape(len(h), -1) @ params["fc.weight"].T + params["fc.bias"][None]


def test_hand_computed_grad_cam_before_and_after_the_relu(x64):
    x = jnp.arange(16.0, dtype=jnp.float64).reshape(1, 4, 4, 1)
    dense = jnp.concatenate([jnp.ones((5, 4), jnp.float64), -jnp.ones((3, 4), jnp.float64)])

    def convolved(x):
        kernel = jnp.ones((3, 3, 1, 2), x.dtype)
        h = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return h - jnp.array([50.0, 75.0], x.dtype).reshape(1, 1, 1, 2)

    def rest(h):
        return jax.nn.relu(jnp.moveaxis(h, -1, 1).reshape(len(h), 8) @ dense)

    before = Split(convolved, lambda h: rest(jax.nn.relu(h)))
    after = Split(lambda x: jax.nn.relu(convolved(x)), rest)
    raw = functools.partial(weighted_features, weigh=grad_cam_weights)
    np.testing.assert_allclose(raw(before, x, 0)[0], [[11.25, 13.5], [20.25, 22.5]])
    np.testing.assert_allclose(raw(after, x, 0)[0], [[0, 4], [28, 32.5]])
    # centres of the 3 x 3 windows lie on voxels 1 and 2
    np.testing.assert_allclose(grad_cam(after, x, 0)[0, 1:3, 1:3], [[0, 4], [28, 32.5]])


# ---- what all of them promise ----


def test_batches_outputs_and_targets(x64):
    """Examples one by one, outputs in a loop, a target for each: the same maps."""
    parts, x, cam = network(2), images(2, 3), grad_cam_plus_plus
    every = cam(parts, x, outputs="all")
    assert every.shape == (3, 3, *SPACE[2])
    for output in range(3):
        alone = jnp.concatenate([cam(parts, one[None], output) for one in x])
        np.testing.assert_allclose(every[output], alone, atol=1e-12)
    np.testing.assert_allclose(cam(parts, x, outputs=[2, 0], batch_size=1), every[jnp.array([2, 0])], atol=1e-12)
    each = cam(parts, x, [2, 0, 1])
    np.testing.assert_allclose(each, every[jnp.array([2, 0, 1]), jnp.arange(3)], atol=1e-12)
    np.testing.assert_allclose(cam(parts, x, lambda y: y[:, 1]), every[1], atol=1e-12)


def test_new_weights_images_and_targets_do_not_trace_again():
    traces = []

    def counting(kernel, dense, bias, features):
        traces.append(1)
        return tail(kernel, dense, bias, features)

    x = images(2).astype(jnp.float32)
    parts = [jax.tree.map(lambda a: a.astype(jnp.float32), network(2, seed=seed)) for seed in (0, 1)]
    one, other = (Split(p.head, Partial(counting, *p.tail.args)) for p in parts)
    maps = grad_cam(one, x, 0)
    before = len(traces)
    again = grad_cam(other, 2 * x, [1, 2])
    assert len(traces) == before
    assert maps.dtype == jnp.float32
    assert not np.allclose(maps, again)
    np.testing.assert_allclose(again, grad_cam(parts[1], 2 * x, [1, 2]), atol=1e-6)


def test_within_a_jit_of_ones_own():
    x, parts = images(2).astype(jnp.float32), jax.tree.map(lambda a: a.astype(jnp.float32), network(2))
    compiled = jax.jit(lambda parts, x: grad_cam(parts, x, outputs="all"))(parts, x)
    np.testing.assert_allclose(compiled, grad_cam(parts, x, outputs="all"), atol=1e-6)


# ---- signs and units ----


def test_a_regression_with_nothing_but_evidence_against_it_keeps_its_map(x64):
    parts = Split(_same, lambda f: -f[:, :3, :3].mean((1, 2)) - 5)
    x = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (1, 6, 6, 1)))
    for cam in (grad_cam, hires_cam, xgrad_cam):
        assert (cam(parts, x) <= 0).all()
        assert cam(parts, x).min() < 0
        assert (cam(parts, x, positive=True) == 0).all()
        np.testing.assert_allclose(cam(parts, x, counterfactual=True, positive=True), -cam(parts, x), atol=1e-15)
    for cam in (grad_cam_plus_plus, layer_cam):
        assert (cam(parts, x) == 0).all()
        assert cam(parts, x, counterfactual=True).max() > 0


def test_layer_cam_less_its_counterfactual_is_hires_cam(x64):
    parts, x = network(3), images(3)
    both = layer_cam(parts, x, 2) - layer_cam(parts, x, 2, counterfactual=True)
    np.testing.assert_allclose(both, hires_cam(parts, x, 2), atol=1e-12)


def test_xgrad_cam_and_hires_cam_sum_to_an_output_without_biases(x64):
    parts, x = network(2), images(2)
    kernel, dense, bias = parts.tail.args
    parts = Split(parts.head, Partial(tail, kernel, dense, jnp.zeros_like(bias)))
    y = parts.tail(parts.head(x))[:, 0]
    for weigh in (xgrad_cam_weights, lambda features, gradient: gradient):
        np.testing.assert_allclose(weighted_features(parts, x, 0, weigh=weigh).sum((1, 2)), y, atol=1e-12)


def test_negative_values_are_cut_before_they_are_interpolated(x64):
    parts, x = network(2), images(2)
    raw = weighted_features(parts, x, 0, weigh=grad_cam_weights)
    assert raw.min() < 0 < raw.max()
    where = geometry(parts.head, x)
    expected = np.stack([resized(np.maximum(map, 0), *where, SPACE[2]) for map in np.asarray(raw)])
    np.testing.assert_allclose(grad_cam(parts, x, 0, positive=True), expected, atol=1e-12)


def test_plus_plus_of_huge_scores_and_tiny_gradients():
    """exp(1e4) and (1e-30)^2 are nothing that float32 knows."""
    x = jnp.ones((1, 3, 3, 1))
    for scale, offset in ((1.0, 1e4), (1e-30, 0.0)):
        found = grad_cam_plus_plus(Split(_same, lambda f, a=scale, b=offset: a * f.sum((1, 2)) + b), x)
        np.testing.assert_allclose(found, np.full((1, 3, 3), 9 * scale / (2 + 9 * scale)), rtol=1e-6)


def test_plus_plus_in_the_unit_of_the_output(x64):
    parts, x = network(2), images(2)
    kernel, dense, bias = parts.tail.args
    scale = jnp.array([[1.0, 10.0, 1000.0]], jnp.float64)
    scaled = Split(parts.head, Partial(tail, kernel, dense * scale, bias * scale))
    plain = grad_cam_plus_plus(parts, x, outputs="all")
    found = grad_cam_plus_plus(scaled, x, outputs="all", sigma=scale[0])
    np.testing.assert_allclose(found, plain, atol=1e-12)
    np.testing.assert_allclose(grad_cam_plus_plus(scaled, x, [1, 2], sigma=scale[0])[1], plain[2, 1], atol=1e-12)
    np.testing.assert_allclose(grad_cam_plus_plus(scaled, x, lambda y: y[:, 1], sigma=10), plain[1], atol=1e-12)
    with pytest.raises(ValueError, match=r"sigma has shape \(3,\).*give a number"):
        grad_cam_plus_plus(scaled, x, lambda y: y[:, 1], sigma=scale[0])


def test_dead_channels_weigh_nothing():
    features = jnp.zeros((2, 2, 1))
    for weights in (xgrad_cam_weights, grad_cam_plus_plus_weights):
        assert np.isfinite(weights(features, jnp.ones((2, 2, 1)))).all()
    assert xgrad_cam_weights(features, jnp.ones((2, 2, 1))).tolist() == [0.0]


# ---- what can be explained ----


def test_explaining_the_error(x64):
    """The score -|y - truth|: what brings the prediction closer to the truth is positive."""
    parts, x = network(2), images(2)
    y = parts.tail(parts.head(x))[:, 1]
    truth = y + jnp.array([1.0, -1.0], y.dtype)
    found = grad_cam(parts, x, Partial(_minus_error, truth))
    expected = grad_cam(parts, x, 1) * jnp.array([1.0, -1.0], y.dtype)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def _minus_error(truth, y):
    return -jnp.abs(y[:, 1] - truth)


def test_an_inner_unit_is_a_target():
    """The head of a split is a network, its units are outputs."""
    block = zoo.ConvBlock(4, kernel=3, pool=2)
    model = zoo.MorphometryVGG(2, shape=(12, 16), blocks=[block, block], dense=(8,), rngs=nnx.Rngs(0))
    model.eval()
    x = images(2)[..., :1].astype(jnp.float32)
    x = jax.image.resize(x, (2, 12, 16, 1), "linear")
    outer = split(model, x, "relu2")
    inner = split(outer.head, x, "relu1")
    units = Split(inner.head, Partial(_at_voxel, inner.tail))
    found = grad_cam(units, x, 3)
    assert found.shape == (2, 12, 16)
    features, gradients = features_and_gradients(units, x, 3)
    where = geometry(inner.head, x)
    for map, feature, gradient in zip(found, features, gradients, strict=True):
        np.testing.assert_allclose(map, resized(book_grad(feature, gradient), *where, (12, 16)), atol=1e-6)


def _at_voxel(tail, features):
    return tail(features)[:, 2, 1]


# ---- maps of one's own, guiding, and what is refused ----


def test_weights_of_ones_own(x64):
    parts, x = network(2), images(2)
    where = geometry(parts.head, x)
    found = weighted_cam(parts, x, 0, weigh=Partial(_power, jnp.asarray(0.5)))
    features, gradients = features_and_gradients(parts, x, 0)
    expected = (np.sign(gradients) * np.abs(gradients) ** 0.5 * features).sum(-1)
    np.testing.assert_allclose(found[1], resized(expected[1], *where, SPACE[2]), atol=1e-12)
    with pytest.raises(ValueError, match=r"weigh returns \(7,\) for features \(4, 5, 4\)"):
        weighted_cam(parts, x, 0, weigh=lambda features, gradient: jnp.zeros(7))


def _power(exponent, features, gradient):
    return jnp.sign(gradient) * jnp.abs(gradient) ** exponent


def test_guiding_multiplies_every_channel(x64):
    cam, map = images(2)[..., 0], images(2)
    np.testing.assert_array_equal(guide(cam, map)[..., 1], cam * map[..., 1])
    assert guide(cam[None], map[None]).shape == (1, *map.shape)
    with pytest.raises(ValueError, match="cannot guide"):
        guide(cam[:1], map)


def test_a_geometry_that_is_given_is_taken(x64):
    parts, x = network(2), images(2)
    raw = np.asarray(weighted_features(parts, x, 0, weigh=grad_cam_weights))
    given = Geometry((1.0, 0.0), (1.5, 2.5))
    found = grad_cam(parts, x, 0, geometry=given)
    np.testing.assert_allclose(found[0], resized(raw[0], *given, SPACE[2]), atol=1e-12)
    with pytest.raises(ValueError, match="2 spatial axes"):
        grad_cam(parts, x, 0, geometry=Geometry((0.0,), (1.0,)))


def test_what_cannot_be_explained_is_refused():
    parts, x = jax.tree.map(lambda a: a.astype(jnp.float32), network(2)), images(2).astype(jnp.float32)
    with pytest.raises(ValueError, match="has 3 outputs"):
        grad_cam(parts, x)
    with pytest.raises(ValueError, match="has 3 outputs"):
        grad_cam(parts, x, 3)
    with pytest.raises(ValueError, match="batch_size got 0"):
        grad_cam(parts, x, 0, batch_size=0)
    with pytest.raises(ValueError, match="split at a layer before the flatten"):
        grad_cam(Split(lambda x: x.reshape(2, -1), lambda f: f[:, :3]), x, 0)
    with pytest.raises(ValueError, match="NaN"):
        grad_cam(parts, x.at[0, 0, 0, 0].set(jnp.nan), 0)
    with pytest.raises(ValueError, match="sigma must be positive"):
        grad_cam_plus_plus(parts, x, 0, sigma=0.0)
    with pytest.raises(ValueError, match=r"The weight .* NaN"):
        grad_cam(Split(Partial(head, parts.head.args[0] * jnp.nan), parts.tail), x, 0)


def _same(x):
    return x
