"""Where the voxels of a feature map lie in the image: receptive-field centres, read off the operations."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxsal.jaxpr import computed, is_literal, trace


class Geometry(NamedTuple):
    """Centres of receptive fields: voxel ``i`` of the feature map looks at image voxel ``start + step * i``.

    Attributes:
        start: per spatial axis, in image voxels.
        step: per spatial axis, in image voxels.
    """

    start: tuple[float, ...]
    step: tuple[float, ...]


class _Axis(NamedTuple):
    """An axis of an intermediate value that is axis ``origin`` of the image, resampled."""

    origin: int
    start: float
    step: float

    def window(self, size: int, stride: int = 1, low: int = 0, dilation: int = 1, base: int = 1) -> "_Axis":
        """After windows of ``size`` voxels over the axis, itself stretched by ``base`` and padded by ``low``."""
        step = self.step / base
        return _Axis(self.origin, self.start + step * ((size - 1) * dilation / 2 - low), step * stride)


_Axes = tuple[_Axis | None, ...]


def geometry(head: Any, x: Any) -> Geometry:
    """Receptive-field centres of a head's output, for any composition of image operations.

    Strides, padding, dilation, pooling, slicing, flips and transposed convolutions are followed; where
    branches meet (a residual sum) their centres are averaged.

    Args:
        head: ``x[b, *space, c] -> features[b, *t, c']``.
        x: an input, array or ``jax.ShapeDtypeStruct``; nothing is computed.

    Returns:
        Start and step per spatial axis, in voxels of ``x``.

    Raises:
        ValueError: if an axis of the features is not a resampled axis of the image (e.g. after a flatten).

    Example:
        >>> import jax.numpy as jnp
        >>> geometry(lambda x: x[:, 3::2], jnp.ones((1, 16, 16, 1)))
        Geometry(start=(3.0, 0.0), step=(2.0, 1.0))
    """
    jaxpr = trace(head, x).jaxpr
    shape = jaxpr.invars[-1].aval.shape
    axes = (None, *(_Axis(i, 0.0, 1.0) for i in range(len(shape) - 2)), None)
    found = _follow(jaxpr, [None] * (len(jaxpr.invars) - 1) + [axes])[0]
    spatial = found[1:-1] if found else ()
    if not spatial or [axis and axis.origin for axis in spatial] != list(range(len(spatial))):
        raise ValueError(
            f"The features of shape {jaxpr.outvars[0].aval.shape} do not lie on a grid over the image of shape "
            f"{shape}: split at an earlier layer, or give geometry=Geometry(start, step) yourself."
        )
    return Geometry(tuple(a.start for a in spatial if a), tuple(a.step for a in spatial if a))


def _follow(jaxpr: Any, inputs: Sequence[_Axes | None]) -> list[_Axes | None]:
    env = {var: axes for var, axes in zip(jaxpr.invars, inputs, strict=True) if axes}
    for eqn in jaxpr.eqns:
        operands = [None if is_literal(atom) else env.get(atom) for atom in eqn.invars]
        if not any(operands):
            continue
        body = computed(eqn)
        if body is not None:
            results = _follow(body[0], operands)
        else:
            results = [_RULES.get(eqn.primitive.name, _elementwise)(eqn, operands)] * len(eqn.outvars)
        env.update((var, axes) for var, axes in zip(eqn.outvars, results, strict=True) if axes)
    return [None if is_literal(atom) else env.get(atom) for atom in jaxpr.outvars]


def _elementwise(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    """Axes of the operands that have the result's shape; averaged where they differ in their start only."""
    shape = eqn.outvars[0].aval.shape
    branches = [a for a, atom in zip(operands, eqn.invars, strict=True) if a and atom.aval.shape == shape]
    if not branches:
        return None
    return tuple(_meet([axes[i] for axes in branches]) for i in range(len(shape)))


def _meet(axes: Sequence[_Axis | None]) -> _Axis | None:
    known = [axis for axis in axes if axis]
    if not known or any(a.origin != known[0].origin or not math.isclose(a.step, known[0].step) for a in known):
        return None
    return _Axis(known[0].origin, sum(a.start for a in known) / len(known), known[0].step)


def _convolution(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    axes, p = operands[0], eqn.params
    if axes is None:
        return None
    dims = p["dimension_numbers"]
    out: list[_Axis | None] = [None] * len(axes)
    for i, (source, kernel, target) in enumerate(
        zip(dims.lhs_spec[2:], dims.rhs_spec[2:], dims.out_spec[2:], strict=True)
    ):
        axis = axes[source]
        out[target] = axis and axis.window(
            eqn.invars[1].aval.shape[kernel],
            p["window_strides"][i],
            p["padding"][i][0],
            p["rhs_dilation"][i],
            p["lhs_dilation"][i],
        )
    return tuple(out)


def _pool(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    p = eqn.params
    names = ("window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation")
    return tuple(
        axis and axis.window(size, stride, pad[0], dilation, base)
        for axis, size, stride, pad, dilation, base in zip(
            operands[0] or (None,) * len(p["padding"]), *(p[name] for name in names), strict=True
        )
    )


def _pad(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    config = eqn.params["padding_config"]
    return operands[0] and tuple(
        axis and axis.window(1, low=low, base=interior + 1)
        for axis, (low, _, interior) in zip(operands[0], config, strict=True)
    )


def _slice(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    p, axes = eqn.params, operands[0] or ()
    strides = p["strides"] or (1,) * len(axes)
    return tuple(
        axis and _Axis(axis.origin, axis.start + axis.step * first, axis.step * stride)
        for axis, first, stride in zip(axes, p["start_indices"], strides, strict=True)
    )


def _rev(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    shape = eqn.invars[0].aval.shape
    return operands[0] and tuple(
        axis and (_Axis(axis.origin, axis.start + axis.step * (shape[i] - 1), -axis.step))
        if i in eqn.params["dimensions"]
        else axis
        for i, axis in enumerate(operands[0])
    )


def _transpose(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    axes = operands[0]
    return axes and tuple(axes[i] for i in eqn.params["permutation"])


def _broadcast(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    out: list[_Axis | None] = [None] * len(eqn.params["shape"])
    for axis, target in zip(operands[0] or (), eqn.params["broadcast_dimensions"], strict=False):
        out[target] = axis
    return tuple(out)


def _reshape(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    """Axes survive a reshape that only adds or removes axes of length 1."""
    old, new = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    if [n for n in old if n != 1] != [n for n in new if n != 1]:
        return None
    kept = iter([axis for axis, n in zip(operands[0] or (), old, strict=True) if n != 1])
    return tuple(next(kept) if n != 1 else None for n in new)


def _squeeze(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    return operands[0] and tuple(a for i, a in enumerate(operands[0]) if i not in eqn.params["dimensions"])


def _reduce(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    return operands[0] and tuple(a for i, a in enumerate(operands[0]) if i not in eqn.params["axes"])


def _concatenate(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    along, branches = eqn.params["dimension"], [axes for axes in operands if axes]
    return tuple(None if i == along else _meet([axes[i] for axes in branches]) for i in range(len(branches[0])))


def _dot(eqn: Any, operands: list[_Axes | None]) -> _Axes | None:
    (contract, _), (batch, _) = eqn.params["dimension_numbers"]
    axes, rank = operands[0], len(eqn.outvars[0].aval.shape)
    if axes is None:
        return None
    kept = [axes[i] for i in batch] + [a for i, a in enumerate(axes) if i not in {*contract, *batch}]
    return tuple(kept + [None] * (rank - len(kept)))


_RULES = {
    "conv_general_dilated": _convolution,
    "reduce_window": _pool,
    "reduce_window_max": _pool,
    "reduce_window_min": _pool,
    "reduce_window_sum": _pool,
    "pad": _pad,
    "slice": _slice,
    "rev": _rev,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
    "concatenate": _concatenate,
    "dot_general": _dot,
}
