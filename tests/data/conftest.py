"""Small scans on disk."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest

# every way to store one grid: 6 orders of the axes times 8 flips
ORIENTATIONS = [
    np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)], float)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.fixture(params=ORIENTATIONS, ids=lambda o: "".join("RAS"[int(a)] if s > 0 else "LPI"[int(a)] for a, s in o))
def orientation(request: pytest.FixtureRequest) -> np.ndarray:
    return request.param


@pytest.fixture
def write(tmp_path: Path):
    """Writes an array with nibabel alone, so that reading is tested against another hand."""

    def write(array, affine=None, name="scan.nii.gz", sform=1, qform=1) -> Path:
        affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".mgz", ".mgh")):
            nibabel.MGHImage(array, affine).to_filename(path)
        else:
            image = nibabel.Nifti1Image(array, affine)
            image.set_sform(affine, sform)
            image.set_qform(affine, qform)
            image.to_filename(path)
        return path

    return write


@pytest.fixture
def ramp() -> np.ndarray:
    """No two voxels alike, no two axes alike."""
    return np.random.default_rng(0).permutation(9 * 11 * 10).reshape(9, 11, 10).astype(np.float32)
