"""The tail of a network under many masks of the same features, with its first convolution done once for all.

A mask has one value per voxel and a convolution is linear, so the convolution of masked features is the sum over the
kernel's taps of mask times the convolution's own products: every mask then costs as much as a convolution of one
channel, however many channels the features have.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.engine.lower import is_plain_convolution, lower
from jaxsal.jaxpr import bind, inner, is_literal, read, trace

# values that the products may take: half a GiB in float32
_MOST = 2**27
# taps that a kernel may have (5 x 5 x 5): each is an operation of its own, and hundreds take minutes to compile
_MOST_TAPS = 125


class _Found(NamedTuple):
    """Where a convolution of the features stands: position in the jaxpr, then in the call at that position, ...

    The features are those that it reads: brought to another dtype where the tail does that first.
    """

    path: tuple[int, ...]
    eqn: Any
    features: jax.Array
    kernel: jax.Array


def masked(tail: Callable[[jax.Array], Any], features: jax.Array) -> Callable[[jax.Array], Any]:
    """The tail as a function of a mask on its features.

    Where the features enter a convolution before anything but a change of their floating-point type (channel-last,
    one group, no dilation, one dtype, at most 125 taps, products of at most half a GiB), its products are computed
    here, once; what is returned only sums them. Any other tail is applied to the masked features.

    Args:
        tail: ``features[1, *t, c] -> y``.
        features: ``[1, *t, c]``.

    Returns:
        ``mask[*t] -> tail(features * mask[None, ..., None])``, lowered (:func:`jaxsal.engine.lower.lower`).

    Example:
        >>> kernel = jnp.ones((3, 3, 4, 2))
        >>> def tail(f):
        ...     return lax.conv_general_dilated(f, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        >>> features, mask = jnp.ones((1, 5, 5, 4)), jnp.eye(5)
        >>> bool(jnp.allclose(masked(tail, features)(mask), tail(features * mask[None, ..., None])))
        True
    """
    traced = trace(tail, features)
    found = _find(traced.jaxpr, traced.consts, [features], 0)
    if found is None:
        return lower(lambda mask: tail(_apply(features, mask)))
    convolve = _by_products(found)

    def apply(mask: jax.Array) -> Any:
        # the masked features serve whatever else reads them; unread, they are never computed
        out = _replay(traced.jaxpr, traced.consts, [_apply(features, mask)], found.path, convolve(mask))
        return jax.tree.unflatten(traced.tree, out)

    return lower(apply)


def _apply(features: jax.Array, mask: jax.Array) -> jax.Array:
    return features * mask[None, ..., None]


def _find(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], position: int) -> _Found | None:
    """The first operation on an argument, if it is a plain convolution of it."""
    features = [jaxpr.invars[position]]  # and the same in other floating-point types
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    for index, eqn in enumerate(jaxpr.eqns):
        places = [i for i, atom in enumerate(eqn.invars) if any(atom is same for same in features)]
        if not places:
            continue
        if eqn.primitive.name == "convert_element_type" and jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
            features += eqn.outvars
            continue
        body = inner(eqn)
        if places == [0] and is_plain_convolution(eqn):
            return _Found((index,), eqn, *(_value(jaxpr, env, atom) for atom in eqn.invars)) if _fits(eqn) else None
        if len(places) > 1 or body is None:
            return None
        deeper = _find(*body, [_value(jaxpr, env, atom) for atom in eqn.invars], places[0])
        return deeper and deeper._replace(path=(index, *deeper.path))
    return None


def _value(jaxpr: Any, env: dict[Any, Any], atom: Any) -> Any:
    """Value of an operand, by running what leads to it and nothing else."""
    if not is_literal(atom) and atom not in env:
        eqn = next(eqn for eqn in jaxpr.eqns if atom in eqn.outvars)
        for operand in eqn.invars:
            _value(jaxpr, env, operand)
        env.update(zip(eqn.outvars, bind(jaxpr, eqn, env), strict=True))
    return read(env, atom)


def _fits(eqn: Any) -> bool:
    """Whether the products, voxels out times taps times channels out, are few enough."""
    *window, _, _ = eqn.invars[1].aval.shape
    taps = math.prod(window)
    return taps <= _MOST_TAPS and math.prod(eqn.outvars[0].aval.shape[1:]) * taps <= _MOST


def _replay(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], path: tuple[int, ...], value: jax.Array
) -> list[Any]:
    """Run the operations, with a given value for the result of the one at ``path``."""
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    for index, eqn in enumerate(jaxpr.eqns):
        if index != path[0]:
            out = bind(jaxpr, eqn, env)
        elif len(path) == 1:
            out = [value]
        else:
            body = inner(eqn)
            assert body is not None
            out = _replay(*body, [read(env, atom) for atom in eqn.invars], path[1:], value)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


def _by_products(found: _Found) -> Callable[[jax.Array], jax.Array]:
    strides, padding, precision = (found.eqn.params[name] for name in ("window_strides", "padding", "precision"))
    window = found.kernel.shape[:-2]
    grid = found.eqn.outvars[0].aval.shape[1:-1]
    patches = functools.partial(_patches, window=window, strides=strides, padding=padding, grid=grid)
    kernel = found.kernel.reshape(-1, *found.kernel.shape[-2:])
    multiply = functools.partial(jnp.matmul, precision=precision)
    products = jnp.stack(
        [multiply(patch, tap) for patch, tap in zip(patches(found.features[0]), kernel, strict=True)], axis=-2
    )
    products = products.reshape(-1, *products.shape[-2:])  # [voxels out, taps, channels out]

    def convolve(mask: jax.Array) -> jax.Array:
        weights = jnp.stack([patch.reshape(-1) for patch in patches(mask)], axis=-1).astype(products.dtype)
        return jnp.einsum("vt,vtc->vc", weights, products, precision=precision).reshape(1, *grid, -1)

    return convolve


def _patches(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    grid: Sequence[int],
) -> list[jax.Array]:
    """For every tap of a window, the values x[*t, ...] that it meets, in row-major order of the taps."""
    rest = x.ndim - len(window)
    x = jnp.pad(x, [*padding, *((0, 0),) * rest])
    return [
        lax.slice(
            x,
            (*taps, *(0,) * rest),
            (*(t + s * (n - 1) + 1 for t, s, n in zip(taps, strides, grid, strict=True)), *x.shape[len(window) :]),
            (*strides, *(1,) * rest),
        )
        for taps in itertools.product(*map(range, window))
    ]
