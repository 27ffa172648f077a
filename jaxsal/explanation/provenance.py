"""Everything needed to repeat an explanation, and nothing that tells whose computer or folders they were."""

import datetime
import hashlib
import platform
from importlib import metadata
from typing import Any

import jax
import numpy as np

from jaxsal import __version__
from jaxsal.data import Volume
from jaxsal.explanation.notes import notes
from jaxsal.explanation.result import Explanation
from jaxsal.models import file_sha256

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "nibabel", "nilearn")


def run_record(explanation: Explanation, command: str | None = None) -> dict[str, Any]:
    """The contents of ``run.json``.

    ``jaxsal.explain(image, model, **record["parameters"])`` repeats the run.

    Args:
        explanation: what was done.
        command: the command line, without folders.

    Returns:
        Plain data.
    """
    plan, record = explanation.plan, explanation.record
    device = jax.devices()[0]
    return {
        "command": command,
        "date_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "parameters": plan.parameters,
        "image": image_record(explanation.name, explanation.volume),
        "model": {
            "name": record.name,
            "file": plan.file.name,
            "sha256": plan.file.sha256,
            "input": record.input.model_dump(mode="json"),
            "sigma": dict(zip(plan.output_names, explanation.result.config.sigma, strict=True)),
        },
        "space_check": explanation.space._asdict(),
        "resampling": explanation.resampled,
        "mask": {
            "shape": list(explanation.result.mask.shape[2:]),
            "geometry_in_voxels": explanation.result.config.geometry._asdict(),
        },
        "status": {name: row[0] for name, row in zip(plan.output_names, explanation.result.status_names, strict=True)},
        "notes": [f"{note.output}: {note.text}" for note in notes(explanation)],
        "seconds": {name: round(value, 3) for name, value in explanation.timing._asdict().items()},
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "backend": device.platform,
            "device": device.device_kind,
        },
    }


def image_record(name: str, volume: Volume) -> dict[str, Any]:
    """What identifies a scan: its file's name without folders and its contents' hash."""
    if volume.source is not None and volume.source.is_file():
        source = {"file": volume.source.name, "sha256": file_sha256(volume.source), "sha256_of": "file"}
    else:
        voxels = np.ascontiguousarray(volume.array)
        source = {"file": None, "sha256": hashlib.sha256(voxels.tobytes()).hexdigest(), "sha256_of": "voxels"}
    return {"name": name, **source, "shape": list(volume.shape), "affine": volume.affine.tolist()}


def versions() -> dict[str, str]:
    """Versions of Python, jaxsal and what it computes with."""
    others = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "jaxsal": __version__, **others}
