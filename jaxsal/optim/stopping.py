"""When to stop: rules as pairs of pure functions that compose."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.core
import jax.numpy as jnp

from jaxsal.optim.applied import Applied, concrete
from jaxsal.optim.status import Status


class Progress(NamedTuple):
    """What a rule may look at after each evaluation of the objective.

    Attributes:
        steps: updates made so far, int32.
        value: of the objective, at ``params``.
        grad: of the objective, a pytree like ``params``.
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


def any_of(*rules: StoppingRule) -> StoppingRule:
    """Stop as soon as one of the rules does; the first that stops gives the status.

    Example:
        >>> rule = any_of(stagnation(window=50), max_steps(2000))
    """
    return StoppingRule(Applied(_states, (rules,)), Applied(_first, (rules,)))


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


def _whole(name: str, number: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(number), jnp.integer):
        raise TypeError(f"{name} got {number!r}, a whole number is needed.")
    return concrete(number)


def _status_if(condition: chex.Array, status: Status) -> chex.Array:
    return jnp.where(condition, jnp.int32(status), jnp.int32(Status.RUNNING))
