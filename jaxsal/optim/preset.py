"""optax's own solvers, equal when they are built alike."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxsal.optim.applied import Applied, concrete
from jaxsal.optim.checks import between
from jaxsal.optim.constraint import OWN_ARGUMENTS


def preset(
    factory: Callable[..., optax.GradientTransformation], *args: Any, **kwargs: Any
) -> optax.GradientTransformationExtraArgs:
    """A solver of optax that compiles once, however often it is built.

    optax returns closures, which are never equal; this one is equal if factory and arguments are.

    Args:
        factory: a function of a module, as ``optax.adam``.
        *args: its arguments, numbers.
        **kwargs: its arguments by name.

    Returns:
        A transform with the state of the one that the factory builds.

    Example:
        >>> optax.adam(0.1) == optax.adam(0.1), preset(optax.adam, 0.1) == preset(optax.adam, 0.1)
        (False, True)
    """
    given = (factory, tuple(map(concrete, args)), tuple((name, concrete(kwargs[name])) for name in sorted(kwargs)))
    return optax.GradientTransformationExtraArgs(Applied(_init, given), Applied(_update, given))


def adam(
    step_size: float = 1e-2, momentum: float = 0.9, second_momentum: float = 0.999, epsilon: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    r"""Adam: steps of the size of ``step_size`` in every parameter, whatever the scale of its gradient.

    ``M <- M - step_size * m / (sqrt(v) + epsilon)``, ``m`` and ``v`` bias-corrected running means of ``g`` and
    ``g^2``.

    Args:
        step_size: about how far each parameter moves per step; may be traced, as the others.
        momentum: decay of the mean of the gradient, between 0 and 1.
        second_momentum: decay of the mean of its square, between 0 and 1.
        epsilon: added to the root, above 0.

    Returns:
        ``optax.adam``, equal when built alike.

    Raises:
        ValueError: if an argument is out of its range.

    Reference:
        Kingma and Ba 2015, https://doi.org/10.48550/arXiv.1412.6980

    Example:
        >>> import jax.numpy as jnp
        >>> solver = adam(0.1)
        >>> updates, _ = solver.update(jnp.array([5.0, -0.1]), solver.init(jnp.zeros(2)))
        >>> print(updates.round(3))
        [-0.1  0.1]
    """
    step_size = between("adam", "step_size", step_size, 0)
    momentum = between("adam", "momentum", momentum, 0, 1)
    second_momentum = between("adam", "second_momentum", second_momentum, 0, 1)
    return preset(optax.adam, step_size, momentum, second_momentum, between("adam", "epsilon", epsilon, 0))


def _init(factory: Any, args: Any, kwargs: Any, params: Any) -> Any:
    return factory(*args, **dict(kwargs)).init(params)


def _update(factory: Any, args: Any, kwargs: Any, updates: Any, state: Any, params: Any = None, **extra: Any):
    for name in OWN_ARGUMENTS:
        extra.pop(name, None)  # optax's line searches refuse arguments that they do not know
    # optax raises numbers to integer powers, which strict promotion forbids
    with jax.numpy_dtype_promotion("standard"):
        solver = optax.with_extra_args_support(factory(*args, **dict(kwargs)))
        return solver.update(updates, state, params, **extra)
