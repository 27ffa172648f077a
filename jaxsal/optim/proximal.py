"""Total variation by proximal steps, which keep its kinks instead of following a slope across them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.checks import between, count
from jaxsal.optim.incumbent import Anchored, Incumbent, no_incumbent
from jaxsal.optim.proximal_update import ProximalUpdate, anywhere
from jaxsal.optim.trees import dot, norm
from jaxsal.optim.tv import Variation, anisotropic, denoise, isotropic, variation


class _Mean(NamedTuple):
    """A total variation as a mean, whose weight does not depend on the grid."""

    kind: Callable[[], Variation]
    weights: Callable[[jax.Array, jax.Array], Any]


class _Ahead(NamedTuple):
    params: chex.ArrayTree  # where the gradient was taken last
    grad: chex.ArrayTree
    dual: chex.ArrayTree
    t: jax.Array
    step_size: jax.Array
    begun: jax.Array


class ProximalState(NamedTuple):
    """State of :func:`proximal_tv`.

    Attributes:
        incumbent: the last proximal point; its value is that of the whole objective at the point that led there.
        ahead: the extrapolation.
    """

    incumbent: Incumbent
    ahead: Anchored


def proximal_tv(weight: float, step_size: float = 1.0, iterations: int = 20) -> optax.GradientTransformationExtraArgs:
    r"""Minimise an objective plus isotropic total variation by FISTA.

    For ``f(M) + weight * mean over voxels of ||grad M||_2``, the total variation of
    :func:`jaxsal.masks.terms.isotropic_total_variation`, where the objective that the solver is given is ``f``
    alone: ``M <- prox(N - step_size * grad f(N))``, ``N <- M + (t - 1) / t' (M - M')``. The proximal step is solved
    in its dual, from the dual variables of the step before. The step size shrinks to the inverse of the steepest
    change of ``grad f`` met on the way, and the extrapolation starts again where it turns uphill.

    Stopping rules see the whole objective; the ended lane's ``value`` is ``f``. With :func:`jaxsal.optim.nonnegative`
    or :func:`jaxsal.optim.in_box` the proximal step is that of the constrained problem.

    Args:
        weight: of the total variation, above 0; may be traced, as ``step_size``.
        step_size: the first, at best the inverse of the largest curvature of ``f``.
        iterations: of the dual solver in each step.

    Returns:
        A transform whose ``update`` needs the keyword ``value``, the objective at ``params``. ``params`` is the
        extrapolated point; the mask is the state's ``incumbent``, which :func:`jaxsal.optim.minimise` returns.

    Raises:
        TypeError: if ``iterations`` is not a whole number.
        ValueError: if an argument is out of its range.

    Reference:
        Beck and Teboulle 2009, A fast iterative shrinkage-thresholding algorithm,
        https://doi.org/10.1137/080716542, and for total variation https://doi.org/10.1109/TIP.2009.2028250; the
        restart: O'Donoghue and Candes 2015, https://doi.org/10.1007/s10208-013-9150-3

    Example:
        >>> from jaxsal import optim
        >>> noisy = jnp.array([0.0, 0.0, 6.0, 6.0])
        >>> lane = optim.minimise(
        ...     lambda m: (0.5 * jnp.sum((m - noisy) ** 2), ()),
        ...     jnp.zeros(4),
        ...     solver=proximal_tv(4.0),
        ...     stop=optim.max_steps(20),
        ... )
        >>> [f"{p:.2f}" for p in lane.params]
        ['0.50', '0.50', '5.50', '5.50']
    """
    return _proximal("proximal_tv", _Mean(isotropic, _per_voxel), weight, step_size, iterations)


def proximal_tv_anisotropic(
    weight: float, step_size: float = 1.0, iterations: int = 20
) -> optax.GradientTransformationExtraArgs:
    r"""Minimise an objective plus SMOCAM's total variation by FISTA.

    As :func:`proximal_tv`, for ``f(M) + weight * TV(M)`` with :func:`jaxsal.masks.terms.total_variation`, the mean
    over voxels and axes of ``|M[i + 1] - M[i]|``.

    Args:
        weight: of the total variation, above 0; may be traced, as ``step_size``.
        step_size: the first, at best the inverse of the largest curvature of ``f``.
        iterations: of the dual solver in each step.

    Returns:
        As :func:`proximal_tv`.

    Raises:
        TypeError: if ``iterations`` is not a whole number.
        ValueError: if an argument is out of its range.

    Reference:
        Beck and Teboulle 2009, https://doi.org/10.1137/080716542
    """
    return _proximal("proximal_tv_anisotropic", _Mean(anisotropic, _per_difference), weight, step_size, iterations)


def _proximal(name: str, mean: _Mean, weight: Any, step_size: Any, iterations: Any):
    weight = between(name, "weight", weight, 0)
    step_size = between(name, "step_size", step_size, 0)
    iterations = count(name, "iterations", iterations)
    update = ProximalUpdate(_update, (mean, weight, iterations), anywhere, cone=False)
    return optax.GradientTransformationExtraArgs(Applied(_init, (step_size,)), update)


def _init(step_size: Any, params: Any) -> ProximalState:
    dtype = jax.tree.leaves(params)[0].dtype
    zeros = jax.tree.map(jnp.zeros_like, params)
    dual = jax.tree.map(lambda p: tuple(jnp.zeros_like(p) for _ in range(p.ndim)), params)
    ahead = _Ahead(params, zeros, dual, jnp.ones((), dtype), jnp.asarray(step_size, dtype), jnp.array(False))
    return ProximalState(no_incumbent(params), Anchored(ahead))


def _update(
    mean: _Mean,
    weight: Any,
    iterations: int,
    project: Any,
    updates: Any,
    state: ProximalState,
    params: Any = None,
    *,
    value: jax.Array,
    **_: Any,
):
    if params is None:
        raise ValueError("A proximal step moves the parameters: call update(grads, state, params, value=...).")
    grad, best, ahead = updates, state.incumbent, state.ahead.held
    change = norm(optax.tree.sub(grad, ahead.grad))
    way = norm(optax.tree.sub(params, ahead.params))
    curved = ahead.begun & (change > 0)
    step = jnp.where(curved, jnp.minimum(ahead.step_size, way / jnp.where(curved, change, 1)), ahead.step_size)

    weight = jnp.asarray(weight, step.dtype)
    leaves, treedef = jax.tree.flatten(params)
    duals = treedef.flatten_up_to(ahead.dual)
    kind = mean.kind()
    solved = [
        denoise(p - step * g, mean.weights(p, step * weight), dual, iterations, kind, project)
        for p, g, dual in zip(leaves, treedef.flatten_up_to(grad), duals, strict=True)
    ]
    point = jax.tree.unflatten(treedef, [image for image, _ in solved])
    rough = sum((variation(p, mean.weights(p, weight), kind) for p in leaves), jnp.zeros_like(weight))

    forwards = optax.tree.sub(point, best.params)
    uphill = dot(optax.tree.sub(params, point), forwards) > 0
    t = jnp.where(uphill | ~ahead.begun, 1, ahead.t)
    later = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
    following = project(jax.tree.map(lambda x, f: x + (t - 1) / later * f, point, forwards))
    held = _Ahead(params, grad, jax.tree.unflatten(treedef, [dual for _, dual in solved]), later, step, jnp.array(True))
    best = Incumbent(point, value + rough, grad, best.status)
    return optax.tree.sub(following, params), ProximalState(best, Anchored(held))


def _per_voxel(image: jax.Array, weight: jax.Array) -> list[jax.Array]:
    return [weight / image.size] * image.ndim


def _per_difference(image: jax.Array, weight: jax.Array) -> list[jax.Array]:
    return [weight / (image.ndim * max(image.size // n * (n - 1), 1)) for n in image.shape]
