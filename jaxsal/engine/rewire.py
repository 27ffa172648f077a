"""A network with the same values and another backward pass."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxsal.engine.interpret import interpret
from jaxsal.engine.program import program
from jaxsal.engine.sites import Composite, Rule, Site
from jaxsal.jaxpr import trace
from jaxsal.model import Model, as_pytree

# last parts of a weight's path that do not name it
_WRAPPERS = frozenset(("value", "raw_value"))


@jax.tree_util.register_static
class Sites(tuple[tuple[Site, Rule], ...]):
    """Sites with their rules, from the image to the output; printed, it is a table. As a pytree it has no leaves."""

    def __repr__(self) -> str:
        rows = [("site", "kind", "layer", "operation", "output", "rule", "source")]
        for site, rule in self:
            shape = " x ".join(map(str, site.shape))
            rows.append((str(site.index), site.kind, site.name, site.operation, shape, rule_name(rule), site.source))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


class Observed(NamedTuple):
    """What a rewired network gives with its values watched.

    Attributes:
        output: of the network.
        sites: those that relevance can reach, in the order of computation, each with the rule chosen for it.
        values: the output of every one of them, by the site's index.
    """

    output: jax.Array
    sites: Sites
    values: Mapping[int, jax.Array]


def rewire(model: Model, composite: Composite) -> Callable[[jax.Array], jax.Array]:
    """The same function of the image, with the backward pass that a composite describes.

    The operations of the network are gone through once. What does not depend on the image is computed as it is; every
    other operation is a site, or moves values about, or works element by element and is kept together with its
    neighbours as one activation. A scale and a shift for each channel that follow a convolution or a dense layer
    (bias, BatchNorm) become part of it. Statistics of the image that normalise it (InstanceNorm, GroupNorm, LayerNorm,
    softmax) are held constant where the composite says so.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        composite: ``site -> rule``, see :mod:`jaxsal.composites`.

    Returns:
        ``x -> y``, equal to the model up to rounding. ``jax.vjp`` of it is the modified backward pass; forward mode
        (``jax.jvp``) is not defined. It may be called under ``jit`` and ``vmap``.

    Raises:
        NotImplementedError: when it is called, if an operation has no rule: it is named, with its line.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import composites
        >>> fn = rewire(lambda x: jax.nn.relu(x @ jnp.array([[2.0], [-1.0]])), composites.z_plus())
        >>> y, back = jax.vjp(fn, jnp.array([[3.0, 1.0]]))
        >>> y.tolist(), back(y)[0].round(3).tolist()
        ([[5.0]], [[5.0, 0.0]])
    """

    def rewired(x: jax.Array) -> jax.Array:
        return observe(model, composite, x).output

    return rewired


def observe(
    model: Model, composite: Composite, x: jax.Array, offsets: Mapping[int, jax.Array] | None = None
) -> Observed:
    """Run a rewired network and watch it.

    Args:
        model: as for :func:`rewire`.
        composite: as for :func:`rewire`.
        x: ``[b, *space, c]``.
        offsets: added to the values at sites, by the sites' indices. The cotangent of an offset of zeros is the
            relevance of that site's output.
    """
    weights, tree = jax.tree_util.tree_flatten_with_path(as_pytree(model))
    traced = trace(lambda leaves, x: jax.tree.unflatten(tree, leaves)(x), [leaf for _, leaf in weights], x)
    if len(traced.jaxpr.outvars) != 1:
        raise ValueError(
            f"The model returns {len(traced.jaxpr.outvars)} arrays, one array y[b, k] is needed: take one of them."
        )
    named = [(_layer(path), leaf) for path, leaf in weights]
    output, found, values = interpret(program(traced), named, x, composite, offsets or {})
    return Observed(output, Sites(found), values)


def survey(model: Model, composite: Composite, x: jax.Array) -> Observed:
    """What :func:`observe` would give, in shapes; nothing is computed.

    Args:
        model: as for :func:`rewire`.
        composite: as for :func:`rewire`.
        x: ``[b, *space, c]``, or its shape as a ``jax.ShapeDtypeStruct``.
    """
    return jax.eval_shape(functools.partial(observe, model, composite), x)


def rule_name(rule: Rule) -> str:
    """A rule as one would write it.

    Example:
        >>> from jaxsal import rules
        >>> rule_name(rules.epsilon(0.1)), rule_name(rules.winner)
        ('epsilon(0.1, True)', 'winner')
    """
    fn, given = getattr(rule, "fn", rule), getattr(rule, "given", None)
    name = getattr(fn, "__name__", type(fn).__name__).lstrip("_")
    values = (rule_name(value) if callable(value) else str(value) for value in given or ())
    return name if given is None else f"{name}({', '.join(values)})"


def sites(model: Model, x: jax.Array, composite: Composite) -> Sites:
    """Where relevance passes on its way back, and by which rule; nothing is computed.

    Args:
        model: as for :func:`rewire`.
        x: ``[b, *space, c]``, or its shape as a ``jax.ShapeDtypeStruct``.
        composite: as for :func:`rewire`.

    Returns:
        Pairs of a site and its rule, from the image to the output.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import composites
        >>> weights = {"hidden": {"kernel": jnp.ones((2, 3))}}
        >>> model = jax.tree_util.Partial(lambda weights, x: jax.nn.relu(x @ weights["hidden"]["kernel"]), weights)
        >>> found = sites(model, jnp.ones((1, 2)), composites.epsilon(0.1))
        >>> [(site.kind, rule_name(rule)) for site, rule in found]
        [('dense', 'epsilon(0.1, True)'), ('activation', 'handed_on')]
    """
    return survey(model, composite, x).sites


def _layer(path: Sequence[Any]) -> str:
    """``.blocks[0].conv.kernel.value`` is a weight of ``blocks[0].conv``, also where a ``Partial`` holds it."""
    keys = list(path)
    while keys and isinstance(keys[0], jax.tree_util.FlattenedIndexKey):
        keys = keys[2:]
    while keys and getattr(keys[-1], "name", None) in _WRAPPERS:
        keys.pop()
    return jax.tree_util.keystr(tuple(keys[:-1])).replace("['", ".").replace("']", "").lstrip(".")
