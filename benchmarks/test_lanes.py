"""165 masks of 36 to 2000 steps: lanes kept busy from a queue against all of them in one vmap.

``python -m pytest benchmarks/test_lanes.py --benchmark-only``: compare the rows' medians; the share of computed
iterations that were of use stands in each row's extra information and is printed (``-s``).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim

JOBS, SHORTEST, LONGEST, VOXELS, HIDDEN = 165, 36, 2000, 512, 32


@pytest.fixture(scope="module")
def jobs():
    """Jobs of given lengths, of which lanes that all wait for the longest use 47 %."""
    drawn = np.random.default_rng(0).beta(0.8, 0.9, JOBS)
    drawn = SHORTEST + (drawn - drawn.min()) / np.ptp(drawn) * (LONGEST - SHORTEST)
    goals = jax.random.normal(jax.random.key(0), (JOBS, HIDDEN))
    return {"length": jnp.rint(jnp.asarray(drawn, jnp.float32)), "goal": goals}


def objective(job, weights):
    """A small network under a mask, and a clock that runs down with every step."""

    def value(params):
        found = jnp.tanh(params["mask"] @ weights) - job["goal"]
        return params["left"] + 1e-3 * jnp.sum(found**2), ()

    return value


def initial(job, weights):
    return {"mask": jnp.ones(VOXELS), "left": job["length"]}


def _run_down(state, progress):
    ended = progress.params["left"] <= 0
    return state, jnp.where(ended, jnp.int32(optim.Status.STAGNATED), jnp.int32(optim.Status.RUNNING))


STOP = optim.StoppingRule(optim.max_steps(1).init, _run_down)
SOLVER = optax.sgd(1.0)


def in_a_queue(jobs, weights, lanes):
    found = optim.minimise_lanes(objective, jobs, initial, shared=weights, solver=SOLVER, stop=STOP, lanes=lanes)
    return found.steps, found.usage.utilisation


@jax.jit
def together(jobs, weights):
    def one(job):
        return optim.minimise(objective(job, weights), initial(job, weights), solver=SOLVER, stop=STOP)

    return jax.vmap(one)(jobs)


def in_one_vmap(jobs, weights):
    lanes = together(jobs, weights)
    return lanes.steps, float(lanes.evaluations.sum() / (JOBS * lanes.evaluations.max()))


@pytest.mark.parametrize("lanes", [4, 8, 16, 32, JOBS, "vmap"])
def test_lanes(benchmark, jobs, lanes):
    weights = jax.random.normal(jax.random.key(1), (VOXELS, HIDDEN)) / VOXELS**0.5

    def run():
        steps, utilisation = in_one_vmap(jobs, weights) if lanes == "vmap" else in_a_queue(jobs, weights, lanes)
        return jax.block_until_ready(steps), utilisation

    run()
    steps, utilisation = benchmark.pedantic(run, rounds=3, warmup_rounds=0)
    assert steps.tolist() == jobs["length"].astype(int).tolist()
    benchmark.extra_info["utilisation"] = utilisation
    print(f"lanes {lanes}: {utilisation:.1%} of the computed iterations were of use")
