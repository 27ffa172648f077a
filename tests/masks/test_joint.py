"""One mask for several outputs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsal import optim
from jaxsal.masks import smocam, smocam_joint, terms
from jaxsal.splitting import Split

WEIGHTS = jnp.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0]])
OPTIONS = dict(sigma=[0.02, 0.1, 0.02], gamma=1.0, max_steps=60)


def head(x):
    return jnp.concatenate([x, jnp.tanh(x), jnp.roll(x, 1, 1)], axis=-1)


def tail(features):
    """Outputs of two corners, and one of the whole image."""
    near, far = features[:, :3, :3].mean((1, 2)), features[:, -3:, -3:].mean((1, 2))
    return jnp.stack([near @ WEIGHTS[:, 0], features.mean((1, 2, 3)), far @ WEIGHTS[:, 1]], axis=-1)


PARTS = Split(head, tail)


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 8, 9, 1)) + 1


@pytest.fixture(scope="module")
def result(x):
    return smocam_joint(PARTS, x, outputs=[0, 2], **OPTIONS | dict(max_steps=400))


def test_a_mask_per_image_and_diagnostics_per_output(result):
    assert result.mask.shape == result.saliency.shape == (2, 8, 9)
    for name in ("value", "steps", "evaluations", "negative_energy"):
        assert getattr(result, name).shape == (2,), name
    for name in ("status", "prediction", "masked_prediction", "null_prediction", "recovered"):
        assert getattr(result, name).shape == (2, 2), name
    assert result.config.outputs == (0, 2)
    lines = repr(result).splitlines()
    assert lines[0] == "JointResult: one mask of 8 x 9 voxels for all outputs"
    assert lines[1].endswith("of their steps of use")
    assert len(lines) == 3 + 4
    assert lines[3].split()[:2] == ["0", "0"]
    assert lines[5].split()[:2] == ["2", "0"]


def test_one_mask_finds_what_both_outputs_look_at(result):
    mask = np.asarray(result.mask)
    energy = mask**2 / (mask**2).sum((1, 2), keepdims=True)
    assert (energy[:, :3, :3].sum((1, 2)) > 0.2).all()
    assert (energy[:, -3:, -3:].sum((1, 2)) > 0.2).all()
    assert (energy[:, 3:-3].sum((1, 2)) < 0.1).all()


def test_the_diagnostics_are_what_they_say(result, x):
    features, mask = head(x), result.mask
    y, masked = (tail(values)[:, jnp.array([0, 2])] for values in (features, features * mask[..., None]))
    null = tail(jnp.zeros_like(features))[:, jnp.array([0, 2])]
    np.testing.assert_allclose(result.prediction, y.T, rtol=1e-5)
    np.testing.assert_allclose(result.masked_prediction, masked.T, rtol=1e-3)
    np.testing.assert_allclose(result.recovered, ((masked - null) / (y - null)).T, rtol=1e-3)
    # the objective, by hand
    m = np.asarray(mask, np.float64)
    distance = (np.abs(np.asarray(masked - y, np.float64)) / 0.02).mean(1)
    norm = np.abs(1 - np.sqrt((m**2).sum((1, 2))))
    variation = (np.abs(np.diff(m, axis=1)).mean((1, 2)) + np.abs(np.diff(m, axis=2)).mean((1, 2))) / 2
    np.testing.assert_allclose(result.terms.norm, norm, atol=1e-5)
    np.testing.assert_allclose(result.terms.smoothness, variation, rtol=1e-4)
    np.testing.assert_allclose(result.value, distance + norm + variation, rtol=2e-3)


def test_for_one_output_it_is_smocam(x):
    joint, alone = (run(PARTS, x, outputs=[1], **OPTIONS) for run in (smocam_joint, smocam))
    for name in ("mask", "saliency", "value", "terms", "steps", "negative_energy"):
        one, other = getattr(joint, name), jax.tree.map(lambda a: a[0], getattr(alone, name))
        chex.assert_trees_all_close(one, other, rtol=1e-4, atol=1e-6)
    for name in ("status", "prediction", "masked_prediction", "null_prediction", "recovered", "config"):
        chex.assert_trees_all_close(getattr(joint, name), getattr(alone, name), rtol=1e-4, atol=1e-6)


def test_a_batch_is_its_images_one_by_one(x):
    both = smocam_joint(PARTS, x, **OPTIONS)
    for image in range(2):
        alone = smocam_joint(PARTS, x[image : image + 1], **OPTIONS)
        np.testing.assert_allclose(both.mask[image], alone.mask[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(both.recovered[:, image], alone.recovered[:, 0], rtol=1e-3)
        assert int(both.steps[image]) == int(alone.steps[0])


def test_the_cosine_distance_keeps_proportions(x):
    found = smocam_joint(PARTS, x, distance=terms.cosine_distance, **OPTIONS | dict(max_steps=300))
    sigma = np.array([0.02, 0.1, 0.02])[:, None]
    a, b = np.asarray(found.masked_prediction) / sigma, np.asarray(found.prediction) / sigma
    cosine = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    np.testing.assert_allclose(found.terms.distance, 1 - cosine, atol=1e-5)
    assert (found.terms.distance < 1e-3).all()
    # sizes are not kept
    assert (np.asarray(found.recovered) < 0.5).all()
    assert (found.status == optim.Status.UNEXPLAINED).all()


def test_outputs_are_judged_apart(x):
    """The last output is the sum of the features' squares: a mask of norm 1 cannot keep it."""

    def hard(features):
        return tail(features) * jnp.array([[1.0, 1e-4, 1.0]]) + jnp.array([[0.0, 0.0, 1.0]]) * jnp.square(
            features
        ).sum((1, 2, 3))[:, None] * 0.01  # fmt: skip

    found = smocam_joint(Split(head, hard), x[:1], sigma=[0.02, 0.1, 100.0], gamma=1.0, max_steps=300)
    assert [row[0] for row in found.status_names][1] == "uninformative"
    assert found.status_names[0] != found.status_names[1]


def test_one_compilation_for_new_images_and_weights_per_distance(x):
    traces = []

    def counted(features):
        traces.append(features.shape)
        return tail(features)

    parts = Split(head, Partial(counted))
    smocam_joint(parts, x, **OPTIONS | dict(max_steps=3))
    first = len(traces)
    smocam_joint(parts, x + 1, sigma=3.0, lam=2.0, gamma=5.0, max_steps=3)
    assert len(traces) == first
    smocam_joint(parts, x, distance=terms.l2_distance, **OPTIONS | dict(max_steps=3))
    assert len(traces) > first


def test_an_image_that_is_not_finite_leaves_the_other_alone(x):
    def fragile(features):
        y = tail(features)
        bright = jnp.abs(features).max((1, 2, 3)) > 4
        return jnp.where(bright[:, None] & (y < 0.3), jnp.nan, y)

    both = jnp.stack([x[0], x[1].at[4, 4].set(1e3)])
    expected = smocam_joint(PARTS, x[:1], **OPTIONS)
    found = smocam_joint(Split(head, fragile), both, **OPTIONS)
    assert [row[1] for row in found.status_names] == ["not_finite"] * 3
    np.testing.assert_allclose(found.mask[0], expected.mask[0], rtol=1e-3, atol=1e-5)


def test_what_is_no_distance_is_refused(x):
    with pytest.raises(TypeError, match="distance got 'cosine', a function is needed"):
        smocam_joint(PARTS, x, distance="cosine")
    with pytest.raises(ValueError, match="lam and gamma got -1"):
        smocam_joint(PARTS, x, lam=-1)


def test_any_solver_will_do(x):
    solver = optim.nonnegative(optim.barzilai_borwein(0.01))
    found = smocam_joint(PARTS, x, solver=solver, **OPTIONS)
    assert (found.mask >= 0).all()
    assert (found.negative_energy == 0).all()
