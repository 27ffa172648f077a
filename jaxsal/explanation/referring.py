"""Scans that a method compares with, and what they are."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.data import Volume, check_space, prepare
from jaxsal.explanation.identifying import source
from jaxsal.methods import Method
from jaxsal.zoo import InputSpec


class Reference(NamedTuple):
    """A scan to compare with.

    Attributes:
        x: as the network sees it, ``[*space, c]``.
        source: what identifies it, plain data.
    """

    x: np.ndarray
    source: dict[str, Any]


def references_for(
    method: Method, spec: InputSpec, given: Sequence[str | os.PathLike | Volume]
) -> tuple[Reference, ...]:
    """The scans to compare with, checked and on the network's grid.

    Raises:
        ValueError: if the method needs some and there are none, or the other way round, or one is not in the network's
            space.
    """
    if isinstance(given, str | os.PathLike | Volume):
        given = [given]
    if "references" in method.needs and not given:
        raise ValueError(
            f"{method.title} compares the scan with others, and none was given: add --reference FILE once for each "
            "(from Python: references=[...]), scans of other people in the same space."
        )
    if given and "references" not in method.needs:
        raise ValueError(f"{method.title} compares the scan with no others: leave the references out.")
    return tuple(_reference(spec, image) for image in given)


def on_network_grid(volume: Volume, spec: InputSpec) -> np.ndarray:
    """A scan as the network sees it, ``[1, *space, c]``."""
    scaling = spec.scaling
    return prepare(volume, spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip)


def stacked(references: Sequence[Reference]) -> jax.Array | None:
    """Their images ``[n, *space, c]``; None where there are none."""
    return jnp.stack([reference.x for reference in references]) if references else None


def _reference(spec: InputSpec, image: str | os.PathLike | Volume) -> Reference:
    volume = image if isinstance(image, Volume) else Volume.load(image)
    check_space(volume, spec.space, spec.skull_stripped)
    return Reference(on_network_grid(volume, spec)[0], source(volume))
