"""Convolutions and matrix products in a shorter floating-point format, all else as it was."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass

from jaxsal.jaxpr import bind, inner, read, trace
from jaxsal.model import as_pytree
from jaxsal.splitting import Split

_PRODUCTS = frozenset(("conv_general_dilated", "dot_general"))


def in_precision(split: Split, dtype: Any = jnp.bfloat16) -> Split:
    """The same split, with the products of its tail in a shorter format.

    Masks, the terms of the objective, gradients and the solver's state stay in the features' own type, usually
    float32; see :func:`narrow` for what changes. The head, which runs once, is left as it is.

    Args:
        split: see :func:`jaxsal.split`.
        dtype: ``jnp.bfloat16`` or ``jnp.float16``; the latter reaches 65504 only, beyond it is infinite.

    Returns:
        A split to be used like any other; what its tail returns has the type that it had.

    Raises:
        TypeError: if ``dtype`` is not a floating-point type of 16 bits.

    Example:
        >>> import jaxsal
        >>> x = jnp.ones((1, 8, 8, 1)).at[0, 2:4, 2:4].set(9.0)
        >>> parts = in_precision(Split(jnp.sqrt, lambda f: f.mean((1, 2)) @ jnp.ones((1, 2))))
        >>> jaxsal.smocam(parts, x, max_steps=3).mask.dtype
        dtype('float32')
    """
    return Split(split.head, Narrowed(as_pytree(split.tail), _short(dtype)))


@register_dataclass
@dataclass(frozen=True)
class Narrowed:
    """A network with its products in a shorter format; a pytree, so that new weights do not recompile.

    Attributes:
        model: the network.
        dtype: of its products.
    """

    model: Any
    dtype: Any = field(metadata={"static": True})

    def __call__(self, x: jax.Array) -> jax.Array:
        """What :func:`narrow` makes of the network."""
        return narrow(_call, self.dtype)(self.model, x)


def narrow(fn: Callable[..., Any], dtype: Any = jnp.bfloat16) -> Callable[..., Any]:
    """The same function with its convolutions and matrix products in a shorter format.

    Both operands of a product, weights and values, are rounded to ``dtype``; sums of matrix products are in the type
    that they had, those of convolutions are rounded to ``dtype`` once. Biases, normalisation, non-linearities and
    pools are computed as before, and so is the inside of loops and of calls with a derivative of their own
    (``custom_jvp``, ``custom_vjp``, ``jax.checkpoint``).

    Args:
        fn: any JAX function of pytrees.
        dtype: ``jnp.bfloat16`` or ``jnp.float16``.

    Returns:
        A function of the same signature, whose results and gradients have the types that they had.

    Raises:
        TypeError: if ``dtype`` is not a floating-point type of 16 bits.

    Example:
        >>> print(narrow(jnp.dot)(jnp.float32([[1.001]]), jnp.float32([[1.0]])))  # 1.001 lies between 1 and 1.0078
        [[1.]]
    """
    short = _short(dtype)

    @functools.wraps(fn, updated=())
    def narrowed(*args: Any) -> Any:
        flat, tree = jax.tree.flatten(args)
        traced = trace(lambda *leaves: fn(*jax.tree.unflatten(tree, leaves)), *flat)
        return jax.tree.unflatten(traced.tree, _run(traced.jaxpr, traced.consts, flat, short))

    return narrowed


def _call(model: Any, x: jax.Array) -> jax.Array:
    return model(x)


def _short(dtype: Any) -> Any:
    found = jnp.dtype(dtype)
    if not jnp.issubdtype(found, jnp.floating) or found.itemsize != 2:
        raise TypeError(f"dtype got {found}, a floating-point type of 16 bits is needed: jnp.bfloat16 or jnp.float16.")
    return found


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], dtype: Any) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        body = inner(eqn)
        if eqn.primitive.name in _PRODUCTS:
            out = [_product(eqn, [read(env, atom) for atom in eqn.invars], dtype)]
        elif body is not None and _holds_product(body[0]):
            out = _run(*body, [read(env, atom) for atom in eqn.invars], dtype)
        else:
            out = bind(jaxpr, eqn, env)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


def _holds_product(jaxpr: Any) -> bool:
    bodies = (inner(eqn) for eqn in jaxpr.eqns)
    return any(eqn.primitive.name in _PRODUCTS for eqn in jaxpr.eqns) or any(
        body is not None and _holds_product(body[0]) for body in bodies
    )


def _product(eqn: Any, operands: list[Any], dtype: Any) -> jax.Array:
    result = eqn.outvars[0].aval.dtype
    given = [atom.aval.dtype for atom in eqn.invars]
    if not all(jnp.issubdtype(own, jnp.floating) and own.itemsize > dtype.itemsize for own in given):
        return eqn.primitive.bind(*operands, **eqn.params)
    # a convolution that adds up in another type than its operands' has no gradient in JAX
    sums = result if eqn.primitive.name == "dot_general" else None
    params = eqn.params | {"preferred_element_type": sums, "precision": None}
    return eqn.primitive.bind(*(jnp.asarray(a, dtype) for a in operands), **params).astype(result)
