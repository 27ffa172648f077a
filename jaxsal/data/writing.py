"""A map as a NIfTI image that other programs place as they place the scan."""

from typing import Any

import numpy as np

_ALIGNED = 2
_Form = tuple[np.ndarray | None, int]


def nifti(array: np.ndarray, affine: np.ndarray, header: Any, intent_name: str) -> Any:
    """A float32 NIfTI-1 image with intent 'estimate', placed by the original's sform and qform.

    Nothing but geometry is taken from the original's header: descriptions and extensions may name a person.

    Args:
        array: ``[*space]`` or ``[*space, t]``.
        affine: 4 x 4, voxels to RAS millimetres.
        header: nibabel header of the original, or None.
        intent_name: what the map shows.

    Returns:
        A ``nibabel.Nifti1Image``.
    """
    import nibabel

    image = nibabel.Nifti1Image(np.asarray(array, dtype=np.float32), affine)
    is_nifti = isinstance(header, nibabel.Nifti1Header)
    sform, qform = _forms(header, affine) if is_nifti else ((affine, _ALIGNED), (affine, _ALIGNED))
    image.set_sform(*sform)
    image.set_qform(*_representable(*qform))
    space, time = header.get_xyzt_units() if is_nifti else ("mm", "unknown")
    image.header.set_xyzt_units("mm" if space == "unknown" else space, time if array.ndim == 4 else "unknown")
    text = intent_name.encode("ascii", "replace").decode()
    image.header.set_intent("estimate", (), name=text[:16])
    image.header["descrip"] = text[:79]
    return image


def _forms(header: Any, affine: np.ndarray) -> tuple[_Form, _Form]:
    """Sform and qform of the original with their codes, carried along when the grid has changed since."""
    before = header.get_best_affine()
    # from voxels of the array to voxels of the original file; the identity on the original's own grid
    move = np.linalg.inv(before) @ affine
    move = np.eye(4) if np.allclose(move, np.eye(4), atol=1e-5) else move
    sform, qform = header.get_sform(coded=True), header.get_qform(coded=True)
    if not sform[1] and not qform[1]:
        return (None, 0), (affine, 0)
    return tuple((form if form is None else form @ move, int(code)) for form, code in (sform, qform))  # type: ignore[return-value]


def _representable(affine: np.ndarray | None, code: int) -> _Form:
    """A qform is a rotation with voxel sizes: one that is sheared is left out rather than written wrongly."""
    if affine is None:
        return None, 0
    columns = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    orthogonal = np.allclose(columns.T @ columns, np.eye(3), atol=1e-4)
    return (affine, code) if orthogonal else (None, 0)
