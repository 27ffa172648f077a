"""Keep parameters at or above zero, whatever the solver."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied


def nonnegative(solver: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Project every step of a solver onto ``params >= 0``.

    Unconstrained masks can reproduce a prediction with flipped signs, which explains nothing; a
    non-negative mask can keep, attenuate or amplify features, not turn them round.

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
    return optax.GradientTransformationExtraArgs(solver.init, Applied(_update, (solver,)))


def _update(solver: Any, updates: Any, state: Any, params: Any = None, **extra: Any):
    if params is None:
        raise ValueError("nonnegative(...) projects the parameters: call update(grads, state, params).")
    updates, state = optax.with_extra_args_support(solver).update(updates, state, params, **extra)
    return jax.tree.map(lambda u, p: jnp.maximum(u, -p), updates, params), state
