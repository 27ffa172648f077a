"""Convolutions of few channels, and their gradients, as matrix products, a plane at a time.

A first layer has one channel and a wide kernel: too little per voxel for a convolution that loops over channels. Its
patches are laid out as the columns of a matrix instead, for one plane of the output at a time, so that they stay in
the cache. Strides are taken apart into residues first: what is copied is then always a run of neighbours.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pads = Sequence[tuple[int, int]]


def thin_convolution(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads, precision: Any
) -> jax.Array:
    """A convolution with three spatial axes, channel-last.

    Args:
        x: ``[b, *space, channels]``.
        kernel: ``[*window, channels, features]``.
        strides: one per axis.
        padding: with zeros, before and after each axis, at least 0.
        precision: of the products.

    Returns:
        ``[b, *grid, features]``.

    Example:
        >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2, 1)
        >>> thin_convolution(x, jnp.ones((2, 2, 2, 1, 1)), (1, 1, 1), [(0, 0)] * 3, None).item()
        28.0
    """
    depth, height, width = _grid(x.shape, kernel.shape, strides, padding)
    patches = _patches_of(x, kernel.shape, strides, padding)
    taps = _rows(kernel)

    def plane(index: jax.Array) -> jax.Array:
        found = lax.dot_general(
            patches(index), taps, (((0,), (0,)), ((), ())), precision=precision, preferred_element_type=_sums(x.dtype)
        )
        return found.astype(x.dtype)

    planes = lax.map(plane, jnp.arange(len(x) * depth, dtype=jnp.int32))
    return planes.reshape(-1, depth, height, width, kernel.shape[-1])


def thin_kernel_gradient(
    g: jax.Array, x: jax.Array, strides: Sequence[int], padding: Pads, precision: Any, shape: tuple[int, ...]
) -> jax.Array:
    """The gradient of :func:`thin_convolution` by its kernel, which has this shape."""
    patches = _patches_of(x, shape, strides, padding)
    planes = g.reshape(len(x) * g.shape[1], -1, g.shape[-1])

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        found = jnp.matmul(patches(index), planes[index], precision=precision, preferred_element_type=_sums(g.dtype))
        return total + found, None

    start = jnp.zeros((math.prod(shape[:-1]), shape[-1]), _sums(g.dtype))
    total, _ = lax.scan(add, start, jnp.arange(len(planes), dtype=jnp.int32))
    (kd, kh, *rest) = shape
    return jnp.swapaxes(total.reshape(kh, kd, *rest), 0, 1).astype(g.dtype)


def thin_input_gradient(
    g: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Pads, precision: Any, shape: tuple[int, ...]
) -> jax.Array:
    """The gradient of :func:`thin_convolution` by its input.

    Args:
        g: gradient of the result, ``[b, *grid, features]``.
        kernel: ``[*window, channels, features]``.
        strides: one per axis.
        padding: of the convolution.
        precision: of the products.
        shape: of the input.

    Returns:
        An array of that shape.
    """
    (sd, sh, sw), (kd, kh, kw), channels = strides, kernel.shape[:3], kernel.shape[3]
    (b, _, height, width, features), reach = g.shape, -(-kd // sd)
    # only those cells of sd planes that lie in the image
    first, last = padding[0][0] // sd, -(-(padding[0][0] + shape[1]) // sd)
    after = max(last - g.shape[1], 0)
    g = jnp.moveaxis(g.reshape(b, -1, height * width, features), -1, 2)
    g = jnp.pad(g, ((0, 0), (reach - 1, after), (0, 0), (0, 0)))
    taps = jnp.pad(kernel, ((0, reach * sd - kd), *((0, 0),) * 4)).reshape(reach, sd, *kernel.shape[1:])
    taps = jnp.flip(taps, 0).transpose(2, 3, 1, 4, 0, 5).reshape(-1, reach * features)

    def cell(index: jax.Array) -> jax.Array:
        image, place = index // (last - first), index % (last - first) + first
        met = lax.dynamic_slice_in_dim(g[image], place, reach, 0).reshape(reach * features, -1)
        spread = lax.dot_general(
            taps, met, (((1,), (0,)), ((), ())), precision=precision, preferred_element_type=_sums(g.dtype)
        )
        spread = spread.reshape(kh, kw, sd * channels, height, width)
        down = _gathered(spread, sh, 2)  # [sh, kw, planes, rows, width]
        return _gathered(jnp.moveaxis(down, 1, 0), sw, 3).astype(g.dtype)  # [sw, sh, planes, rows, columns]

    cells = lax.map(cell, jnp.arange(b * (last - first), dtype=jnp.int32))
    rows, columns = cells.shape[-2:]
    cells = cells.reshape(b, last - first, sw, sh, sd, channels, rows, columns).transpose(0, 1, 4, 6, 3, 7, 2, 5)
    whole = cells.reshape(b, -1, rows * sh, columns * sw, channels)
    offsets = (padding[0][0] - first * sd, padding[1][0], padding[2][0])
    short = [(0, max(o + n - have, 0)) for o, n, have in zip(offsets, shape[1:4], whole.shape[1:4], strict=True)]
    whole = jnp.pad(whole, ((0, 0), *short, (0, 0)))
    return whole[(slice(None), *(slice(o, o + n) for o, n in zip(offsets, shape[1:4], strict=True)))]


def _patches_of(
    x: jax.Array, kernel: Sequence[int], strides: Sequence[int], padding: Pads
) -> Callable[[jax.Array], jax.Array]:
    """The patches of plane ``index`` of the outputs, as the columns of a matrix; its rows as in :func:`_rows`."""
    depth, height, width = _grid(x.shape, kernel, strides, padding)
    (sd, sh, sw), (kd, kh, kw) = strides, kernel[:3]
    rows, columns = height + (kh - 1) // sh, width + (kw - 1) // sw
    x = _fitted(x, padding, (x.shape[1] + sum(padding[0]), rows * sh, columns * sw))
    # [b, depth, channels, residues of the rows, rows, residues of the columns, columns]
    x = x.reshape(len(x), -1, rows, sh, columns, sw, x.shape[-1]).transpose(0, 1, 6, 3, 2, 5, 4)
    along = jnp.stack([x[..., t % sw, t // sw : t // sw + width] for t in range(kw)], 2)

    def patches(index: jax.Array) -> jax.Array:
        slab = lax.dynamic_slice_in_dim(along[index // depth], index % depth * sd, kd, 0)
        found = jnp.stack([slab[..., t % sh, t // sh : t // sh + height, :] for t in range(kh)])
        # fused into the product, the copies would be made value by value
        return lax.optimization_barrier(found.reshape(-1, height * width))

    return patches


def _sums(dtype: Any) -> Any:
    """Sums of short numbers are not short."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def _rows(kernel: jax.Array) -> jax.Array:
    """A kernel as a matrix: a row for each tap and channel, in the order in which patches are copied."""
    return kernel.transpose(1, 0, 2, 3, 4).reshape(-1, kernel.shape[-1])


