"""Interpolation to another grid."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.graph.laid import Laid, channel_last, from_channel_last
from jaxsal.graph.windows import check_length, single


def linear(
    x: Laid, sizes: Sequence[int] | None, align_corners: bool, scales: Sequence[float | None] | None = None
) -> Laid:
    """Linear between voxels' centres, or with ``align_corners`` between those of the corners."""
    a = channel_last(x)
    for axis, (m, scale) in enumerate(_grid(a, sizes, scales), start=1):
        n = a.shape[axis]
        if m == n and scale in (None, 1.0):
            continue
        # made of positions, such that it is told from weights that are learned; 16 bits cannot count beyond 256
        i, j = (lax.iota(single(a.dtype), size) for size in (m, n))
        i, j = i[None], j[:, None]
        if align_corners:
            place = i * ((n - 1) / (m - 1)) if m > 1 else jnp.zeros_like(i)
        else:
            place = (i + 0.5) * _step(n, m, scale) - 0.5
        weights = jnp.maximum(1 - jnp.abs(jnp.clip(place, 0, n - 1) - j), 0)
        a = jnp.moveaxis(jnp.tensordot(a.astype(weights.dtype), weights, (axis, 0)), -1, axis)
    return from_channel_last(a.astype(x.array.dtype))


def nearest(x: Laid, sizes: Sequence[int] | None, scales: Sequence[float | None] | None = None) -> Laid:
    """The voxel at ``floor(i step)``."""
    return _picked(x, sizes, scales, 0.0)


def nearest_exact(x: Laid, sizes: Sequence[int] | None, scales: Sequence[float | None] | None = None) -> Laid:
    """The voxel at ``floor((i + 1/2) step)``."""
    return _picked(x, sizes, scales, 0.5)


def pixel_shuffle(x: Laid, factor: int) -> Laid:
    """``factor ** 2`` channels become a grid ``factor`` times finer."""
    a = channel_last(x)
    b, h, w, c = a.shape
    a = a.reshape(b, h, w, c // factor**2, factor, factor).transpose(0, 1, 4, 2, 5, 3)
    return from_channel_last(a.reshape(b, h * factor, w * factor, c // factor**2))


def _picked(x: Laid, sizes: Sequence[int] | None, scales: Sequence[float | None] | None, shift: float) -> Laid:
    a = channel_last(x)
    for axis, (m, scale) in enumerate(_grid(a, sizes, scales), start=1):
        n = a.shape[axis]
        check_length(m)
        # rounded as PyTorch rounds: of places that are whole but for the last bit another voxel would be taken
        places = ((np.arange(m) + shift) * np.float32(_step(n, m, scale))).astype(np.float32)
        places = np.minimum(np.floor(places), n - 1).astype(int)
        if m % n == 0 and (places == np.repeat(np.arange(n), m // n)).all():
            a = jnp.repeat(a, m // n, axis, total_repeat_length=m) if m != n else a
        else:
            a = jnp.take(a, jnp.asarray(places), axis, mode="clip")
    return from_channel_last(a)


def _grid(
    a: jax.Array, sizes: Sequence[int] | None, scales: Sequence[float | None] | None
) -> list[tuple[int, float | None]]:
    space = a.shape[1:-1]
    scales = scales or (None,) * len(space)
    sizes = sizes or [int(n * (scale or 1.0)) for n, scale in zip(space, scales, strict=True)]
    return list(zip(sizes, scales, strict=True))


def _step(n: int, m: int, scale: float | None) -> float:
    return 1 / scale if scale else n / m
