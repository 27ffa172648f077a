"""Reading one image file, with an answer to everything that is often wrong with one."""

import contextlib
import gzip
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SUFFIXES = (".nii", ".nii.gz", ".mgz", ".mgh")
_UNZIPPED = {".nii": ".nii", ".nii.gz": ".nii", ".mgh": ".mgh", ".mgz": ".mgh"}
_GZIP = b"\x1f\x8b"
# first four bytes: the header's size, 348 in NIfTI-1 and 540 in NIfTI-2, in either byte order; MGH's version
_SIGNATURES = {
    ".nii": tuple(size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")),
    ".mgh": ((1).to_bytes(4, "big"),),
}


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
        ValueError: if it is of another format, mislabelled, truncated, not real-valued, not 3-D or 4-D, holds NaN
            or infinite voxels, or states two orientations that contradict each other.
    """
    path = Path(path)
    _check_file(path)
    # nibabel reports doubtful headers through its own logger and warnings; what matters of them is checked below
    with _quiet():
        image = _whole(path, lambda: _nibabel_load(path))
        _check_kind(path, image)
        array = _whole(path, lambda: np.asarray(image.dataobj, dtype=np.float32))
    affine = np.asarray(image.affine, dtype=float)
    check_affine(affine, str(path))
    _check_forms_agree(path, image.header)
    _check_finite(path, array)
    return RawImage(array, affine, image.header)


def _nibabel_load(path: Path) -> Any:
    import nibabel

    return nibabel.load(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from nibabel.imageglobals import LoggingOutputSuppressor

    with LoggingOutputSuppressor(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _whole(path: Path, read: Callable[[], Any]) -> Any:
    """What is read, or a ValueError: a damaged file may raise anything."""
    try:
        return read()
    except (MemoryError, PermissionError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read, it is truncated or damaged ({path.stat().st_size} bytes on disk; "
            f"{type(error).__name__}: {' '.join(str(error).split())}). Copy, download or write it again."
        ) from error


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
        zipped = file.read(2) == _GZIP
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): copy or download it again.")
    start = _whole(path, lambda: _first_bytes(path, zipped))
    if start not in _SIGNATURES[_UNZIPPED[suffix]]:
        raise ValueError(
            f"{path} is named {suffix} but is no such image: its content starts with {start!r}. It may be a text "
            "file, an error page saved by a download, or a link left by a version control system."
        )
    if zipped != (suffix in (".nii.gz", ".mgz")):
        right = next(s for s, plain in _UNZIPPED.items() if plain == _UNZIPPED[suffix] and s != suffix)
        raise ValueError(
            f"{path} is named {suffix} but is {'' if zipped else 'not '}compressed with gzip: "
            f"rename it to end in {right}."
        )


def _first_bytes(path: Path, zipped: bool) -> bytes:
    with gzip.open(path) if zipped else path.open("rb") as file:
        return file.read(4)


def check_affine(affine: np.ndarray, name: str) -> None:
    """Refuse an affine that is not 4 x 4, finite and invertible.

    Raises:
        ValueError: naming the image.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(
            f"{name} has the affine {affine.tolist()}, 4 x 4 finite numbers are needed: its header is damaged; "
            "convert it again from the original, or copy the header of a scan that it matches."
        )
    sizes = np.linalg.svd(affine[:3, :3], compute_uv=False)
    if sizes[2] < 1e-6 * max(sizes[0], 1e-12) or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise ValueError(
            f"{name} has the affine {affine.tolist()}, which cannot be inverted (an axis has no length, or two "
            "are parallel): its header is damaged; convert it again from the original, or copy the header of a "
            "scan that it matches (fslcpgeom, or nibabel's set_sform)."
        )


def _check_forms_agree(path: Path, header: Any) -> None:
    """Refuse a NIfTI header whose sform and qform lead the axes to different sides."""
    import nibabel

    if not isinstance(header, nibabel.Nifti1Header):
        return
    sform, _ = header.get_sform(coded=True)
    try:
        qform, _ = header.get_qform(coded=True)
    except ValueError as error:  # numbers that are no quaternion
        qform, reason = np.full((4, 4), np.nan), f" ({error})"
    else:
        reason = ""
    if qform is not None and not np.isfinite(qform).all():
        raise ValueError(
            f"{path} has a qform that is no rotation{reason}: its header is damaged; convert it again from the "
            "original, or, if its sform is right, with FSL: fslorient -copysform2qform IMAGE."
        )
    if sform is None or qform is None:
        return  # one of them alone cannot be contradicted
    mirrored = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    codes = ["".join(map(str, nibabel.orientations.aff2axcodes(form))) for form in (sform, qform)]
    if not mirrored and (codes[0] == codes[1] or _within_a_voxel(sform, qform, header.get_data_shape())):
        return
    raise ValueError(
        f"{path} states two orientations that contradict each other: its sform leads the axes to {codes[0]}, its qform "
        f"to {codes[1]}{', the mirror image' if mirrored else ''}, so left and right are uncertain. Find out which one "
        "is right and keep only that, for example with FSL: fslorient -copysform2qform IMAGE (the sform is right) or "
        "fslorient -copyqform2sform IMAGE (the qform is)."
    )


def _within_a_voxel(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether two affines place every voxel of a grid at the same spot, give or take a voxel."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]], indexing="ij")).reshape(3, -1)
    apart = (one[:3, :3] - other[:3, :3]) @ corners + (one - other)[:3, 3:]
    return bool(np.linalg.norm(apart, axis=0).max() <= np.linalg.norm(one[:3, :3], axis=0).min())


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
