"""A fixed number of lanes and the jobs that wait for them, all of it on the device.

Jobs come in groups, and a row of lanes works on one group at a time: what a group shares (the features of an image,
the weights of a network) is then held once per row and never copied for a lane.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.minimise import Lane, Objective, start, step
from jaxsal.optim.scheduled import at_step
from jaxsal.optim.status import Status
from jaxsal.optim.stopping import StoppingRule
from jaxsal.optim.working_set import working_set


class Problem(NamedTuple):
    """What is minimised and how: the part of a run that is compiled.

    Attributes:
        objective: ``(job, group, shared) -> (params -> (value, aux))``.
        initial: ``(job, group, shared) -> params``.
        solver: an optax transform.
        stop: a stopping rule.
        chunk: most steps of a lane between two looks at the queue.
    """

    objective: Callable[[Any, Any, Any], Objective]
    initial: Callable[[Any, Any, Any], Any]
    solver: optax.GradientTransformation
    stop: StoppingRule
    chunk: int


class Work(NamedTuple):
    """What is to be done.

    Attributes:
        jobs: a pytree, every leaf ``[groups, jobs of a group, ...]``.
        groups: what the jobs of a group share, every leaf ``[groups, ...]``.
        counts: how many jobs each group really has, int32 ``[groups]``.
        shared: what all jobs share.
    """

    jobs: Any
    groups: Any
    counts: jax.Array
    shared: Any


class Outcome(NamedTuple):
    """What is kept of a lane, see :class:`jaxsal.optim.Lane`; every leaf ``[groups, jobs of a group, ...]``."""

    params: Any
    value: jax.Array
    aux: Any
    steps: jax.Array
    evaluations: jax.Array
    status: jax.Array


class Places(NamedTuple):
    """Who works on what.

    Attributes:
        group: of every row, int32 ``[rows]``; one beyond the last when there is none.
        job: within its group, of every lane, int32 ``[rows, lanes]``; one beyond the last when there is none.
        next_job: first waiting job of every row's group, int32 ``[rows]``.
        next_group: first waiting group, int32 ``[1]``.
    """

    group: jax.Array
    job: jax.Array
    next_job: jax.Array
    next_group: jax.Array


class State(NamedTuple):
    """Lanes ``[rows, lanes, ...]``, their places, and what became of the jobs so far."""

    lanes: Lane
    places: Places
    outcome: Outcome


class Seen(NamedTuple):
    """What the host sees of a chunk, every field ``[1]``.

    Attributes:
        ended: jobs that are done, int32.
        running: lanes at work, int32.
        steps: of the lanes at work, summed, int32.
        useful: iterations of lanes at work in this chunk, int32.
        computed: iterations of all lanes in this chunk, idle ones included, int32.
    """

    ended: jax.Array
    running: jax.Array
    steps: jax.Array
    useful: jax.Array
    computed: jax.Array


def begin(problem: Problem, work: Work, rows: int, lanes: int) -> State:
    """All lanes idle, all jobs waiting."""
    groups, jobs = _sizes(work)
    job, group = jax.tree.map(lambda a: a[0, 0], work.jobs), jax.tree.map(lambda a: a[0], work.groups)
    lane = _fresh(problem, job, group, work.shared)
    lane = lane._replace(status=jnp.int32(Status.MAX_STEPS))
    places = Places(
        jnp.full(rows, groups, jnp.int32),
        jnp.full((rows, lanes), jobs, jnp.int32),
        jnp.zeros(rows, jnp.int32),
        jnp.zeros(1, jnp.int32),
    )
    unknown = jax.tree.map(lambda a: jnp.broadcast_to(_unknown(a), (groups, jobs, *jnp.shape(a))), _outcome(lane))
    unknown = unknown._replace(status=jnp.full((groups, jobs), Status.RUNNING, jnp.int32))
    every = jax.tree.map(lambda a: jnp.broadcast_to(a, (rows, lanes, *jnp.shape(a))), lane)
    return State(every, places, unknown)


def turn(problem: Problem, state: State, work: Work) -> tuple[State, Seen]:
    """Give free lanes the next jobs, make a chunk of steps, note what became of every job at work."""
    places, taken = refill(state.places, jnp.asarray(state.lanes.status != Status.RUNNING), work)
    lanes, used = _each_row(problem, places, taken, state.lanes, work)
    outcome = jax.tree.map(
        lambda kept, new: kept.at[places.group[:, None], places.job].set(new, mode="drop"),
        state.outcome,
        _outcome(lanes),
    )
    running = jnp.asarray(lanes.status == Status.RUNNING)
    seen = Seen(
        ended=(outcome.status != Status.RUNNING).sum(dtype=jnp.int32),
        running=running.sum(dtype=jnp.int32),
        steps=jnp.where(running, lanes.steps, 0).sum(dtype=jnp.int32),
        useful=used.sum(dtype=jnp.int32),
        computed=used.max() * used.size,
    )
    return State(lanes, places, outcome), jax.tree.map(lambda a: a[None], seen)


def refill(places: Places, free: jax.Array, work: Work) -> tuple[Places, jax.Array]:
    """Hand the waiting jobs to free lanes in order; a row whose group is done takes the next group.

    Args:
        places: who works on what.
        free: which lanes have nothing to do, bool ``[rows, lanes]``.
        work: what is to be done.

    Returns:
        The new places, and which lanes took a job, bool ``[rows, lanes]``.
    """
    groups, jobs = _sizes(work)
    counts = jnp.append(work.counts, jnp.int32(0))  # of the group that is none
    done = free.all(1) & (places.next_job >= counts[places.group])
    candidates = places.next_group + jnp.cumsum(done, dtype=jnp.int32) - 1
    group = jnp.where(done, jnp.minimum(candidates, groups), places.group)
    next_group = jnp.minimum(places.next_group + done.sum(dtype=jnp.int32), groups)
    first = jnp.where(done, 0, places.next_job)
    candidates = first[:, None] + jnp.cumsum(free, 1, dtype=jnp.int32) - 1
    taken = free & (candidates < counts[group][:, None])
    job = jnp.where(taken, candidates, jnp.where(free, jobs, places.job))
    return Places(group, job, first + taken.sum(1, dtype=jnp.int32), next_group), taken


def _each_row(problem: Problem, places: Places, taken: jax.Array, lanes: Lane, work: Work) -> tuple[Lane, jax.Array]:
    groups, jobs = _sizes(work)

    def run_row(at: jax.Array, slots: jax.Array, taken: jax.Array, lanes: Lane):
        at = jnp.minimum(at, groups - 1)
        group = jax.tree.map(lambda a: a[at], work.groups)

        def run_lane(slot: jax.Array, take: jax.Array, lane: Lane):
            job = jax.tree.map(lambda a: a[at, jnp.minimum(slot, jobs - 1)], work.jobs)
            objective = problem.objective(job, group, work.shared)
            fresh = _fresh(problem, job, group, work.shared, objective)
            lane = jax.tree.map(lambda new, old: jnp.where(take, new, old), fresh, lane)
            until = lane.steps + jnp.int32(problem.chunk)
            # a lane that ends, or goes back to its best point, takes an iteration and no step
            return jax.lax.while_loop(
                lambda state: (state[0].status == Status.RUNNING) & (state[0].steps < until),
                lambda state: (step(objective, state[0], problem.solver, problem.stop), state[1] + 1),
                (lane, jnp.int32(0)),
            )

        return jax.vmap(run_lane)(slots, taken, lanes)

    args = (places.group, places.job, taken, lanes)
    if len(places.group) > 1:
        return jax.vmap(run_row)(*args)
    # no axis of one row: batched kernels, were they weights of a group, would lose the fast convolutions
    alone = run_row(*jax.tree.map(lambda a: a[0], args))
    return jax.tree.map(lambda a: a[None], alone)


def lane_bytes(problem: Problem, work: Work) -> int:
    """What a lane computes in each step, see :func:`jaxsal.optim.working_set.working_set`."""
    job = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[2:], a.dtype), work.jobs)
    group = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), work.groups)
    shared = jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)), work.shared)
    leaves, tree = jax.tree.flatten((job, group, shared))
    return _lane_bytes(problem.objective, problem.initial, tree, tuple(leaves))


@functools.lru_cache(maxsize=64)  # as jax.jit remembers what it traced
def _lane_bytes(objective: Any, initial: Any, tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    given = jax.tree.unflatten(tree, leaves)
    params = jax.eval_shape(functools.partial(initial), *given)
    return working_set(Applied(_at_start, (objective,)), params, *given)


def _at_start(objective: Callable[..., Objective], *given: Any) -> Callable[[Any], Any]:
    return at_step(objective(*given), jnp.int32(0))


def untouched(problem: Problem, job: Any, group: Any, shared: Any) -> Outcome:
    """What is known of a job before its first step."""
    return _outcome(_fresh(problem, job, group, shared))


def _fresh(problem: Problem, job: Any, group: Any, shared: Any, objective: Objective | None = None) -> Lane:
    objective = problem.objective(job, group, shared) if objective is None else objective
    return start(objective, problem.initial(job, group, shared), problem.solver, problem.stop)


def _outcome(lane: Lane) -> Outcome:
    return Outcome(*(getattr(lane, name) for name in Outcome._fields))


def _unknown(a: Any) -> Any:
    """What stands for a number that was never computed."""
    a = jnp.asarray(a)
    return jnp.full_like(a, jnp.nan) if jnp.issubdtype(a.dtype, jnp.inexact) else a


def _sizes(work: Work) -> tuple[int, int]:
    return jax.tree.leaves(work.jobs)[0].shape[:2]
