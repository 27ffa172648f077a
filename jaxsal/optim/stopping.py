"""When to stop: rules as pairs of pure functions that compose."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.core
import jax.numpy as jnp

from jaxsal.optim.applied import Applied, concrete
from jaxsal.optim.checks import count
from jaxsal.optim.status import Status
from jaxsal.optim.trees import norm


class Progress(NamedTuple):
    """What a rule may look at after each evaluation of the objective.

    It is about the point that the lane would return now: a line search's trial shows once it is accepted.

    Attributes:
        steps: updates made so far, int32.
        value: of the objective, at ``params``.
        grad: of the objective, a pytree like ``params``; what the solver's constraints leave free of it.
        params: where the objective was evaluated.
    """

    steps: chex.Array
    value: chex.Array
    grad: chex.ArrayTree
    params: chex.ArrayTree


class StoppingRule(NamedTuple):
    """A stopping rule for one lane.

    Attributes:
        init: ``params -> state``.
        update: ``(state, progress) -> (state, status)``; status ``Status.RUNNING`` (0) goes on, any other
            :class:`Status` ends the lane.
    """

    init: Callable[[chex.ArrayTree], Any]
    update: Callable[[Any, Progress], tuple[Any, chex.Array]]


def max_steps(limit: int) -> StoppingRule:
    """Stop after ``limit`` updates; a traced limit is not checked.

    Raises:
        TypeError: if ``limit`` is not a whole number.
        ValueError: if ``limit`` is negative.
    """
    limit = _whole("max_steps", limit)
    if not isinstance(limit, jax.core.Tracer) and limit < 0:
        raise ValueError(f"max_steps got {limit}, at least 0 is needed.")
    return StoppingRule(_no_state, Applied(_used_up, (limit,)))


def _no_state(params: chex.ArrayTree) -> tuple[()]:
    return ()


def _used_up(limit: Any, state: tuple[()], progress: Progress) -> tuple[tuple[()], chex.Array]:
    return state, _status_if(progress.steps >= limit, Status.MAX_STEPS)


def stagnation(window: int = 50, tolerance: float = 1e-5) -> StoppingRule:
    """Stop when the objective changed by at most ``tolerance`` over ``window`` steps.

    ``|f[i - window] - f[i]| <= tolerance``, in units of the objective; the tolerance may be traced.

    Raises:
        TypeError: if ``window`` is not a whole number, or traced.
        ValueError: if ``window`` is below 1.

    Reference:
        Konate et al., SMOCAM, ISBI 2021, section 3.
    """
    window = _whole("stagnation's window", window)
    if isinstance(window, jax.core.Tracer):
        raise TypeError("stagnation got a traced window, which is the size of an array: give a fixed number.")
    if window < 1:
        raise ValueError(f"stagnation got a window of {window} steps, at least 1 is needed.")
    return StoppingRule(Applied(_history, (window,)), Applied(_flat, (window, concrete(tolerance))))


def _history(window: int, params: chex.ArrayTree) -> jax.Array:
    return jnp.full(window, jnp.inf, dtype=jax.tree.leaves(params)[0].dtype)


def _flat(window: int, tolerance: Any, history: jax.Array, progress: Progress) -> tuple[jax.Array, jax.Array]:
    slot = jnp.asarray(progress.steps) % window
    # unseen values are infinite, hence nothing stops before a full window
    flat = jnp.abs(history[slot] - progress.value) <= jnp.asarray(tolerance, history.dtype)
    return history.at[slot].set(progress.value), jnp.asarray(_status_if(flat, Status.STAGNATED))


def relative_decrease(tolerance: float = 1e-6, window: int = 10) -> StoppingRule:
    """Stop when the objective fell by at most a share of itself over ``window`` steps.

    ``f[i - window] - f[i] <= tolerance * max(|f[i - window]|, |f[i]|)``, whatever the units of the objective. A
    window must be longer than a line search, during which nothing falls.

    Args:
        tolerance: share, at least 0; may be traced, and is then not checked.
        window: steps to look back.

    Raises:
        TypeError: if ``window`` is not a whole number, or traced.
        ValueError: if an argument is out of its range.
    """
    window = count("relative_decrease", "window", window)
    return StoppingRule(
        Applied(_history, (window,)), Applied(_hardly_falls, (window, _not_negative(tolerance, "relative_decrease")))
    )


def _hardly_falls(window: int, tolerance: Any, history: jax.Array, progress: Progress) -> tuple[jax.Array, jax.Array]:
    slot = jnp.asarray(progress.steps) % window
    earlier, value = history[slot], progress.value
    scale = jnp.asarray(tolerance, history.dtype) * jnp.maximum(jnp.abs(earlier), jnp.abs(value))
    stops = jnp.isfinite(earlier) & (earlier - value <= scale)
    return history.at[slot].set(value), jnp.asarray(_status_if(stops, Status.STAGNATED))


def gradient_norm(tolerance: float = 1e-6) -> StoppingRule:
    """Stop when ``||g||_2 <= tolerance``, over all leaves together.

    Of a constrained solver it is the gradient that the constraints leave free: on a sphere the tangent gradient,
    with ``params >= 0`` without those at zero that point outwards. So it vanishes at the constrained minimum.

    Args:
        tolerance: in units of the objective per parameter, at least 0; may be traced, and is then not checked.

    Raises:
        ValueError: if the tolerance is negative.
    """
    return StoppingRule(_no_state, Applied(_small_gradient, (_not_negative(tolerance, "gradient_norm"),)))


def _small_gradient(tolerance: Any, state: tuple[()], progress: Progress) -> tuple[tuple[()], chex.Array]:
    size = norm(progress.grad)
    return state, _status_if(size <= jnp.asarray(tolerance, size.dtype), Status.CONVERGED)


def target_value(target: float) -> StoppingRule:
    """Stop when the objective is at or below a target, a number that may be traced."""
    return StoppingRule(_no_state, Applied(_reached, (concrete(target),)))


def _reached(target: Any, state: tuple[()], progress: Progress) -> tuple[tuple[()], chex.Array]:
    return state, _status_if(progress.value <= jnp.asarray(target, progress.value.dtype), Status.TARGET_REACHED)


def any_of(*rules: StoppingRule) -> StoppingRule:
    """Stop as soon as one of the rules does; the first that stops gives the status.

    Raises:
        ValueError: if there are no rules.

    Example:
        >>> rule = any_of(stagnation(window=50), max_steps(2000))
    """
    return StoppingRule(Applied(_states, (_some("any_of", rules),)), Applied(_first, (rules,)))


def all_of(*rules: StoppingRule) -> StoppingRule:
    """Stop when all of the rules do at the same step; the first of them gives the status.

    Combine it with a limit, for it may never come to that.

    Raises:
        ValueError: if there are no rules.

    Example:
        >>> rule = any_of(all_of(gradient_norm(1e-4), relative_decrease(1e-6)), max_steps(2000))
    """
    return StoppingRule(Applied(_states, (_some("all_of", rules),)), Applied(_every, (rules,)))


def _states(rules: tuple[StoppingRule, ...], params: chex.ArrayTree) -> tuple[Any, ...]:
    return tuple(rule.init(params) for rule in rules)


def _first(
    rules: tuple[StoppingRule, ...], states: tuple[Any, ...], progress: Progress
) -> tuple[tuple[Any, ...], chex.Array]:
    outcome = _status_if(jnp.array(False), Status.RUNNING)
    following = []
    for rule, state in zip(rules, states, strict=True):
        state, status = rule.update(state, progress)
        following.append(state)
        outcome = jnp.where(outcome == Status.RUNNING, status, outcome)
    return tuple(following), outcome


def _every(
    rules: tuple[StoppingRule, ...], states: tuple[Any, ...], progress: Progress
) -> tuple[tuple[Any, ...], chex.Array]:
    outcomes = [rule.update(state, progress) for rule, state in zip(rules, states, strict=True)]
    together = jnp.array([jnp.asarray(status) != Status.RUNNING for _, status in outcomes]).all()
    first = outcomes[0][1]
    return tuple(state for state, _ in outcomes), jnp.where(together, first, jnp.int32(Status.RUNNING))


def _some(name: str, rules: tuple[StoppingRule, ...]) -> tuple[StoppingRule, ...]:
    if not rules:
        raise ValueError(f"{name} got no rules, at least one is needed.")
    return rules


def _not_negative(tolerance: Any, name: str) -> Any:
    tolerance = concrete(tolerance)
    if not isinstance(tolerance, jax.core.Tracer) and not tolerance >= 0:
        raise ValueError(f"{name} got a tolerance of {tolerance}, at least 0 is needed.")
    return tolerance


def _whole(name: str, number: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(number), jnp.integer):
        raise TypeError(f"{name} got {number!r}, a whole number is needed.")
    return concrete(number)


def _status_if(condition: chex.Array, status: Status) -> chex.Array:
    return jnp.where(condition, jnp.int32(status), jnp.int32(Status.RUNNING))
