"""Keep parameters on the unit sphere, whatever the solver."""

import optax

from jaxsal.optim.constraint import constrained, split_constraint
from jaxsal.optim.proximal_update import is_proximal
from jaxsal.optim.sets import orthant, sphere


def on_sphere(solver: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Keep ``||params||_2 = 1``, over all leaves together, at every step of a solver.

    The solver sees the tangent gradient ``g - <g, M> M``; its step is brought back by normalisation,
    ``M <- (M + u) / ||M + u||``; momentum in its state is projected to the tangent space of the new point. On
    the sphere this is descent on ``M -> f(M / ||M||)``, whose gradient it is: line searches and quasi-Newton
    pairs stay exact. It solves SMOCAM's equation 1, minimise ``f(M)`` subject to ``||M||_2 = 1``, itself, where the
    penalty ``lam * |1 - ||M||_2|`` of its equation 2 only comes near.

    ``on_sphere(nonnegative(solver))`` keeps both constraints: steps are clipped, then normalised, which is the
    projection onto the sphere's non-negative part; and the gradient is projected onto its tangent cone, so that
    parameters at zero whose gradient points outwards stay there.

    Momentum is told from the rest of an optax state by shape and name: subtrees shaped like the parameters, except
    the second moments and step sizes (``nu``, ``nu_max``, ``sum_of_squares``, ``e_g``, ``e_x``, ``n``, ``v``,
    ``step_sizes``) and points (``params``, ``init_params``). Keep to these names in a solver of your own.

    Args:
        solver: any optax transform, or one within :func:`jaxsal.optim.nonnegative`.

    Returns:
        A transform with the same state and the same extra arguments. :func:`jaxsal.optim.start` begins on the
        sphere; when you call ``update`` yourself, begin at :func:`jaxsal.optim.feasible`.

    Raises:
        ValueError: if the solver keeps to another set, onto whose intersection with the sphere no projection is
            known, or takes proximal steps, which need a convex set.

    Reference:
        Absil, Mahony and Sepulchre 2008, Optimization algorithms on matrix manifolds, chapter 4,
        https://doi.org/10.1515/9781400830244

    Example:
        >>> import jax.numpy as jnp
        >>> solver = on_sphere(optax.sgd(1.0))
        >>> params = jnp.array([0.0, 1.0])
        >>> updates, _ = solver.update(jnp.array([-1.0, 5.0]), solver.init(params), params)
        >>> print((params + updates).round(4))
        [0.7071 0.7071]
    """
    constraint, within = split_constraint(solver)
    if constraint == sphere():
        return on_sphere(within)
    if constraint not in (None, orthant()):
        raise ValueError(
            "on_sphere got a solver that keeps to another set, and no projection onto both is known: "
            "only on_sphere(solver) and on_sphere(nonnegative(solver)) are possible."
        )
    if is_proximal(within):
        raise ValueError(
            "on_sphere got a solver with proximal steps, which need a convex set, and the sphere is none: "
            "put the total variation into the objective and take another solver."
        )
    return constrained(solver, sphere())
