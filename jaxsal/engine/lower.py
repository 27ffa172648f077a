"""Make a network's 3-D convolutions and pools fast on CPU, without touching the network.

XLA's CPU backend runs 3-D convolutions, and the input gradients of 2-D ones inside loops, many times
slower than plain 2-D convolutions. A 3-D convolution is a sum of 2-D ones over the taps of the kernel's
first axis; written so, and with the input gradient as a convolution with an explicitly flipped kernel, it
runs at full speed both ways. Pools are reduced axis by axis. GPU and TPU keep their native operations: the
choice is made when XLA lowers the program.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.engine.pool import max_pool, sum_pool
from jaxsal.jaxpr import bind, inner, read, trace

Pads = tuple[tuple[int, int], ...]

_POOLS = {"reduce_window_max": max_pool, "reduce_window_sum": sum_pool}
# below this many input channels a 2-D convolution is too thin to be fast: the depth taps become channels
_THIN = 8


def lower(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its 3-D convolutions and its pools written for the platform that runs it.

    Plain convolutions (channel-last, one feature group, no dilation) of rank 3 and undilated max and sum
    pools of any rank are replaced, also inside nested ``jit``; everything else is kept as it is, calls with a
    derivative of their own (``custom_jvp``, ``custom_vjp``, ``jax.checkpoint``) as a whole.

    Args:
        fn: any JAX function of pytrees, e.g. ``lambda model, x: model(x)``.

    Returns:
        A function of the same signature, equal to ``fn`` up to rounding. Its convolutions and maxima have gradients
        (reverse mode) only: for ``jax.jvp`` and ``jax.jacfwd``, differentiate ``fn`` itself.

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


def _run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    env = dict(zip(jaxpr.constvars, consts, strict=True)) | dict(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        body, on_cpu = inner(eqn), _on_cpu(eqn)
        if on_cpu is not None:
            out = [_by_platform(jaxpr, eqn, on_cpu, [read(env, atom) for atom in eqn.invars])]
        elif body is not None and _holds_target(body[0]):
            out = _run(*body, [read(env, atom) for atom in eqn.invars])
        else:
            # other calls stay calls: inlined, relu's bare max would have another gradient at 0
            out = bind(jaxpr, eqn, env)
        env.update(zip(eqn.outvars, out, strict=True))
    return [read(env, atom) for atom in jaxpr.outvars]


def _by_platform(jaxpr: Any, eqn: Any, on_cpu: Callable[..., jax.Array], operands: list[Any]) -> jax.Array:
    def native(*operands: Any) -> jax.Array:
        return bind(jaxpr, eqn, dict(zip(eqn.invars, operands, strict=True)))[0]

    return lax.platform_dependent(*operands, cpu=on_cpu, default=native)


def _on_cpu(eqn: Any) -> Callable[..., jax.Array] | None:
    """What replaces an operation on CPU, or None to keep it."""
    p = eqn.params
    if is_plain_convolution(eqn) and len(p["window_strides"]) == 3:
        strides, padding = tuple(p["window_strides"]), tuple(map(tuple, p["padding"]))
        return lambda x, kernel: _by_taps(x, kernel, strides, padding, p["precision"])
    if _is_plain_pool(eqn):
        pool = _POOLS[eqn.primitive.name]
        return lambda x: pool(x, p["window_dimensions"], p["window_strides"], p["padding"])
    return None


def _holds_target(jaxpr: Any) -> bool:
    for eqn in jaxpr.eqns:
        body = inner(eqn)
        if _on_cpu(eqn) is not None or (body is not None and _holds_target(body[0])):
            return True
    return False


def _is_plain_pool(eqn: Any) -> bool:
    p = eqn.params
    return (
        eqn.primitive.name in _POOLS
        and set(p["base_dilation"]) == set(p["window_dilation"]) == {1}
        and min(min(pair) for pair in p["padding"]) >= 0
        and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating)
    )


def is_plain_convolution(eqn: Any) -> bool:
    """Whether an operation is a convolution of any rank, channel-last, with one group, no dilation, one dtype."""
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
        channel_last
        and (p["preferred_element_type"] is None or p["preferred_element_type"] == eqn.invars[0].aval.dtype)
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and set(p["lhs_dilation"]) == set(p["rhs_dilation"]) == {1}
        and min(min(pair) for pair in p["padding"]) >= 0
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_taps(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads, precision: Any) -> jax.Array:
    return _taps(x, kernel, strides, padding, precision)


def _by_taps_fwd(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads, precision: Any):
    return _taps(x, kernel, strides, padding, precision), (x, kernel)


def _by_taps_bwd(strides: tuple[int, ...], padding: Pads, precision: Any, saved, g: jax.Array):
    x, kernel = saved
    (d_kernel,) = jax.vjp(lambda k: _taps(x, k, strides, padding, precision), kernel)[1](g)
    if set(strides) != {1}:
        (d_x,) = jax.vjp(lambda x: _taps(x, kernel, strides, padding, precision), x)[1](g)
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
    return _taps(g, flipped, strides, mirrored, precision), d_kernel


_by_taps.defvjp(_by_taps_fwd, _by_taps_bwd)


def _taps(x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads, precision: Any) -> jax.Array:
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
        lax.conv_general_dilated(
            slab.reshape(b * depth, *slab.shape[2:]),
            tap,
            in_plane,
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=precision,
        )
        for slab, tap in zip(slabs, kernel, strict=True)
    ]
    total = functools.reduce(jnp.add, planes)
    return total.reshape(b, depth, *total.shape[1:])
