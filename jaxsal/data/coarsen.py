"""A scan on a coarser grid: averaged before it is sampled, so that its noise does not alias."""

from collections.abc import Iterable

import numpy as np

from jaxsal.data.grid import Interpolation, lattice
from jaxsal.data.volume import Volume

_FWHM = np.sqrt(8 * np.log(2))
_LEAST_SHARE = 0.5


def onto_grid(
    volume: Volume, shape: tuple[int, ...], affine: np.ndarray, interpolation: Interpolation = "linear"
) -> Volume:
    """A scan on another grid, smoothed first along the axes on which the grid is coarser.

    With voxels of size s along an axis and t of the grid in the same direction, a Gaussian of full width at half
    maximum sqrt(t^2 - s^2) brings the resolution from s to t; nothing is smoothed where t <= s. Air that is
    exactly 0 stays so: a voxel of which less than half lies in the scan's non-zero part is 0.

    Args:
        volume: 3-D scan.
        shape: of the grid.
        affine: 4 x 4 of the grid.
        interpolation: as in :meth:`Volume.resample`.

    Returns:
        The scan on the grid; exactly its own voxels where the grids share spacing and points.

    Reference:
        Cardoso et al., Scale factor point spread function matching: beyond aliasing in image resampling,
        MICCAI 2015, doi:10.1007/978-3-319-24571-3_81.
    """
    sigma = smoothing(volume, affine) / volume.zooms
    if not sigma.any():
        return volume.resample(shape, affine, interpolation)
    from scipy.ndimage import gaussian_filter

    smooth = volume.like(gaussian_filter(volume.array.astype(np.float32), sigma))
    share = volume.like(gaussian_filter((volume.array != 0).astype(np.float32), sigma))
    moved = smooth.resample(shape, affine, interpolation)
    inside = share.resample(shape, affine, "linear").array > _LEAST_SHARE
    return moved.like(np.where(inside, moved.array, np.float32(0)))


def told(volume: Volume, affine: np.ndarray, grid: str) -> str:
    """What :func:`onto_grid` does to a scan, in a sentence.

    Args:
        volume: 3-D scan.
        affine: 4 x 4 of the grid.
        grid: what to call it.
    """
    if lattice(volume.shape, volume.affine, affine) is not None:
        return f"The scan's voxels were taken over to {grid} without interpolation."
    scan = f"The scan, {by(volume.shape)} voxels of {by(volume.zooms)} mm,"
    sigma = smoothing(volume, affine)
    if not sigma.any():
        return f"{scan} was resampled linearly to {grid}."
    return (
        f"{scan} was smoothed along its axes by Gaussians of standard deviation {by(sigma)} mm and resampled linearly "
        f"to {grid}; voxels of which {100 * _LEAST_SHARE:.0f} % or less lie in the scan's non-zero part were set to 0."
    )


def smoothing(volume: Volume, affine: np.ndarray) -> np.ndarray:
    """Standard deviation of the Gaussian along each axis of the scan, in millimetres; 0 where it is not smoothed.

    Args:
        volume: 3-D scan.
        affine: 4 x 4 of the grid.
    """
    own = np.array(volume.zooms)
    along = volume.affine[:3, :3] / own
    target = np.linalg.norm(affine[:3, :3].T @ along, axis=0)
    fwhm = np.sqrt(np.maximum(target**2 - own**2, 0))
    # spacings in headers are rounded
    return np.where(fwhm > 0.1 * own, fwhm / _FWHM, 0.0)


def by(sizes: Iterable[float]) -> str:
    """Sizes along the axes, for people.

    Example:
        >>> by((91, 109, 91)), by((1.0, 0.9375, 1.0))
        ('91 x 109 x 91', '1 x 0.938 x 1')
    """
    return " x ".join(f"{size:.3g}" for size in sizes)
