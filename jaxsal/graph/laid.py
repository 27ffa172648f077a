"""Arrays whose axes lie in another order than the framework that the graph comes from counts them in."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Laid(NamedTuple):
    """An array and how its axes lie.

    PyTorch counts axes as ``[b, c, *space]``; stored, channels are last for as long as operations allow it.

    Attributes:
        array: the values.
        order: of each stored axis, the axis that it is in PyTorch's count.
    """

    array: jax.Array
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """As PyTorch counts it."""
        return tuple(self.array.shape[self.order.index(axis)] for axis in range(self.array.ndim))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    def position(self, axis: int) -> int:
        """Stored position of one of PyTorch's axes, also counted from behind."""
        return self.order.index(range(self.ndim)[axis])


def plain(array: Any) -> Laid:
    """An array whose axes lie as PyTorch counts them."""
    array = jnp.asarray(array)
    return Laid(array, tuple(range(array.ndim)))


def from_channel_last(array: jax.Array) -> Laid:
    """``[b, *space, c]``."""
    return Laid(array, channel_last_order(array.ndim))


def channel_last_order(rank: int) -> tuple[int, ...]:
    """PyTorch's axes in the order ``[b, *space, c]``.

    Example:
        >>> channel_last_order(4), channel_last_order(2)
        ((0, 2, 3, 1), (0, 1))
    """
    return (0, *range(2, rank), 1) if rank > 1 else tuple(range(rank))


def relaid(value: Laid, order: Sequence[int]) -> jax.Array:
    """The array with its axes in another order; where only axes of size 1 move, nothing is transposed.

    Example:
        >>> relaid(from_channel_last(jnp.zeros((5, 2, 3, 4))), (0, 1, 2, 3)).shape
        (5, 4, 2, 3)
    """
    permutation = [value.order.index(axis) for axis in order]
    if permutation == sorted(permutation):
        return value.array
    long = [axis for axis in permutation if value.array.shape[axis] != 1]
    if long == sorted(long):
        return value.array.reshape([value.array.shape[axis] for axis in permutation])
    return value.array.transpose(permutation)


def in_order(value: Laid) -> jax.Array:
    """The array with its axes as PyTorch counts them."""
    return relaid(value, range(value.ndim))


def channel_last(value: Laid) -> jax.Array:
    """The array as ``[b, *space, c]``."""
    return relaid(value, channel_last_order(value.ndim))


def without(value: Laid, axes: Sequence[int]) -> tuple[int, ...]:
    """The order that is left when some of PyTorch's axes are gone.

    Example:
        >>> without(from_channel_last(jnp.zeros((5, 2, 3, 4))), [2])
        (0, 2, 1)
    """
    gone = {range(value.ndim)[axis] for axis in axes}
    left = sorted(set(value.order) - gone)
    return tuple(left.index(axis) for axis in value.order if axis not in gone)


def aligned(*operands: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Operands of an element-wise operation brought to one rank, one order and one dtype.

    Args:
        *operands: :class:`Laid` or numbers; numbers stay as they are.

    Returns:
        Arrays and numbers, and the order of the arrays' axes.
    """
    laid = [operand for operand in operands if isinstance(operand, Laid)]
    rank = max(value.ndim for value in laid)
    order = max((value for value in laid if value.ndim == rank), key=lambda value: value.array.size).order
    dtype = laid[0].array.dtype
    for value in laid:
        dtype = jnp.promote_types(dtype, value.array.dtype)
    if not jnp.issubdtype(dtype, jnp.inexact) and any(isinstance(operand, float) for operand in operands):
        dtype = jnp.dtype("float32")

    def brought(operand: Any) -> Any:
        if not isinstance(operand, Laid):
            return operand
        if operand.ndim < rank:
            array = in_order(operand)
            operand = plain(array.reshape((1,) * (rank - operand.ndim) + array.shape))
        return relaid(operand, order).astype(dtype)

    return [brought(operand) for operand in operands], order


def same_dtype(*arrays: Any) -> list[Any]:
    """Arrays in the dtype that holds them all; None stays None."""
    dtypes = [array.dtype for array in arrays if array is not None]
    dtype = dtypes[0]
    for other in dtypes[1:]:
        dtype = jnp.promote_types(dtype, other)
    return [None if array is None else array.astype(dtype) for array in arrays]
