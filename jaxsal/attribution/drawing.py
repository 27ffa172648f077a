"""What methods that draw random numbers are given."""

from typing import Any

import jax
import jax.numpy as jnp


def checked_key(key: Any) -> jax.Array:
    """A random key.

    Raises:
        TypeError: if it is none.
    """
    is_key = isinstance(key, jax.Array) and (
        (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ())
        or (key.dtype == jnp.uint32 and key.shape == (2,))
    )
    if not is_key:
        raise TypeError(f"key got {key!r}, a random key is needed: jax.random.key(0).")
    return key


def checked_samples(samples: int, name: str = "samples") -> int:
    """How often something is done, as Python's own number.

    Raises:
        ValueError: if it is below 1 or no whole number.
    """
    if samples != int(samples) or samples < 1:
        raise ValueError(f"{name} got {samples}, a whole number of at least 1 is needed.")
    return int(samples)
