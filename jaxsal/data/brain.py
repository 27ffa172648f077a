"""Where the brain is in a scan, from intensities alone: with or without skull, any contrast scale."""

import numpy as np
from scipy import ndimage

from jaxsal.data.volume import Volume

# Eroding by this much (voxels of a 2 mm grid) parts the brain from scalp and neck; what is left is grown back
# by one voxel more, which covers the cortex where it is thinner than the erosion.
_EROSIONS = (2.0, 3.0)
# Shares of the head's bright intensity; several, because fat is from half to twice as bright as white matter.
_LEVELS = (0.35, 0.45, 0.55)


def foreground(array: np.ndarray) -> np.ndarray:
    """Voxels that show something: head or brain, not air.

    A background of one exact value (scans without skull, defaced scans; 0 or not) is recognised on the faces
    of the image; otherwise air is noise, and Otsu's threshold parts it from tissue.

    Args:
        array: ``[*space]``.

    Returns:
        ``[*space]`` bool.

    Reference:
        Otsu, A threshold selection method from gray-level histograms, IEEE Trans. SMC 9, 1979,
        doi:10.1109/TSMC.1979.4310076.

    Example:
        >>> array = np.full((5, 5, 5), -7.0)
        >>> array[2, 2, 1:4] = 0.0, 50.0, 90.0
        >>> np.argwhere(foreground(array))[:, 2]
        array([1, 2, 3])
    """
    values, counts = np.unique(_faces(array), return_counts=True)
    difference = np.abs(array - values[counts.argmax()])
    shown = difference > 0
    if shown.any() and shown.mean() < 0.8:
        # interpolation leaves faint ripples around a stripped brain
        return difference > 0.05 * np.percentile(difference[shown], 98)
    return array > _otsu(np.minimum(array, np.percentile(array, 99.5)))


def solid_foreground(volume: Volume, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """The scan's foreground on a grid: its large pieces, holes filled.

    Small pieces are noise in the air or eyes; of a head, the scalp may well be a piece of its own.

    Args:
        volume: 3-D scan.
        shape: of the grid.
        affine: 4 x 4 of the grid.

    Returns:
        ``[*shape]`` bool.
    """
    shown = volume.like(foreground(volume.array).astype(np.float32)).resample(shape, affine).array > 0.5
    return np.asarray(ndimage.binary_fill_holes(_pieces(shown, 0.05))) if shown.any() else shown


def outside_share(intensity: np.ndarray, shown: np.ndarray) -> float:
    """How much bright tissue lies outside the brain, relative to the brain: scalp, face and neck.

    Args:
        intensity: scan on a 2 mm grid, air about 0.
        shown: its foreground there.

    Returns:
        About 0 for T1 scans without skull, .2 to 1 for whole heads.
    """
    bright = _bright(intensity, shown, _LEVELS[0])
    brain = _part(bright, _EROSIONS[1])
    return float((bright & ~brain).sum() / max(brain.sum(), 1))


def brain_candidates(intensity: np.ndarray, shown: np.ndarray) -> list[np.ndarray]:
    """Guesses at the brain within a head: bright voxels, eroded, the largest piece grown back, holes filled.

    No single brightness and erosion suits every scanner, so there is one guess for each combination.

    Args:
        intensity: scan on a 2 mm grid, air about 0.
        shown: its foreground there.

    Returns:
        bool masks on the same grid.
    """
    return [_part(_bright(intensity, shown, level), erosion) for level in _LEVELS for erosion in _EROSIONS]


def _bright(intensity: np.ndarray, shown: np.ndarray, level: float) -> np.ndarray:
    return shown & (intensity > level * np.percentile(intensity[shown], 99))


def _part(bright: np.ndarray, erosion: float) -> np.ndarray:
    # room for growing and closing, whatever the brain touches
    padded = np.pad(bright, 10)
    part = np.zeros_like(padded)
    around = bounding_box(padded, 1)
    core = _distance_inside(padded[around]) > erosion
    if core.any():
        part[around] = _pieces(core, 1.0)
        around = bounding_box(part, 10)
        grown = _distance_inside(~part[around]) <= erosion + 1
        part[around] = ndimage.binary_fill_holes(ndimage.binary_closing(grown, iterations=4))
    return part[10:-10, 10:-10, 10:-10]


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The part of the grid that holds the mask, and a margin."""
    along = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not along[0].size:
        return (slice(None),) * 3
    return tuple(slice(max(at[0] - margin, 0), at[-1] + margin + 1) for at in along)


def _distance_inside(mask: np.ndarray) -> np.ndarray:
    """Distance of each voxel of the mask to the nearest one outside, in voxels; 0 outside."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _pieces(mask: np.ndarray, share: float) -> np.ndarray:
    """Connected pieces of at least this share of the largest one."""
    pieces = np.empty(mask.shape, np.int32)
    ndimage.label(mask, output=pieces)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= share * sizes.max())[pieces] & mask


def _faces(array: np.ndarray) -> np.ndarray:
    return np.concatenate([np.take(array, side, axis).ravel() for axis in range(3) for side in (0, -1)])


def _otsu(array: np.ndarray, bins: int = 256) -> float:
    """The threshold with the largest variance between the two classes."""
    counts, edges = np.histogram(array, bins)
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = counts.cumsum()[:-1], (counts * centres).cumsum()
    above, rest = counts.sum() - below, moment[-1] - moment[:-1]
    gap = moment[:-1] / np.maximum(below, 1) - rest / np.maximum(above, 1)
    return float(edges[1:-1][(below * above * gap**2).argmax()])
