"""Reading one image file, with an answer to everything that is often wrong with one."""

import os
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh")
_GZIP = b"\x1f\x8b"
# the size of the header, 348 bytes for NIfTI-1 and 540 for NIfTI-2, in either byte order
_NIFTI = (
    (348).to_bytes(4, "little"),
    (348).to_bytes(4, "big"),
    (540).to_bytes(4, "little"),
    (540).to_bytes(4, "big"),
)


class RawImage(NamedTuple):
    """What a file holds.

    Attributes:
        array: ``[*space]`` or ``[*space, t]``, float32.
        affine: 4 x 4, voxel indices to RAS millimetres.
        header: as nibabel read it.
    """

    array: np.ndarray
    affine: np.ndarray
    header: Any


def read_image(path: str | os.PathLike) -> RawImage:
    """Read a NIfTI or MGH file.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.mgz`` or ``.mgh``.

    Returns:
        Voxels (with the file's slope and intercept applied), affine and header.

    Raises:
        FileNotFoundError: if there is no such file.
        IsADirectoryError: if it is a folder.
        ValueError: if it is of another format, mislabelled, truncated, not real-valued, not 3-D or 4-D, or
            holds NaN or infinite voxels.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.imageglobals import LoggingOutputSuppressor
    from nibabel.spatialimages import HeaderDataError

    path = Path(path)
    _check_file(path)
    try:
        # nibabel reports doubtful headers through its own logger; what matters of them is checked below
        with LoggingOutputSuppressor(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Any = nibabel.load(path)
            _check_kind(path, image)
            array = np.asarray(image.dataobj, dtype=np.float32)
    except (EOFError, OSError, zlib.error, ImageFileError) as error:
        raise ValueError(_damaged(path, error)) from error
    except HeaderDataError as error:
        raise ValueError(f"{path} has a header that makes no sense ({error}): write the image again.") from error
    _check_finite(path, array)
    return RawImage(array, np.asarray(image.affine, dtype=float), image.header)


def suffix_of(path: str | os.PathLike) -> str:
    """The image suffix of a file name in lower case, ``.nii.gz`` as one; the last suffix if it is no image.

    Example:
        >>> suffix_of("a.b.NII.gz"), suffix_of("a.png")
        ('.nii.gz', '.png')
    """
    name = Path(path).name.lower()
    return next((s for s in (".nii.gz", *SUFFIXES) if name.endswith(s)), Path(name).suffix)


def _check_file(path: Path) -> None:
    formats = ", ".join(SUFFIXES)
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder, an image file is needed ({formats}). Name the files in it; "
            "convert a folder of DICOM slices first, for example with dcm2niix."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}, looked for in {Path.cwd()}: check the path.")
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path} has the file type {suffix or '(none)'}, which is not read. Formats read: {formats}. "
            "Convert it to NIfTI first: dcm2niix for DICOM, nibabel or SimpleITK for others; "
            "2-D pictures (PNG, JPEG) are not read yet."
        )
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again.")
    zipped = start.startswith(_GZIP)
    if suffix in (".nii", ".mgh") and zipped:
        right = {".nii": ".nii.gz", ".mgh": ".mgz"}[suffix]
        raise ValueError(f"{path} is named {suffix} but is compressed with gzip: rename it to end in {right}.")
    if suffix in (".nii.gz", ".mgz") and not zipped:
        plain = {".nii.gz": ".nii", ".mgz": ".mgh"}[suffix]
        if start in _NIFTI or (suffix == ".mgz" and start == (1).to_bytes(4, "big")):
            raise ValueError(f"{path} is named {suffix} but is not compressed: rename it to end in {plain}.")
        raise ValueError(
            f"{path} is named {suffix} but is no image: it starts with {start!r}, gzip data were expected. "
            "It may be a text file, an error page saved by a download, or a link of a version control system."
        )
    if suffix == ".nii" and start not in _NIFTI:
        raise ValueError(
            f"{path} is named .nii but is no NIfTI image: it starts with {start!r}. "
            "Check what it is, or convert it to NIfTI."
        )


def _check_kind(path: Path, image: Any) -> None:
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise ValueError(
            f"{path} is a colour image ({', '.join(dtype.names).upper()} in each voxel), one number in each "
            "voxel is needed: give the scan itself, not a picture of it, or save one of its channels."
        )
    if np.issubdtype(dtype, np.complexfloating):
        raise ValueError(
            f"{path} holds complex numbers ({dtype}), real ones are needed: save the magnitude, for example "
            "with nilearn.image.math_img('np.abs(img)', img=...)."
        )
    if len(image.shape) not in (3, 4) or 0 in image.shape:
        raise ValueError(
            f"{path} is {len(image.shape)}-D with shape {tuple(image.shape)}, a 3-D scan is needed "
            "(or a 4-D one with a single frame): save one volume of it."
        )


def _check_finite(path: Path, array: np.ndarray) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        bad = int((~finite).sum())
        raise ValueError(
            f"{path} holds {bad} NaN or infinite voxels of {array.size}: repair it first, for example set "
            "them to 0 with nilearn.image.math_img('np.nan_to_num(img)', img=...) or fslmaths IN -nan OUT."
        )


def _damaged(path: Path, error: BaseException) -> str:
    return (
        f"{path} cannot be read, it is truncated or damaged ({path.stat().st_size} bytes on disk; "
        f"{type(error).__name__}: {' '.join(str(error).split())}). Copy, download or write it again."
    )