def _gathered(spread: jax.Array, stride: int, axis: int) -> jax.Array:
    """Sum what the taps ``[taps, ...]`` of one axis give to the cells of each residue, ``[stride, ...]``.

    Args:
        spread: by tap, over the grid of the outputs.
        stride: of the convolution.
        axis: of the outputs, not counting that of the taps.
    """
    reach, zero = -(-len(spread) // stride), jnp.zeros((), spread.dtype)

    def shifted(tap: jax.Array, cell: int) -> jax.Array:
        pads = [(0, 0, 0)] * tap.ndim
        pads[axis] = (cell, reach - 1 - cell, 0)
        return lax.pad(tap, zero, pads)

    nothing = shifted(jnp.zeros_like(spread[0]), 0)
    residues = [
        functools.reduce(jnp.add, [shifted(tap, cell) for cell, tap in enumerate(spread[residue::stride])], nothing)
        for residue in range(stride)
    ]
    # fused with what follows, every sum would be made many times over
    return lax.optimization_barrier(jnp.stack(residues))


def _grid(shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Pads) -> tuple[int, ...]:
    sizes = zip(shape[1:4], kernel[:3], strides, padding, strict=True)
    return tuple((n + sum(pad) - k) // s + 1 for n, k, s, pad in sizes)


def _fitted(x: jax.Array, padding: Pads, sizes: Sequence[int]) -> jax.Array:
    """Padded, and cut or padded further at the far end to these sizes."""
    config = [(lo, size - n - lo, 0) for n, (lo, _), size in zip(x.shape[1:4], padding, sizes, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
