"""Properties that every method of attribution has, as checks for your own.

A check is a function ``(method, model, x)`` that raises AssertionError; the method is called as
``method(model, x, target, *, outputs=, batch_size=)``: give what else it needs by ``functools.partial``. All of them at
once are :func:`check_method`; one by one they suit ``pytest.mark.parametrize``::

    @pytest.mark.parametrize("check", testing.ALWAYS, ids=lambda check: check.__name__)
    def test_mine(check):
        check(mine, model, x)
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxsal.model import Model, as_pytree

Method = Callable[..., jax.Array]
Check = Callable[[Method, Model, jax.Array], None]

_TOLERANCE = 1e-4


def shape_and_dtype(method: Method, model: Model, x: jax.Array) -> None:
    """A map has the shape of ``x``, or that without channels, the dtype of ``x``, and finite values."""
    found = method(model, x, 0)
    _need(found.shape in (x.shape, x.shape[:-1]), f"The map has shape {found.shape}; x has {x.shape}.")
    _need(found.dtype == x.dtype, f"The map has dtype {found.dtype}; x has {x.dtype}.")
    _need(bool(jnp.isfinite(found).all()), "The map holds NaN or infinite values.")


def one_by_one(method: Method, model: Model, x: jax.Array) -> None:
    """An image's map does not depend on the other images of the batch."""
    alone = jnp.concatenate([method(model, x[i : i + 1], 0) for i in range(len(x))])
    _close(method(model, x, 0), alone, "of a batch against those of its images one by one")


def every_output(method: Method, model: Model, x: jax.Array) -> None:
    """``outputs="all"``, one output at a time, gives the maps that targets give one after the other."""
    looped = jnp.stack([method(model, x, k) for k in range(_outputs(model, x))])
    _close(method(model, x, outputs="all", batch_size=1), looped, 'with outputs="all" against a loop over targets')


def targets_of_images(method: Method, model: Model, x: jax.Array) -> None:
    """One target for each image gives each image the map of its own."""
    count = _outputs(model, x)
    targets = [i % count for i in range(len(x))]
    expected = jnp.stack([method(model, x, k)[i] for i, k in enumerate(targets)])
    _close(method(model, x, jnp.asarray(targets)), expected, "with a target for each image against one for all")


def under_jit(method: Method, model: Model, x: jax.Array) -> None:
    """Compiled as a part of a larger program, the map is the same."""
    compiled = jax.jit(lambda model, x: method(model, x, 0))(as_pytree(model), x)
    _close(compiled, method(model, x, 0), "under jax.jit against that without")


def no_new_trace(method: Method, model: Model, x: jax.Array) -> None:
    """Other weights, other images of the same shape and other targets are no new program."""
    traced = []

    def counting(model: Model, x: jax.Array) -> jax.Array:
        traced.append(None)
        return model(x)

    model = as_pytree(model)
    method(Partial(counting, model), x, 0)
    before = len(traced)
    others = jax.tree.map(lambda leaf: leaf * jnp.asarray(1.5, leaf.dtype) if _is_float(leaf) else leaf, model)
    method(Partial(counting, others), x + 1, _outputs(model, x) - 1)
    _need(len(traced) == before, "Other weights, images or targets had the network traced again.")


def exact_where_linear(method: Method, model: Model, x: jax.Array) -> None:
    """For a linear network without bias, whatever the one given, the map is the image times the weights."""
    del model
    count = int(np.prod(x.shape[1:]))
    weights = np.random.default_rng(0).normal(size=(count, 2))
    weights = jnp.asarray(np.sign(weights) * (0.5 + np.abs(weights)), x.dtype)
    found = method(Partial(_linear, weights), x, 1)
    _close(found, x * weights[:, 1].reshape(1, *x.shape[1:]), "of a linear network against its weights times the image")


def conserves(method: Method, model: Model, x: jax.Array) -> None:
    """The map sums to the output: for methods that share it out."""
    _sums_to(method, model, x, model(x)[:, 0], "output")


def completes(method: Method, model: Model, x: jax.Array) -> None:
    """The map sums to the output less that for an image of zeros: for methods that compare with it."""
    _sums_to(method, model, x, model(x)[:, 0] - model(jnp.zeros_like(x))[:, 0], "output less that for zeros")


def repeats_by_key(method: Method, model: Model, x: jax.Array) -> None:
    """A random method gives the same map for the same key, and another one for another."""
    first, again, other = (method(model, x, 0, key=jax.random.key(seed)) for seed in (0, 0, 1))
    _need(bool((first == again).all()), "Twice the same key gave two maps.")
    _need(bool((first != other).any()), "Two keys gave the same map.")


ALWAYS: tuple[Check, ...] = (
    shape_and_dtype, one_by_one, every_output, targets_of_images, under_jit, no_new_trace
)  # fmt: skip
"""What holds for every method; ``one_by_one`` not for a random one that draws for the whole batch."""


def check_method(method: Method, model: Model, x: jax.Array, *, checks: Sequence[Check] = ALWAYS) -> None:
    """Check a method of attribution on a network.

    Args:
        method: ``(model, x, target=None, *, outputs=None, batch_size=None) -> map``.
        model: callable pytree ``x[b, *space, c] -> y[b, k]``, small, with two outputs or more.
        x: ``[b, *space, c]``, two images or more.
        checks: of this module, or your own.

    Raises:
        AssertionError: if one does not hold; every one that does not is named.

    Example:
        >>> import jaxsal
        >>> model = Partial(lambda w, x: jnp.tanh(x.reshape(len(x), -1) @ w), jnp.ones((4, 2)))
        >>> check_method(jaxsal.saliency, model, jnp.linspace(0, 1, 8).reshape(2, 4, 1))
        >>> check_method(lambda model, x, target=None, **_: x[:1], model, jnp.ones((2, 4, 1)), checks=ALWAYS[:1])
        Traceback (most recent call last):
        ...
        AssertionError: shape_and_dtype: The map has shape (1, 4, 1); x has (2, 4, 1).
    """
    failed = []
    for check in checks:
        try:
            check(method, model, x)
        except AssertionError as error:
            failed.append(f"{check.__name__}: {error}")
    if failed:
        raise AssertionError("\n".join(failed))


def _outputs(model: Model, x: jax.Array) -> int:
    return jax.eval_shape(lambda x: model(x), x).shape[1]


def _linear(weights: jax.Array, x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1) @ weights


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _need(holds: bool, otherwise: str) -> None:
    # not an assert, which python -O leaves out
    if not holds:
        raise AssertionError(otherwise)


def _close(found: jax.Array, expected: jax.Array, what: str) -> None:
    _need(found.shape == expected.shape, f"The maps {what}: shapes {found.shape} and {expected.shape}.")
    apart, largest = float(jnp.abs(found - expected).max()), float(jnp.abs(expected).max())
    _need(apart <= _TOLERANCE * largest, f"The maps {what}: {apart:.3g} apart, the largest value is {largest:.3g}.")


def _sums_to(method: Method, model: Model, x: jax.Array, total: jax.Array, what: str) -> None:
    found = method(model, x, 0)
    sums = found.sum(tuple(range(1, found.ndim)))
    scale = jnp.abs(found).sum(tuple(range(1, found.ndim))) + jnp.abs(total)
    worst = int(jnp.argmax(jnp.abs(sums - total) / scale))
    holds = bool((jnp.abs(sums - total) <= _TOLERANCE * scale).all())
    _need(holds, f"The map of image {worst} sums to {float(sums[worst]):.6g}; its {what} is {float(total[worst]):.6g}.")
