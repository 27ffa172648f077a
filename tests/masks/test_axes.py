"""Grids of weights, random starts and stacked networks: the same masks as one by one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxsal
from jaxsal import grids, optim, zoo
from jaxsal.masks import axes, best_of, smocam, smocam_grid, smocam_networks, smocam_restarts
from jaxsal.masks import terms as mask_terms
from jaxsal.masks.smocam import Prepared, Terms, prepare
from jaxsal.splitting import Split

WEIGHTS = jnp.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0]])
COMPARED = ("mask", "saliency", "value", "terms", "prediction", "masked_prediction", "recovered")


def head(x):
    return jnp.concatenate([x, jnp.tanh(x), jnp.roll(x, 1, 1)], axis=-1)


def tail(features):
    near, far = features[:, :3, :3].mean((1, 2)), features[:, -3:, -3:].mean((1, 2))
    return jnp.stack([near @ WEIGHTS[:, 0], far @ WEIGHTS[:, 1]], axis=-1)


PARTS = Split(head, tail)


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 8, 9, 1)) + 1


def agree(found, expected, rtol=1e-3, atol=1e-4):
    for name in COMPARED:
        chex.assert_trees_all_close(getattr(found, name), getattr(expected, name), rtol=rtol, atol=atol)
    assert found.config == expected.config
    np.testing.assert_array_equal(found.status, expected.status)


def test_a_grid_is_its_pairs_one_by_one(x):
    options = dict(sigma=0.02, max_steps=60)
    found = smocam_grid(PARTS, x, lam=[0.5, 2.0], gamma=[0.0, 1.0, 10.0], lanes=3, **options)
    pairs = [(result.config.lam, result.config.gamma) for result in found]
    assert pairs == [(0.5, 0.0), (0.5, 1.0), (0.5, 10.0), (2.0, 0.0), (2.0, 1.0), (2.0, 10.0)]
    for result, (lam, gamma) in zip(found, pairs, strict=True):
        agree(result, smocam(PARTS, x, lam=lam, gamma=gamma, **options))
    assert float(jnp.abs(found[0].mask - found[5].mask).max()) > 1e-3


def test_restarts_start_at_random_on_the_budget_and_differ(x):
    key = jax.random.key(3)
    found = smocam_restarts(PARTS, x, restarts=3, key=key, sigma=0.02, gamma=1.0, max_steps=0)
    masks = jnp.stack([result.mask for result in found])
    assert masks.shape == (3, 2, 2, 8, 9)
    np.testing.assert_allclose(jnp.sqrt((masks**2).sum((-1, -2))), 1.1, rtol=1e-5)
    assert (masks >= 0).all()
    flat = np.asarray(masks).reshape(12, -1)
    assert len(np.unique(flat[:, 0])) == 12
    again = smocam_restarts(PARTS, x, restarts=3, key=key, sigma=0.02, gamma=1.0, max_steps=0, lanes=1)
    chex.assert_trees_all_equal([r.mask for r in found], [r.mask for r in again])


def test_the_best_restart_is_that_of_the_lowest_value(x):
    found = smocam_restarts(PARTS, x, restarts=3, key=jax.random.key(3), sigma=0.02, gamma=1.0, max_steps=40)
    values = np.stack([result.value for result in found])
    best = best_of(found)
    np.testing.assert_array_equal(best.value, values.min(0))
    assert len(set(values.argmin(0).ravel().tolist())) > 1
    for place in np.ndindex(2, 2):
        source = found[values[(slice(None), *place)].argmin()]
        np.testing.assert_array_equal(best.mask[place], source.mask[place])
        np.testing.assert_array_equal(best.saliency[place], source.saliency[place])
        assert best.terms.distance[place] == source.terms.distance[place]
        assert best.status[place] == source.status[place]


def test_what_several_runs_cost_adds_up_and_one_run_counts_once(x):
    options = dict(sigma=0.02, gamma=1.0, max_steps=5)
    one, two = (smocam_restarts(PARTS, x, restarts=2, key=jax.random.key(i), lanes=2, **options) for i in range(2))
    assert one[0].usage is one[1].usage
    assert best_of(one).usage == one[0].usage
    assert one[0].usage.useful == sum(int(result.evaluations.sum()) for result in one)
    both = best_of([*one, *two]).usage
    assert both.useful == one[0].usage.useful + two[0].usage.useful
    assert both.computed == one[0].usage.computed + two[0].usage.computed
    assert both.lanes == one[0].usage.lanes


def test_masks_that_are_not_finite_are_never_the_best(x):
    found = list(smocam_restarts(PARTS, x, restarts=2, key=jax.random.key(3), sigma=0.02, gamma=1.0, max_steps=5))
    import dataclasses

    found[0] = dataclasses.replace(found[0], value=jnp.full((2, 2), jnp.nan))
    np.testing.assert_array_equal(best_of(found).mask, found[1].mask)
    with pytest.raises(ValueError, match="all of one config"):
        best_of([found[1], smocam(PARTS, x, sigma=0.02, gamma=2.0, max_steps=5)])


BLOCKS = (zoo.ConvBlock(4, kernel=3, pool=2), zoo.ConvBlock(6, kernel=3, pool=2))


def network(seed, blocks=BLOCKS):
    model = zoo.MorphometryVGG(2, shape=(12, 14, 12), blocks=blocks, dense=(8,), rngs=nnx.Rngs(seed))
    model.eval()
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)


@pytest.fixture
def volumes(x64):
    # in single precision the kinks of the smoothness term part two correct runs after some dozen steps
    return jax.random.uniform(jax.random.key(0), (2, 12, 14, 12, 1), jnp.float64).at[:, 3:6, 3:6, 3:6].add(2.0)


def test_networks_side_by_side_are_the_networks_one_by_one(volumes):
    splits = [jaxsal.split(network(seed), volumes, "relu1") for seed in range(3)]
    options = dict(sigma=0.3, gamma=1.0, max_steps=30, solver=optim.nonnegative(optim.armijo_once()))
    found = smocam_networks(splits, volumes, **options)
    assert len(found) == 3
    for result, split in zip(found, splits, strict=True):
        agree(result, smocam(split, volumes, **options), rtol=1e-8, atol=1e-10)
    assert float(jnp.abs(found[0].prediction - found[1].prediction).max()) > 1e-3


def test_rows_of_different_networks_side_by_side_are_the_same(volumes):
    """What an accelerator does: convolutions whose kernels differ from row to row."""
    prepared = [
        prepare(jaxsal.split(network(seed), volumes, "relu1"), volumes, "all", 0.3, None, 95.0) for seed in range(2)
    ]
    found = [axes.network_lanes(prepared, 1.0, 1.0, rows=rows, max_steps=20) for rows in (1, 4)]
    assert [each.usage.lanes for each in found] == [2, 8]
    chex.assert_trees_all_close(found[0].params, found[1].params, rtol=1e-8, atol=1e-10)
    chex.assert_trees_all_close(found[0].value, found[1].value, rtol=1e-8)


def test_networks_of_different_architectures_are_refused(volumes):
    other = (zoo.ConvBlock(4, kernel=3, pool=2), zoo.ConvBlock(7, kernel=3, pool=2))
    splits = [jaxsal.split(model, volumes, "relu1") for model in (network(0), network(0, other))]
    with pytest.raises(ValueError, match="not of one architecture"):
        smocam_networks(splits, volumes, max_steps=3)


BAD = [
    (lambda x: smocam_grid(PARTS, x, lam=[], gamma=[1.0]), "lam and gamma got no values"),
    (lambda x: smocam_grid(PARTS, x, lam=[1.0], gamma=[-1.0]), "lam and gamma got 1.0 and -1.0"),
    (lambda x: smocam_restarts(PARTS, x, restarts=0, key=jax.random.key(0)), "restarts got 0"),
    (lambda x: smocam_networks([], x), "There is no network"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_answered(call, message, x):
    with pytest.raises(ValueError, match=message):
        call(x)


def test_the_table_of_a_grid_is_what_the_masks_say(x):
    options = dict(sigma=0.02, max_steps=60)
    found = jaxsal.grid_search(PARTS, x, lam=[1.0], gamma=[0.0, 1.0], **options)
    assert len(found.table) == 2 * 2 * 2
    assert set(found.table["status"]) <= {status.name.lower() for status in optim.Status}
    for row in found.table.to_dict("records"):
        alone = smocam(PARTS, x, outputs=[row["output"]], lam=row["lam"], gamma=row["gamma"], **options)
        mask = np.asarray(alone.mask[0, row["image"]], np.float64)
        steps = [np.abs(np.diff(mask, axis=axis)).mean() for axis in (0, 1)]
        by_hand = {
            "area": np.abs(mask).sum() ** 2 / (mask.size * (mask**2).sum()),
            "smoothness": np.mean(steps) / np.sqrt((mask**2).sum()),
            "prediction": float(alone.prediction[0, row["image"]]),
            "masked": float(alone.masked_prediction[0, row["image"]]),
            "distance": abs(float(alone.masked_prediction[0, row["image"]] - alone.prediction[0, row["image"]])) / 0.02,
            "recovered": float(alone.recovered[0, row["image"]]),
            "value": float(alone.value[0, row["image"]]),
        }
        for name, value in by_hand.items():
            assert np.isclose(row[name], value, rtol=1e-2, atol=1e-3), name
        assert row["steps"] == int(alone.steps[0, row["image"]])
    assert (found.lam, found.gamma) == grids.choose_weights(found.table)
    agree(found.result, smocam(PARTS, x, lam=found.lam, gamma=found.gamma, **options))


def table(*rows):
    import pandas as pd

    return pd.DataFrame(rows, columns=["lam", "gamma", "distance", "area", "smoothness"])


def test_the_picked_pair_is_close_then_small_and_smooth():
    rows = [
        (1.0, 0.0, 0.1, 0.2, 0.8),  # .5 + 1
        (1.0, 1.0, 0.4, 0.3, 0.2),  # .75 + .25
        (1.0, 5.0, 0.5, 0.4, 0.1),  # 1 + .125
        (1.0, 9.0, 2.0, 0.1, 0.0),  # too far
    ]
    assert grids.choose_weights(table(*rows)) == (1.0, 1.0)
    assert grids.choose_weights(table(*rows), within=3.0) == (1.0, 9.0)
    assert grids.choose_weights(table(*rows), within=0.01) == (1.0, 0.0)
    # means over outputs and images: the first pair is no longer close
    assert grids.choose_weights(table((1.0, 1.0, 5.0, 0.0, 0.0), *rows)) == (1.0, 5.0)
    # one mask that is not finite excludes its pair
    assert grids.choose_weights(table((1.0, 1.0, np.nan, 0.1, 0.1), *rows)) == (1.0, 5.0)
    with pytest.raises(ValueError, match="No pair of weights gave finite masks"):
        grids.choose_weights(table((1.0, 1.0, np.nan, 0.1, 0.1)))


def test_area_is_one_for_a_uniform_mask_and_a_voxel_for_a_single_one():
    uniform, single = jnp.full((4, 5), 3.0), jnp.zeros((4, 5)).at[1, 2].set(-7.0)
    masks = jnp.stack([uniform, single])[None]
    lanes = optim.Lanes(
        masks,
        jnp.zeros((1, 2)),
        (Terms(*[jnp.ones((1, 2))] * 2, jax.vmap(mask_terms.total_variation)(masks[0])[None]), jnp.ones((1, 2))),
        *[jnp.ones((1, 2), jnp.int32)] * 3,
        usage=optim.Usage(1, 1, 1, 1),
    )
    prepared = Prepared(tail, masks[..., None], jnp.ones((1, 2)), jnp.zeros(2), (0, 1), (1.0, 1.0), None, (4, 5))
    found = grids.mask_table(prepared, lanes, [(1.0, 1.0)])
    np.testing.assert_allclose(found["area"], [1.0, 1 / 20])
    # one voxel of 7: two steps of 7 along either axis, of 15 and of 16 steps
    np.testing.assert_allclose(found["smoothness"], [0.0, (2 * 7 / 15 + 2 * 7 / 16) / 2 / 7], rtol=1e-6)
