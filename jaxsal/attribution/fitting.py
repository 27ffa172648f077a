"""Composites as arguments of compiled programs: what of them is data, and whether they suit a network."""

import difflib
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.attribution.composites import Named, Rules
from jaxsal.attribution.rules import is_box
from jaxsal.attribution.surveying import channels_stay_last, layer_names
from jaxsal.engine.sites import Composite
from jaxsal.model import Model


class Bounds(NamedTuple):
    """Of an image's values, each a number or ``[c]``.

    Attributes:
        low: the least.
        high: the greatest.
    """

    low: jax.Array
    high: jax.Array


def parted(composite: Composite, dtype: Any) -> tuple[Composite, Bounds | None]:
    """A composite without the bounds of its first layers, and these as arrays: others are not another program.

    Args:
        composite: ``site -> rule``.
        dtype: of the image.

    Example:
        >>> from jaxsal import composites
        >>> near, far = (parted(composites.epsilon_gamma_box(-high, high), jnp.float32) for high in (1, 5))
        >>> near[0] == far[0], near[1].high.item(), far[1].high.item()
        (True, 1.0, 5.0)
    """
    if not isinstance(composite, Rules) or not is_box(composite.first):
        return composite, None
    box: Any = composite.first
    low, high, eps = box.given
    bounds = Bounds(jnp.asarray(low, dtype), jnp.asarray(high, dtype))
    return replace(composite, first=box._replace(given=(None, None, eps))), bounds


def fitted(composite: Composite, bounds: Bounds | None, model: Model, x: jax.Array) -> Composite:
    """What :func:`parted` took apart as one again, checked for a network while that is compiled.

    Args:
        composite: without bounds.
        bounds: of its first layers; None: it has none.
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, or its shape.

    Raises:
        ValueError: if it names a layer that does not exist, or has bounds for each channel and the network puts these
            at another axis.
    """
    inner = composite
    while isinstance(inner, Named):
        _check_names(inner, model, x)
        inner = inner.otherwise
    if bounds is None:
        return composite
    if max(bounds.low.size, bounds.high.size) > 1 and not channels_stay_last(model, x):
        raise ValueError(
            "The composite has bounds for each channel, and the network brings the image's channels to another axis "
            "before its first layer: give one lower and one upper bound for all channels."
        )
    table: Any = composite
    return replace(table, first=table.first._replace(given=(*bounds, table.first.given[2])))


def _check_names(composite: Named, model: Model, x: jax.Array) -> None:
    known = layer_names(model, x, composite)
    for name, _ in composite.rules:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f" Was {near[0]!r} meant?" if near else ""
            listed = ", ".join(map(repr, known)) or "none with a name"
            raise ValueError(f"named() has a rule for the layer {name!r}, there is: {listed}.{meant}")
