"""Everything needed to repeat an explanation, and nothing that tells whose computer or folders they were."""

import datetime
import hashlib
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsal import __version__
from jaxsal.data import Volume
from jaxsal.explanation.identifying import source
from jaxsal.explanation.notes import notes
from jaxsal.explanation.planning import Plan
from jaxsal.explanation.result import Explanation
from jaxsal.zoo import weights

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "nibabel", "nilearn")


def identity(plan: Plan, image: str | os.PathLike | Volume, name: str, files: Iterable[Path]) -> dict[str, Any]:
    """What tells one run from another: scan and network by SHA-256, parameters, and the files that it writes.

    Args:
        plan: of the run.
        image: the scan, or its file.
        name: of the scan.
        files: relative to the output folder.

    Returns:
        Plain data, parts of ``run.json``.
    """
    return {
        "parameters": plan.parameters,
        **_references(plan),
        "image": {"name": name, **source(image)},
        "model": {"name": plan.record.name, **_network(plan)},
        "files": [file.as_posix() for file in files],
    }


def run_record(explanation: Explanation, command: str | None = None, files: Iterable[Path] = ()) -> dict[str, Any]:
    """The contents of ``run.json``.

    ``jaxsal.explain(image, model, **record["parameters"])`` repeats the run.

    Args:
        explanation: what was done.
        command: the command line, without folders.
        files: that the run writes for this scan, relative to the output folder.

    Returns:
        Plain data.
    """
    plan, record = explanation.plan, explanation.record
    device = jax.devices()[0]
    known = identity(plan, explanation.volume, explanation.name, files)
    volume = explanation.volume
    return {
        "command": command,
        "date_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "parameters": plan.parameters,
        **_references(plan),
        "image": {**known["image"], "shape": list(volume.shape), "affine": volume.affine.tolist()},
        "model": {
            **known["model"],
            "input": record.input.model_dump(mode="json"),
            "sigma": {
                name: float(plan.sigma[index]) for name, index in zip(plan.output_names, plan.outputs, strict=True)
            },
        },
        "space_check": explanation.space._asdict(),
        "resampling": explanation.resampled,
        **explanation.found.record,
        **_statuses(explanation),
        "notes": [f"{note.output}: {note.text}" for note in notes(explanation)],
        "seconds": {
            "prepare": round(explanation.timing.prepare, 3),
            "masks" if plan.method.family == "mask" else "maps": round(explanation.timing.masks, 3),
        },
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "backend": device.platform,
            "device": device.device_kind,
        },
        "files": known["files"],
    }


def _references(plan: Plan) -> dict[str, Any]:
    return {"references": [reference.source for reference in plan.references]} if plan.references else {}


def _statuses(explanation: Explanation) -> dict[str, Any]:
    table = explanation.table
    return {"status": dict(zip(table["output"], table["status"], strict=True))} if "status" in table else {}


def _network(plan: Plan) -> dict[str, Any]:
    """What identifies a network: its file, or its weights and record when it was made in memory."""
    if plan.file.sha256 is not None:
        return {"file": plan.file.name, "sha256": plan.file.sha256, "sha256_of": "file"}
    digest = hashlib.sha256(plan.record.model_dump_json().encode())
    for name, value in sorted(weights(plan.model.model).items()):
        digest.update(f"{name} {value.shape} {value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return {"file": None, "sha256": digest.hexdigest(), "sha256_of": "weights and record"}


def versions() -> dict[str, str]:
    """Versions of Python, jaxsal and what it computes with."""
    others = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "jaxsal": __version__, **others}
