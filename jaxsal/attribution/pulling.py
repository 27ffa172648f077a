"""From a score back to the image: one forward pass, and one backward pass for every output that is asked for."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.target import output_indices

Target = int | Sequence[int] | np.ndarray | jax.Array | Callable[[jax.Array], jax.Array] | None
Outputs = str | Sequence[int] | np.ndarray | jax.Array | None
Start = Literal["one", "value"]


class Choice(NamedTuple):
    """What is explained, checked, as a pytree: other numbers of the same shape are not a new program.

    Attributes:
        target: int32 ``[b]``, or a function ``y[b, k] -> [b]`` as a pytree; None where ``outputs`` is given.
        outputs: int32 ``[o]``, or None.
    """

    target: Any
    outputs: Any


def choose(model: Model, x: jax.Array, target: Target = None, outputs: Outputs = None) -> Choice:
    """Check a network, its images and what is asked of it, before anything is computed.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> [b]``, or None where
            there is only one output.
        outputs: several outputs of every image instead, ``"all"`` or their positions.

    Returns:
        The choice: an argument of a compiled function, which hands it on to :func:`pull` in place of a target.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if one cannot be used, or an output does not exist.

    Example:
        >>> choose(lambda x: x.sum((1, 2))[:, :2], jnp.ones((3, 4, 4, 2)), -1).target.tolist()
        [1, 1, 1]
    """
    check_model(model)
    check_input(x)
    y = _apply.eval_shape(as_pytree(model), x)
    _check_output(y, len(x))
    return _chosen(target, outputs, *y.shape)


def pull(
    fn: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    target: Target | Choice = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "one",
) -> jax.Array:
    r"""The cotangent of the image for every example's score, ``(dy/dx)^T (ds/dy)``, or ``(dy/dx)^T (y ds/dy)``.

    It is ``jax.vjp(fn, x)`` of the score's derivative and nothing else: where ``fn`` has a backward pass of its own,
    that is what is used. The forward pass runs once, however many outputs there are.

    Args:
        fn: any JAX function ``x[b, *space, c] -> y[b, k]``, its examples independent of one another.
        x: ``[b, *space, c]``.
        target: output of all images, of each (int ``[b]``), a function ``y[b, k] -> s[b]``, or None where ``k = 1``;
            or all of that as :func:`choose` checked it.
        outputs: ``"all"`` or positions, instead of a target.
        batch_size: outputs that are pulled back at once; None takes one on a CPU, elsewhere all.
        start: ``"one"`` starts from the score's derivative by ``y``, ``"value"`` from what each output has in the
            score, see :func:`seeds`.

    Returns:
        ``[b, *space, c]``, or with ``outputs`` one for each, ``[o, b, *space, c]``. A traced target cannot be checked:
        where there is no such output the map holds NaN.

    Raises:
        TypeError: if the target is of a wrong kind.
        ValueError: if an output does not exist, the choice is ambiguous, or ``fn`` returns another shape.

    Example:
        >>> x = jnp.array([[[3.0, 5.0]]])
        >>> def fn(x):
        ...     return jnp.stack([x.prod((1, 2)), x.sum((1, 2))], 1)
        >>> pull(fn, x, 0).tolist(), pull(fn, x, 0, start="value").tolist()
        ([[[5.0, 3.0]]], [[[75.0, 45.0]]])
        >>> pull(fn, x, outputs="all").shape
        (2, 1, 1, 2)
    """
    check_batch_size(batch_size)
    y, back = jax.vjp(fn, x)
    _check_output(y, len(x))
    starts = seeds(y, target, outputs=outputs, start=start)
    if starts.ndim == y.ndim:
        return back(starts)[0]
    return mapped(lambda seed: back(seed)[0], starts, batch_size)


def seeds(y: jax.Array, target: Target | Choice = None, *, outputs: Outputs = None, start: Start = "one") -> jax.Array:
    """What is pulled back: the score's derivative by the network's outputs, or their parts in the score.

    The parts are ``y_k ds/dy_k``. Of a single output it is its value; of a weighted sum of outputs they add up to the
    score, ``y_0`` and ``-y_1`` for ``y_0 - y_1``. Of another function they are its linear parts, which need not add up
    to it: ``2 s`` for a product of two outputs.

    Args:
        y: ``[b, k]``.
        target: as for :func:`pull`.
        outputs: as for :func:`pull`.
        start: ``"one"`` for the derivative, or ``"value"`` for the parts.

    Returns:
        ``[b, k]``, or with ``outputs`` ``[o, b, k]``.

    Raises:
        TypeError: if the target is of a wrong kind.
        ValueError: if an output does not exist, or the choice or the start is none of those above.

    Example:
        >>> y = jnp.array([[3.0, 5.0], [2.0, 4.0]])
        >>> seeds(y, [1, 0]).tolist(), seeds(y, 1, start="value").tolist()
        ([[0.0, 1.0], [1.0, 0.0]], [[0.0, 5.0], [0.0, 4.0]])
        >>> seeds(y, lambda y: y[:, 0] * y[:, 1]).tolist()
        [[5.0, 3.0], [4.0, 2.0]]
        >>> seeds(y, lambda y: y[:, 0] - y[:, 1], start="value").tolist()
        [[3.0, -5.0], [2.0, -4.0]]
    """
    if start not in ("one", "value"):
        raise ValueError(f'start got {start!r}: give "one", the derivative, or "value", that times the outputs.')
    derivatives = _scored(y, _chosen(target, outputs, *y.shape))[1]
    if start == "one":
        return derivatives
    # an output that does not count may be infinite
    return jnp.where(derivatives == 0, derivatives, derivatives * jnp.broadcast_to(y, derivatives.shape))


def score(y: jax.Array, target: Target | Choice = None, *, outputs: Outputs = None) -> jax.Array:
    """The value that is explained.

    Args:
        y: ``[b, k]``.
        target: as for :func:`pull`.
        outputs: as for :func:`pull`.

    Returns:
        ``[b]``, or with ``outputs`` ``[o, b]``.

    Raises:
        TypeError: if the target is of a wrong kind.
        ValueError: if an output does not exist, or the choice is ambiguous.

    Example:
        >>> y = jnp.array([[3.0, 5.0], [2.0, 4.0]])
        >>> score(y, [1, 0]).tolist(), score(y, outputs="all").tolist()
        ([5.0, 2.0], [[3.0, 2.0], [5.0, 4.0]])
    """
    return _scored(y, _chosen(target, outputs, *y.shape))[0]


def mapped(fn: Callable[[Any], Any], items: Any, batch_size: int | None) -> Any:
    """``fn`` of every item along the leading axis, so many at a time.

    Args:
        fn: of one item.
        items: a pytree of arrays.
        batch_size: items at once; None takes one on a CPU, whose caches and cores a single one fills, elsewhere all.

    Example:
        >>> mapped(lambda a: a + 1, jnp.arange(3), batch_size=2).tolist()
        [1, 2, 3]
    """
    count = len(jax.tree.leaves(items)[0])
    if count == 1 or (batch_size is not None and batch_size >= count):
        return jax.vmap(fn)(items)
    if batch_size is None:
        one_by_one = functools.partial(jax.lax.map, fn)
        return jax.lax.platform_dependent(items, cpu=one_by_one, default=jax.vmap(fn))
    return jax.lax.map(fn, items, batch_size=batch_size)


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a number of things at once that is none.

    Raises:
        ValueError: if it is below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size got {batch_size}, at least 1 is needed, or None.")


@jax.jit
def _apply(model: Model, x: jax.Array) -> jax.Array:
    return model(x)


def _check_output(y: Any, images: int) -> None:
    shape = getattr(y, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != images:
        raise ValueError(
            f"The network returns {type(y).__name__ if shape is None else tuple(shape)} for {images} images, "
            "[batch, outputs] is needed: reduce its other axes, or take one of its results."
        )


def _chosen(target: Target | Choice, outputs: Outputs, images: int, count: int) -> Choice:
    """Numbers as arrays: what of them is known is checked, what is traced is left."""
    if isinstance(target, Choice) and outputs is None:
        return target
    if outputs is not None:
        if target is not None:
            raise ValueError("Both target and outputs were given: give one of them.")
        return Choice(None, _several(outputs, count))
    if callable(target):
        return Choice(as_pytree(target), None)
    if target is None:
        if count != 1:
            raise ValueError(
                f"The network has {count} outputs: give target=, one of 0 to {count - 1}, one per image or a function "
                'y[b, k] -> [b]; or outputs="all" or positions for a map of each.'
            )
        target = 0
    if _traced(target):
        found = jnp.asarray(target)
        _check_numbers("target", target, found.dtype)
    else:
        found = np.asarray(target)
        _check_numbers("target", target, found.dtype)
    if found.shape not in ((), (images,)):
        raise ValueError(f"target has shape {found.shape}: give one number, or one per image ({images}).")
    if not isinstance(found, jax.Array):
        known = sorted(set(found.ravel().tolist()))
        unknown = [index for index in known if not -count <= index < count]
        if unknown:
            raise ValueError(f"target got {unknown}; the network has {count} outputs: give one of 0 to {count - 1}.")
    return Choice(jnp.broadcast_to(_from_the_start(found, count), (images,)), None)


def _several(outputs: Outputs, count: int) -> jax.Array:
    if _traced(outputs):
        found = jnp.asarray(outputs)
        _check_numbers("outputs", outputs, found.dtype)
        if found.ndim != 1 or not found.size:
            raise ValueError(f'outputs has shape {found.shape}: give "all" or a list of positions.')
        return _from_the_start(found, count)
    if isinstance(outputs, str):
        indices = output_indices(outputs, count)
    else:
        found = np.asarray(outputs)
        if found.ndim != 1:
            raise ValueError(f'outputs got {outputs!r}: give "all" or a list of positions; for a single one target=.')
        if found.size:
            _check_numbers("outputs", outputs, found.dtype)
        indices = output_indices(found.tolist(), count)
    return jnp.asarray(indices, jnp.int32)


def _from_the_start(index: Any, count: int) -> jax.Array:
    index = jnp.asarray(index, jnp.int32)
    return jnp.where(index < 0, index + count, index)


def _traced(given: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given))


def _check_numbers(name: str, given: Any, dtype: Any) -> None:
    if not jnp.issubdtype(dtype, jnp.integer):
        needed = "a whole number, one per image, or a function" if name == "target" else 'whole numbers or "all"'
        raise TypeError(f"{name} got {given!r}, {needed} is needed.")


def _scored(y: jax.Array, choice: Choice) -> tuple[jax.Array, jax.Array]:
    """Values ``[..., b]`` and their derivatives ``[..., b, k]``."""
    if choice.outputs is not None:
        hot = _one_hot(choice.outputs, y)[:, None]
        return y.T.at[choice.outputs].get(mode="fill", fill_value=jnp.nan), jnp.broadcast_to(
            hot, (len(choice.outputs), *y.shape)
        )
    if callable(choice.target):
        values, back = jax.vjp(choice.target, y)
        if not isinstance(values, jax.Array) or values.shape != y.shape[:1]:
            raise ValueError(
                f"The target function returns {getattr(values, 'shape', type(values).__name__)} of outputs {y.shape}, "
                f"one value per image, ({len(y)},), is needed."
            )
        return values, back(jnp.ones_like(values))[0]
    return jnp.take_along_axis(y, choice.target[:, None], 1)[:, 0], _one_hot(choice.target, y)


def _one_hot(index: jax.Array, y: jax.Array) -> jax.Array:
    count = y.shape[1]
    hot = jax.nn.one_hot(index, count, dtype=y.dtype)
    # a number that was not there to be checked must not give a map that looks like an answer
    exists = (index >= 0) & (index < count)
    return jnp.where(exists[:, None], hot, jnp.full_like(hot, jnp.nan))
