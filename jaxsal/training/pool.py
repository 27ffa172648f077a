"""A cohort on disk: written by one process, read by another while it grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.data import synthetic
from jaxsal.data.synthetic.anatomy import GRID
from jaxsal.data.synthetic.shape import CORNER, EXTENT

QUANTUM = 0.01
"""Image intensity per stored grey level."""

REACHED = tuple(slice(c, c + n) for c, n in zip(CORNER, EXTENT, strict=True))
PAINTED = 2
"""Appearances per anatomy."""

CELLS, CELL, CELL_START = (23, 28, 23), 4, -1
"""Cells of the occupancy maps: those of the network's feature maps after the first block, 4 voxels from voxel -1 on."""


class Pool(NamedTuple):
    """A memory-mapped cohort.

    Attributes:
        images: the part of the grid that a brain can reach, uint8[n, 83, 101, 83] in units of ``QUANTUM``.
        volumes: mm^3, float32[n, 14].
        brain: mm^3, float32[n].
        occupancy: share of each structure in 8 mm cells, times 255, uint8[n / 2, 23, 28, 23, 14]; one map per
            anatomy, so members 2 i and 2 i + 1 share map i.
        seed: that the members were made from, int64[1].
        done: number of members written, int64[1].
    """

    images: np.ndarray
    volumes: np.ndarray
    brain: np.ndarray
    occupancy: np.ndarray
    seed: np.ndarray
    done: np.ndarray


def open_pool(folder: Path, size: int | None = None) -> Pool:
    """Open a cohort; create an empty one of the given size where there is none.

    Args:
        folder: where its files lie.
        size: number of members of a new cohort.

    Returns:
        The arrays, writable and memory-mapped.

    Raises:
        FileNotFoundError: there is none and no size was given.
    """
    if not (folder / "done.npy").exists():
        if size is None:
            raise FileNotFoundError(f"no cohort in {folder}; make one: python -m jaxsal.training.morphometry cohort")
        folder.mkdir(parents=True, exist_ok=True)
        shapes = {
            "images": ((size, *EXTENT), np.uint8),
            "volumes": ((size, len(synthetic.OUTPUTS)), np.float32),
            "brain": ((size,), np.float32),
            "occupancy": ((size // PAINTED, *CELLS, len(synthetic.OUTPUTS)), np.uint8),
            "seed": ((1,), np.int64),
            "done": ((1,), np.int64),
        }
        for name, (shape, dtype) in shapes.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape).flush()
    return Pool(*(np.load(folder / f"{name}.npy", mmap_mode="r+") for name in Pool._fields))


def write_pool(folder: Path, size: int, seed: int, report: Callable[[int, int], None] | None = None) -> Pool:
    """Make a cohort, or go on with one that was begun; member i depends on the seed and i alone.

    Every anatomy is painted twice, with independent appearances.

    Args:
        folder: where its files go.
        size: number of members, rounded up to an even number.
        seed: of the cohort.
        report: called with the number made and the number wanted.

    Returns:
        The finished cohort.

    Raises:
        ValueError: the folder holds a cohort of another seed, or one that was begun with a smaller size.
    """
    size += size % PAINTED
    pool = open_pool(folder, size)
    if pool.done[0] == 0:
        pool.seed[0] = seed
    if pool.seed[0] != seed or len(pool.images) < size:
        raise ValueError(
            f"{folder} holds a cohort of seed {pool.seed[0]} for {len(pool.images)} members, seed {seed} and {size}"
            " members were asked for: name another folder"
        )
    anatomy, key = synthetic.load_anatomy(), jax.random.key(seed)

    @jax.jit
    def make(index: jax.Array, anatomy: synthetic.Anatomy) -> tuple[jax.Array, ...]:
        k_shape, *k_paint = jax.random.split(jax.random.fold_in(key, index), 1 + PAINTED)
        deformed = synthetic.deform(anatomy, synthetic.random_shape(k_shape, anatomy))
        images = jax.lax.map(
            lambda k: synthetic.paint(deformed, synthetic.random_appearance(k, anatomy)), jnp.stack(k_paint)
        )
        stored = jnp.clip(jnp.rint(images[(slice(None), *REACHED)] / QUANTUM), 0, 255).astype(jnp.uint8)
        shares = jnp.rint(255.0 * synthetic.occupancy(deformed, CELL_START, CELL, CELLS)).astype(jnp.uint8)
        return stored, *synthetic.volumes(deformed), shares

    for start in range(int(pool.done[0]), size, PAINTED):
        images, volumes, brain, shares = make(jnp.asarray(start // PAINTED, jnp.uint32), anatomy)
        pool.images[start : start + PAINTED] = images
        pool.volumes[start : start + PAINTED] = volumes
        pool.brain[start : start + PAINTED] = brain
        pool.occupancy[start // PAINTED] = shares
        pool.done[0] = start + PAINTED
        if report is not None:
            report(start + PAINTED, size)
    return pool


def unpack(images: jax.Array) -> jax.Array:
    """Stored images uint8[b, 83, 101, 83] as network input float32[b, 91, 109, 91, 1]."""
    margins = [(s.start, n - s.stop) for s, n in zip(REACHED, GRID, strict=True)]
    return jnp.pad(images.astype(jnp.float32) * QUANTUM, [(0, 0), *margins])[..., None]
