"""A cohort on disk: written by one process, read by another while it grows."""

from __future__ import annotations

import time
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

_REACHED = tuple(slice(c, c + n) for c, n in zip(CORNER, EXTENT, strict=True))
_PAINTED = 2  # appearances per anatomy


class Pool(NamedTuple):
    """A memory-mapped cohort.

    Attributes:
        images: the part of the grid that a brain can reach, uint8[n, 83, 101, 83] in units of ``QUANTUM``.
        volumes: mm^3, float32[n, 14].
        brain: mm^3, float32[n].
        done: number of members written, int64[1].
    """

    images: np.ndarray
    volumes: np.ndarray
    brain: np.ndarray
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
    """
    size += size % _PAINTED
    pool = open_pool(folder, size)
    anatomy, key = synthetic.load_anatomy(), jax.random.key(seed)

    @jax.jit
    def make(index: jax.Array, anatomy: synthetic.Anatomy) -> tuple[jax.Array, jax.Array, jax.Array]:
        k_shape, *k_paint = jax.random.split(jax.random.fold_in(key, index), 1 + _PAINTED)
        deformed = synthetic.deform(anatomy, synthetic.random_shape(k_shape, anatomy))
        images = jax.lax.map(
            lambda k: synthetic.paint(deformed, synthetic.random_appearance(k, anatomy)), jnp.stack(k_paint)
        )
        stored = jnp.clip(jnp.rint(images[(slice(None), *_REACHED)] / QUANTUM), 0, 255).astype(jnp.uint8)
        return stored, *synthetic.volumes(deformed)

    for start in range(int(pool.done[0]), size, _PAINTED):
        images, volumes, brain = make(jnp.asarray(start // _PAINTED, jnp.uint32), anatomy)
        pool.images[start : start + _PAINTED] = images
        pool.volumes[start : start + _PAINTED] = volumes
        pool.brain[start : start + _PAINTED] = brain
        pool.done[0] = start + _PAINTED
        if report is not None:
            report(start + _PAINTED, size)
    return pool


def wait_for(pool: Pool, count: int, seconds: float = 1.0) -> None:
    """Block until the cohort has so many members; another process is writing them."""
    while int(pool.done[0]) < count:
        time.sleep(seconds)


def unpack(images: jax.Array) -> jax.Array:
    """Stored images uint8[b, 83, 101, 83] as network input float32[b, 91, 109, 91, 1]."""
    margins = [(s.start, n - s.stop) for s, n in zip(_REACHED, GRID, strict=True)]
    return jnp.pad(images.astype(jnp.float32) * QUANTUM, [(0, 0), *margins])[..., None]
