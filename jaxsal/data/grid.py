"""From one voxel grid to another by their affines: exact where the grids share their points."""

import warnings
from typing import Literal, NamedTuple

import numpy as np

Interpolation = Literal["linear", "nearest", "continuous"]


class Lattice(NamedTuple):
    """How one grid's voxels are renumbered in another: ``j[d] = sign[d] * i[axes[d]] + offset[d]``.

    Attributes:
        axes: for each axis of the target, the axis of the source.
        sign: 1, or -1 where it is flipped.
        offset: where the source's voxel 0 lies, in target voxels.
    """

    axes: tuple[int, int, int]
    sign: tuple[int, int, int]
    offset: tuple[int, int, int]


def lattice(shape: tuple[int, ...], affine: np.ndarray, target: np.ndarray, tolerance: float = 0.01) -> Lattice | None:
    """Whether a grid's voxel centres are voxel centres of the target as well: permuted, flipped, shifted.

    Args:
        shape: of the source grid.
        affine: 4 x 4 of the source.
        target: 4 x 4 of the target.
        tolerance: largest distance allowed between centres, in target voxels, over the source's whole grid;
            headers store affines in float32.

    Returns:
        The renumbering, or None when voxels have to be interpolated.
    """
    step = np.linalg.inv(target) @ affine
    whole = np.rint(step)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones((1, corners.shape[1]))])
    if np.abs((step - whole) @ corners)[:3].max() > tolerance:
        return None
    linear = whole[:3, :3].astype(int)
    if not (np.abs(linear).sum(axis=0) == 1).all() or not (np.abs(linear).sum(axis=1) == 1).all():
        return None
    axes = tuple(int(a) for a in np.abs(linear).argmax(axis=1))
    sign = tuple(int(linear[d, a]) for d, a in enumerate(axes))
    return Lattice(axes, sign, tuple(int(o) for o in whole[:3, 3]))  # type: ignore[arg-type]


def renumber(array: np.ndarray, how: Lattice, shape: tuple[int, ...]) -> np.ndarray:
    """Move voxels to their places on the target grid; no value is changed, places outside the source are 0.

    Args:
        array: ``[*space]`` or ``[*space, t]``.
        how: from :func:`lattice`.
        shape: of the target grid.

    Returns:
        ``[*shape]`` or ``[*shape, t]``, a new array.
    """
    moved = array.transpose(*how.axes, *range(3, array.ndim))
    moved = moved[tuple(slice(None, None, sign) for sign in how.sign)]
    result = np.zeros((*shape[:3], *array.shape[3:]), array.dtype)
    to, take = [], []
    for size, available, sign, offset in zip(shape[:3], moved.shape[:3], how.sign, how.offset, strict=True):
        first = offset if sign == 1 else offset - (available - 1)
        start, stop = max(first, 0), min(first + available, size)
        to.append(slice(start, max(stop, start)))
        take.append(slice(start - first, max(stop, start) - first))
    result[tuple(to)] = moved[tuple(take)]
    return result


def resample(
    array: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, ...],
    target: np.ndarray,
    interpolation: Interpolation = "linear",
) -> np.ndarray:
    """An image on another grid, exact where the grids share their points, else interpolated by nilearn.

    Args:
        array: ``[*space]`` or ``[*space, t]``.
        affine: 4 x 4, its voxels to RAS millimetres.
        shape: of the target grid.
        target: 4 x 4 of the target grid.
        interpolation: ``"linear"`` never leaves the range of the image; ``"nearest"`` keeps labels;
            ``"continuous"`` is a cubic spline, which overshoots at edges.

    Returns:
        ``[*shape]`` or ``[*shape, t]``; float32 where interpolated, 0 outside the image.
    """
    how = lattice(array.shape, affine, target)
    if how is not None:
        return renumber(array, how, shape)
    import nibabel
    from nilearn.image import resample_img

    source = nibabel.Nifti1Image(np.asarray(array, np.float32), affine)
    with warnings.catch_warnings():
        # nilearn doubts that a mask is meant to be interpolated; a map that is mostly 0 looks like one
        warnings.filterwarnings("ignore", message="Resampling binary images", category=UserWarning)
        moved = resample_img(
            source,
            target_affine=np.asarray(target, float),
            target_shape=tuple(int(n) for n in shape[:3]),
            interpolation=interpolation,
            fill_value=0,
            force_resample=True,
            copy_header=True,
        )
    return np.asarray(moved.dataobj, np.float32)
