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

_VOXELS = tuple(slice(a - r.start, a - r.start + n) for a, r, n in zip(FIRST, REACHED, SHAPE, strict=True))
_SHARES = tuple(
    slice((a - CELL_START) // CELL, (a - CELL_START) // CELL + n) for a, n in zip(FIRST, CELLS, strict=True)
)


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
    return Crops(
        np.stack([pool.images[(i, *_VOXELS)] for i in members]),
        np.stack([pool.occupancy[(i // PAINTED, *_SHARES)] for i in members]),
    )
