"""What moves values about, leaves them out or repeats them."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxsal.graph.laid import Laid, in_order, plain, relaid, same_dtype, without
from jaxsal.graph.windows import check_length


def view(x: Laid, shape: Sequence[int]) -> Laid:
    """Another shape with the values in PyTorch's order."""
    if tuple(shape) == x.shape:
        return x
    shape = tuple(shape)
    if -1 in shape:
        known = -math.prod(shape)
        shape = tuple(math.prod(x.shape) // known if n == -1 else n for n in shape)
    return plain(in_order(x).reshape(shape))


def flatten(x: Laid, start: int = 0, end: int = -1) -> Laid:
    """Axes from ``start`` to ``end`` joined."""
    shape, start, end = x.shape, range(x.ndim)[start], range(x.ndim)[end]
    return view(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def permute(x: Laid, axes: Sequence[int]) -> Laid:
    """Axes in another order: nothing moves, they are only counted anew."""
    counted = [range(x.ndim)[axis] for axis in axes]
    return Laid(x.array, tuple(counted.index(axis) for axis in x.order))


def transpose(x: Laid, a: int, b: int) -> Laid:
    """Two axes exchanged."""
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return permute(x, axes)


def matrix_transpose(x: Laid) -> Laid:
    """``x.T`` of a matrix."""
    return transpose(x, 0, 1) if x.ndim == 2 else x


def unsqueeze(x: Laid, axis: int) -> Laid:
    """A new axis of size 1."""
    axis %= x.ndim + 1
    order = [other + (other >= axis) for other in x.order]
    place = order.index(axis - 1) + 1 if axis else 0
    return Laid(jnp.expand_dims(x.array, place), (*order[:place], axis, *order[place:]))


def squeeze(x: Laid, axes: Sequence[int] | int | None = None) -> Laid:
    """Axes of size 1 away."""
    axes = range(x.ndim) if axes is None else [axes] if isinstance(axes, int) else axes
    gone = [range(x.ndim)[axis] for axis in axes if x.shape[axis] == 1]
    return Laid(x.array.squeeze(tuple(x.position(axis) for axis in gone)), without(x, gone))


def expand(x: Laid, sizes: Sequence[int], *, implicit: bool = False) -> Laid:
    """Axes of size 1, and new ones in front, repeated."""
    while x.ndim < len(sizes):
        x = unsqueeze(x, 0)
    shape = [x.array.shape[i] if sizes[axis] == -1 else sizes[axis] for i, axis in enumerate(x.order)]
    return Laid(jnp.broadcast_to(x.array, shape), x.order)


def repeat(x: Laid, times: Sequence[int]) -> Laid:
    """Tiles."""
    while x.ndim < len(times):
        x = unsqueeze(x, 0)
    return Laid(jnp.tile(x.array, [times[axis] for axis in x.order]), x.order)


def select(x: Laid, axis: int, index: int) -> Laid:
    """One place along an axis."""
    return Laid(lax.index_in_dim(x.array, index, x.position(axis), keepdims=False), without(x, [axis]))


def take_slice(x: Laid, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Laid:
    """Places along an axis."""
    first, last, _ = slice(start, end).indices(x.shape[axis])
    if (first, last, step) == (0, x.shape[axis], 1):
        return x
    return Laid(lax.slice_in_dim(x.array, first, max(first, last), step, x.position(axis)), x.order)


def split_sizes(x: Laid, sizes: Sequence[int], axis: int = 0) -> tuple[Laid, ...]:
    """Parts of given lengths along an axis."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(take_slice(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


def split(x: Laid, size: int, axis: int = 0) -> tuple[Laid, ...]:
    """Parts of one length along an axis, the last one shorter."""
    n = x.shape[axis]
    starts = range(0, n, size)
    check_length(len(starts))
    return tuple(take_slice(x, axis, i, min(i + size, n)) for i in starts)


def chunk(x: Laid, chunks: int, axis: int = 0) -> tuple[Laid, ...]:
    """A number of parts along an axis."""
    return split(x, -(-x.shape[axis] // chunks), axis)


def unbind(x: Laid, axis: int = 0) -> tuple[Laid, ...]:
    """Every place along an axis."""
    return tuple(select(x, axis, i) for i in range(check_length(x.shape[axis])))


def concatenate(parts: Sequence[Laid], axis: int = 0) -> Laid:
    """Joined along an axis; what has no values at all is passed over, as in PyTorch."""
    parts = [part for part in parts if part.shape != (0,)]
    order = max(parts, key=lambda part: part.array.size).order
    arrays = same_dtype(*(relaid(part, order) for part in parts))
    return Laid(jnp.concatenate(arrays, order.index(range(len(order))[axis])), order)


def stack(parts: Sequence[Laid], axis: int = 0) -> Laid:
    """Joined along a new axis."""
    return concatenate([unsqueeze(part, axis) for part in parts], axis)


def flip(x: Laid, axes: Sequence[int]) -> Laid:
    """Mirrored."""
    return Laid(lax.rev(x.array, [x.position(axis) for axis in axes]), x.order)


def roll(x: Laid, shifts: Sequence[int], axes: Sequence[int] = ()) -> Laid:
    """Shifted, what leaves on one side entering on the other; without axes all values in PyTorch's order in a row."""
    if not axes:
        return plain(jnp.roll(in_order(x).reshape(-1), sum(shifts)).reshape(x.shape))
    return Laid(jnp.roll(x.array, tuple(shifts), tuple(x.position(axis) for axis in axes)), x.order)


def pad_constant(x: Laid, pads: Sequence[int], value: float = 0.0) -> Laid:
    """Values beside the image, or with negative pads less of it; pads are counted from the last axis."""
    widths = [(0, 0, 0)] * x.ndim
    for i, (before, after) in enumerate(_pairs(pads)):
        widths[x.position(-1 - i)] = (before, after, 0)
    return Laid(lax.pad(x.array, jnp.asarray(value, x.array.dtype), widths), x.order)


def pad_reflected(x: Laid, pads: Sequence[int]) -> Laid:
    """The image mirrored beside itself, its edge not repeated."""
    return _padded(x, pads, "reflect")


def pad_replicated(x: Laid, pads: Sequence[int]) -> Laid:
    """The edge continued."""
    return _padded(x, pads, "edge")


def pad_circular(x: Laid, pads: Sequence[int]) -> Laid:
    """The image repeated."""
    return _padded(x, pads, "wrap")


def pad(x: Laid, pads: Sequence[int], mode: str = "constant", value: float | None = None) -> Laid:
    """Any of these, by PyTorch's name."""
    if mode == "constant":
        return pad_constant(x, pads, value or 0.0)
    return {"reflect": pad_reflected, "replicate": pad_replicated, "circular": pad_circular}[mode](x, pads)


def _padded(x: Laid, pads: Sequence[int], mode: str) -> Laid:
    # one axis after the other, of slices: JAX's own pad is of gathers, which are slow to differentiate
    array = x.array
    for i, (before, after) in enumerate(_pairs(pads)):
        axis = x.position(-1 - i)
        n = array.shape[axis]
        if mode == "wrap":
            front, back = (n - before, n), (0, after)
        else:
            front, back = ((1, before + 1), (n - after - 1, n - 1)) if mode == "reflect" else ((0, 1), (n - 1, n))
        first, last = (lax.slice_in_dim(array, *ends, axis=axis) for ends in (front, back))
        if mode == "reflect":
            first, last = lax.rev(first, [axis]), lax.rev(last, [axis])
        if mode == "edge":
            first, last = (
                jnp.broadcast_to(part, [count if j == axis else size for j, size in enumerate(part.shape)])
                for part, count in ((first, before), (last, after))
            )
        array = jnp.concatenate([first, array, last], axis)
    return Laid(array, x.order)


def _pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(pads[::2], pads[1::2], strict=True))
