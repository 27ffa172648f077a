"""One synthetic brain: image and the volumes that it was made with."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.data.synthetic.anatomy import Anatomy
from jaxsal.data.synthetic.appearance import paint, random_appearance
from jaxsal.data.synthetic.shape import deform, random_shape, volumes


class Brain(NamedTuple):
    """A synthetic scan with its true volumes.

    Attributes:
        image: float32[91, 109, 91] on the 2 mm MNI152 grid, RAS+, mean 1 over the voxels above zero.
        volumes: mm^3 in the order of ``OUTPUTS``, float32[14].
        brain: mm^3 of the whole brain with the fluid around it, float32[].
    """

    image: jax.Array
    volumes: jax.Array
    brain: jax.Array


def random_brain(key: jax.Array, anatomy: Anatomy) -> Brain:
    """One member of the cohort; the same key gives the same brain.

    Args:
        key: a JAX random key.
        anatomy: the template, from :func:`load_anatomy`.

    Returns:
        Image and volumes. A pure function: jit it, vmap it, or `jax.lax.map` it to hold one brain at a time.
    """
    k_shape, k_appearance = jax.random.split(key)
    deformed = deform(anatomy, random_shape(k_shape, anatomy))
    of, brain = volumes(deformed)
    return Brain(paint(deformed, random_appearance(k_appearance, anatomy)), of, brain)


def mirror(brain: Brain) -> Brain:
    """The brain seen in a mirror: left and right change places, exactly, because the grid is symmetric about 0."""
    swapped = brain.volumes.reshape(*brain.volumes.shape[:-1], -1, 2)[..., ::-1].reshape(brain.volumes.shape)
    return Brain(jnp.flip(brain.image, -3), swapped, brain.brain)
