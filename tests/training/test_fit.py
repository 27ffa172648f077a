"""The loop on a small problem: it learns, resumes exactly and stops at bad numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal.training.fit import fit, restore

TRUE = np.array([1.0, -2.0, 0.5], np.float32)
START = {"weights": jnp.zeros(3), "bias": jnp.zeros(())}


def batch_at(step: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(step).normal(size=(16, 3)).astype(np.float32)
    return x, x @ TRUE + 3.0


def loss(params, batch, key):
    x, y = batch
    noisy = x + 0.01 * jax.random.normal(key, x.shape)
    return jnp.mean((noisy @ params["weights"] + params["bias"] - y) ** 2)


def optimiser():
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 300), weight_decay=0.0)


def run(steps: int, checkpoints=None):
    return fit(
        loss, START, batch_at, optimiser(), steps=steps, key=jax.random.key(0), decay=0.9,
        checkpoints=checkpoints, every=7,
    )  # fmt: skip


def test_it_finds_the_coefficients():
    state = run(300)
    np.testing.assert_allclose(state.average["weights"], TRUE, atol=0.02)
    np.testing.assert_allclose(state.average["bias"], 3.0, atol=0.02)


def test_the_average_follows_its_formula():
    one, two = run(1), run(2)
    rate = np.float32(2.0) / np.float32(11.0)  # (1 + t) / (10 + t) at t = 1 is below .9
    expected = rate * one.average["bias"] + (1 - rate) * two.params["bias"]
    np.testing.assert_allclose(two.average["bias"], expected, rtol=1e-6)


def test_a_resumed_run_is_bit_equal(tmp_path):
    whole = run(20)
    run(12, tmp_path / "c")
    assert [p.name for p in sorted((tmp_path / "c").iterdir())] == ["step_00000007", "step_00000012"]
    resumed = run(20, tmp_path / "c")
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_the_two_newest_checkpoints_stay(tmp_path):
    state = run(25, tmp_path)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000021", "step_00000025"]
    assert int(restore(tmp_path, state).step) == 25


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        fit(
            lambda p, b, k: jnp.float32(jnp.nan) * p["bias"],
            START,
            batch_at,
            optimiser(),
            steps=3,
            key=jax.random.key(0),
        )


def test_a_run_beyond_the_end_is_not_taken_for_a_shorter_one(tmp_path):
    run(12, tmp_path)
    with pytest.raises(ValueError, match="holds a run of 12 steps, 5 were asked for"):
        run(5, tmp_path)
