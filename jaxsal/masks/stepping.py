"""What perturbation masks ask of a solver: masks within [0, 1], objectives that know the step, the best mask kept."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied


class Variables(NamedTuple):
    """What is optimised, with the number of the step, on which noise and warm-ups depend.

    Attributes:
        mask: ``[*t]``.
        step: updates made so far, of the mask's dtype; its gradient is 0 and :func:`counted` adds 1.
    """

    mask: jax.Array
    step: jax.Array


def by_value(build: Callable[..., optax.GradientTransformation], *args: Any, **options: Any) -> Any:
    """An optax solver that is equal to another one built alike, so that both compile once.

    It also works where mixed dtypes are errors (``jax_numpy_dtype_promotion="strict"``), which optax's own do not.

    Args:
        build: e.g. ``optax.adam``.
        args: its arguments, which need a hash.
        options: its keywords.

    Example:
        >>> by_value(optax.adam, 0.1, b2=0.99) == by_value(optax.adam, 0.1, b2=0.99)
        True
    """
    given = (build, args, tuple(sorted(options.items())))
    return optax.GradientTransformationExtraArgs(Applied(_built_init, given), Applied(_built_update, given))


def _built(build: Any, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> Any:
    return optax.with_extra_args_support(build(*args, **dict(options)))


def _built_init(build: Any, args: Any, options: Any, params: Any) -> Any:
    return _built(build, args, options).init(params)


def _built_update(build: Any, args: Any, options: Any, updates: Any, state: Any, params: Any = None, **extra: Any):
    with jax.numpy_dtype_promotion("standard"):
        new, state = _built(build, args, options).update(updates, state, params, **extra)
    return jax.tree.map(lambda n, u: n.astype(u.dtype), new, updates), state


def within(solver: optax.GradientTransformation, low: float = 0.0, high: float = 1.0) -> Any:
    """Project every step of a solver onto ``low <= params <= high``.

    Example:
        >>> solver = within(optax.sgd(1.0))
        >>> params = jnp.array([0.5, 0.5, 0.5])
        >>> updates, _ = solver.update(jnp.array([0.25, 3.0, -3.0]), solver.init(params), params)
        >>> (params + updates).tolist()
        [0.25, 0.0, 1.0]
    """
    return optax.GradientTransformationExtraArgs(solver.init, Applied(_within_update, (solver, low, high)))


def _within_update(solver: Any, low: float, high: float, updates: Any, state: Any, params: Any = None, **extra: Any):
    if params is None:
        raise ValueError("within(...) projects the parameters: call update(grads, state, params).")
    updates, state = optax.with_extra_args_support(solver).update(updates, state, params, **extra)
    return jax.tree.map(lambda u, p: jnp.clip(p + u, low, high) - p, updates, params), state


def counted(solver: optax.GradientTransformation) -> Any:
    """A solver for masks as a solver for :class:`Variables`, which counts the steps."""
    return optax.GradientTransformationExtraArgs(Applied(_counted_init, (solver,)), Applied(_counted_update, (solver,)))


def _counted_init(solver: Any, params: Variables) -> Any:
    return solver.init(params.mask)


def _counted_update(solver: Any, updates: Variables, state: Any, params: Any = None, **extra: Any):
    assert params is not None
    if "grad" in extra:
        extra |= {"grad": extra["grad"].mask}
    if "value_fn" in extra:
        extra |= {"value_fn": Applied(_value_of_mask, (extra["value_fn"], params.step))}
    new, state = optax.with_extra_args_support(solver).update(updates.mask, state, params.mask, **extra)
    return params._replace(mask=new, step=jnp.ones_like(params.step)), state


def _value_of_mask(value_fn: Any, step: jax.Array, mask: jax.Array) -> jax.Array:
    return value_fn(Variables(mask, step))


class BestState(NamedTuple):
    """State of :func:`best_after`.

    Attributes:
        inner: of the solver.
        count: evaluations seen, int32.
        value: the least one; infinite before the first.
        params: where it was.
    """

    inner: Any
    count: jax.Array
    value: jax.Array
    params: Any


def best_after(solver: optax.GradientTransformation, evaluations: int) -> Any:
    """Remember the parameters of the least value, not counting the first ``evaluations``.

    They are in the state, see :func:`best`; of equal values the last one counts. ``update`` needs the keyword
    ``value``.
    """
    return optax.GradientTransformationExtraArgs(
        Applied(_best_init, (solver,)), Applied(_best_update, (solver, evaluations))
    )


def _best_init(solver: Any, params: Any) -> BestState:
    dtype = jax.tree.leaves(params)[0].dtype
    return BestState(solver.init(params), jnp.int32(0), jnp.asarray(jnp.inf, dtype), params)


def _best_update(
    solver: Any, evaluations: int, updates: Any, state: BestState, params: Any = None, *, value: Any, **extra: Any
):
    new, inner = optax.with_extra_args_support(solver).update(updates, state.inner, params, value=value, **extra)
    better = (state.count >= evaluations) & (value <= state.value)
    kept = jax.tree.map(lambda p, k: jnp.where(better, p, k), params, state.params)
    return new, BestState(inner, state.count + 1, jnp.where(better, value, state.value), kept)


def best(state: Any, params: Any) -> Any:
    """The remembered parameters where a solver remembers any (of one lane or of many), else those it ended at."""
    if not isinstance(state, BestState):
        return params
    found = jnp.isfinite(state.value)
    return jax.tree.map(
        lambda k, p: jnp.where(jax.lax.expand_dims(found, range(found.ndim, p.ndim)), k, p), state.params, params
    )
