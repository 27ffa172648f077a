import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal.masks import group, group_mask
from jaxsal.masks.objective import on_image
from jaxsal.masks.penalties import share_norm, variation_norm
from jaxsal.masks.scores import probability
from jaxsal.masks.separable import linear
from jaxsal.optim.applied import Applied

BOX = (slice(3, 6), slice(4, 8))
OPTIONS = dict(lam1=0.002, lam2=0.0005, beta1=1, beta2=1, max_steps=60)


def network(x):
    """Class 1, where a box is darker than it is in the others."""
    dark = 1 - x[(slice(None), *BOX)].mean(range(1, x.ndim - 1))[:, 0]
    return jnp.stack([jnp.zeros_like(dark), 12 * dark - 4], axis=-1)


def patients(count, space=(10, 12), seed=0):
    x = jax.random.uniform(jax.random.key(seed), (count, *space, 1), minval=0.6, maxval=1.0)
    return x.at[(slice(None), *BOX)].add(-0.6)


@pytest.fixture(scope="module")
def xs():
    return patients(5)


@pytest.fixture(scope="module")
def result(xs):
    return group_mask(network, xs, 1, **OPTIONS)


def by_hand(x, weight, mask, lam1, lam2, beta1, beta2):
    """The paper's objective in numpy; masks have the image's grid."""
    seen = mask[None, ..., None] * x + (1 - mask[None, ..., None])
    dark = 1 - seen[(slice(None), *BOX)].reshape(len(x), -1).mean(1)
    p = 1 / (1 + np.exp(-(12 * dark - 4)))
    steps = np.concatenate([np.diff(mask, axis=axis).ravel() for axis in range(mask.ndim)])
    hidden = np.linalg.norm(1 - mask.ravel(), beta1)
    return (weight * p).sum() + lam1 * hidden + lam2 * np.linalg.norm(steps, beta2)


@pytest.mark.parametrize("space", [(10, 12), (8, 9, 7)])
@pytest.mark.parametrize("size", [2, 5])
def test_the_objective_is_the_papers(space, size, x64):
    rng = np.random.default_rng(0)
    x, mask = np.asarray(patients(5, space), np.float64), rng.uniform(size=space)
    weight = np.array([0.25, 0.25, 0.0, 0.25, 0.25])
    order, once = group._batches(5, size)
    measure = Applied(group._value, (probability,))
    plan = group._Plan(probability, measure, share_norm(2), variation_norm(1.5), space, space)
    hidden, index = jnp.ones((1,) * (len(space) + 1)), jnp.ones(order.shape, jnp.int32)
    subjects = group._Subjects(jnp.asarray(x)[order], index, jnp.zeros(order.shape), jnp.ones(()), hidden)
    one = group._Network(jax.tree_util.Partial(network), jnp.asarray(weight[order] * once))
    weights = jnp.array([0.3, 0.2])
    value, parts = group._objective(plan, subjects, one, weights, jnp.asarray(mask))
    assert np.isclose(value, by_hand(x, weight, mask, 0.3, 0.2, 2, 1.5), rtol=1e-12)
    assert np.isclose(parts.sparsity, np.linalg.norm(1 - mask), rtol=1e-12)
    slope = jax.grad(lambda m: group._objective(plan, subjects, one, weights, m)[0])(jnp.asarray(mask))
    step = rng.normal(size=space)
    values = [by_hand(x, weight, mask + t * step, 0.3, 0.2, 2, 1.5) for t in (1e-6, -1e-6)]
    assert np.isclose((slope * step).sum(), (values[0] - values[1]) / 2e-6, rtol=1e-6)


def test_the_mask_hides_the_box_from_the_network(result):
    inside = np.zeros((10, 12), bool)
    inside[BOX] = True
    hidden = np.asarray(result.saliency) > 0.3
    assert (hidden & inside).sum() / (hidden | inside).sum() > 0.9
    assert float(result.prediction) > 0.9
    assert float(result.masked_prediction) < 0.2
    assert result.lanes == ()
    assert "deletion masks of 10 x 12 voxels" in repr(result)
    assert result.status_names in ("stagnated", "max_steps")


