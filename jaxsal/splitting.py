"""A network cut at a layer into a head and a tail."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
from jax.tree_util import Partial, register_dataclass

from jaxsal.jaxpr import Traced, bind, is_literal, read, trace
from jaxsal.model import Layer, Model, as_pytree, check_model, named_layers


class Split(NamedTuple):
    """Two pure functions with ``tail(head(x)) == model(x)``; both are pytrees that carry the weights.

    Attributes:
        head: ``x[b, *space, c] -> features[b, *t, c']``.
        tail: ``features[b, *t, c'] -> y[b, k]``.
    """

    head: Model
    tail: Model


class LayerRow(NamedTuple):
    """One line of :func:`layers`.

    Attributes:
        name: what ``split(model, x, at=name)`` takes.
        kind: class or function of the layer.
        shape: of its output, batch axis included.
        splits: whether a mask can be optimised there: the output has spatial axes and, at a tag, nothing else of the
            image passes it by.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    splits: bool


@dataclass(frozen=True)
class LayerTable(Sequence[LayerRow]):
    """The rows of :func:`layers`; prints as a table."""

    rows: tuple[LayerRow, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [("name", "kind", "output shape", "split")]
        cells += [(r.name, r.kind, " x ".join(map(str, r.shape)), "yes" if r.splits else "") for r in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def split(model: Model, x: Any, at: str | int) -> Split:
    """Cut a network after a layer.

    Args:
        model: a network with named layers (the zoo), a ``flax.nnx.Sequential``, or any JAX function in
            which the cut is marked by ``jax.ad_checkpoint.checkpoint_name(value, tag)``.
        x: an input ``[b, *space, c]`` (array or ``jax.ShapeDtypeStruct``); for a tagged function head and tail
            work for this shape and any batch size.
        at: the tag, or name or position of the layer whose output is the cut; a tag goes before a layer.

    Returns:
        Head and tail.

    Raises:
        ValueError: if there is no such layer or tag (those that exist are listed), if the tail of a
            tagged function needs values of the head other than the tagged one (they are listed), if the
            network is not the composition of its layers, or if it is in training mode.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax.ad_checkpoint import checkpoint_name
        >>> def model(x):
        ...     return jnp.sum(checkpoint_name(jnp.square(x), "features"), axis=(1, 2))
        >>> x = jnp.ones((1, 4, 4, 2))
        >>> head, tail = split(model, x, "features")
        >>> head(x).shape, bool((tail(head(x)) == model(x)).all())
        ((1, 4, 4, 2), True)
    """
    check_model(model)
    names = [layer.name for layer in named_layers(model)]
    whole = trace(model, _shapes(x))
    if not names or at in [eqn.params["name"] for eqn in _tagged(whole.jaxpr)]:
        return _split_at_tag(model, x, at)
    cut = _position(names, at) + 1
    parts = Split(_Stage(model, 0, cut), _Stage(model, cut, len(names)))
    _check_composition(model, whole, parts, x)
    return parts


def layers(model: Model, x: Any) -> LayerTable:
    """The places where a network can be split.

    Args:
        model: see :func:`split`.
        x: an input ``[b, *space, c]``, array or ``jax.ShapeDtypeStruct``; nothing is computed.

    Returns:
        A sequence of :class:`LayerRow` that prints as a table: the named layers, then the tags.

    Raises:
        ValueError: if the network is in training mode.

    Example:
        >>> from flax import nnx
        >>> import jax.numpy as jnp
        >>> print(layers(nnx.Sequential(jax.nn.relu, lambda x: x.sum((1, 2))), jnp.ones((1, 4, 4, 2))))
        name  kind      output shape   split
        0     relu      1 x 4 x 4 x 2  yes
        1     <lambda>  1 x 2
    """
    check_model(model)
    rows, shape = [], _shapes(x)
    for name, call in named_layers(model):
        shape = jax.eval_shape(call, shape)
        kind = getattr(call, "__name__", type(call).__name__)
        rows.append(LayerRow(name, kind, shape.shape, len(shape.shape) > 2))
    jaxpr = trace(model, _shapes(x)).jaxpr
    for eqn in _tagged(jaxpr):
        shape, name = eqn.outvars[0].aval.shape, eqn.params["name"]
        rows.append(LayerRow(name, "tag", shape, len(shape) > 2 and _separates(jaxpr, name)))
    return LayerTable(tuple(rows))


@register_dataclass
@dataclass(frozen=True)
class _Stage:
    """Consecutive layers of a network; a pytree, so that new weights do not recompile."""

    model: Any
    start: int = field(metadata={"static": True})
    stop: int = field(metadata={"static": True})

    def named_layers(self) -> tuple[Layer, ...]:
        """Its own layers, so that it can be split again."""
        return named_layers(self.model)[self.start : self.stop]

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.named_layers():
            x = layer.call(x)
        return x


def _position(names: Sequence[str], at: str | int) -> int:
    if isinstance(at, str) and at in names:
        return names.index(at)
    if isinstance(at, int) and -len(names) <= at < len(names):
        return range(len(names))[at]
    raise ValueError(f"There is no layer {at!r}; this network has: {', '.join(names)}.")


def _check_composition(model: Model, whole: Traced, parts: Split, x: Any) -> None:
    """Refuse a network that does not just apply its layers one after the other."""

    def composed(x: jax.Array) -> jax.Array:
        return parts.tail(parts.head(x))

    chained = trace(composed, _shapes(x))
    if _same(whole, chained):
        return  # operation for operation, hence without a forward pass
    expected, found = ([tuple(atom.aval.shape) for atom in each.jaxpr.outvars] for each in (whole, chained))
    where = f"shape {found} where the network gives {expected}"
    if expected == found:
        if isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct):
            return  # there are no values to compare
        y = np.asarray(model(x), np.float64)
        off, scale = np.abs(np.asarray(composed(x), np.float64) - y).max(), np.abs(y).max()
        if not off > np.sqrt(jax.numpy.finfo(x.dtype).eps) * scale:
            return
        where = f"values up to {off:.3g} away from the network's, which reach {scale:.3g}"
    raise ValueError(
        f"Cannot split at a layer: its layers, one after the other, give {where}, so it does more with them. "
        "Mark the place with jax.ad_checkpoint.checkpoint_name(value, tag) and split at the tag, or mend the "
        "network's named_layers()."
    )


def _same(one: Traced, other: Traced) -> bool:
    """Whether two functions do the same operations on the same constants."""
    return (
        str(one.jaxpr) == str(other.jaxpr)
        and len(one.consts) == len(other.consts)
        and all(a is b for a, b in zip(one.consts, other.consts, strict=True))
    )


def _split_at_tag(model: Model, x: Any, at: str | int) -> Split:
    model, x = as_pytree(model), _shapes(x)
    _cut(trace(model, x).jaxpr, at)  # what cannot be split is refused here, not at the first use
    return Split(Partial(_Head(at), model), Partial(_Tail(at, x.shape[1:], x.dtype), model))


class _Head(NamedTuple):
    """What a tagged function computes up to the tag."""

    at: str | int

    def __call__(self, model: Model, x: jax.Array) -> jax.Array:
        jaxpr, consts, _ = trace(model, x)
        cut = _cut(jaxpr, self.at)
        env = dict(zip(jaxpr.constvars, consts, strict=True)) | {jaxpr.invars[0]: x}
        return _run(jaxpr, cut.head, env)[cut.value]


class _Tail(NamedTuple):
    """What a tagged function computes from the tag on, for inputs of one shape and any batch."""

    at: str | int
    shape: tuple[int, ...]
    dtype: Any

    def __call__(self, model: Model, features: jax.Array) -> jax.Array:
        jaxpr, consts, _ = trace(model, jax.ShapeDtypeStruct((len(features), *self.shape), self.dtype))
        cut = _cut(jaxpr, self.at)
        env = dict(zip(jaxpr.constvars, consts, strict=True)) | {cut.value: features}
        return read(_run(jaxpr, cut.tail, env), jaxpr.outvars[0])


class _Cut(NamedTuple):
    value: Any
    head: list[Any]
    tail: list[Any]


def _cut(jaxpr: Any, at: str | int) -> _Cut:
    """Sort the operations of a traced function into those before and those after a tag."""
    tagged = _tagged(jaxpr)
    here = [eqn for eqn in tagged if eqn.params["name"] == at]
    if len(here) != 1:
        tags = ", ".join(eqn.params["name"] for eqn in tagged)
        raise ValueError(
            f"Cannot split at {at!r}: {f'the function has the tags {tags}' if tags else 'no tag was found'}, and "
            "exactly one of that name, outside nested jit, is needed. Mark the value with "
            "jax.ad_checkpoint.checkpoint_name(value, tag), or give the model layers (method named_layers)."
        )
    (value,) = here[0].outvars
    before, after, tail = {jaxpr.invars[0]}, {value}, []
    for eqn in jaxpr.eqns:
        operands = _operands(eqn)
        if eqn is here[0]:
            continue
        if operands & after:
            crossing = sorted(atom.aval.str_short() for atom in operands & before)
            if crossing:
                raise ValueError(
                    f"Cannot split at {at!r}: besides the tagged value, {', '.join(crossing)} computed from the "
                    f"input reaches the output through {eqn.primitive.name}. Move the tag to where everything "
                    "passes through it, e.g. behind the residual sum."
                )
            after.update(eqn.outvars)
        elif operands & before:
            before.update(eqn.outvars)
            continue
        tail.append(eqn)
    if jaxpr.outvars[0] not in after:
        raise ValueError(f"Cannot split at {at!r}: the output does not depend on the tagged value.")
    return _Cut(value, jaxpr.eqns[: jaxpr.eqns.index(here[0]) + 1], tail)


def _separates(jaxpr: Any, at: str) -> bool:
    try:
        _cut(jaxpr, at)
    except ValueError:
        return False
    return True


def _tagged(jaxpr: Any) -> list[Any]:
    return [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "name"]


def _shapes(x: Any) -> Any:
    return jax.eval_shape(lambda x: x, x)


def _operands(eqn: Any) -> set[Any]:
    return {atom for atom in eqn.invars if not is_literal(atom)}


def _run(jaxpr: Any, eqns: Sequence[Any], env: dict[Any, Any]) -> dict[Any, Any]:
    for eqn in eqns:
        env.update(zip(eqn.outvars, bind(jaxpr, eqn, env), strict=True))
    return env
