"""The part of the cohort around the measured structures: less than a quarter of the grid's voxels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxsal.training.pool import CELL, CELL_START, PAINTED, REACHED, Pool

FIRST, SHAPE = (16, 24, 8), (59, 69, 51)
"""First voxel on the grid and number of voxels, such that the cells of the network's five convolutions with 'same'
padding fall on the same voxels as they do on the whole grid."""

CELLS = tuple(-(-n // CELL) for n in SHAPE)
"""Cells of the occupancy maps that the part holds."""

JITTER = 1
"""Voxels by which a crop for volumes alone may be off, either way along each axis."""


class Crops(NamedTuple):
    """A batch.

    Attributes:
        images: stored grey levels, uint8[b, 59, 69, 51].
        shares: share of each structure in each cell, times 255, uint8[b, 15, 18, 13, 14].
    """

    images: np.ndarray
    shares: np.ndarray


def take(pool: Pool, members: np.ndarray) -> Crops:
    """The crops of some members.

    Args:
        pool: the cohort.
        members: their numbers, int[b].
    """
    cells = tuple(
        slice((a - CELL_START) // CELL, (a - CELL_START) // CELL + n) for a, n in zip(FIRST, CELLS, strict=True)
    )
    return Crops(
        np.stack([_image(pool, i, FIRST) for i in members]),
        np.stack([pool.occupancy[(i // PAINTED, *cells)] for i in members]),
    )


def shaken(pool: Pool, members: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Crops a little off their place, half of them seen in a mirror, and which ones those are.

    Args:
        pool: the cohort.
        members: their numbers, int[b].
        rng: draws places and mirrors.

    Returns:
        Stored grey levels uint8[b, 59, 69, 51] and bool[b].
    """
    flips = rng.random(len(members)) < 0.5
    images = []
    for member, flip in zip(members, flips, strict=True):
        first = np.add(FIRST, rng.integers(-JITTER, JITTER + 1, 3))
        images.append(_image(pool, member, tuple(first))[:: -1 if flip else 1])
    return np.stack(images), flips


def _image(pool: Pool, member: int, first: tuple[int, ...]) -> np.ndarray:
    voxels = tuple(slice(a - r.start, a - r.start + n) for a, r, n in zip(first, REACHED, SHAPE, strict=True))
    return pool.images[(member, *voxels)]
