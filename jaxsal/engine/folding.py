"""Scales and shifts behind a linear operation, multiplied into its weights, whatever layout they find it in."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.program import Step
from jaxsal.engine.values import Affine, Linear

# what leaves the values as they are and in their order, if it leaves none out and repeats none
_IN_ORDER = frozenset((
    "broadcast_in_dim", "convert_element_type", "dynamic_slice", "expand_dims", "reshape", "slice", "squeeze",
))  # fmt: skip


def scaled(weights: Any, scale: Any) -> Any:
    """Weights times a scale, in the weights' dtype: that of the output may be another."""
    return weights * jnp.asarray(scale).astype(weights.dtype)


DIAGONAL = Linear("affine", "scale and shift", scaled, scaled)


def folded(value: Affine, scale: Any, shift: Any) -> Affine | None:
    """A linear operation with a scale and a shift that follow it, or None where they stay on their own.

    Args:
        value: the operation, not yet computed.
        scale: a number, or of the output's rank; None for none.
        shift: likewise.
    """
    if value.linear.kind == "average" and shift is not None:
        return None
    weights = value.weights if scale is None else value.linear.fold(value.weights, scale)
    if weights is None:
        return None
    bias = value.bias if value.bias is None or scale is None else value.bias * scale
    if shift is not None:
        bias = shift if bias is None else bias + shift
    return replace(value, weights=weights, bias=bias)


def scale_and_shift(name: str, known: Any, leads: bool, dtype: Any) -> tuple[Any, Any]:
    """What an affine operation multiplies a value of the image with and then adds; None for nothing.

    Args:
        name: of the operation.
        known: the other operand.
        leads: whether the value of the image is the first operand.
        dtype: of the value.
    """
    if name == "neg":
        return jnp.asarray(-1, dtype), None
    known = jnp.asarray(known)
    if name == "mul":
        return known, None
    if name == "div":
        return 1 / known, None
    if name == "sub":
        return (None, -known) if leads else (jnp.asarray(-1, known.dtype), known)
    return None, known


def unbroadcast(step: Step, value: Any) -> jax.Array:
    """An array brought to a rank, with the axes along which it would repeat of size 1."""
    shape = [1] * len(step.avals[0].shape)
    for axis, size in zip(step.params["broadcast_dimensions"], np.shape(value), strict=True):
        shape[axis] = size
    return jnp.asarray(value).reshape(shape)


def channel_axes(step: Step, place: int, rank: int) -> tuple[int | None, int | None]:
    """The axis of the weights that is the outputs' channel, and that axis of the output.

    Args:
        step: a convolution or a product with weights.
        place: of the image's part among the operands.
        rank: of the weights.
    """
    if step.name == "conv_general_dilated":
        if place == 1 or step.params["batch_group_count"] != 1:
            return None, None
        dims = step.params["dimension_numbers"]
        return dims.rhs_spec[0], dims.out_spec[1]
    (contracted, batch) = ([*map(tuple, pair)] for pair in step.params["dimension_numbers"])
    free = [axis for axis in range(rank) if axis not in (*contracted[1 - place], *batch[1 - place])]
    if len(free) != 1:
        return None, None
    return free[0], len(step.avals[0].shape) - 1 if place == 0 else len(batch[0])


def fold(weight_axis: int | None, axis: int | None, rank: int, weights: jax.Array, scale: jax.Array) -> Any:
    """Weights with a scale of the output multiplied in, or None where that is not possible.

    Args:
        weight_axis: the weights' axis that is the outputs' channel.
        axis: that axis of the output.
        rank: of the output.
        weights: of the operation.
        scale: a number, or of the output's rank.
    """
    shape = np.shape(scale)
    if shape == ():
        return scaled(weights, scale)
    if weight_axis is None or axis is None or len(shape) != rank:
        return None
    if any(size != 1 for i, size in enumerate(shape) if i != axis):
        return None
    aligned = [1] * weights.ndim
    aligned[weight_axis] = shape[axis]
    return scaled(weights, scale.reshape(aligned))


class Move(NamedTuple):
    """Another layout of the same values. Arrays may be of size 1 along axes where they are the same, or numbers.

    Attributes:
        there: to the new layout.
        back: from the new layout.
    """

    there: Callable[[jax.Array], jax.Array]
    back: Callable[[jax.Array], jax.Array]


def move_of(step: Step, shape: Sequence[int]) -> Move | None:
    """What an operation does to a value's layout, or None where it leaves values out, repeats or mixes them.

    Args:
        step: the operation.
        shape: of the value.
    """
    target = step.avals[0].shape
    if step.name == "transpose":
        axes = tuple(step.params["permutation"])
        return Move(functools.partial(_permuted, axes), functools.partial(_permuted, tuple(np.argsort(axes))))
    if step.name in _IN_ORDER and math.prod(shape) == math.prod(target) > 0:
        return Move(functools.partial(_regrouped, shape, target), functools.partial(_regrouped, target, shape))
    return None


def moved(value: Affine, move: Move, aval: Any) -> Affine:
    """A linear operation whose output is brought to another layout and dtype.

    Args:
        value: the operation, not yet computed.
        move: what is done.
        aval: shape and dtype of what comes out.
    """
    linear = value.linear

    def there(a: jax.Array) -> jax.Array:
        return move.there(a).astype(aval.dtype)

    def forward(a: jax.Array, weights: Any) -> jax.Array:
        return there(linear.forward(a, weights))

    def fold(weights: Any, scale: Any) -> Any:
        return linear.fold(weights, move.back(scale))

    bias = None if value.bias is None else there(jnp.asarray(value.bias))
    return replace(value, linear=replace(linear, forward=forward, fold=fold), bias=bias, aval=aval)


def _permuted(axes: Sequence[int], array: jax.Array) -> jax.Array:
    return array if np.ndim(array) == 0 else array.transpose(axes)


def _regrouped(shape: Sequence[int], target: Sequence[int], array: jax.Array) -> jax.Array:
    """An array that broadcasts to one shape, reshaped such that it broadcasts to another.

    Example:
        >>> _regrouped((2, 3, 4), (6, 4), jnp.ones((1, 1, 4))).shape
        (1, 4)
    """
    if np.ndim(array) == 0:
        return array
    before, after = [], []
    for old, new in _together(shape, target):
        same = all(array.shape[axis] == 1 for axis in old)
        before += [1 if same else shape[axis] for axis in old]
        after += [1 if same else target[axis] for axis in new]
    return jnp.broadcast_to(array, before).reshape(after)


def _together(shape: Sequence[int], target: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Axes that a reshape splits and merges among themselves.

    Example:
        >>> list(_together((2, 3, 4), (6, 4)))
        [(range(0, 2), range(0, 1)), (range(2, 3), range(1, 2))]
    """
    ends = (0, 0)
    while ends != (len(shape), len(target)):
        starts, ends = ends, (min(ends[0] + 1, len(shape)), min(ends[1] + 1, len(target)))
        while (old := math.prod(shape[starts[0] : ends[0]])) != (new := math.prod(target[starts[1] : ends[1]])):
            ends = (ends[0] + (old < new), ends[1] + (new < old))
        yield range(starts[0], ends[0]), range(starts[1], ends[1])