def test_equal_subjects_have_the_mask_of_one(xs):
    one = group_mask(network, xs[:1], 1, **OPTIONS)
    same = group_mask(network, jnp.repeat(xs[:1], 3, axis=0), 1, **OPTIONS)
    np.testing.assert_allclose(same.mask, one.mask, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_subjects_in_batches_are_as_all_at_once(batch_size, xs, result):
    found = group_mask(network, xs, 1, **OPTIONS, batch_size=batch_size)
    np.testing.assert_allclose(found.mask, result.mask, atol=1e-4)
    for field in ("value", "prediction", "masked_prediction", "null_prediction"):
        np.testing.assert_allclose(getattr(found, field), getattr(result, field), atol=1e-5)


def test_only_correctly_classified_subjects_count(xs, result):
    # what the network takes for a control must not pull the mask anywhere
    controls = jnp.ones((2, 10, 12, 1)).at[:, 7:, 9:].set(0.0)
    mixed = jnp.concatenate([xs[:3], controls, xs[3:]])
    found = group_mask(network, mixed, 1, **OPTIONS, batch_size=3)
    assert found.subjects.tolist() == [True, True, True, False, False, True, True]
    np.testing.assert_allclose(found.mask, result.mask, atol=1e-4)
    with pytest.raises(ValueError, match="Network 0 gives none of the 5 subjects its target class"):
        group_mask(network, xs, 0, **OPTIONS)


def test_lambdas_are_lanes_and_do_not_influence_each_other(xs, result):
    options = OPTIONS | dict(lam1=[0.02, OPTIONS["lam1"]], lam2=[OPTIONS["lam2"], 0.001, 0.0])
    grid = group_mask(network, xs, 1, **options)
    assert grid.lanes == ("lam1", "lam2")
    assert grid.mask.shape == (2, 3, 10, 12)
    np.testing.assert_allclose(grid.mask[1, 0], result.mask, atol=1e-4)
    hidden = grid.saliency.sum((2, 3))
    assert (hidden[0] < hidden[1]).all()  # what is dearer is hidden less


def test_folds_are_lanes_each_with_its_own_subjects(xs):
    class Fold(nnx.Module):
        def __init__(self, shift, rngs):
            self.bias = nnx.Param(jnp.array([0.0, shift]))
            self.output = nnx.Linear(2, 2, rngs=rngs)
            self.output.kernel[...] = jnp.eye(2)

        def __call__(self, x):
            return self.output(network(x)) + jnp.broadcast_to(self.bias[...], (len(x), 2))

    folds = [Fold(shift, nnx.Rngs(0)) for shift in (0.0, -2.5)]
    weak = xs.at[2:, 3:6, 4:8].add(0.3)
    both = group_mask(folds, weak, 1, **OPTIONS)
    assert both.lanes == ("fold",)
    assert both.subjects.shape == (2, 5)
    assert both.subjects.sum(1).tolist() == [5, 2]
    for index, fold in enumerate(folds):
        alone = group_mask(fold, weak, 1, **OPTIONS)
        np.testing.assert_allclose(both.mask[index], alone.mask, atol=1e-4)


def test_an_output_is_moved_to_a_goal(xs):
    def age(x):
        return 50 + 50 * (1 - x[(slice(None), *BOX)].mean((1, 2)))

    result = group_mask(age, xs, 0, goal=60.0, sigma=2.0, lam1=0.01, lam2=0.0, beta1=1, beta2=1, max_steps=150)
    assert float(result.prediction) > 75
    assert abs(float(result.masked_prediction) - 60) < 4
    each = np.abs(np.asarray(age(hidden_under(result, xs)))[:, 0] - 60) / 2
    assert np.isclose(result.terms.score, each.mean(), rtol=1e-4)


def hidden_under(result, xs):
    mask = (1 - result.saliency)[None, ..., None]
    return mask * xs + (1 - mask)


def test_an_image_as_fill_and_a_coarse_mask(xs):
    controls = jnp.ones((10, 12, 1)) * 0.9
    result = group_mask(network, xs, 1, **OPTIONS, fill=controls, factor=2)
    assert result.mask.shape == (5, 6)
    full = on_image(result.mask, linear, (10, 12))[None, ..., None]
    seen = full * xs + (1 - full) * controls[None]
    np.testing.assert_allclose(result.masked_prediction, jax.nn.softmax(network(seen))[:, 1].mean(), rtol=1e-4)
    np.testing.assert_allclose(result.saliency, 1 - full[0, ..., 0], atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_subjects():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 1, 32))

    def convolution(x):
        h = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(h).mean((1, 2))[:, :2]

    def temporary(count):
        measure = Applied(group._value, (probability,))
        plan = group._Plan(probability, measure, share_norm(1), variation_norm(1), (32, 32), (32, 32))
        order, _ = group._batches(count, 2)
        x, index = jnp.ones((*order.shape, 32, 32, 1)), jnp.zeros(order.shape, jnp.int32)
        subjects = group._Subjects(x, index, jnp.zeros(order.shape), jnp.ones(()), jnp.ones((1, 1, 1)))
        one = group._Network(jax.tree_util.Partial(convolution), jnp.ones(order.shape) / count)
        objective = functools.partial(group._objective, plan)
        slope = jax.jit(jax.grad(lambda v, s, n: objective(s, n, jnp.ones(2), v)[0]))
        compiled = slope.lower(jnp.ones((32, 32)), subjects, one).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    activations = 2 * 32 * 32 * 32 * 4  # of one batch
    few, many = temporary(4), temporary(40)
    # the inputs themselves may be copied, activations of many batches may not be kept
    assert many - few < 3 * 36 * 32 * 32 * 4 < 18 * activations


BAD = [
    (dict(xs=jnp.ones((2, 4))), ValueError, r"xs has shape \(2, 4\)"),
    (dict(target=2), ValueError, "the network has 2"),
    (dict(target=[0, 1]), ValueError, r"target has shape \(2,\)"),
    (dict(target=None), ValueError, "has 2 outputs"),
    (dict(lam1=-1.0), ValueError, "lam1 got -1.0"),
    (dict(lam2=[0.1, np.nan]), ValueError, "lam2 got"),
    (dict(beta1=0.5), ValueError, "beta=0.5"),
    (dict(fill=np.ones((3, 3))), ValueError, r"fill has shape \(3, 3\)"),
    (dict(goal=[1.0, 2.0]), ValueError, "one per subject"),
    (dict(sigma=0.0), ValueError, "sigma got 0.0"),
    (dict(factor=0), ValueError, "factor got 0"),
    (dict(batch_size=0), ValueError, "batch_size got 0"),
    (dict(model=[]), ValueError, "no network"),
    (dict(model=[network, lambda x: network(x)]), ValueError, "differ in their architecture"),
    (dict(model=lambda x: network(x)[:, :1], target=0), ValueError, "the softmax of which"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_answered(change, error, message, xs):
    arguments = dict(model=network, xs=xs, target=1, **OPTIONS) | change
    with pytest.raises(error, match=message):
        group_mask(**arguments)
