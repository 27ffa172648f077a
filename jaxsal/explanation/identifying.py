"""What identifies a scan, without telling whose it is."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxsal.data import Volume
from jaxsal.models import file_sha256


def source(image: str | os.PathLike | Volume) -> dict[str, Any]:
    """What identifies a scan: its file's name without folders and its contents' hash."""
    file = image.source if isinstance(image, Volume) else Path(image)
    if file is not None and file.is_file():
        return {"file": file.name, "sha256": file_sha256(file), "sha256_of": "file"}
    if not isinstance(image, Volume):
        raise FileNotFoundError(f"There is no file {file}: check the path.")
    voxels = np.ascontiguousarray(image.array)
    return {"file": None, "sha256": hashlib.sha256(voxels.tobytes()).hexdigest(), "sha256_of": "voxels"}
