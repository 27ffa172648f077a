"""Masks on several layers, optimised together."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import jaxsal
from jaxsal import optim, zoo
from jaxsal.chaining import Chain
from jaxsal.masks import keep_top, smocam, smocam_layers, upsample

WEIGHTS = jnp.array([[1.0, 0.5], [0.5, 1.0], [0.25, 2.0]])
OPTIONS = dict(sigma=0.02, gamma=1.0, max_steps=40, solver=optim.armijo_once())
SOLVERS = {
    "paper": optim.armijo_once(),
    "nonnegative": optim.nonnegative(optim.armijo_once()),
    "sphere": optim.on_sphere(optim.nonnegative(optim.lbfgs())),
    "spectral": optim.nonnegative(optim.barzilai_borwein(0.01)),
    "adam": optim.nonnegative(optim.best_so_far(optim.adam())),
}


def head(x):
    return jnp.concatenate([x, jnp.tanh(x), jnp.roll(x, 1, 1)], axis=-1)


def middle(features):
    """Every second voxel, with an offset: zero features are not zero behind it."""
    return jnp.tanh(features[:, 1::2, ::2]) + 0.1


def tail(features):
    near, far = features[:, :2, :2].mean((1, 2)), features[:, -2:, -2:].mean((1, 2))
    return jnp.stack([near @ WEIGHTS[:, 0], far @ WEIGHTS[:, 1]], axis=-1) + 0.05


PARTS = Chain((head, middle, tail))


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 8, 10, 1)) + 1


@pytest.fixture(scope="module")
def result(x):
    return smocam_layers(PARTS, x, **OPTIONS | dict(max_steps=400))


def test_a_mask_and_a_map_per_layer_and_one_of_them_all(result):
    assert [mask.shape for mask in result.masks] == [(2, 2, 8, 10), (2, 2, 4, 5)]
    assert [map.shape for map in result.saliencies] == [(2, 2, 8, 10)] * 2
    assert result.saliency.shape == (2, 2, 8, 10)
    for name in ("value", "steps", "evaluations", "status", "prediction", "masked_prediction", "recovered"):
        assert getattr(result, name).shape == (2, 2), name
    assert result.negative_energy.shape == result.terms.norm.shape == result.terms.smoothness.shape == (2, 2, 2)
    lines = repr(result).splitlines()
    assert lines[0] == "LayersResult: masks of 8 x 10 voxels, 4 x 5 voxels"
    assert len(lines) == 3 + 4


def test_the_objective_is_the_network_with_every_layer_masked(result, x):
    m1, m2 = (np.asarray(mask, np.float64) for mask in result.masks)
    for k in range(2):
        masked = tail(middle(head(x) * result.masks[0][k][..., None]) * result.masks[1][k][..., None])[:, k]
        y, null = tail(middle(head(x)))[:, k], tail(jnp.zeros((2, 4, 5, 3)))[:, k]
        np.testing.assert_allclose(result.masked_prediction[k], masked, rtol=1e-4)
        np.testing.assert_allclose(result.prediction[k], y, rtol=1e-5)
        np.testing.assert_allclose(result.null_prediction[k], null, rtol=1e-6)
        np.testing.assert_allclose(result.recovered[k], (masked - null) / (y - null), rtol=1e-3)
        value = np.abs(np.asarray(masked - y, np.float64)) / 0.02
        for mask in (m1[k], m2[k]):
            value += np.abs(1 - np.sqrt((mask**2).sum((1, 2))))
            value += (np.abs(np.diff(mask, axis=1)).mean((1, 2)) + np.abs(np.diff(mask, axis=2)).mean((1, 2))) / 2
        np.testing.assert_allclose(result.value[k], value, rtol=2e-3)
    np.testing.assert_allclose(
        result.value, result.terms.distance + result.terms.norm.sum(-1) + result.terms.smoothness.sum(-1), rtol=1e-5
    )
    for layer, mask in enumerate((m1, m2)):
        energy = (np.minimum(mask, 0) ** 2).sum((2, 3)) / (mask**2).sum((2, 3))
        np.testing.assert_allclose(result.negative_energy[..., layer], energy, atol=1e-6)


def test_the_masks_find_the_corner_that_an_output_looks_at(result):
    """Of the image: rows 1 and 3, columns 0 and 2 for the first output."""
    first, second = (np.asarray(mask[0]) ** 2 for mask in result.masks)
    assert (first[:, :4, :3].sum((1, 2)) > 0.8 * first.sum((1, 2))).all()
    assert (second[:, :2, :2].sum((1, 2)) > 0.8 * second.sum((1, 2))).all()


def test_the_combined_map_is_the_product_of_the_upsampled_masks(result):
    geometries = result.config.geometries
    assert geometries == (jaxsal.Geometry((0.0, 0.0), (1.0, 1.0)), jaxsal.Geometry((1.0, 0.0), (2.0, 2.0)))
    one, two = (upsample(mask, where, (8, 10)) for mask, where in zip(result.masks, geometries, strict=True))
    np.testing.assert_allclose(result.saliency, keep_top(one * two, 95, 2), rtol=1e-5)
    np.testing.assert_allclose(result.saliencies[1], keep_top(two, 95, 2), rtol=1e-5)


def test_for_one_layer_it_is_smocam(x):
    split = jaxsal.Split(head, Partial(lambda f: tail(middle(f))))
    one = smocam_layers(Chain(tuple(split)), x, **OPTIONS)
    expected = smocam(split, x, **OPTIONS)
    chex.assert_trees_all_close(one.masks[0], expected.mask, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(one.saliency, one.saliencies[0])
    for name in ("saliency", "value", "steps", "prediction", "masked_prediction", "null_prediction", "recovered"):
        chex.assert_trees_all_close(getattr(one, name), getattr(expected, name), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(one.status, expected.status)


def test_images_and_outputs_do_not_influence_each_other(x):
    found = smocam_layers(PARTS, x, **OPTIONS)
    alone = smocam_layers(PARTS, x[1:], outputs=[1], **OPTIONS)
    for one, all in zip(alone.masks, found.masks, strict=True):
        np.testing.assert_allclose(one[0, 0], all[1, 1], rtol=1e-3, atol=1e-5)
    assert int(alone.steps[0, 0]) == int(found.steps[1, 1])


def test_the_recommended_solver_goes_below_the_published_one(x):
    published = smocam_layers(PARTS, x, **OPTIONS)
    found = smocam_layers(PARTS, x, **OPTIONS | dict(solver=None))
    assert (found.value < published.value + 1e-3).all()
    assert all((mask >= 0).all() for mask in found.masks)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_a_tuple_of_masks(name, x):
    """In double precision, against the same solver on one flat vector of both masks."""
    options = dict(sigma=0.02, gamma=0.0, lam=0.0, max_steps=25, outputs=[0])
    found = smocam_layers(PARTS, x[:1], solver=SOLVERS[name], **options)
    features, y = head(x[:1]), tail(middle(head(x[:1])))[0, 0]

    def objective(flat):
        one, two = flat[:80].reshape(8, 10), flat[80:].reshape(4, 5)
        masked = tail(middle(features * one[None, ..., None]) * two[None, ..., None])[0, 0]
        return jnp.abs(masked - y) / 0.02, ()

    start = jnp.concatenate([jnp.full(80, 1.1 / np.sqrt(80)), jnp.full(20, 1.1 / np.sqrt(20))]).astype(jnp.float32)
    lane = optim.minimise(
        objective,
        start,
        solver=SOLVERS[name],
        stop=optim.any_of(optim.stagnation(), optim.max_steps(25)),
    )
    flat = jnp.concatenate([mask.ravel() for mask in found.masks])
    np.testing.assert_allclose(flat, lane.params, rtol=5e-3, atol=5e-4)
    if name == "sphere":
        np.testing.assert_allclose(jnp.sum(flat**2), 1, rtol=1e-5)
    if name != "paper":
        assert (flat >= 0).all()


def test_one_compilation_for_new_images_and_weights(x):
    traces = []

    def counted(features):
        traces.append(features.shape)
        return tail(features)

    parts = Chain((head, middle, Partial(counted)))
    smocam_layers(parts, x, **OPTIONS | dict(max_steps=3))
    first = len(traces)
    smocam_layers(parts, x + 1, **OPTIONS | dict(sigma=3.0, lam=2.0, gamma=5.0, max_steps=3))
    # geometry and shapes are read off the operations each time, nothing else is
    assert len(traces) - first <= 1


def test_a_lane_that_is_not_finite_leaves_the_others_alone(x):
    def fragile(features):
        y = tail(features)
        return jnp.stack([y[:, 0], jnp.where(y[:, 1] < 0.3, jnp.nan, y[:, 1])], axis=-1)

    expected = smocam_layers(PARTS, x[:1], outputs=[0], **OPTIONS)
    found = smocam_layers(Chain((head, middle, fragile)), x[:1], **OPTIONS)
    assert found.status_names[1] == ["not_finite"]
    for one, other in zip(found.masks, expected.masks, strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-3, atol=1e-5)


def test_layers_of_a_network_and_its_input():
    blocks = (zoo.ConvBlock(4, kernel=3, pool=2), zoo.ConvBlock(6, kernel=3, pool=2))
    model = zoo.MorphometryVGG(2, shape=(12, 14, 12), blocks=blocks, dense=(8,), rngs=nnx.Rngs(0))
    model.eval()
    x = jax.random.uniform(jax.random.key(0), (1, 12, 14, 12, 1)).at[:, 3:6, 3:6, 3:6].add(2.0)
    layers = jaxsal.chain(model, x, ["relu1", "relu2"])
    first, *others = layers.stages
    everywhere = Chain((*jaxsal.at_input(first), *others))
    found = smocam_layers(everywhere, x, sigma=0.3, max_steps=5)
    assert [mask.shape[2:] for mask in found.masks] == [
        x.shape[1:-1],
        *(layers.stages[0](x).shape[1:-1], jaxsal.split(model, x, "relu2").head(x).shape[1:-1]),
    ]
    h = x * found.masks[0][1][..., None]
    for stage, mask in zip(layers.stages[:-1], found.masks[1:], strict=True):
        h = stage(h) * mask[1][..., None]
    np.testing.assert_allclose(found.masked_prediction[1], layers.stages[-1](h)[:, 1], rtol=1e-4)


BAD = [
    (dict(chain=Chain((head,))), "The chain has no cut"),
    (dict(geometry=[jaxsal.Geometry((0.0, 0.0), (1.0, 1.0))]), "geometry has 1 entries, one for each of the 2"),
    (dict(chain=Chain((head, middle, lambda f: f.mean((1, 2)), lambda f: f))), "behind stage 2 have shape"),
    (dict(gamma=-1.0), "lam and gamma"),
    (dict(outputs=[2]), "the network has 2"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_answered(change, message, x):
    with pytest.raises(ValueError, match=message):
        smocam_layers(**dict(chain=PARTS, x=x) | change)
