"""How far to go along a direction: Armijo's condition, or both of Wolfe's."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.optim.applied import Applied
from jaxsal.optim.linesearch import Search, Trial


def armijo_search(decrease: float = 0.5) -> Search:
    """Shorten the step by a factor until the objective falls enough.

    Reference:
        Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1
    """
    return Search(_nothing, Applied(_shorten, (decrease,)))


def zoom_search(curvature: float = 0.9, most_trials: int = 10) -> Search:
    """Bracket a step with both strong Wolfe conditions, and zoom in by cubic interpolation.

    Beside Armijo's condition, ``|<grad f(x), d>| <= curvature * |<grad f(x0), d>|``. After ``most_trials`` the best
    step of the bracket is taken, which satisfies Armijo's condition alone.

    Reference:
        Nocedal and Wright 2006, Numerical optimization, algorithms 3.5 and 3.6,
        https://doi.org/10.1007/978-0-387-40065-5
    """
    return Search(_whole_line, Applied(_zoom, (curvature, most_trials)))


def _nothing(value: jax.Array, slope: jax.Array) -> tuple[()]:
    return ()


def _shorten(decrease: float, state: tuple[()], trial: Trial):
    return state, trial.sufficient, jnp.asarray(decrease, trial.step.dtype) * trial.step


class _End(NamedTuple):
    step: jax.Array
    value: jax.Array
    slope: jax.Array


class _Bracket(NamedTuple):
    low: _End  # the best step so far
    high: _End  # the other end of an interval that holds a good step; infinite while there is none
    initial: jax.Array  # slope at step 0
    trials: jax.Array
    settle: jax.Array  # the next trial is the best step of the bracket, to be taken as it is


def _whole_line(value: jax.Array, slope: jax.Array) -> _Bracket:
    infinite = jnp.full_like(value, jnp.inf)
    low = _End(jnp.zeros_like(value), value, slope)
    return _Bracket(low, _End(infinite, infinite, infinite), slope, jnp.int32(0), jnp.array(False))


def _zoom(curvature: float, most_trials: int, state: _Bracket, trial: Trial):
    here = _End(trial.step, trial.value, trial.slope)
    bad = ~trial.sufficient | ~(trial.value < state.low.value + trial.noise)
    flat = jnp.abs(trial.slope) <= jnp.asarray(curvature, trial.slope.dtype) * jnp.abs(state.initial)
    exhausted = state.trials + 1 >= most_trials
    accept = state.settle | (~bad & (flat | exhausted))
    beyond = trial.slope * jnp.sign(state.high.step - state.low.step) >= 0
    high = _where(bad, here, _where(beyond, state.low, state.high))
    low = _where(bad, state.low, here)
    settle = exhausted & (low.step > 0)
    inside = jnp.where(jnp.isinf(high.step), 2 * trial.step, _between(low, high))
    step = jnp.where(settle, low.step, inside)
    return _Bracket(low, high, state.initial, state.trials + 1, settle), accept, step


def _between(low: _End, high: _End) -> jax.Array:
    """Minimum of the cubic through both ends, or the middle where that lies too close to one of them."""
    width = high.step - low.step
    first = low.slope + high.slope - 3 * (low.value - high.value) / (low.step - high.step)
    second = jnp.sign(width) * jnp.sqrt(first * first - low.slope * high.slope)
    cubic = high.step - width * (high.slope + second - first) / (high.slope - low.slope + 2 * second)
    share = (cubic - low.step) / width
    return jnp.where((share >= 0.1) & (share <= 0.9), cubic, low.step + width / 2)


def _where(condition: jax.Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
