"""Masks whose distance is a known slope: the problem that :func:`jaxsal.optim.prox_linear` solves each step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxsal.optim.composite import MaskPenalty
from jaxsal.optim.trees import dot, norm


class Linearised(NamedTuple):
    r"""``|distance + <grad, x - centre>| + penalty(x) + ||x - centre||^2 / (2 step_size)``.

    Attributes:
        centre: where the distance was linearised.
        distance: there.
        grad: its gradient there.
        penalty: of the mask.
        step_size: how far the slope is trusted.
    """

    centre: chex.ArrayTree
    distance: jax.Array
    grad: chex.ArrayTree
    penalty: MaskPenalty
    step_size: jax.Array

    def model(self, x: chex.ArrayTree) -> jax.Array:
        """What the objective would be at a point, were the distance linear up to its kink at 0."""
        ahead = jax.tree.map(lambda a, b: a - b, x, self.centre)
        return jnp.abs(self.distance + dot(self.grad, ahead)) + self.penalty(x)


class Dual(NamedTuple):
    """Dual variables: one array per leaf and axis for the differences, one number for the slope."""

    rough: Any
    slope: jax.Array


def no_dual(params: chex.ArrayTree) -> Dual:
    """Where to start."""
    zeros = [
        tuple(jnp.zeros_like(_difference(leaf, axis)) for axis in range(leaf.ndim)) for leaf in jax.tree.leaves(params)
    ]
    return Dual(zeros, jnp.zeros((), jax.tree.leaves(params)[0].dtype))


def solve(
    problem: Linearised, dual: Dual, iterations: int, project: Callable[[chex.ArrayTree], chex.ArrayTree]
) -> tuple[chex.ArrayTree, Dual]:
    """The point of least model by the accelerated primal-dual method of Chambolle and Pock.

    Kinks of the total variation and of the distance are handled by their duals, the norm and the set in one primal
    step, which is exact where the set is a cone and the projection is not 0. The norm term is convex outside the unit
    ball only.

    Args:
        problem: to solve.
        dual: where to start.
        iterations: how many.
        project: onto a closed convex cone.

    Returns:
        The point and its dual variables.

    Reference:
        Chambolle and Pock 2011, A first-order primal-dual algorithm for convex problems with applications to
        imaging, Algorithm 2, https://doi.org/10.1007/s10851-010-0251-1
    """
    centre, treedef = jax.tree.flatten(problem.centre)
    costs = [problem.penalty.per_difference(leaf) for leaf in centre]
    # differences along an axis have a norm below 2; the slope is scaled to weigh as much as all axes together
    squares = 4.0 * max(1, *(leaf.ndim for leaf in centre))
    steepness = norm(problem.grad)
    scale = jnp.where(steepness > 0, squares**0.5 / jnp.where(steepness > 0, steepness, 1), 0)
    slope = [scale * leaf for leaf in jax.tree.leaves(problem.grad)]
    bound = jnp.where(steepness > 0, steepness / squares**0.5, 0)

    def primal(x: list[jax.Array], dual: Dual, tau: jax.Array) -> list[jax.Array]:
        share = 1 / (1 / tau + 1 / problem.step_size)
        pulled = [
            share * ((leaf - tau * (_adjoint(rough, leaf) + dual.slope * g)) / tau + c / problem.step_size)
            for leaf, rough, g, c in zip(x, dual.rough, slope, centre, strict=True)
        ]
        inside = jax.tree.leaves(project(jax.tree.unflatten(treedef, pulled)))
        return [_towards_unit_norm(leaf, share * jnp.asarray(problem.penalty.norm, leaf.dtype)) for leaf in inside]

    def iterate(_: int, state: tuple[list[jax.Array], list[jax.Array], Dual, jax.Array, jax.Array]):
        x, ahead, dual, tau, sigma = state
        rough = [
            tuple(
                jnp.clip(p + sigma * _difference(leaf, axis), -w, w)
                for axis, (p, w) in enumerate(zip(ps, ws, strict=True))
            )
            for leaf, ps, ws in zip(ahead, dual.rough, costs, strict=True)
        ]
        off = sum((g * (a - c)).sum() for g, a, c in zip(slope, ahead, centre, strict=True))
        kink = jnp.clip(dual.slope + sigma * (scale * problem.distance + off), -bound, bound)
        dual = Dual(rough, kink)
        following = primal(x, dual, tau)
        theta = 1 / jnp.sqrt(1 + 2 * tau / problem.step_size)
        ahead = [new + theta * (new - old) for new, old in zip(following, x, strict=True)]
        return following, ahead, dual, tau * theta, sigma / theta

    dual = Dual(dual.rough, jnp.clip(dual.slope, -bound, bound))
    # steps in the ratio of how far the point and its duals have to go, and none longer than the slope is trusted; at
    # its kink, a steep distance pulls no harder than all else together, however far its dual might go
    rough = jnp.sqrt(sum((w * w * leaf.size).sum() for leaf, ws in zip(centre, costs, strict=True) for w in ws))
    pull = rough + (len(centre) * problem.penalty.norm + norm(problem.centre) / problem.step_size) / squares**0.5
    reach = jnp.sqrt(jnp.minimum(bound, pull) ** 2 + rough**2)
    balanced = norm(problem.centre) / jnp.maximum(reach * (2 * squares) ** 0.5, jnp.finfo(reach.dtype).tiny)
    tau = jnp.where(balanced > 0, jnp.minimum(problem.step_size, balanced), problem.step_size)
    start = (centre, centre, dual, tau, 1 / (tau * 2 * squares))
    x, _, dual, _, _ = jax.lax.fori_loop(0, iterations, iterate, start)
    return jax.tree.unflatten(treedef, x), dual


def _adjoint(rough: tuple[jax.Array, ...], like: jax.Array) -> jax.Array:
    total = jnp.zeros_like(like)
    for axis, p in enumerate(rough):
        edge = [(0, 0)] * p.ndim
        edge[axis] = (1, 1)
        total = total - jnp.diff(jnp.pad(p, edge), axis=axis)
    return total


def _difference(x: jax.Array, axis: int) -> jax.Array:
    return jnp.diff(x, axis=axis)


def _towards_unit_norm(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The proximal step of ``weight * |1 - ||x||_2|``."""
    length = jnp.sqrt(jnp.sum(x * x))
    wanted = jnp.where(length - weight > 1, length - weight, jnp.where(length + weight < 1, length + weight, 1))
    return x * jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 1)
