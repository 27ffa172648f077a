"""What later operations read of a convolution's output.

A pool without padding leaves out the last rows that do not fill a window; a convolution whose output goes through
element-wise operations into such a pool need not compute them.
"""

import math
from collections.abc import Sequence
from typing import Any

from jaxsal.engine.elementwise import is_elementwise
from jaxsal.jaxpr import is_literal

Extent = tuple[int, ...]

_WINDOWS = frozenset(("reduce_window_max", "reduce_window_min", "reduce_window_sum"))


def extents_read(jaxpr: Any) -> dict[Any, Extent]:
    """How far along each axis each value of a program is read, by its variable; counted from the first place.

    Args:
        jaxpr: the operations.

    Returns:
        For every variable that some operation reads: one length per axis, at most the axis' own.

    Example:
        >>> import jax
        >>> from jax import lax
        >>> def pooled(x):
        ...     return lax.reduce_window(2 * x, 0.0, lax.add, (2,), (2,), "VALID")
        >>> program = jax.make_jaxpr(pooled)(jax.numpy.ones(7)).jaxpr
        >>> extents_read(program)[program.invars[0]]
        (6,)
    """
    read: dict[Any, Extent] = {}

    def note(atom: Any, extent: Sequence[int]) -> None:
        if not is_literal(atom):
            before = read.get(atom, (0,) * len(extent))
            read[atom] = tuple(map(max, before, extent))

    for atom in jaxpr.outvars:
        note(atom, atom.aval.shape)
    for eqn in reversed(jaxpr.eqns):
        wanted = [read.get(out, (0,) * len(out.aval.shape)) for out in eqn.outvars]
        for atom in eqn.invars:
            note(atom, _extent(eqn, atom.aval.shape, wanted))
    return read


def _extent(eqn: Any, shape: Sequence[int], wanted: list[Extent]) -> Sequence[int]:
    """How far an operand of this shape is read for so much of the outputs."""
    if eqn.primitive.name in _WINDOWS:
        return _windowed(eqn.params, shape, wanted[0])
    if len(wanted) == 1 and tuple(shape) == tuple(eqn.outvars[0].aval.shape) and _reads_in_place(eqn):
        return wanted[0]
    return shape


def _windowed(p: Any, shape: Sequence[int], wanted: Extent) -> Sequence[int]:
    if set(p["base_dilation"]) != {1} or math.prod(wanted) == 0:
        return shape
    sizes = zip(
        wanted, p["window_dimensions"], p["window_strides"], p["window_dilation"], p["padding"], shape, strict=True
    )
    reach = ((n - 1) * stride + (size - 1) * apart + 1 - lo for n, size, stride, apart, (lo, _), _ in sizes)
    return [min(max(r, 0), n) for r, n in zip(reach, shape, strict=True)]


def _reads_in_place(eqn: Any) -> bool:
    # the backward rule of a custom_vjp may read every place
    return is_elementwise(eqn) and not eqn.primitive.name.startswith("custom_vjp")
