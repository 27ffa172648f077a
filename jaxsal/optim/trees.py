"""Products and norms over all leaves together."""

import chex
import jax
import jax.numpy as jnp
import optax


def dot(one: chex.ArrayTree, other: chex.ArrayTree) -> jax.Array:
    """``<one, other>``."""
    return jnp.asarray(optax.tree.vdot(one, other))


def norm(tree: chex.ArrayTree) -> jax.Array:
    """``||tree||_2``."""
    return jnp.asarray(optax.tree.norm(tree))
