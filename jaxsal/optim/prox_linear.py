"""Steps on a network that is taken for linear, with everything else in the objective taken as it is."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between, count
from jaxsal.optim.composite import Composite
from jaxsal.optim.incumbent import Anchored, Incumbent, no_incumbent
from jaxsal.optim.linearised import Dual, Linearised, no_dual, solve
from jaxsal.optim.proximal_update import ProximalUpdate, anywhere
from jaxsal.optim.status import Status
from jaxsal.optim.trees import norm

# of the promised decrease: below the first a step is refused, below the second it was too long, above the third short
_ACCEPTABLE, _POOR, _GOOD = 1e-4, 0.25, 0.75
# steps in a row that promise nothing before the solver gives up
_IDLE = 6


class _Around(NamedTuple):
    """The accepted point and what is believed of its surroundings."""

    params: chex.ArrayTree
    value: jax.Array  # of the whole objective
    distance: jax.Array
    grad: chex.ArrayTree  # of the distance
    recent: jax.Array  # values of the last accepted points
    step_size: jax.Array
    promise: jax.Array  # of the model at the point being tried
    idle: jax.Array
    dual: Dual


class ProxLinearState(NamedTuple):
    """State of :func:`prox_linear`.

    Attributes:
        incumbent: the best point so far.
        around: the accepted point and its model.
    """

    incumbent: Incumbent
    around: Anchored


def prox_linear(
    step_size: float = 1.0, iterations: int = 30, memory: int = 3, tolerance: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    r"""Solve the whole mask problem each step, with nothing linearised but the network.

    For ``|r(M)| + penalty(M)``, a :class:`jaxsal.optim.Composite`, the next point is the one of least

    ``|r(M') + <grad r(M'), M - M'>| + penalty(M) + ||M - M'||^2 / (2 t)``,

    found without the network, by a primal-dual method. Networks of convolutions, ReLUs and maxima are linear in
    pieces, so that a few evaluations suffice where gradient steps need hundreds: the kinks of the distance at 0 and of
    the total variation are met exactly instead of being crossed back and forth. A point is accepted if it lies below
    the highest of the last ``memory`` accepted ones; the step size ``t`` halves where the model promised four times
    what came, and doubles where it promised little more. With :func:`jaxsal.optim.nonnegative` every problem is solved
    for masks that are nowhere negative.

    Args:
        step_size: the first ``t``, above 0.
        iterations: of the primal-dual method in each step.
        memory: how many accepted values a new one is compared with; 1 asks every step to descend.
        tolerance: the lane ends as ``STAGNATED`` when the model promises less than this share of the value, six
            times in a row.

    Returns:
        A transform whose ``update`` needs the keywords ``value``, of the whole objective at ``params``, and
        ``objective``, which :func:`jaxsal.optim.minimise` gives. ``params`` is the point being tried; the best one is
        the state's ``incumbent``.

    Raises:
        TypeError: if a count is no whole number, or (when it is used) the objective is no ``Composite``.
        ValueError: if an argument is out of its range.

    Reference:
        Drusvyatskiy and Paquette 2019, Efficiency of minimizing compositions of convex functions and smooth maps,
        https://doi.org/10.1007/s10107-018-1311-3; the memory: Grippo, Lampariello and Lucidi 1986,
        https://doi.org/10.1137/0723046

    Example:
        >>> from jaxsal import optim
        >>> objective = optim.Composite(lambda m: (jnp.abs(m[0] ** 2 - 4.0), {}), optim.MaskPenalty(0.1, 0.0))
        >>> lane = optim.minimise(objective, jnp.array([1.0, 1.0]), solver=prox_linear(), stop=optim.max_steps(50))
        >>> [f"{m:.1f}" for m in lane.params], int(lane.evaluations) < 30
        (['2.0', '0.0'], True)
    """
    name = "prox_linear"
    given = (
        count(name, "iterations", iterations),
        between(name, "tolerance", tolerance, 0, 1),
    )
    init = Applied(_init, (between(name, "step_size", step_size, 0), count(name, "memory", memory)))
    return optax.GradientTransformationExtraArgs(init, ProximalUpdate(_update, given, anywhere, cone=True))


def _init(step_size: Any, memory: int, params: Any) -> ProxLinearState:
    dtype = jax.tree.leaves(params)[0].dtype
    infinite = jnp.asarray(jnp.inf, dtype)
    around = _Around(
        params=params,
        value=infinite,
        distance=infinite,
        grad=jax.tree.map(jnp.zeros_like, params),
        recent=jnp.full(memory, infinite),
        step_size=jnp.asarray(step_size, dtype),
        promise=jnp.asarray(-jnp.inf, dtype),
        idle=jnp.int32(0),
        dual=no_dual(params),
    )
    return ProxLinearState(no_incumbent(params), Anchored(around))


def _update(
    iterations: int,
    tolerance: Any,
    project: Any,
    updates: Any,
    state: ProxLinearState,
    params: Any = None,
    *,
    value: jax.Array,
    objective: Any = None,
    **_: Any,
):
    if params is None:
        raise ValueError("prox_linear moves the parameters: call update(grads, state, params, value=..., objective=).")
    if not isinstance(objective, Composite):
        raise TypeError(
            f"prox_linear got an objective of type {type(objective).__name__}; it needs "
            "optim.Composite(distance, optim.MaskPenalty(norm, variation)), to know what is not the network's."
        )
    best, around = state
    around = around.held
    cost, slope = jax.value_and_grad(objective.penalty)(params)
    distance = jnp.maximum(value - cost, 0)
    grad = jax.tree.map(lambda g, s: g - s, updates, slope)
    first = jnp.isinf(around.value)
    # exactly at its kink a distance has no slope: that of the point before is nearer to the truth than none
    flat = _at_kink(distance, value) & ~first
    grad = jax.tree.map(lambda new, old: jnp.where(flat, old, new), grad, around.grad)

    highest = around.recent.max()
    promised = jnp.maximum(highest - around.promise, jnp.finfo(highest.dtype).tiny)
    ratio = jnp.where(first, _GOOD, (highest - value) / promised)
    accepted = first | ((ratio > _ACCEPTABLE) & jnp.isfinite(norm(grad)))  # NaN is refused
    step_size = jnp.where(ratio >= _POOR, around.step_size, around.step_size / 2)
    step_size = jnp.where(ratio > _GOOD, 2 * step_size, step_size)
    recent = jnp.where(first, value, jnp.append(around.recent[1:], value))
    told, here = grad, (params, value, distance, grad, recent)
    point, value_there, distance, grad, recent = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), here, tuple(around)[:5]
    )
    # nor has the accepted point a slope of its own there: a trial that was refused tells the one beside it
    beside = ~accepted & _at_kink(around.distance, around.value) & jnp.isfinite(norm(told))
    grad = jax.tree.map(lambda new, old: jnp.where(beside, new, old), told, grad)
    better = value_there < best.value
    best = jax.tree.map(
        lambda new, old: jnp.where(better, new, old), Incumbent(point, value_there, updates, best.status), best
    )

    problem = Linearised(point, distance, grad, objective.penalty, step_size)
    trial, dual = solve(problem, around.dual, iterations, project)
    promise = problem.model(trial)
    idle = jnp.where(value_there - promise > tolerance * jnp.abs(value_there), 0, around.idle + 1)
    ended = jnp.where(idle >= _IDLE, jnp.int32(Status.STAGNATED), jnp.int32(Status.RUNNING))
    around = _Around(point, value_there, distance, grad, recent, step_size, promise, idle, dual)
    return optax.tree.sub(trial, params), ProxLinearState(best._replace(status=ended), Anchored(around))


def _at_kink(distance: jax.Array, value: jax.Array) -> jax.Array:
    """Whether a distance is 0, up to what rounding leaves of a value less its penalty."""
    return distance <= 8 * jnp.finfo(value.dtype).eps * jnp.abs(value)
