"""Masks as jobs for lanes, and what is asked of the masks that were found."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from jaxsal import optim
from jaxsal.optim.constraint import split_constraint
from jaxsal.optim.sets import box, clipping
from jaxsal.progress import Meter, reporting

# what an image's masks share is computed once per chunk: long enough for that to cost little, short enough for lanes
# of the recommended solver, which end after 20 to 80 steps, not to wait for their next job
_CHUNK = 25


def optimise(
    objective: Callable[[Any, Any, Any], optim.Objective],
    groups: Any,
    jobs: Any,
    initial: Callable[[Any, Any, Any], jax.Array],
    shared: Any,
    *,
    title: str,
    solver: optax.GradientTransformation,
    stop: optim.StoppingRule | None,
    max_steps: int,
    lanes: int | None = None,
    rows: int | None = None,
    mesh: Mesh | None = None,
    progress: Meter | None = None,
) -> optim.Lanes:
    """:func:`jaxsal.optim.minimise_groups` for masks: a limit of steps beside the rule, and a meter with a title."""
    limit = optim.max_steps(max_steps)
    with reporting(progress, title) as meter:
        return optim.minimise_groups(
            objective,
            groups,
            jobs,
            initial,
            shared=shared,
            solver=solver,
            stop=limit if stop is None else optim.any_of(stop, limit),
            lanes=lanes,
            rows=rows,
            mesh=mesh,
            chunk=_CHUNK,
            longest=max_steps,
            progress=meter,
        )


def between_0_and_1(solver: optax.GradientTransformation) -> optax.GradientTransformation:
    """A solver for masks within [0, 1]: itself if it keeps to that already, else :func:`jaxsal.optim.in_box` of it."""
    constraint, _ = split_constraint(solver)
    return solver if constraint in (box(0, 1), clipping(0, 1)) else optim.in_box(solver)


def side_by_side(batch_size: int | None, jobs: int) -> tuple[int | None, int | None]:
    """How many lanes a row has, and how many rows there are, for so many lanes at once.

    Args:
        batch_size: lanes at once, at least 1; None leaves both open.
        jobs: of one group.

    Example:
        >>> side_by_side(7, 3), side_by_side(2, 3), side_by_side(None, 3)
        ((3, 2), (2, 1), (None, None))
    """
    if batch_size is None:
        return None, None
    lanes = min(batch_size, jobs)
    return lanes, batch_size // lanes


@functools.partial(jax.jit, static_argnums=0)
def each_job(function: Callable[[Any, Any], Callable[[Any], Any]], shared: Any, groups: Any, jobs: Any) -> Any:
    """``function(shared, group)(job)`` for every job of every group, one after the other: one job's memory is enough.

    Args:
        function: hashable; what it computes of a group before it is given a job is computed once.
        shared: what all jobs see.
        groups: leaves ``[groups, ...]``.
        jobs: leaves ``[groups, jobs of a group, ...]``.

    Returns:
        Leaves ``[groups, jobs of a group, ...]``.

    Example:
        >>> import jax.numpy as jnp
        >>> def scaled(shared, group):
        ...     return lambda job: shared * group * job
        >>> each_job(scaled, 2.0, jnp.array([1.0, 10.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[2.0, 4.0], [60.0, 80.0]]
    """
    return jax.lax.map(lambda given: jax.lax.map(function(shared, given[0]), given[1]), (groups, jobs))
