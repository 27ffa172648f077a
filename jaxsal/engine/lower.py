"""Make a network's 3-D convolutions fast on CPU, without touching the network.

XLA's CPU backend runs 3-D convolutions, and the input gradients of 2-D ones inside loops, many times
slower than plain 2-D convolutions. A 3-D convolution is a sum of 2-D ones over the taps of the kernel's
first axis; written so, and with the input gradient as a convolution with an explicitly flipped kernel, it
runs at full speed both ways. GPU and TPU keep their native 3-D kernels: the choice is made when XLA lowers
the program.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.jaxpr import bind, inner, read, trace

Pads = tuple[tuple[int, int], ...]

_CHANNELS_LAST = (("NHWC", "HWIO", "NHWC"), ("NDHWC", "DHWIO", "NDHWC"))
# below this many input channels a 2-D convolution is too thin to be fast: the depth taps become channels
_THIN = 8


def lower(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its 3-D convolutions written for the platform that runs it.

    Plain convolutions (channel-last, one feature group, no dilation) of rank 3 are replaced, also inside
    nested ``jit``; everything else, other convolutions included, is kept as it is.

    Args:
        fn: any JAX function of pytrees, e.g. ``lambda model, x: model(x)``.

    Returns:
        A function of the same signature, equal to ``fn`` up to the rounding of float32.

    Example:
        >>> kernel = jnp.ones((3, 3, 3, 1, 2))
        >>> def fn(x):
        ...     return lax.conv_general_dilated(
        ...         x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))
        >>> x = jnp.arange(64.0).reshape(1, 4, 4, 4, 1)
        >>> bool(jnp.allclose(lower(fn)(x), fn(x)))
        True
    """

    @functools.wraps(fn, updated=())
    def lowered(*args: Any) -> Any:
        flat, tree = jax.tree.flatten(args)
        traced = trace(lambda *leaves: fn(*jax.tree.unflatten(tree, leaves)), *flat)
        return jax.tree.unflatten(traced.tree, _run(traced.jaxpr, traced.consts, flat))

    return lowered


def convolve(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads) -> jax.Array:
    """A 3-D convolution, by depth taps on CPU and native elsewhere.

    Args:
        x: ``[b, d, h, w, c]``.
        kernel: ``[kd, kh, kw, c, o]``.
        strides: one per spatial axis.
        padding: zeros before and after, per spatial axis.

    Returns:
        ``[b, d', h', w', o]``.
    """
    strides, padding = tuple(strides), tuple((int(lo), int(hi)) for lo, hi in padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _by_taps(x, kernel, strides, padding),
        default=lambda x, kernel: _native(x, kernel, strides, padding),
    )


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        body = inner(eqn)
        if _is_plain_convolution(eqn):
            x, kernel = (read(env, atom) for atom in eqn.invars)
            out = [convolve(x, kernel, eqn.params["window_strides"], eqn.params["padding"])]
        elif body is not None and _holds_plain_convolution(body[0]):
            out = _run(*body, [read(env, atom) for atom in eqn.invars])
        else:
            # calls without a convolution stay calls: relu inlined as a bare max would lose its gradient at 0
            out = bind(jaxpr, eqn, env)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


def _is_plain_convolution(eqn: Any) -> bool:
    if eqn.primitive.name != "conv_general_dilated":
        return False
    p = eqn.params
    dims = p["dimension_numbers"]
    rank = len(p["window_strides"])
    last = rank + 1
    channel_last = (
        tuple(dims.lhs_spec) == tuple(dims.out_spec) == (0, last, *range(1, last))
        and tuple(dims.rhs_spec) == (last, rank, *range(rank))
    )  # fmt: skip
    return (
        rank == 3
        and channel_last
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and set(p["lhs_dilation"]) == set(p["rhs_dilation"]) == {1}
        and min(min(pair) for pair in p["padding"]) >= 0
    )


def _holds_plain_convolution(jaxpr: Any) -> bool:
    for eqn in jaxpr.eqns:
        body = inner(eqn)
        if _is_plain_convolution(eqn) or (body is not None and _holds_plain_convolution(body[0])):
            return True
    return False


def _native(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_CHANNELS_LAST[len(strides) - 2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _by_taps(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads) -> jax.Array:
    return _taps(x, kernel, strides, padding)


def _by_taps_fwd(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads):
    return _taps(x, kernel, strides, padding), (x, kernel)


def _by_taps_bwd(strides: tuple[int, ...], padding: Pads, saved, g: jax.Array):
    x, kernel = saved
    (d_kernel,) = jax.vjp(lambda k: _taps(x, k, strides, padding), kernel)[1](g)
    if set(strides) != {1}:
        (d_x,) = jax.vjp(lambda x: _taps(x, kernel, strides, padding), x)[1](g)
        return d_x, d_kernel
    flipped = jnp.swapaxes(jnp.flip(kernel, (0, 1, 2)), 3, 4)
    mirrored = tuple((k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(kernel.shape, padding, strict=False))
    if min(map(min, mirrored)) < 0:  # padded by more than the kernel reaches: those zeros get no gradient
        g = lax.slice(
            g,
            (0, *(max(-lo, 0) for lo, _ in mirrored), 0),
            (
                g.shape[0],
                *(n - max(-hi, 0) for n, (_, hi) in zip(g.shape[1:], mirrored, strict=False)),
                g.shape[-1],
            ),
        )
        mirrored = tuple((max(lo, 0), max(hi, 0)) for lo, hi in mirrored)
    return _taps(g, flipped, strides, mirrored), d_kernel


_by_taps.defvjp(_by_taps_fwd, _by_taps_bwd)


def _taps(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads) -> jax.Array:
    """The convolution as 2-D ones over the taps of the first spatial axis."""
    (stride, *in_plane), ((lo, hi), *pads) = strides, padding
    x = jnp.pad(x, ((0, 0), (lo, hi), (0, 0), (0, 0), (0, 0)))
    depth, taps = (x.shape[1] - len(kernel)) // stride + 1, range(len(kernel))
    slabs = [lax.slice_in_dim(x, t, t + stride * (depth - 1) + 1, stride, axis=1) for t in taps]
    if x.shape[-1] < _THIN:
        slabs = [jnp.concatenate(slabs, axis=-1)]
        kernel = jnp.moveaxis(kernel, 0, 2).reshape(1, *kernel.shape[1:3], -1, kernel.shape[-1])
    b = x.shape[0]
    planes = [
        _native(slab.reshape(b * depth, *slab.shape[2:]), tap, in_plane, tuple(pads))
        for slab, tap in zip(slabs, kernel, strict=True)
    ]
    total = functools.reduce(jnp.add, planes)
    return total.reshape(b, depth, *total.shape[1:])
