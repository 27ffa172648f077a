"""Make a network's convolutions and pools fast on CPU, without touching the network.

XLA's CPU backend runs 3-D convolutions, and the input gradients of 2-D ones inside loops, many times
slower than plain 2-D convolutions. A 3-D convolution is a sum of 2-D ones over the taps of the kernel's
first axis; written so, and with the input gradient as convolutions with explicitly flipped kernels, it runs
at full speed both ways. Images of few channels are multiplied as matrices of patches, kernels of one voxel as matrices
of channels. Pools are reduced axis by axis. GPU and TPU keep their native operations: the choice is made when XLA
lowers the program.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.engine.pool import max_pool, sum_pool
from jaxsal.engine.thin import thin_convolution, thin_input_gradient, thin_kernel_gradient
from jaxsal.engine.unread import extents_read
from jaxsal.jaxpr import bind, inner, read, trace

Pads = tuple[tuple[int, int], ...]

_POOLS = {"reduce_window_max": max_pool, "reduce_window_sum": sum_pool}
# below this many input channels a 2-D convolution is too thin to be fast
_THIN = 8
# bytes
_MOST_SPREAD = 2**26


def lower(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its convolutions and its pools written for the platform that runs it.

    Plain convolutions (channel-last, one feature group) of rank 2 and 3, those with a dilated kernel if they have no
    stride, and undilated max and sum pools of any rank are replaced, also inside nested ``jit``; everything else is
    kept as it is, calls with a derivative of their own (``custom_jvp``, ``custom_vjp``, ``jax.checkpoint``) as a whole.

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
    extents = extents_read(jaxpr)
    for eqn in jaxpr.eqns:
        read_of = extents.get(eqn.outvars[0], ()) if eqn.outvars else ()
        body, on_cpu = inner(eqn), _on_cpu(eqn, read_of)
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


def _on_cpu(eqn: Any, extent: Sequence[int] = ()) -> Callable[..., jax.Array] | None:
    """What replaces an operation on CPU, or None to keep it; only so much of its output is ever read."""
    p = eqn.params
    if any(0 in atom.aval.shape for atom in (*eqn.invars, *eqn.outvars)):
        return None
    if is_plain_convolution(eqn) and len(p["window_strides"]) in (2, 3):
        strides, padding = tuple(p["window_strides"]), tuple(map(tuple, p["padding"]))
        grid = extent[1:-1] or eqn.outvars[0].aval.shape[1:-1]
        return lambda x, kernel: _read_part(x, kernel, strides, padding, p["precision"], grid)
    if _is_dilated_convolution(eqn) and len(p["rhs_dilation"]) in (2, 3):
        padding, dilation = tuple(map(tuple, p["padding"])), tuple(p["rhs_dilation"])
        return lambda x, kernel: _dilated(x, kernel, padding, dilation, p["precision"])
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
    return _is_channel_last(eqn) and set(eqn.params["rhs_dilation"]) == {1}


def _is_dilated_convolution(eqn: Any) -> bool:
    """Such a one with a dilated kernel, without stride, and padded by no more than the kernel reaches."""
    if not _is_channel_last(eqn) or set(eqn.params["window_strides"]) != {1}:
        return False
    p, kernel = eqn.params, eqn.invars[1].aval.shape[:-2]
    reach = [(k - 1) * d for k, d in zip(kernel, p["rhs_dilation"], strict=True)]
    return all(max(pair) <= most for pair, most in zip(p["padding"], reach, strict=True))


def _is_channel_last(eqn: Any) -> bool:
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
        and jnp.issubdtype(eqn.invars[0].aval.dtype, jnp.floating)
        and (p["preferred_element_type"] is None or p["preferred_element_type"] == eqn.invars[0].aval.dtype)
        and p["feature_group_count"] == p["batch_group_count"] == 1
        and set(p["lhs_dilation"]) == {1}
        and min(min(pair) for pair in p["padding"]) >= 0
    )


def _read_part(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads, precision: Any, grid: Sequence[int]
) -> jax.Array:
    """The convolution's first voxels along each axis; the others, which nobody reads, repeat the last of them."""
    axes = list(zip(x.shape[1:-1], kernel.shape[:-2], strides, padding, strict=True))
    whole = [(n + lo + hi - k) // s + 1 for n, k, s, (lo, hi) in axes]
    if 0 in grid or list(grid) == whole:
        return _convolution(x, kernel, strides, padding, precision)
    reach = [(g - 1) * s + k - lo for g, (_, k, s, (lo, _)) in zip(grid, axes, strict=True)]
    met = x[(slice(None), *(slice(0, max(r, 1)) for r in reach))]
    pads = tuple((lo, max(r - n, 0)) for r, (n, _, _, (lo, _)) in zip(reach, axes, strict=True))
    part = jnp.asarray(_convolution(met, kernel, strides, pads, precision))
    part = part[(slice(None), *(slice(0, g) for g in grid))]
    missing = [(0, n - g) for n, g in zip(whole, grid, strict=True)]
    # zeros would be new values: a logarithm or a root behind this has no slope there
    return jnp.pad(part, ((0, 0), *missing, (0, 0)), mode="edge")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolution(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads, precision: Any) -> jax.Array:
    if x.ndim == 4:
        return _in_plane(x, kernel, strides, padding, precision)
    return (thin_convolution if x.shape[-1] < _THIN else _taps)(x, kernel, strides, padding, precision)


def _convolution_fwd(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: Pads, precision: Any):
    return _convolution(x, kernel, strides, padding, precision), (x, kernel)


def _convolution_bwd(strides: tuple[int, ...], padding: Pads, precision: Any, saved, g: jax.Array):
    x, kernel = saved
    # an image is one plane: where what its taps give would take much memory, it is not treated as thin
    spread = math.prod(kernel.shape[:-1]) * math.prod(g.shape[-3:-1]) * g.dtype.itemsize
    thin = x.shape[-1] < _THIN and (x.ndim == 5 or spread <= _MOST_SPREAD)
    if thin and x.ndim == 5:
        d_kernel = thin_kernel_gradient(g, x, strides, padding, precision, kernel.shape)
    else:
        convolution = _in_plane if x.ndim == 4 else _taps
        (d_kernel,) = jax.vjp(lambda k: convolution(x, k, strides, padding, precision), kernel)[1](g)
    if x.ndim == 4:  # an image is a volume of one plane
        strides, padding, kernel, g = (1, *strides), ((0, 0), *padding), kernel[None], g[:, None]
    gradient = thin_input_gradient if thin else _input_gradient
    space = (1,) * (5 - x.ndim) + x.shape[1:-1]
    d_x = gradient(g, kernel, strides, padding, precision, (len(x), *space, x.shape[-1]))
    return d_x.reshape(x.shape), d_kernel


_convolution.defvjp(_convolution_fwd, _convolution_bwd)


def _input_gradient(
    g: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads, precision: Any, shape: tuple[int, ...]
) -> jax.Array:
    """What the gradient of the outputs gives to the inputs, as convolutions with explicitly flipped kernels.

    Voxel ``i = q s + r`` of the input meets every ``s``-th tap of the kernel only, so each of the ``s`` residues ``r``
    per axis is a convolution of its own without stride, and none multiplies with zeros between the outputs.
    """
    b, *space, channels = shape
    cells = [-(-n // s) for n, s in zip(space, strides, strict=True)]
    phases = []
    for residues in itertools.product(*map(range, strides)):
        first = [(r + lo) % s for r, s, (lo, _) in zip(residues, strides, padding, strict=True)]
        taps = kernel[tuple(slice(f, None, s) for f, s in zip(first, strides, strict=True))]
        before = [
            k - 1 - (r + lo) // s for k, r, s, (lo, _) in zip(taps.shape, residues, strides, padding, strict=False)
        ]
        after = [q - n + k - 1 - a for q, n, k, a in zip(cells, g.shape[1:], taps.shape, before, strict=False)]
        # what would be padded by less than nothing does not reach the input
        met = [(max(-a, 0), n - max(-z, 0)) for a, z, n in zip(before, after, g.shape[1:], strict=False)]
        if not taps.size or any(a >= z for a, z in met):
            phases.append(jnp.zeros((b, *cells, channels), g.dtype))
            continue
        flipped = jnp.swapaxes(jnp.flip(taps, (0, 1, 2)), 3, 4)
        pads = tuple((max(a, 0), max(z, 0)) for a, z in zip(before, after, strict=True))
        part = g[(slice(None), *(slice(a, z) for a, z in met))]
        phases.append(_taps(part, flipped, (1,) * len(strides), pads, precision))
    if len(phases) == 1:
        return phases[0]
    rank = len(strides)
    apart = jnp.stack(phases).reshape(*strides, b, *cells, channels)
    beside = [axis for pair in zip(range(rank + 1, 2 * rank + 1), range(rank), strict=True) for axis in pair]
    woven = apart.transpose(rank, *beside, 2 * rank + 1)
    woven = woven.reshape(b, *(q * s for q, s in zip(cells, strides, strict=True)), channels)
    return woven[(slice(None), *map(slice, space))]


def _spread(x: jax.Array, kernel: jax.Array, padding: Pads, dilation: tuple[int, ...], precision: Any) -> jax.Array:
    if x.ndim == 4:
        return _in_plane(x, kernel, (1, 1), padding, precision, dilation)
    return _taps(x, kernel, (1, 1, 1), padding, precision, dilation)


_dilated = jax.custom_vjp(_spread, nondiff_argnums=(2, 3, 4))


def _dilated_fwd(x: jax.Array, kernel: jax.Array, padding: Pads, dilation: tuple[int, ...], precision: Any):
    return _spread(x, kernel, padding, dilation, precision), (x, kernel)


def _dilated_bwd(padding: Pads, dilation: tuple[int, ...], precision: Any, saved, g: jax.Array):
    x, kernel = saved
    flipped = jnp.swapaxes(jnp.flip(kernel, tuple(range(kernel.ndim - 2))), -2, -1)
    reach = [(k - 1) * d for k, d in zip(kernel.shape, dilation, strict=False)]
    pads = tuple((most - lo, most - hi) for most, (lo, hi) in zip(reach, padding, strict=True))
    (d_kernel,) = jax.vjp(lambda kernel: _spread(x, kernel, padding, dilation, precision), kernel)[1](g)
    return _spread(g, flipped, pads, dilation, precision), d_kernel


_dilated.defvjp(_dilated_fwd, _dilated_bwd)


def _taps(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Pads,
    precision: Any,
    dilation: Sequence[int] = (1, 1, 1),
) -> jax.Array:
    """The convolution as 2-D ones over the taps of the first spatial axis."""
    (stride, *in_plane), ((lo, hi), *pads), (apart, *between) = strides, padding, dilation
    x = jnp.pad(x, ((0, 0), (lo, hi), (0, 0), (0, 0), (0, 0)))
    depth = (x.shape[1] - apart * (len(kernel) - 1) - 1) // stride + 1
    starts = [apart * t for t in range(len(kernel))]
    slabs = [lax.slice_in_dim(x, t, t + stride * (depth - 1) + 1, stride, axis=1) for t in starts]
    planes = [
        _in_plane(slab.reshape(-1, *slab.shape[2:]), tap, in_plane, pads, precision, between)
        for slab, tap in zip(slabs, kernel, strict=True)
    ]
    total = functools.reduce(jnp.add, planes)
    return total.reshape(-1, depth, *total.shape[1:])


def _in_plane(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    precision: Any,
    dilation: Sequence[int] = (1, 1),
) -> jax.Array:
    if kernel.shape[:2] == (1, 1) and not any(map(sum, padding)):
        met = x[:, :: strides[0], :: strides[1]]
        return lax.dot_general(met, kernel[0, 0], (((3,), (0,)), ((), ())), precision=precision)
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )
