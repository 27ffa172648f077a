"""What a mask is to keep or to destroy: the value that is explained, and how much of it is left."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxsal.masks.terms import absolute

Score = Literal["probability", "output", "closeness"]
Game = Literal["deletion", "preservation"]


def probability(y: jax.Array, index: jax.Array) -> jax.Array:
    """Softmax of the logits ``y[n, k]`` at one class, ``[n]``; of logarithms of probabilities, these themselves."""
    return jax.nn.softmax(y, axis=-1)[:, index]


def output(y: jax.Array, index: jax.Array) -> jax.Array:
    """One output of ``y[n, k]`` as it is, ``[n]``."""
    return y[:, index]


def closeness(value: jax.Array, goal: jax.Array, sigma: jax.Array) -> jax.Array:
    """How close an output is to a goal, ``-|value - goal| / sigma``, 0 where it is there."""
    return -absolute(value - goal) / sigma


def of_callable(target: Callable[[jax.Array], jax.Array], y: jax.Array, index: jax.Array) -> jax.Array:
    """A user's own value, ``y[n, k] -> [n]``; the index is not used."""
    found = jnp.asarray(target(y))
    if found.shape != y.shape[:1]:
        raise ValueError(f"The target returns {found.shape} for outputs {y.shape}, one number per image is needed.")
    return found


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a word that is none of the choices.

    Raises:
        ValueError: with those that there are.
    """
    if value not in choices:
        raise ValueError(f"{name} got {value!r}: give one of {', '.join(map(repr, choices))}.")
