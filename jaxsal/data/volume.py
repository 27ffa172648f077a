"""A scan or a map in space: voxels, and where they lie in millimetres."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxsal.data.files import write_atomic
from jaxsal.data.grid import Interpolation, Lattice, lattice, resample
from jaxsal.data.reading import check_affine, read_image, suffix_of


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """An image in space.

    Attributes:
        array: ``[*space]`` or ``[*space, t]``, real numbers.
        affine: 4 x 4, voxel indices to millimetres, x towards the right, y to the front, z up (RAS).
        header: nibabel header of the file that it comes from, None for an image made in memory.
        source: the file that it, or the scan that it explains, comes from; named in messages and never
            written to.

    Raises:
        TypeError: if the array is not of real numbers.
        ValueError: if the rank is not 3 or 4, or the affine is not 4 x 4, finite and invertible.

    Example:
        >>> volume = Volume(np.zeros((4, 5, 6), np.float32), np.diag([-2.0, 2.0, 2.0, 1.0]))
        >>> volume.axcodes, volume.zooms, volume.canonical().axcodes
        (('L', 'A', 'S'), (2.0, 2.0, 2.0), ('R', 'A', 'S'))
    """

    array: np.ndarray
    affine: np.ndarray
    header: Any = None
    source: Path | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray):
            object.__setattr__(self, "array", np.asarray(self.array))
        object.__setattr__(self, "affine", np.array(self.affine, dtype=float))
        if not (np.issubdtype(self.array.dtype, np.number) or self.array.dtype == bool) or np.iscomplexobj(self.array):
            raise TypeError(f"{self.name} has dtype {self.array.dtype}, real numbers are needed.")
        if self.array.ndim not in (3, 4) or 0 in self.array.shape:
            raise ValueError(
                f"{self.name} has shape {self.array.shape}, [x, y, z] or [x, y, z, t] is needed: "
                "index or squeeze the array first."
            )
        check_affine(self.affine, self.name)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Volume":
        """Read ``.nii``, ``.nii.gz``, ``.mgz`` or ``.mgh``.

        Args:
            path: of the file.

        Returns:
            The image, float32, on the file's own grid and orientation.

        Raises:
            FileNotFoundError: if there is no such file.
            IsADirectoryError: if it is a folder.
            ValueError: if it cannot be read as a 3-D or 4-D image of finite real numbers in space; the
                message says why and how to mend it.
        """
        raw = read_image(path)
        return cls(raw.array, raw.affine, raw.header.copy(), Path(path))

    @property
    def name(self) -> str:
        """What messages call it."""
        return "The image" if self.source is None else str(self.source)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid, in voxels, without frames."""
        return self.array.shape[:3]  # type: ignore[return-value]

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel sizes along the array's axes, in millimetres."""
        return tuple(float(size) for size in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))  # type: ignore[return-value]

    @property
    def axcodes(self) -> tuple[str, str, str]:
        """Where each axis leads, e.g. ``("L", "A", "S")`` (nibabel's codes)."""
        import nibabel

        return nibabel.orientations.aff2axcodes(self.affine)  # type: ignore[return-value]

    @property
    def oriented(self) -> bool:
        """Whether the file says which side is left: NIfTI's sform or qform code, or MGH's RAS flag, is set.

        True for an image made in memory, whose affine was given on purpose.
        """
        if self.header is None:
            return True
        keys = set(self.header.keys())
        if "sform_code" in keys:
            return int(self.header["sform_code"]) > 0 or int(self.header["qform_code"]) > 0
        return int(self.header["goodRASFlag"]) > 0 if "goodRASFlag" in keys else True

    def like(self, array: np.ndarray) -> "Volume":
        """Another array on the same grid, with the same header and source.

        Args:
            array: ``[*space]`` or ``[*space, t]``, ``space`` that of this image.

        Raises:
            ValueError: if the grid is another one.
        """
        array = np.asarray(array)
        if array.shape[:3] != self.shape:
            raise ValueError(
                f"An array of shape {array.shape} does not lie on the grid {self.shape} of {self.name}: "
                "make a Volume with its own affine and call on_grid_of()."
            )
        return dataclasses.replace(self, array=array)

    def frame(self, index: int = 0) -> "Volume":
        """One 3-D frame of a 4-D image; a 3-D image is its own frame 0."""
        frames = self.array if self.array.ndim == 4 else self.array[..., None]
        if not -frames.shape[3] <= index < frames.shape[3]:
            raise IndexError(f"{self.name} has {frames.shape[3]} frames, there is no frame {index}.")
        return dataclasses.replace(self, array=frames[..., index])

    def canonical(self) -> "Volume":
        """The same voxels in RAS order: axes permuted and flipped, nothing interpolated.

        Axes lead towards right, front and up as closely as the grid allows; an oblique grid stays oblique.
        """
        import nibabel

        order = nibabel.orientations.io_orientation(self.affine)
        array = nibabel.orientations.apply_orientation(self.array, order)
        affine = self.affine @ nibabel.orientations.inv_ornt_aff(order, self.shape)
        return dataclasses.replace(self, array=np.ascontiguousarray(array), affine=affine)

    def resample(self, shape: tuple[int, ...], affine: np.ndarray, interpolation: Interpolation = "linear") -> "Volume":
        """The image on another grid, at the same place in millimetres.

        Where the grid's points are points of this one (permuted, flipped, cropped, padded), voxels are moved
        and keep their values and dtype; elsewhere nilearn interpolates. Outside the image the result is 0.
        This follows the header; it does not register one brain to another.

        Args:
            shape: of the target grid, 3 numbers.
            affine: 4 x 4, target voxels to RAS millimetres.
            interpolation: ``"linear"``, ``"nearest"`` (labels) or ``"continuous"`` (cubic spline).
        """
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"The target grid has the shape {tuple(shape)}, three positive numbers are needed.")
        affine = np.asarray(affine, dtype=float)
        check_affine(affine, "The target grid")
        array = resample(self.array, self.affine, tuple(shape), affine, interpolation)
        return dataclasses.replace(self, array=array, affine=affine)

    def on_grid_of(self, other: "Volume", interpolation: Interpolation = "linear") -> "Volume":
        """This map written back onto another image's grid: its shape, affine, orientation and header.

        Args:
            other: the original scan.
            interpolation: used only when the grids do not share their points.
        """
        moved = self.resample(other.shape, other.affine, interpolation)
        return dataclasses.replace(other, array=moved.array)

    def lattice_in(self, other: "Volume") -> Lattice | None:
        """How this grid's voxels are numbered in another, None where they would be interpolated."""
        return lattice(self.shape, self.affine, other.affine)

    def save(self, path: str | os.PathLike, intent_name: str = "saliency") -> Path:
        """Write float32 NIfTI with intent 'estimate' (1001), whole or not at all.

        The affine, sform and qform with their codes, and the units are those of the header.

        Args:
            path: ``.nii`` or ``.nii.gz``; its folder is made when it does not exist.
            intent_name: what the map shows. The header holds 16 ASCII characters of it; up to 79 stand in the
                description field.

        Returns:
            The path written.

        Raises:
            ValueError: if the file type is another one, or the path is the image's own source.
            NotADirectoryError: if the folder is a file.
        """
        from jaxsal.data.writing import nifti

        if suffix_of(path) not in (".nii", ".nii.gz"):
            raise ValueError(f"{path} has the file type {suffix_of(path) or '(none)'}; name it .nii or .nii.gz.")
        image = nifti(self.array, self.affine, self.header, intent_name)
        return write_atomic(path, lambda temporary: image.to_filename(temporary), inputs=[self.source])
