"""Keep parameters at or above zero, or between bounds, whatever the solver."""

from typing import Any

import jax.core
import optax

from jaxsal.optim.applied import concrete
from jaxsal.optim.constraint import constrained, split_constraint
from jaxsal.optim.proximal_update import ProximalUpdate, is_proximal, proximal_within
from jaxsal.optim.sets import box, clipping, orthant, sphere
from jaxsal.optim.sphere import on_sphere


def nonnegative(solver: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Project every step of a solver onto ``params >= 0``.

    Unconstrained masks can reproduce a prediction with flipped signs, which explains nothing; a
    non-negative mask can keep, attenuate or amplify features, not turn them round.

    Parameters at zero whose gradient points outwards are held there: the solver sees no gradient for them, so that
    it builds up neither momentum nor curvature against the bound. Around :func:`jaxsal.optim.on_sphere` it does the
    same as within it: both hold after every step.

    Args:
        solver: any optax transform.

    Returns:
        A transform with the same state and the same extra arguments.

    Reference:
        Bertsekas 1976, On the Goldstein-Levitin-Polyak gradient projection method,
        https://doi.org/10.1109/TAC.1976.1101194

    Example:
        >>> import jax.numpy as jnp
        >>> solver = nonnegative(optax.sgd(1.0))
        >>> params = jnp.array([1.0, 1.0])
        >>> updates, _ = solver.update(jnp.array([0.5, 3.0]), solver.init(params), params)
        >>> (params + updates).tolist()
        [0.5, 0.0]
    """
    constraint, within = split_constraint(solver)
    if constraint == sphere():  # clipping after normalising would leave the sphere
        return on_sphere(nonnegative(within))
    if is_proximal(solver):
        return proximal_within(solver, orthant().project)
    return constrained(solver, orthant())


def in_box(
    solver: optax.GradientTransformation, low: float = 0.0, high: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Project every step of a solver onto ``low <= params <= high``, as :func:`nonnegative` does onto one bound.

    Args:
        solver: any optax transform.
        low: least value; may be traced, as ``high``, and is then not checked.
        high: most value, above ``low``.

    Returns:
        A transform with the same state and the same extra arguments.

    Raises:
        ValueError: if the bounds leave nothing between them, the solver keeps to the sphere, or its steps are exact
            within cones only (:func:`jaxsal.optim.prox_linear`).

    Example:
        >>> import jax.numpy as jnp
        >>> solver = in_box(optax.sgd(1.0))
        >>> updates, _ = solver.update(jnp.array([3.0, -3.0]), solver.init(jnp.ones(2)), jnp.full(2, 0.5))
        >>> (0.5 + updates).tolist()
        [0.0, 1.0]
    """
    low, high = _bounds("in_box", solver, low, high)
    if isinstance(solver.update, ProximalUpdate) and solver.update.cone:
        raise ValueError("in_box got a solver whose steps are exact within cones only: use nonnegative.")
    if is_proximal(solver):
        return proximal_within(solver, box(low, high).project)
    return constrained(solver, box(low, high))


def clipped(
    solver: optax.GradientTransformation, low: float = 0.0, high: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Clip every step of a solver to ``low <= params <= high`` without telling the solver, as published codes do.

    The solver sees the whole gradient: where it points outwards at a bound, momentum builds up against the bound and
    delays the way back. To repeat what was published; else :func:`in_box` is better, and line searches need it.

    Args:
        solver: any optax transform.
        low: least value; may be traced, as ``high``, and is then not checked.
        high: most value, above ``low``.

    Returns:
        A transform with the same state and the same extra arguments.

    Raises:
        ValueError: if the bounds leave nothing between them, or the solver keeps to the sphere.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import optim
        >>> uphill = lambda params: (-params.sum(), ())
        >>> def momentum(wrapper):
        ...     solver = wrapper(optim.damped_momentum(0.1))
        ...     return optim.minimise(uphill, jnp.ones(1), solver=solver, stop=optim.max_steps(3)).solver.velocity
        >>> momentum(optim.clipped).tolist(), momentum(optim.in_box).tolist()
        ([-1.0], [0.0])
    """
    low, high = _bounds("clipped", solver, low, high)
    if is_proximal(solver):
        raise ValueError("clipped got a proximal solver, whose steps know the bounds: use in_box.")
    return constrained(solver, clipping(low, high))


def _bounds(name: str, solver: optax.GradientTransformation, low: Any, high: Any) -> tuple[Any, Any]:
    low, high = concrete(low), concrete(high)
    if not any(isinstance(bound, jax.core.Tracer) for bound in (low, high)) and not low < high:
        raise ValueError(f"{name} got low={low} and high={high}, low must be below high.")
    if split_constraint(solver)[0] == sphere():
        raise ValueError(f"{name} got a solver on the sphere, and no projection onto both is known: use nonnegative.")
    return low, high
