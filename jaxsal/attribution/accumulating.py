"""Sums and variances of maps over many points, so many of them at a time."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.attribution.pulling import Choice

Make = Callable[[Any], jax.Array]


class Shares(NamedTuple):
    """How many gradients of a batch of images are held at once.

    Attributes:
        points: at which gradients are taken at once.
        outputs: that are pulled back at once from each point; None takes one on a CPU, elsewhere all.
    """

    points: int
    outputs: int | None


def shares(batch_size: int | None, choice: Choice) -> Shares:
    """Gradients at once, as points and outputs of each.

    Args:
        batch_size: gradients at once; None takes one point at a time.
        choice: what is explained.

    Example:
        >>> three = Choice(None, jnp.arange(3))
        >>> [tuple(shares(size, three)) for size in (None, 2, 7)]
        [(1, None), (1, 2), (2, 3)]
    """
    if batch_size is None:
        return Shares(1, None)
    count = 1 if choice.outputs is None else len(choice.outputs)
    return Shares(max(1, batch_size // count), min(batch_size, count))


def shape_of_maps(x: jax.Array, choice: Choice) -> tuple[int, ...]:
    """``[b, *space, c]``, or with several outputs ``[o, b, *space, c]``."""
    return x.shape if choice.outputs is None else (len(choice.outputs), *x.shape)


def wide(dtype: Any) -> Any:
    """The dtype to sum numbers of a dtype in: itself, but at least float32."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def total(make: Make, items: Any, weights: jax.Array, shape: Sequence[int], at_once: int) -> jax.Array:
    r"""``\sum_i w_i make(item_i)``, of which at most ``at_once`` terms are held.

    Args:
        make: one item to one array.
        items: pytree, items along the leading axes.
        weights: ``[n]``, in the dtype to sum in.
        shape: of what ``make`` returns.
        at_once: terms that are computed together.

    Returns:
        An array of the shape, in the weights' dtype.

    Example:
        >>> float(total(lambda i: i * i, jnp.arange(3.0), jnp.array([1.0, 1.0, 0.5]), (), at_once=2))
        3.0
    """

    def add(so_far: jax.Array, chunk: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
        values, weights = _values(make, *chunk)
        return so_far + (values * _beside(weights, values)).sum(0), None

    return _over(add, jnp.zeros(shape, weights.dtype), _in_chunks(items, weights, at_once))


def variance(make: Make, items: Any, count: int, shape: Sequence[int], at_once: int, dtype: Any) -> jax.Array:
    r"""``1/n \sum_i (make(item_i) - mean)^2``, in one pass that subtracts no large numbers from one another.

    Args:
        make: one item to one array.
        items: pytree, items along the leading axes.
        count: how many.
        shape: of what ``make`` returns.
        at_once: terms that are computed together.
        dtype: to sum in.

    Example:
        >>> float(variance(lambda i: i + 1e4, jnp.arange(4.0), 4, (), 3, jnp.float32))
        1.25
    """

    def merge(so_far: tuple[jax.Array, ...], chunk: tuple[Any, jax.Array]) -> tuple[tuple[jax.Array, ...], None]:
        n, mean, squares = so_far
        values, counts = _values(make, *chunk)
        more = counts.sum()
        here = (values * _beside(counts, values)).sum(0) / more
        away = (values - here[None]) ** 2
        step = here - mean
        squares = squares + (away * _beside(counts, values)).sum(0) + step**2 * (n * more / (n + more))
        return (n + more, mean + step * (more / (n + more)), squares), None

    start = (jnp.zeros((), dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    return _over(merge, start, _in_chunks(items, jnp.ones(count, dtype), at_once))[2] / count


def _values(make: Make, items: Any, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    if len(weights) == 1:  # no axis that the network would have to be spread over
        return make(jax.tree.map(lambda a: a[0], items))[None].astype(weights.dtype), weights
    return jax.vmap(make)(items).astype(weights.dtype), weights


def _beside(weights: jax.Array, values: jax.Array) -> jax.Array:
    return weights.reshape(-1, *(1,) * (values.ndim - 1))


def _in_chunks(items: Any, weights: jax.Array, at_once: int) -> tuple[Any, jax.Array]:
    """``[chunks, at once, ...]``; what is missing in the last chunk repeats the last item with weight 0."""
    count = len(weights)
    # as few chunks as can be, of one size: one program serves all of them, and little is computed in vain
    chunks = -(-count // min(at_once, count))
    size = -(-count // chunks)
    missing = chunks * size - count

    def apart(a: jax.Array) -> jax.Array:
        return a.reshape(chunks, size, *a.shape[1:])

    repeated = jax.tree.map(lambda a: apart(jnp.concatenate([a, jnp.repeat(a[-1:], missing, axis=0)])), items)
    return repeated, apart(jnp.pad(weights, (0, missing)))


def _over(step: Callable[..., Any], start: Any, chunks: tuple[Any, jax.Array]) -> Any:
    if len(chunks[1]) == 1:
        return step(start, jax.tree.map(lambda a: a[0], chunks))[0]
    return jax.lax.scan(step, start, chunks)[0]
