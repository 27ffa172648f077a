"""How much a lane keeps passing through the processor's cache, read off its operations."""

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxsal.jaxpr import is_literal, trace


def working_set(objective: Callable[..., Any], params: Any, *given: Any) -> int:
    """Bytes of the largest array that an objective computes anew for every set of parameters; calls count by results.

    Args:
        objective: ``(*given) -> (params -> (value, aux))``; what does not depend on the parameters is computed once
            and does not count.
        params: arrays or their shapes.
        *given: likewise.

    Example:
        >>> import jax.numpy as jnp
        >>> def scaled(table):
        ...     total = (table * 2.0).sum(0)
        ...     return lambda m: (jnp.sum(m[:4] * total), ())
        >>> working_set(scaled, jnp.ones(8), jnp.ones((1000, 4)))
        16
    """
    flat, tree = jax.tree.flatten((params, *given))
    count = len(jax.tree.leaves(params))

    def evaluate(*leaves: Any) -> Any:
        params, *given = jax.tree.unflatten(tree, leaves)
        return objective(*given)(params)[0]

    jaxpr = trace(evaluate, *flat).jaxpr
    live = _live(jaxpr)
    depends, largest = set(jaxpr.invars[:count]), 0
    for eqn in live:
        if any(not is_literal(atom) and atom in depends for atom in eqn.invars):
            depends.update(eqn.outvars)
            largest = max([largest, *(_bytes(var.aval) for var in eqn.outvars)])
    return largest


def _live(jaxpr: Any) -> list[Any]:
    """The operations that something is made of, in order."""
    wanted, kept = {atom for atom in jaxpr.outvars if not is_literal(atom)}, []
    for eqn in reversed(jaxpr.eqns):
        if any(var in wanted for var in eqn.outvars):
            wanted.update(atom for atom in eqn.invars if not is_literal(atom))
            kept.append(eqn)
    return kept[::-1]


def _bytes(aval: Any) -> int:
    return math.prod(aval.shape) * aval.dtype.itemsize
