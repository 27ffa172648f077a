"""Scales and shifts behind a linear operation, multiplied into its weights."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.program import Step
from jaxsal.engine.values import Linear

DIAGONAL = Linear("affine", "scale and shift", operator.mul, operator.mul)


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
        return weights * scale
    if weight_axis is None or axis is None or len(shape) != rank:
        return None
    if any(size != 1 for i, size in enumerate(shape) if i != axis):
        return None
    aligned = [1] * weights.ndim
    aligned[weight_axis] = shape[axis]
    return weights * scale.reshape(aligned)


def transposed(linear: Linear, axes: tuple[int, ...]) -> Linear:
    """A linear operation whose output's axes are put in another order."""
    back = tuple(np.argsort(axes))

    def fold(weights: Any, scale: Any) -> Any:
        return linear.fold(weights, scale if np.shape(scale) == () else scale.transpose(back))

    return Linear(linear.kind, linear.operation, lambda a, w: linear.forward(a, w).transpose(axes), fold)
