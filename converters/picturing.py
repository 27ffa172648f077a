"""Real images for the check of a conversion, from files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxsal.data import Volume, prepare
from jaxsal.zoo import ModelRecord

_SCANS = (".nii", ".nii.gz", ".mgz", ".mgh")


class Pictures(NamedTuple):
    """Files of images, read once the network is known that is to see them.

    Attributes:
        files: scans, or ``.npy``.
    """

    files: tuple[Path, ...]

    def __call__(self, record: ModelRecord) -> list[np.ndarray]:
        """Batches ``[b, *space, c]``: scans as ``jaxsal explain`` prepares them, arrays as they are."""
        return [_read(path, record) for path in self.files]


def checked_on(paths: Sequence[str | os.PathLike]) -> Pictures:
    """Images to compare a conversion on, for ``images=``.

    Args:
        paths: scans (.nii, .nii.gz, .mgz, .mgh), arrays ``[b, *space, c]`` (.npy), or folders of them.

    Raises:
        FileNotFoundError: if there is nothing at a path, or no image in a folder.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(file for file in path.iterdir() if _is_image(file)) if path.is_dir() else [path]
        if not path.exists() or not inside:
            raise FileNotFoundError(
                f"No image {'in' if path.is_dir() else 'at'} {path}: give scans ({', '.join(_SCANS)}), arrays "
                "[b, *space, c] (.npy), or a folder of them."
            )
        files += inside
    return Pictures(tuple(files))


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith((*_SCANS, ".npy"))


def _read(path: Path, record: ModelRecord) -> Any:
    spec = record.input
    if path.suffix != ".npy":
        return prepare(
            Volume.load(path), spec.shape, spec.affine, spec.channels, spec.scaling.divide_by, spec.scaling.clip
        )
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is not an array of numbers that numpy.save wrote: {error}.") from None
