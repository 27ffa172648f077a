"""Sums over windows, and weights along an axis, for images that have their channels last."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

# longer than any axis of an image
_LONGEST = 2**20


def sum_over_windows(
    x: jax.Array, window: Sequence[int], stride: Sequence[int], pads: Sequence[tuple[int, int]]
) -> jax.Array:
    """Sums of ``x[b, *space, c]`` over windows; what is padded is 0."""
    return lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0)))


def along_axis(values: Any, axis: int, rank: int, dtype: Any) -> jax.Array:
    """One number for each place along an axis, to be multiplied with an array of a rank."""
    return jnp.asarray(values, dtype).reshape([-1 if i == axis else 1 for i in range(rank)])


def single(dtype: Any) -> Any:
    """What positions and means are computed in: the dtype, or float32 where it has fewer bits.

    Example:
        >>> single(jnp.bfloat16), single(jnp.float32)
        (dtype('float32'), dtype('float32'))
    """
    dtype = jnp.dtype(dtype)
    return dtype if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 2 else jnp.dtype("float32")


def check_length(count: int) -> int:
    """A number of places or parts that are gone through one by one.

    Raises:
        ValueError: if no image has so many: nothing is computed then.
    """
    if count > _LONGEST:
        raise ValueError(f"{count} places along one axis, at most {_LONGEST} are taken")
    return count
