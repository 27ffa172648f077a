"""Chunks of steps on the devices, looked at by the host while the next one runs."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsal.optim import queueing
from jaxsal.optim.budget import compiled_bytes, lanes_for, rows_for
from jaxsal.optim.interrupting import Interrupted, interruption_held_back
from jaxsal.optim.queueing import Outcome, Problem, Seen, State, Work
from jaxsal.optim.status import Status
from jaxsal.progress import Meter, reporting


@dataclass(frozen=True)
class Usage:
    """What a run of lanes cost.

    Attributes:
        lanes: side by side, on all devices.
        chunks: of steps, between which free lanes got new jobs.
        useful: iterations of lanes that were at work.
        computed: iterations of all lanes; an idle lane is computed like any other.
    """

    lanes: int
    chunks: int
    useful: int
    computed: int

    @property
    def utilisation(self) -> float:
        """Share of the computed iterations that were of use."""
        return self.useful / self.computed if self.computed else 1.0


@dataclass(frozen=True)
class Lanes:
    """What became of every job; leaves lead with the axes of the jobs, in their order.

    Attributes:
        params: parameters at the end.
        value: of the objective there.
        aux: what the objective returned beside its value.
        steps: updates made, int32.
        evaluations: of the objective and its gradient, int32.
        status: see :class:`jaxsal.optim.Status`, int32.
        usage: what it cost.
    """

    params: Any
    value: jax.Array
    aux: Any
    steps: jax.Array
    evaluations: jax.Array
    status: jax.Array
    usage: Usage

    def failures(self) -> tuple[str, ...]:
        """A sentence for every job whose objective or gradient was not finite: which one, and at which step."""
        steps, places = np.asarray(self.steps), np.argwhere(np.asarray(self.status) == Status.NOT_FINITE)
        return tuple(
            f"job {', '.join(map(str, place))} became NaN or infinite at step {steps[tuple(place)]}"
            for place in places.tolist()
        )


def run_lanes(
    problem: Problem,
    work: Work,
    *,
    rows: int | None,
    lanes: int | None,
    memory: int | None,
    mesh: Mesh | None,
    longest: int | None,
    progress: Meter | None,
    order: Callable[[jax.Array], jax.Array],
) -> Lanes:
    """Do all the work.

    Args:
        problem: what is minimised and how.
        work: what is to be done, a whole number of groups for every device.
        rows: of lanes on each device, or None.
        lanes: of each row, or None.
        memory: budget of each device in bytes, or None.
        mesh: of devices, or None.
        longest: steps that a job can take at most, or None.
        progress: the caller's meter, or None.
        order: brings a result ``[groups, jobs of a group, ...]`` to the caller's axes.
    """
    total = int(work.counts.sum())
    if not total:
        return _nothing(problem, work, order)
    work, shares = _placed(work, mesh), 1 if mesh is None else mesh.size
    groups, each = len(work.counts) // shares, jax.tree.leaves(work.jobs)[0].shape[1]

    def bytes_needed(columns: int) -> int:
        state = jax.eval_shape(functools.partial(_begin, problem, mesh, 1, columns), work)
        return compiled_bytes(_turn.lower(problem, mesh, state, work).compile())

    device = next(iter(jax.tree.leaves(work.jobs)[0].devices()))
    lanes = lanes_for(each, lanes, memory, bytes_needed, lambda: queueing.lane_bytes(problem, work), device)
    rows = rows_for(groups, rows, lanes, memory, bytes_needed, device)
    state = _begin(problem, mesh, rows, lanes, work)
    tally, seen, stopped = _Tally(total, longest), None, False
    with reporting(progress, "minimising") as meter, interruption_held_back() as interrupted:
        meter(0, total, f"{total} to do")
        while not (tally.complete or stopped):
            before = seen
            state, seen = _turn(problem, mesh, state, work)
            if before is not None:  # looked at while the next chunk runs
                meter(*tally.add(before))
            stopped = interrupted()
    if seen is not None and not tally.complete:
        tally.add(seen)
    outcome = Outcome(*jax.tree.map(order, state.outcome))
    found = Lanes(*outcome, usage=Usage(shares * rows * lanes, tally.chunks, tally.useful, tally.computed))
    if stopped:
        raise Interrupted(found)
    return found


@dataclass
class _Tally:
    """What the host knows of a run: the sum of what it saw."""

    total: int
    longest: int | None
    ended: int = 0
    chunks: int = 0
    useful: int = 0
    computed: int = 0

    @property
    def complete(self) -> bool:
        return self.ended == self.total

    def add(self, seen: Seen) -> tuple[float, int, str]:
        """Add a chunk; what a meter is told."""
        self.ended, running, steps, useful, computed = (int(np.asarray(field).sum()) for field in seen)
        self.chunks += computed > 0
        self.useful += useful
        self.computed += computed
        part = steps / self.longest if self.longest else 0.0
        return min(self.ended + part, self.total), self.total, f"{self.ended} of {self.total} done, {running} running"


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _begin(problem: Problem, mesh: Mesh | None, rows: int, lanes: int, work: Work) -> State:
    def begin(work: Work) -> State:
        return queueing.begin(problem, work, rows, lanes)

    if mesh is None:
        return begin(work)
    per_device = PartitionSpec(mesh.axis_names)
    return jax.shard_map(begin, mesh=mesh, in_specs=(Work(*_specs(mesh)),), out_specs=per_device, check_vma=False)(work)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _turn(problem: Problem, mesh: Mesh | None, state: State, work: Work) -> tuple[State, Seen]:
    def turn(state: State, work: Work) -> tuple[State, Seen]:
        return queueing.turn(problem, state, work)

    if mesh is None:
        return turn(state, work)
    per_device = PartitionSpec(mesh.axis_names)
    # every device runs its own loop on its own jobs: no device ever waits for another
    return jax.shard_map(
        turn, mesh=mesh, in_specs=(per_device, Work(*_specs(mesh))), out_specs=per_device, check_vma=False
    )(state, work)


def _specs(mesh: Mesh) -> tuple[Any, Any, Any, Any]:
    """How each part of the work lies on the devices."""
    per_device = PartitionSpec(mesh.axis_names)
    return per_device, per_device, per_device, PartitionSpec()


def _placed(work: Work, mesh: Mesh | None) -> Work:
    if mesh is None:
        return work
    shardings = (NamedSharding(mesh, spec) for spec in _specs(mesh))
    return Work(*(jax.device_put(part, sharding) for part, sharding in zip(work, shardings, strict=True)))


def _nothing(problem: Problem, work: Work, order: Callable[[jax.Array], jax.Array]) -> Lanes:
    """The result of no jobs, of the right shapes."""
    job = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[2:], a.dtype), work.jobs)
    group = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), work.groups)
    shapes = jax.eval_shape(functools.partial(queueing.untouched, problem), job, group, work.shared)
    axes = jax.tree.leaves(work.jobs)[0].shape[:2]
    outcome = jax.tree.map(lambda a: order(jnp.zeros((*axes, *a.shape), a.dtype)), shapes)
    return Lanes(*outcome, usage=Usage(0, 0, 0, 0))
