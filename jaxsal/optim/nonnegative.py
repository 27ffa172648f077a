"""Keep parameters at or above zero, whatever the solver."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax


@functools.cache
def nonnegative(solver: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Project every step of a solver onto ``params >= 0``.

    Unconstrained masks can reproduce a prediction with flipped signs, which explains nothing; a
    non-negative mask can only keep and attenuate features.

    Args:
        solver: any optax transform.

    Returns:
        A transform with the same state and the same extra arguments.

    Example:
        >>> solver = nonnegative(optax.sgd(1.0))
        >>> params = jnp.array([1.0, 1.0])
        >>> updates, _ = solver.update(jnp.array([0.5, 3.0]), solver.init(params), params)
        >>> (params + updates).tolist()
        [0.5, 0.0]
    """
    inner = optax.with_extra_args_support(solver)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any):
        if params is None:
            raise ValueError("nonnegative(...) projects the parameters: call update(grads, state, params).")
        updates, state = inner.update(updates, state, params, **extra)
        return jax.tree.map(lambda u, p: jnp.maximum(u, -p), updates, params), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
