"""Descent along a direction with a line search that costs one evaluation per step.

A search within one step, as optax has it, is a loop in a loop: under ``vmap`` every lane waits for the longest search
of all, and both branches of every condition are evaluated. Here a step *is* a trial: the solver is told value and
gradient at the point it tried, accepts it and turns to a new direction, or goes back and tries a shorter step. Lanes
never wait, nothing is evaluated twice, and every evaluation is a step that the loop counts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.incumbent import Anchored, Incumbent, no_incumbent
from jaxsal.optim.status import Status
from jaxsal.optim.trees import dot

# of the sum that the objective is, in units of the spacing of numbers
_ROUNDING = 10


class Move(NamedTuple):
    """An accepted step, all that a descent may look at.

    Attributes:
        grad: at the accepted point.
        previous_grad: where the step began.
        displacement: from there to the accepted point.
        direction: that was searched.
        step: the multiple of it that was accepted.
        slope: along the direction, where the step began.
        tangent: projects a vector to what the constraints leave free at the accepted point.
    """

    grad: chex.ArrayTree
    previous_grad: chex.ArrayTree
    displacement: chex.ArrayTree
    direction: chex.ArrayTree
    step: jax.Array
    slope: jax.Array
    tangent: Callable[[chex.ArrayTree], chex.ArrayTree]


class Descent(NamedTuple):
    """Where to search.

    Attributes:
        init: ``params -> state``, also after a search that failed.
        first_step: ``grad -> step`` along ``-grad``, at the start and after a search that failed.
        update: ``(state, move) -> (state, direction, first step)``.
    """

    init: Callable[[chex.ArrayTree], Any]
    first_step: Callable[[chex.ArrayTree], jax.Array]
    update: Callable[[Any, Move], tuple[Any, chex.ArrayTree, jax.Array]]


class Trial(NamedTuple):
    """One point on the line.

    Attributes:
        step: multiple of the direction.
        value: of the objective.
        slope: of the objective along the direction, there.
        sufficient: whether the objective fell enough, Armijo's condition.
        noise: differences of values up to this one may be rounding.
    """

    step: jax.Array
    value: jax.Array
    slope: jax.Array
    sufficient: jax.Array
    noise: jax.Array


class Search(NamedTuple):
    """How far to go.

    Attributes:
        init: ``(value, slope) -> state`` where a new direction begins.
        update: ``(state, trial) -> (state, accept, next step)``; a step that is not ``sufficient`` is never accepted.
    """

    init: Callable[[jax.Array, jax.Array], Any]
    update: Callable[[Any, Trial], tuple[Any, jax.Array, jax.Array]]


class _Line(NamedTuple):
    descent: Any
    search: Any
    direction: chex.ArrayTree
    slope: jax.Array
    step: jax.Array
    recent: jax.Array  # values of the last accepted points, the newest last
    lowest: jax.Array  # of all accepted points, so that rounding cannot add up
    trials: jax.Array  # rejected in this search
    steepest: jax.Array  # the direction is -grad, there is nothing to fall back to
    begun: jax.Array


class LineSearchState(NamedTuple):
    """State of a solver with a line search.

    Attributes:
        incumbent: the last accepted point; the parameters are a point that is tried.
        line: the search under way.
    """

    incumbent: Incumbent
    line: Anchored


def line_search(
    descent: Descent, search: Search, *, sufficient: float = 1e-4, memory: int = 1, most_trials: int = 30
) -> optax.GradientTransformationExtraArgs:
    r"""Search along the directions of a descent, one trial per step.

    A trial ``x`` from ``x0`` can only be accepted if
    ``f(x) <= max(f over the last memory accepted points) + sufficient * <grad f(x0), x - x0>``. It is written with
    the displacement instead of the step so that it holds along projections, too. Where values differ by no more
    than rounding, ``<grad f(x), x - x0> <= (2 sufficient - 1) <grad f(x0), x - x0>`` stands for it. Where a direction
    does not point downhill, or its search fails, the steepest one is taken; where that fails as well, the lane ends
    as stagnated.

    Args:
        descent: where to search.
        search: how far to go.
        sufficient: Armijo's constant.
        memory: accepted points whose largest value has to be undercut; 1 makes every accepted step a descent.
        most_trials: rejected in one search before it has failed.

    Reference:
        Armijo 1966, https://doi.org/10.2140/pjm.1966.16.1; projected: Bertsekas 1976,
        https://doi.org/10.1109/TAC.1976.1101194; non-monotone: Grippo, Lampariello and Lucidi 1986,
        https://doi.org/10.1137/0723046; within rounding: Hager and Zhang 2005, https://doi.org/10.1137/030601880

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``. ``params`` is the
        point being tried; the accepted one is the state's ``incumbent``, which :func:`jaxsal.optim.minimise` returns.
    """
    given = (descent, search, sufficient, most_trials)
    return optax.GradientTransformationExtraArgs(Applied(_init, (descent, search, memory)), Applied(_update, given))


def _init(descent: Descent, search: Search, memory: int, params: Any) -> LineSearchState:
    dtype = jax.tree.leaves(params)[0].dtype
    zero = jnp.zeros((), dtype)
    return LineSearchState(
        no_incumbent(params),
        Anchored(
            _Line(
                descent=descent.init(params),
                search=search.init(zero, zero),
                direction=jax.tree.map(jnp.zeros_like, params),
                slope=zero,
                step=zero,
                recent=jnp.full(memory, -jnp.inf, dtype),
                lowest=jnp.asarray(jnp.inf, dtype),
                trials=jnp.int32(0),
                steepest=jnp.array(True),
                begun=jnp.array(False),
            )
        ),
    )


def _update(
    descent: Descent,
    search: Search,
    sufficient: float,
    most_trials: int,
    updates: Any,
    state: LineSearchState,
    params: Any = None,
    *,
    value: jax.Array,
    tangent: Callable[[Any], Any] = lambda vector: vector,
    **_: Any,
):
    if params is None:
        raise ValueError("A line search moves the parameters: call update(grads, state, params, value=...).")
    grad = updates
    best, line = state.incumbent, state.line.held
    displacement = optax.tree.sub(params, best.params)
    still = ~_any(jax.tree.map(lambda d: d != 0, displacement))
    finite = ~_any(jax.tree.map(lambda g: ~jnp.isfinite(g), grad))
    gain = jnp.minimum(dot(best.grad, displacement), 0)
    target = jnp.max(line.recent) + jnp.asarray(sufficient, gain.dtype) * gain
    # where the objective changes by no more than its rounding, slopes still tell whether it falls
    noise = _ROUNDING * jnp.finfo(value.dtype).eps * jnp.abs(line.lowest)
    falls = dot(grad, displacement) <= jnp.asarray(2 * sufficient - 1, gain.dtype) * gain
    enough = ((value <= target) | ((value <= line.lowest + noise) & falls)) & finite & ~still
    trial = Trial(line.step, value, dot(grad, line.direction), enough, noise)
    searching, accept, shorter = search.update(line.search, trial)
    accept = ~line.begun | (accept & enough)
    failed = ~accept & (still | (line.trials + 1 >= most_trials))

    # where an accepted step turns to
    move = Move(grad, best.grad, displacement, line.direction, line.step, line.slope, tangent)
    following, direction, step = descent.update(line.descent, move)
    direction = tangent(direction)
    slope = dot(grad, direction)
    turn = accept & line.begun & (slope < 0) & jnp.isfinite(step)

    here = Incumbent(params, value, grad, best.status)
    best = _where(accept, here, best)
    steep = (accept & ~turn) | failed
    steepest = jax.tree.map(jnp.negative, best.grad)
    slope = jnp.where(turn, slope, -dot(best.grad, best.grad))
    begin = turn | steep
    line = _Line(
        descent=_where(turn, following, _where(steep, descent.init(params), line.descent)),
        search=_where(begin, search.init(best.value, slope), searching),
        direction=_where(turn, direction, _where(steep, steepest, line.direction)),
        slope=jnp.where(begin, slope, line.slope),
        step=jnp.where(turn, step, jnp.where(steep, descent.first_step(best.grad), shorter)),
        recent=jnp.where(accept, jnp.append(line.recent[1:], value), line.recent),
        lowest=jnp.where(accept, jnp.minimum(line.lowest, value), line.lowest),
        trials=jnp.where(begin, 0, line.trials + 1),
        steepest=jnp.where(begin, steep, line.steepest),
        begun=jnp.array(True),
    )
    gives_up = failed & state.line.held.steepest
    status = jnp.where(gives_up, jnp.int32(Status.STAGNATED), best.status)
    updates = jax.tree.map(lambda b, d, p: b + line.step * d - p, best.params, line.direction, params)
    return updates, LineSearchState(best._replace(status=status), Anchored(line))


def _any(flags: Any) -> jax.Array:
    return jnp.array([flag.any() for flag in jax.tree.leaves(flags)]).any()


def _where(condition: jax.Array, one: Any, other: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)
