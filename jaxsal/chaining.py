"""A network cut at its input, and a network cut at several layers at once."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from jaxsal.model import Model, as_pytree, named_layers
from jaxsal.splitting import Split, split


class Chain(NamedTuple):
    """Pure functions that are the network when applied one after the other; pytrees that carry the weights.

    Attributes:
        stages: the first is ``x[b, *space, c] -> features[b, *t, c']``, the last one's result is ``y[b, k]``.
    """

    stages: tuple[Model, ...]


def at_input(model: Model) -> Split:
    """Cut a network before its first layer: a mask then lies on the image itself, on its grid.

    Args:
        model: ``x[b, *space, c] -> y[b, k]``.

    Returns:
        A head that does nothing, and the whole network as the tail.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxsal
        >>> x = jnp.ones((1, 6, 7, 1)).at[0, 2:4, 2:4].set(9.0)
        >>> jaxsal.smocam(at_input(lambda x: x.sum((1, 2))), x, lam=0.0, max_steps=3).mask.shape
        (1, 1, 6, 7)
    """
    return Split(Partial(_identity), as_pytree(model))


def chain(model: Model, x: Any, at: Sequence[str | int]) -> Chain:
    """Cut a network after several layers.

    Args:
        model: see :func:`jaxsal.split`.
        x: an input ``[b, *space, c]``, array or ``jax.ShapeDtypeStruct``.
        at: tags, or names or positions of layers, in the order in which the network applies them.

    Returns:
        One stage more than there are cuts.

    Raises:
        TypeError: if ``at`` is a single place.
        ValueError: as :func:`jaxsal.split`, if there is no place, or the places are not in order.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax.ad_checkpoint import checkpoint_name
        >>> def model(x):
        ...     first = checkpoint_name(jnp.square(x), "first")
        ...     return jnp.sum(checkpoint_name(first[:, ::2], "second"), axis=(1, 2))
        >>> one, two, three = chain(model, jnp.ones((1, 4, 4, 2)), ["first", "second"]).stages
        >>> two(one(jnp.ones((1, 4, 4, 2)))).shape
        (1, 2, 4, 2)
    """
    if isinstance(at, str | int):
        raise TypeError(f"at got {at!r}, a sequence of layers is needed: [{at!r}], or split(model, x, at={at!r}).")
    if not at:
        raise ValueError("at got no layers: give at least one; print(layers(model, x)) shows them.")
    names = [layer.name for layer in named_layers(model)]
    stages, rest = [], model
    for place in at:
        # positions count in the whole network, not in what is left of it
        named = names[place] if isinstance(place, int) and -len(names) <= place < len(names) else place
        try:
            head, rest = split(rest, x, named)
        except ValueError as error:
            if not stages:
                raise
            raise ValueError(
                f"Cannot cut at {named!r} behind {at[len(stages) - 1]!r}: give each layer once, in the order in which "
                f"the network applies them. {error}"
            ) from None
        stages.append(head)
        x = jax.eval_shape(functools.partial(_apply, head), x)
    return Chain((*stages, rest))


def joined(split: Split) -> Model:
    """The network that a split was cut from, or one that does the same: a pytree of both parts' weights.

    Example:
        >>> joined(Split(lambda x: 2 * x, lambda f: f + 1))(3)
        7
    """
    return Partial(_through, as_pytree(split.head), as_pytree(split.tail))


def _through(head: Model, tail: Model, x: jax.Array) -> jax.Array:
    return tail(head(x))


def _apply(stage: Model, x: jax.Array) -> jax.Array:
    return stage(x)


def _identity(x: jax.Array) -> jax.Array:
    return x
