"""Lanes in batches of one size, so that memory is bounded and one program serves them all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.masks.lanes import evaluate_lanes, run_lanes
from jaxsal.masks.stepping import best, counted
from jaxsal.progress import Meter


class Problem(NamedTuple):
    """What is optimised; the functions that are compiled are equal by value.

    Attributes:
        objective: ``(shared, outer, inner, variables) -> (value, aux)`` of one lane.
        measure: ``(shared, outer, inner, mask) -> pytree``, what is wanted of the mask that was found.
        shared: what all lanes have in common.
        outer: ``positions -> pytree [b, ...]``, what belongs to these images.
        inner: a pytree of arrays ``[images, lanes, ...]``.
        start: ``(outer, inner) -> masks [b, l, *t]``.
    """

    objective: Callable[..., Any]
    measure: Callable[..., Any]
    shared: Any
    outer: Callable[[np.ndarray], Any]
    inner: Any
    start: Callable[[Any, Any], jax.Array]


class Found(NamedTuple):
    """Ended lanes; arrays lead with ``[images, lanes]``.

    Attributes:
        masks: on their own grid.
        measured: by the problem.
        steps: updates made.
        evaluations: of the objective and its gradient.
        status: see :class:`jaxsal.optim.Status`.
    """

    masks: jax.Array
    measured: Any
    steps: chex.Array
    evaluations: chex.Array
    status: chex.Array


def in_batches(problem: Problem, solver: Any, stop: Any, batch_size: int | None, show: Meter) -> Found:
    """Run all lanes of a problem.

    Args:
        problem: to be solved.
        solver: an optax transform for masks.
        stop: a stopping rule that ends at some time.
        batch_size: lanes at once: several images with all their lanes, or some lanes of one image; None for all.
        show: a meter: lanes ended, number of lanes, words.
    """
    images, lanes = jax.tree.leaves(problem.inner)[0].shape[:2]
    size = images * lanes if batch_size is None else batch_size
    height, width = min(max(size // lanes, 1), images), min(size, lanes)
    rows, done = [], 0
    for i in range(0, images, height):
        # the last batch is filled up with the last image, and compiles nothing anew
        chosen = np.minimum(np.arange(i, i + height), images - 1)
        outer, row = problem.outer(chosen), []
        for j in range(0, lanes, width):
            columns = np.minimum(np.arange(j, j + width), lanes - 1)
            row.append(
                _one_batch(
                    problem,
                    outer,
                    _at(problem.inner, chosen, columns),
                    solver,
                    stop,
                    _after(show, done, images * lanes),
                )
            )
            done += min(height, images - i) * min(width, lanes - j)
        rows.append(jax.tree.map(lambda *a: jnp.concatenate(a, 1)[:, :lanes], *row))
    return jax.tree.map(lambda *a: jnp.concatenate(a)[:images], *rows)


def _one_batch(problem: Problem, outer: Any, inner: Any, solver: Any, stop: Any, show: Meter) -> Found:
    masks = problem.start(outer, inner)
    ended = run_lanes(problem.objective, problem.shared, outer, inner, masks, counted(solver), stop, show)
    variables: Any = ended.params
    masks = best(ended.solver, variables.mask)
    measured = evaluate_lanes(problem.measure, problem.shared, outer, inner, masks)
    return Found(masks, measured, ended.steps, ended.evaluations, ended.status)


def _at(inner: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    return jax.tree.map(lambda a: a[rows][:, columns], inner)


def _after(show: Meter, done: int, total: int) -> Meter:
    def later(ended: float, of: float, text: str, /) -> None:
        show(min(done + ended, total), total, text)

    return later
