"""The whole recipe on a cohort of noise: every stage runs, resumes, and what is saved predicts mm^3."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import zoo
from jaxsal.splitting import split
from jaxsal.training import stages
from jaxsal.training.evaluate import synthetic_cases
from jaxsal.training.pool import open_pool, unpack, write_pool

PLAN = stages.Plan(members=4, places=2, sizes=2, whole=1)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    pool = open_pool(folder, 8)
    pool.images[:] = rng.integers(1, 200, pool.images.shape, np.uint8)
    pool.occupancy[:, 4:19, 6:24, 2:15] = rng.integers(0, 3, (4, 15, 18, 13, 14), np.uint8)  # inside the crops
    pool.volumes[:] = np.repeat(512.0 * pool.occupancy.astype(np.float64).sum((1, 2, 3)) / 255.0, 2, axis=0)
    pool.seed[0], pool.done[0] = 3, 8
    return folder


@pytest.fixture(scope="module")
def trained(cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return stages.train(cohort, out, PLAN)


def test_a_saved_network_predicts_volumes(cohort, trained):
    loaded = zoo.load(trained)
    pool = open_pool(cohort)
    prediction = loaded.model(unpack(jnp.asarray(pool.images[:1])))
    # Two steps teach nothing: it still predicts about the cohort's mean.
    np.testing.assert_allclose(prediction[0], pool.volumes[:4].mean(0), rtol=0.2)
    assert loaded.record.training["cohort_seed"] == 3
    # Features of nothing are volumes of nothing: the mask has everything to explain.
    x = unpack(jnp.asarray(pool.images[:1]))
    features = split(loaded.model, x, at=loaded.record.layer)
    assert float(jnp.abs(features.tail(jnp.zeros_like(features.head(x)))).max()) == 0.0
    assert len(loaded.record.training["r2_held_out"]) == 14


def test_a_finished_run_is_not_repeated(cohort, trained):
    before = {name: np.asarray(value) for name, value in zoo.weights(zoo.load(trained).model).items()}
    again = zoo.weights(zoo.load(stages.train(cohort, trained.parent, PLAN)).model)
    for name, value in before.items():
        np.testing.assert_array_equal(again[name], value)


def test_it_is_not_evaluated_on_its_own_cohort(cohort, trained):
    with pytest.raises(ValueError, match="was trained on a cohort of seed 3"):
        synthetic_cases(trained, cohort)


def test_a_cohort_must_hold_more_than_is_learnt_from(cohort, tmp_path):
    with pytest.raises(ValueError, match="has 8 members, more than 8 are needed"):
        stages.train(cohort, tmp_path, PLAN._replace(members=8))


def test_a_cohort_is_not_continued_with_another_seed(cohort, monkeypatch):
    with pytest.raises(ValueError, match="of seed 3 for 8 members, seed 4"):
        write_pool(cohort, 8, 4)
