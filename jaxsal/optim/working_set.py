"""How much a lane keeps passing through the processor's cache, read off its operations."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxsal.jaxpr import computed, is_literal, trace


def working_set(objective: Callable[..., Any], params: Any, *given: Any) -> int:
    """Bytes of the largest array that an objective computes anew for every set of parameters.

    Calls, loops and branches count by what is computed in them; a loop computes all of it anew once one of its
    operands depends on the parameters.

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

    return _largest(trace(evaluate, *flat).jaxpr, [True] * count + [False] * (len(flat) - count))


def _largest(jaxpr: Any, touched: Sequence[bool]) -> int:
    """Of the arrays that depend on the arguments which are touched."""
    depends = {var for var, touch in zip(jaxpr.invars, touched, strict=True) if touch}
    largest = 0
    for eqn in _live(jaxpr):
        reached = [not is_literal(atom) and atom in depends for atom in eqn.invars]
        if any(reached):
            depends.update(eqn.outvars)
            within = [_largest(*part) for part in _parts(eqn, reached)]
            largest = max([largest, *(_bytes(var.aval) for var in eqn.outvars), *within])
    return largest


def _parts(eqn: Any, reached: list[bool]) -> list[tuple[Any, list[bool]]]:
    """The operations within an operation, and which of their arguments are touched."""
    call = computed(eqn)
    if call is not None and len(call[0].invars) == len(reached):
        return [(call[0], reached)]
    within = [
        getattr(leaf, "jaxpr", leaf)
        for value in eqn.params.values()
        for leaf in (value if isinstance(value, tuple) else (value,))
        if hasattr(getattr(leaf, "jaxpr", leaf), "eqns")
    ]
    return [(body, [True] * len(body.invars)) for body in within]


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
