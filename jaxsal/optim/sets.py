"""The sets that solvers are kept in: the non-negative orthant, a box, the unit sphere."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxsal.optim.applied import Applied
from jaxsal.optim.constraint import Constraint
from jaxsal.optim.incumbent import Anchored, Incumbent
from jaxsal.optim.trees import dot, norm

# arrays of the parameters' shape that are no directions: squares, step sizes and points
_NO_DIRECTIONS = frozenset(
    ("nu", "nu_max", "sum_of_squares", "e_g", "e_x", "n", "v", "step_sizes", "params", "init_params")
)


def orthant() -> Constraint:
    """``params >= 0``."""
    return Constraint(_clip, _not_below, _unchanged)


def box(low: Any, high: Any) -> Constraint:
    """``low <= params <= high``, two numbers."""
    return Constraint(Applied(_clip_between, (low, high)), Applied(_not_beyond, (low, high)), _unchanged)


def clipping(low: Any, high: Any) -> Constraint:
    """The same set, for solvers that are told nothing of it."""
    return Constraint(Applied(_clip_between, (low, high)), _whole, _unchanged)


def sphere() -> Constraint:
    """``||params||_2 = 1``, over all leaves together."""
    return Constraint(_normalise, _tangent, _transport)


def _clip(params: chex.ArrayTree) -> chex.ArrayTree:
    return jax.tree.map(lambda p: jnp.maximum(p, 0), params)


def _not_below(params: Any, grad: Any, vector: Any) -> Any:
    return jax.tree.map(lambda p, g, v: jnp.where((p <= 0) & (g > 0), 0, v), params, grad, vector)


def _clip_between(low: Any, high: Any, params: Any) -> Any:
    return jax.tree.map(lambda p: jnp.clip(p, jnp.asarray(low, p.dtype), jnp.asarray(high, p.dtype)), params)


def _not_beyond(low: Any, high: Any, params: Any, grad: Any, vector: Any) -> Any:
    def free(p: jax.Array, g: jax.Array, v: jax.Array) -> jax.Array:
        least, most = jnp.asarray(low, p.dtype), jnp.asarray(high, p.dtype)
        return jnp.where(((p <= least) & (g > 0)) | ((p >= most) & (g < 0)), 0, v)

    return jax.tree.map(free, params, grad, vector)


def _whole(params: Any, grad: Any, vector: Any) -> Any:
    return vector


def _unchanged(params: chex.ArrayTree, state: Any) -> Any:
    return state


def _normalise(params: chex.ArrayTree) -> chex.ArrayTree:
    size = optax.tree.size(params)
    # dividing by the largest value first keeps squares of tiny and huge values in range
    largest = jnp.max(jnp.array([jnp.max(jnp.abs(p)) for p in jax.tree.leaves(params)]))
    empty = largest == 0
    scaled = jax.tree.map(lambda p: jnp.where(empty, 1, p / jnp.where(empty, 1, largest)), params)
    length = norm(scaled)
    unit = jax.tree.map(lambda p: p / length, scaled)
    # sums of many squares in float32 are off in the seventh digit; the mean's departure is summed more exactly
    excess = sum((jnp.sum(u * u - 1 / size) for u in jax.tree.leaves(unit)), jnp.zeros((), length.dtype))
    return jax.tree.map(lambda u: u * (1 - excess / 2), unit)


def _tangent(params: Any, grad: Any, vector: Any) -> Any:
    point = _normalise(params)
    along = dot(vector, point)
    return jax.tree.map(lambda v, p: v - along * p, vector, point)


def _transport(params: Any, state: Any) -> Any:
    shapes = jax.tree.map(jnp.shape, params), jax.tree.structure(params)

    def is_direction(node: Any) -> bool:
        return jax.tree.structure(node) == shapes[1] and jax.tree.map(jnp.shape, node) == shapes[0]

    def moved(path: Any, node: Any) -> Any:
        names = {getattr(key, "name", None) for key in path}
        if isinstance(node, Incumbent | Anchored) or not is_direction(node) or names & _NO_DIRECTIONS:
            return node
        return _tangent(params, node, node)

    return jax.tree_util.tree_map_with_path(
        moved, state, is_leaf=lambda node: isinstance(node, Incumbent | Anchored) or is_direction(node)
    )
