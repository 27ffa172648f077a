"""From a scan to what the network sees: its grid, its intensities."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxsal.data.coarsen import onto_grid
from jaxsal.data.grid import Interpolation
from jaxsal.data.volume import Volume

DivideBy = Literal["brain-mean", "volume-mean", "maximum", "nothing"]


def prepare(
    volume: Volume,
    shape: Sequence[int],
    affine: Sequence[Sequence[float]] | np.ndarray | None,
    channels: int = 1,
    divide_by: DivideBy = "brain-mean",
    clip: tuple[float, float] | None = None,
    interpolation: Interpolation = "linear",
) -> np.ndarray:
    """The image batch of one scan, on the network's grid and with its intensity scaling.

    A scan that is finer than the grid is averaged down (:func:`jaxsal.data.coarsen.onto_grid`), one on the same
    points is moved without a change, others are interpolated.

    Args:
        volume: the scan, 3-D or 4-D with one frame.
        shape: of the network's grid.
        affine: 4 x 4 of the network's grid, RAS millimetres.
        channels: that the network expects; 1.
        divide_by: see :func:`scale_intensities`; taken on the network's grid.
        clip: lowest and highest value afterwards.
        interpolation: used when the grids do not share their points.

    Returns:
        ``[1, *shape, 1]`` float32.

    Raises:
        ValueError: if the scan is not plausible (:func:`check_scan`), the network is not one of 3-D
            single-channel images, or nothing of the scan lies in its field of view.
    """
    if affine is None or len(shape) != 3:
        raise ValueError(
            f"The network expects images of shape {tuple(shape)} {'without' if affine is None else 'with'} "
            f"a place in space, {volume.name} is a 3-D scan: a network whose record states a 3-D grid and "
            "its affine is needed."
        )
    if channels != 1:
        raise ValueError(f"The network expects {channels} channels, {volume.name} gives 1: stack them into x yourself.")
    check_scan(volume)
    moved = onto_grid(volume.frame(), tuple(shape), np.asarray(affine, float), interpolation)
    if not moved.array.any():
        raise ValueError(
            f"Nothing of {volume.name} lies in the network's field of view ({tuple(shape)} voxels): its "
            f"header places it at {_extent(volume)} mm. Register it to the network's space first."
        )
    return scale_intensities(moved.array, divide_by, clip)[None, ..., None]


def scale_intensities(
    array: np.ndarray, divide_by: DivideBy = "brain-mean", clip: tuple[float, float] | None = None
) -> np.ndarray:
    """Intensities as a network expects them: ``clip(array / divisor)``.

    Args:
        array: any shape.
        divide_by: ``"brain-mean"`` is the mean over voxels above zero, ``"volume-mean"`` the mean over all
            voxels, ``"maximum"`` the largest value, ``"nothing"`` is 1.
        clip: lowest and highest value afterwards.

    Returns:
        float32, same shape.

    Raises:
        ValueError: if the divisor is unknown, or not above zero.

    Example:
        >>> scale_intensities(np.array([0.0, 1.0, 3.0]), "brain-mean", (0.0, 1.2))
        array([0. , 0.5, 1.2], dtype=float32)
    """
    array = np.asarray(array, dtype=np.float32)
    if divide_by == "brain-mean":
        divisor = array[array > 0].mean(dtype=np.float64) if (array > 0).any() else 0.0
    elif divide_by == "volume-mean":
        divisor = array.mean(dtype=np.float64)
    elif divide_by == "maximum":
        divisor = array.max()
    elif divide_by == "nothing":
        divisor = 1.0
    else:
        raise ValueError(f"Unknown divisor {divide_by!r}: brain-mean, volume-mean, maximum or nothing.")
    if not divisor > 0:
        raise ValueError(
            f"Intensities cannot be divided by their {divide_by}, it is {divisor:.3g}: a scan whose tissue "
            "is brighter than its background of 0 is needed; add a constant or invert the contrast first."
        )
    scaled = array / np.float32(divisor)
    return scaled if clip is None else np.clip(scaled, np.float32(clip[0]), np.float32(clip[1]))


def check_scan(volume: Volume) -> None:
    """Refuse what cannot be a scan: several frames, no contrast, NaN, voxels of absurd size.

    Raises:
        ValueError: saying what it got, what is needed and how to mend it.
    """
    if volume.array.ndim == 4 and volume.array.shape[3] != 1:
        raise ValueError(
            f"{volume.name} has {volume.array.shape[3]} frames (shape {volume.array.shape}), one 3-D scan is "
            "needed: take one with Volume.frame(index), or average them with nilearn.image.mean_img."
        )
    bad = int((~np.isfinite(volume.array)).sum())
    if bad:
        raise ValueError(f"{volume.name} holds {bad} NaN or infinite voxels of {volume.array.size}: repair it first.")
    low, high = float(volume.array.min()), float(volume.array.max())
    if low == high:
        raise ValueError(
            f"{volume.name} is {low:g} in every voxel, there is nothing to see in it: "
            "check that it was written completely, and that it is the scan and not an empty mask."
        )
    if min(volume.zooms) < 0.1 or max(volume.zooms) > 20:
        sizes = " x ".join(f"{size:.3g}" for size in volume.zooms)
        raise ValueError(
            f"{volume.name} has voxels of {sizes} mm, between 0.1 and 20 mm are expected: the header may be "
            "in metres or micrometres, or miss its voxel sizes; correct its affine."
        )


def _extent(volume: Volume) -> str:
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape], indexing="ij")).reshape(3, -1)
    placed = volume.affine[:3, :3] @ corners + volume.affine[:3, 3:]
    return ", ".join(
        f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", placed.min(1), placed.max(1), strict=True)
    )
