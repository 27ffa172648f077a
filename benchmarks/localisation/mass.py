"""Where the mass of a map lies, and the controls that need no network. Everything is on the mask's grid.

Upsampling is linear, so the mass of an upsampled map ``U m`` inside a region with indicator ``s`` is
``<U m, s> = <m, U^T s>``: the regions are brought to the mask's grid once, exactly, and a map of 10^6 voxels is
never made. Row 0 of ``weights[1 + s, *t]`` is the brain, the others are the structures within it.
"""

from typing import NamedTuple

import numpy as np

_NEAREST = 2  # mask voxels; a copy shifted by less overlaps with the mask itself


class Copies(NamedTuple):
    """Shifted and mirrored copies of a mask.

    Attributes:
        shift: circular, within the brain's bounding box, in mask voxels, int[n, 3].
        mirrored: whether left and right are exchanged first, bool[n].
    """

    shift: np.ndarray
    mirrored: np.ndarray


def ratios(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of a map's mass in each structure over the structure's share of the brain's voxels.

    ``(<m, w_s> / <m, w_0>) / (sum w_s / sum w_0)``; 1 for a uniform map.

    Args:
        maps: at or above zero, ``[..., *t]``.
        weights: ``[1 + s, *t]``.

    Returns:
        ``[..., s]``; NaN for a map without mass in the brain.
    """
    return mass_ratios(masses(maps, weights), masses(np.ones(weights.shape[1:]), weights))


def masses(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mass in the brain and in each structure, ``[..., 1 + s]``."""
    maps = np.asarray(maps, np.float64)
    lead = maps.shape[: maps.ndim - (weights.ndim - 1)]
    regions = weights.reshape(len(weights), -1).astype(np.float64)
    return (maps.reshape(-1, regions.shape[1]) @ regions.T).reshape(*lead, len(weights))


def mass_ratios(mass: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """The ratios of :func:`ratios` from masses ``[..., 1 + s]`` and the numbers of voxels ``[1 + s]``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (mass[..., 1:] / mass[..., :1]) / (voxels[1:] / voxels[0])


def ipsilateral_share(mass: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mass in each output's own structure over the mass in this structure of both sides.

    Args:
        mass: ``[..., k, 1 + s]``.
        own: column of each output's structure, int[k] (0 is the first structure).
        other: column of the same structure on the other side, int[k].
    """
    lanes = np.arange(len(own))
    here, there = mass[..., lanes, 1 + own], mass[..., lanes, 1 + other]
    with np.errstate(invalid="ignore", divide="ignore"):
        return here / (here + there)


def spread(map: np.ndarray, brain: np.ndarray, centres: np.ndarray) -> float:
    """Root mean square distance of a map's mass in the brain from its own centre, in the unit of ``centres``."""
    mass = (map * brain).ravel()
    at = centres.reshape(-1, centres.shape[-1])
    mean = mass @ at / mass.sum()
    return float(np.sqrt(mass @ ((at - mean) ** 2).sum(1) / mass.sum()))


def blob_of_spread(map: np.ndarray, brain: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """A Gaussian at the brain's centre of mass with the map's mass and spread inside the brain.

    Args:
        map: at or above zero, ``[*t]``.
        brain: row 0 of the weights, ``[*t]``.
        centres: of the mask's voxels, ``[*t, rank]``, mm.

    Returns:
        ``[*t]``; a map as wide as the brain or wider gives the uniform map.
    """
    from scipy.optimize import brentq

    distance = _distance_from_centre(brain, centres)

    def gaussian(log_sigma: float) -> np.ndarray:
        return np.exp(-0.5 * (distance / np.exp(log_sigma)) ** 2)

    wanted = spread(map, brain, centres)
    narrow, wide = np.log(distance[brain > 0].min() + 0.5), np.log(50 * distance[brain > 0].max())

    def excess(log_sigma: float) -> float:
        return spread(gaussian(log_sigma), brain, centres) - wanted

    if excess(wide) <= 0:
        blob = np.ones_like(brain)
    elif excess(narrow) >= 0:
        blob = gaussian(narrow)
    else:
        blob = gaussian(brentq(excess, narrow, wide))  # type: ignore[arg-type]
    return _with_mass(blob, map, brain)


def blob_of_values(map: np.ndarray, brain: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The map's own values put in order: the largest at the brain's centre of mass, falling with the distance.

    The same histogram, hence exactly as peaked as the map; arguments as in :func:`blob_of_spread`.
    """
    inside = brain > 0
    order = np.argsort(_distance_from_centre(brain, centres)[inside], kind="stable")
    values = np.empty(len(order))
    values[order] = np.sort(map[inside])[::-1]
    blob = np.zeros_like(map, dtype=np.float64)
    blob[inside] = values
    return _with_mass(blob, map, brain)


def _with_mass(blob: np.ndarray, map: np.ndarray, brain: np.ndarray) -> np.ndarray:
    mass = (blob * brain).sum()
    return blob * ((map * brain).sum() / mass) if mass > 0 else blob


def _distance_from_centre(brain: np.ndarray, centres: np.ndarray) -> np.ndarray:
    centre = (brain[..., None] * centres).reshape(-1, centres.shape[-1]).sum(0) / brain.sum()
    return np.sqrt(((centres - centre) ** 2).sum(-1))


def brain_box(brain: np.ndarray) -> tuple[slice, ...]:
    """Smallest box that holds every mask voxel with a part in the brain; ``[..., *t]``, leading axes joined."""
    rank = 3 if brain.ndim > 3 else brain.ndim
    found = np.argwhere((brain > 0).reshape(-1, *brain.shape[-rank:]).any(0))
    return tuple(slice(int(low), int(high) + 1) for low, high in zip(found.min(0), found.max(0), strict=True))


def draw_copies(box: tuple[slice, ...], count: int, seed: int) -> Copies:
    """Random shifts of at least two mask voxels along some axis; every second copy is also mirrored.

    The same copies serve all scans, so that the mean over scans has its own null distribution.
    """
    sizes = np.array([s.stop - s.start for s in box])
    if sizes.max() < 2 * _NEAREST:
        raise ValueError(f"The brain spans {tuple(sizes)} mask voxels: shifts by {_NEAREST} need {2 * _NEAREST}.")
    drawn = np.random.default_rng(seed).integers(0, sizes, (100 * count, len(sizes)))
    far = np.minimum(drawn, sizes - drawn).max(1) >= _NEAREST
    return Copies(drawn[far][:count], np.arange(count) % 2 == 1)


def copy_ratios(
    maps: np.ndarray, weights: np.ndarray, mirrored: np.ndarray, box: tuple[slice, ...], copies: Copies
) -> np.ndarray:
    """Ratios of all copies of each map.

    Args:
        maps: ``[k, *t]``.
        weights: ``[1 + s, *t]``.
        mirrored: weights of the regions with left and right exchanged: mirroring a map or the regions is the same.
        box: see :func:`brain_box`.
        copies: see :func:`draw_copies`.

    Returns:
        ``[n, k, s]``.
    """
    maps, axes = maps[(slice(None), *box)], tuple(range(1, maps.ndim))
    voxels = weights.reshape(len(weights), -1).sum(1)
    regions = [w[(slice(None), *box)].astype(np.float64) for w in (weights, mirrored)]
    found = [
        masses(np.roll(maps, shift, axes), regions[int(flip)])
        for shift, flip in zip(copies.shift, copies.mirrored, strict=True)
    ]
    return mass_ratios(np.stack(found), voxels)


def p_value(observed: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """``(1 + #copies with a ratio at or above the observed one) / (1 + #copies)``; copies lead."""
    return (1 + (copies >= observed[None]).sum(0)) / (1 + len(copies))
