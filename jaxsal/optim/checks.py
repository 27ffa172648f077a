"""What solvers accept as numbers."""

from typing import Any

import jax.core
import jax.numpy as jnp

from jaxsal.optim.applied import concrete


def between(solver: str, name: str, number: Any, low: float, high: float = jnp.inf) -> Any:
    """A number above ``low`` and at most ``high``, as Python's own; a traced one is not checked.

    Raises:
        ValueError: if it is out of its range.
    """
    number = concrete(number)
    if not isinstance(number, jax.core.Tracer) and not low < number <= high:
        needed = f"a number above {low:g}" if high == jnp.inf else f"a number in ({low:g}, {high:g}]"
        raise ValueError(f"{solver} got {name}={number}, {needed} is needed.")
    return number


def count(solver: str, name: str, number: Any, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        TypeError: if it is no whole number, or traced.
        ValueError: if it is too small.
    """
    number = concrete(number)
    if isinstance(number, jax.core.Tracer):
        raise TypeError(f"{solver} got a traced {name}, which is the size of an array: give a fixed number.")
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{solver} got {name}={number!r}, a whole number is needed.")
    if number < least:
        raise ValueError(f"{solver} got {name}={number}, at least {least} is needed.")
    return number
