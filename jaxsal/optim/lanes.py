"""Many optimisations on a fixed number of lanes that are kept busy from a queue of jobs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsal.optim.applied import Applied
from jaxsal.optim.budget import at_least_one
from jaxsal.optim.minimise import Objective
from jaxsal.optim.queueing import Problem, Work
from jaxsal.optim.running import Lanes, run_lanes
from jaxsal.optim.stopping import StoppingRule
from jaxsal.progress import Meter


def minimise_lanes(
    objective: Callable[[Any, Any], Objective],
    jobs: Any,
    initial: Callable[[Any, Any], Any],
    *,
    solver: optax.GradientTransformation,
    stop: StoppingRule,
    shared: Any = (),
    lanes: int | None = None,
    memory: int | None = None,
    chunk: int = 25,
    mesh: Mesh | None = None,
    longest: int | None = None,
    progress: Meter | None = None,
) -> Lanes:
    """Minimise an objective for every job, a fixed number of them at a time.

    Between chunks of steps, lanes that have ended are given waiting jobs; that happens on the device, while the host
    looks at how the chunk before went. A job's result does not depend on its neighbours or on the order of the jobs,
    on CPU bit for bit at one number of lanes; another number rounds batched operations differently, which solvers
    that accept or refuse a step may magnify. A job that becomes NaN or infinite
    ends with ``Status.NOT_FINITE`` and leaves the others alone, see :meth:`Lanes.failures`. Ctrl-C is heard after
    the chunk and raises :class:`jaxsal.optim.Interrupted`, which holds what was finished.

    Args:
        objective: ``(job, shared) -> (params -> (value, aux))``; what it computes before it is given the parameters
            is computed once per chunk instead of once per step. Pass the same function, or one that is equal by value
            (:class:`jaxsal.optim.Applied`), to compile only once.
        jobs: a pytree whose leaves lead with the axis of the jobs; a job is a slice of it.
        initial: ``(job, shared) -> params``, where a job starts; a function like ``objective``.
        solver: an optax transform.
        stop: a stopping rule that ends every job at some time.
        shared: a pytree that all jobs see whole, e.g. weights; never copied. What a job picks out of it by a number of
            its own is held once per lane: give large things that only some jobs share to :func:`minimise_groups`.
        lanes: how many jobs run side by side (on each device); None takes as many as are useful and fit into
            ``memory``.
        memory: budget in bytes (of each device); None is most of the device's memory, where the device tells it.
        chunk: most steps of a lane between two looks at the queue: few keep the lanes busier, many cost less.
        mesh: of devices over which the lanes are spread; None is the default device. Each device has its own share
            of the jobs and never waits for the others.
        longest: steps that a job can take at most, for a progress bar that also moves within jobs.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        The ended lanes in the order of the jobs; no jobs give no lanes.

    Raises:
        TypeError: if ``lanes`` or ``chunk`` is not a whole number, or the jobs are traced.
        ValueError: if the jobs have no common leading axis, or one lane does not fit into ``memory``.
        Interrupted: on Ctrl-C.

    Example:
        >>> from jaxsal import optim
        >>> def objective(goal, shared):
        ...     return lambda params: (jnp.sum((params - goal) ** 2), ())
        >>> def initial(goal, shared):
        ...     return jnp.zeros_like(goal)
        >>> found = minimise_lanes(objective, jnp.arange(5.0), initial, lanes=2,
        ...                        solver=optim.armijo_once(0.5), stop=optim.max_steps(40))
        >>> found.params.tolist(), found.usage.lanes
        ([0.0, 1.0, 2.0, 3.0, 4.0], 2)
    """
    count = _leading(jobs, "jobs", 1)[0]
    shares = 1 if mesh is None else mesh.size
    dealt = jax.tree.map(lambda a: _deal(jnp.asarray(a), shares), jobs)
    counts = np.array([len(range(share, count, shares)) for share in range(shares)], np.int32)
    return run_lanes(
        Problem(
            Applied(_ungrouped, (objective,)),
            Applied(_ungrouped, (initial,)),
            solver,
            stop,
            at_least_one("chunk", chunk),
        ),
        Work(dealt, (), jnp.asarray(counts), shared),
        rows=1,
        lanes=lanes,
        memory=memory,
        mesh=mesh,
        longest=longest,
        progress=progress,
        order=lambda a: jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:])[:count],
    )


def minimise_groups(
    objective: Callable[[Any, Any, Any], Objective],
    groups: Any,
    jobs: Any,
    initial: Callable[[Any, Any, Any], Any],
    *,
    solver: optax.GradientTransformation,
    stop: StoppingRule,
    shared: Any = (),
    lanes: int | None = None,
    rows: int | None = None,
    memory: int | None = None,
    chunk: int = 25,
    mesh: Mesh | None = None,
    longest: int | None = None,
    progress: Meter | None = None,
) -> Lanes:
    """Minimise an objective for every job of every group, where the jobs of a group share something large.

    Lanes stand in rows, and a row works on one group at a time: what a group holds (the features of an image, the
    weights of one of several networks) exists once per row and not per lane, and so does what the objective computes
    from it alone. Else as :func:`minimise_lanes`.

    Args:
        objective: ``(job, group, shared) -> (params -> (value, aux))``.
        groups: a pytree whose leaves lead with the axis of the groups.
        jobs: a pytree whose leaves lead with ``[groups, jobs of a group]``.
        initial: ``(job, group, shared) -> params``.
        solver: an optax transform.
        stop: a stopping rule that ends every job at some time.
        shared: a pytree that all jobs see whole.
        lanes: of one row; None takes as many as are useful and fit into ``memory``.
        rows: groups that run side by side (on each device); None fills up with rows where groups have fewer jobs
            than lanes are useful.
        memory: budget in bytes, see :func:`minimise_lanes`.
        chunk: most steps of a lane between two looks at the queue.
        mesh: of devices over which the groups are spread; None is the default device.
        longest: steps that a job can take at most.
        progress: a meter from :mod:`jaxsal.progress`.

    Returns:
        The ended lanes; leaves lead with ``[groups, jobs of a group]``.

    Raises:
        TypeError: if ``lanes``, ``rows`` or ``chunk`` is not a whole number, or the jobs are traced.
        ValueError: if leading axes differ, or one lane does not fit into ``memory``.
        Interrupted: on Ctrl-C.

    Example:
        >>> from jaxsal import optim
        >>> def objective(job, group, shared):
        ...     return lambda params: (jnp.sum((params - group * job) ** 2), ())
        >>> def initial(job, group, shared):
        ...     return jnp.zeros_like(job)
        >>> found = minimise_groups(objective, jnp.array([1.0, 10.0]), jnp.array([[1.0, 2.0, 3.0]] * 2), initial,
        ...                         solver=optim.armijo_once(0.5), stop=optim.max_steps(40))
        >>> found.params.tolist()
        [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]
    """
    count, each = _leading(jobs, "jobs", 2)
    if jax.tree.leaves(groups) and _leading(groups, "groups", 1)[0] != count:
        raise ValueError(f"There are {_leading(groups, 'groups', 1)[0]} groups, but jobs of {count} groups.")
    shares = 1 if mesh is None else mesh.size
    pad = -count % shares
    jobs, groups = jax.tree.map(lambda a: _padded(jnp.asarray(a), pad), (jobs, groups))
    counts = np.array([each] * count + [0] * pad, np.int32)
    return run_lanes(
        Problem(objective, initial, solver, stop, at_least_one("chunk", chunk)),
        Work(jobs, groups, jnp.asarray(counts), shared),
        rows=rows,
        lanes=lanes,
        memory=memory,
        mesh=mesh,
        longest=longest,
        progress=progress,
        order=lambda a: a[:count],
    )


def _ungrouped(fn: Callable[[Any, Any], Any], job: Any, group: Any, shared: Any) -> Any:
    return fn(job, shared)


def _leading(tree: Any, name: str, axes: int) -> tuple[int, ...]:
    """The sizes of the first axes, if all leaves agree on them."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            f"The {name} are traced, but lanes are swapped by a loop of the host: call this outside jax.jit, or use "
            "jax.vmap of minimise inside."
        )
    found = {jnp.shape(leaf)[:axes] for leaf in jax.tree.leaves(tree)}
    if len(found) != 1 or len(next(iter(found))) != axes:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]
        raise ValueError(
            f"The {name} have shapes {shapes}; every leaf needs the same first {'axis' if axes == 1 else 'two axes'}."
        )
    return found.pop()


def _deal(a: jax.Array, shares: int) -> jax.Array:
    """Jobs ``[n, ...]`` dealt in turn as ``[shares, n of a share, ...]``; the last ones are repeated to fill up."""
    a = _padded(a, -len(a) % shares)
    return jnp.swapaxes(a.reshape(-1, shares, *a.shape[1:]), 0, 1) if len(a) else a[None].repeat(shares, 0)


def _padded(a: jax.Array, more: int) -> jax.Array:
    return jnp.concatenate([a, *[a[-1:]] * more]) if more and len(a) else a
