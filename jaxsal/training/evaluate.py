"""How good the shipped network is: unseen synthetic brains and manually labelled real scans, beside baselines."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import zoo
from jaxsal.data import synthetic
from jaxsal.data.synthetic.anatomy import GRID, ORIGIN, SPACING, STRUCTURES
from jaxsal.data.synthetic.shape import CORNER, EXTENT
from jaxsal.engine.lower import lower
from jaxsal.training import metrics
from jaxsal.training.pool import open_pool, unpack

MANUAL_LABELS = {
    "lateral_ventricle": (52, 51),
    "hippocampus": (48, 47),
    "putamen": (58, 57),
    "caudate": (37, 36),
    "thalamus": (60, 59),
    "amygdala": (32, 31),
    "pallidum": (56, 55),
}
"""Left and right value of each structure in the manual labels; the inferior horns (49, 50) are not counted."""

STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "r2": metrics.r2,
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "icc_a1": metrics.agreement,
}
_OLD = 50.0


class Cases(NamedTuple):
    """Predictions with the truth and the two baselines' predictors.

    Attributes:
        truth: mm^3, float64[n, 14].
        prediction: mm^3, float64[n, 14].
        brain: volume of the voxels above zero in mm^3, float64[n].
        ventricle: mean scaled intensity inside the template's lateral ventricles, float64[n].
        age: years; NaN where unknown, float64[n].
    """

    truth: np.ndarray
    prediction: np.ndarray
    brain: np.ndarray
    ventricle: np.ndarray
    age: np.ndarray


def oasis_cases(model: Path, folder: Path) -> Cases:
    """One case per person of ``oasis_2mm``: retests are left out.

    Args:
        model: the network, as :func:`jaxsal.zoo.save` wrote it.
        folder: ``<id>_T1.nii.gz`` and ``<id>_labels.nii.gz`` on the network's grid, and ``participants.tsv``.
    """
    with (folder / "participants.tsv").open() as file:
        people = [row for row in csv.DictReader(file, delimiter="\t") if row["retest_of"] in ("", "n/a")]
    images, truth = [], []
    pairs = [MANUAL_LABELS[name] for name, _, _ in STRUCTURES]
    for row in people:
        scan = _canonical(folder / f"{row['participant_id']}_T1.nii.gz")
        labels = np.rint(_canonical(folder / f"{row['participant_id']}_labels.nii.gz"))
        images.append(np.clip(scan / scan[scan > 0].mean(), 0.0, 4.0))
        truth.append([8.0 * np.sum(labels == value) for pair in pairs for value in pair])
    return _cases(model, np.stack(images), np.array(truth), np.array([float(row["age"]) for row in people]))


def synthetic_cases(model: Path, cohort: Path) -> Cases:
    """One case per anatomy of a cohort that the network has not seen; refuses the one that it was trained on."""
    pool = open_pool(cohort)
    if zoo.load(model).record.training.get("cohort_seed") == int(pool.seed[0]):
        raise ValueError(f"{model} was trained on a cohort of seed {pool.seed[0]}: make another one to evaluate it on")
    pick = np.arange(0, int(pool.done[0]), 2)  # every anatomy is painted twice
    images = np.concatenate([np.asarray(unpack(jnp.asarray(pool.images[i : i + 1])))[..., 0] for i in pick])
    return _cases(model, images, np.asarray(pool.volumes[pick], np.float64), np.full(len(pick), np.nan))


def _cases(model: Path, images: np.ndarray, truth: np.ndarray, age: np.ndarray) -> Cases:
    net = zoo.load(model).model
    predict = jax.jit(lower(lambda x: net(x)))  # type: ignore[operator]
    prediction = np.concatenate([np.asarray(predict(jnp.asarray(x, jnp.float32)[None, ..., None])) for x in images])
    ventricles = _template_ventricles()
    return Cases(
        truth=np.asarray(truth, np.float64),
        prediction=np.asarray(prediction, np.float64),
        brain=np.array([8.0 * np.sum(x > 0) for x in images]),
        ventricle=np.array([x[ventricles].mean() for x in images]),
        age=age,
    )


def _canonical(path: Path) -> np.ndarray:
    import nibabel as nib

    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[attr-defined, arg-type]
    expected = np.diag([SPACING] * 3 + [1.0])
    expected[:3, 3] = ORIGIN
    if image.shape != GRID or not np.allclose(image.affine, expected, atol=1e-3):
        raise ValueError(
            f"{path} has shape {image.shape} and affine {image.affine.tolist()};"
            f" {GRID} and {expected.tolist()} are needed: resample it first"
        )
    return np.asarray(image.dataobj, np.float32)


def _template_ventricles() -> np.ndarray:
    """Voxels of the output grid that lie in the template's lateral ventricles, bool[91, 109, 91]."""
    anatomy = synthetic.load_anatomy()
    deformed = synthetic.deform(anatomy, synthetic.identity_shape())
    group = np.asarray(deformed.codes) >> 8
    share = np.where((group == 1) | (group == 2), np.asarray(deformed.weights), 0.0).sum(0).reshape(EXTENT)
    mask = np.zeros(GRID, bool)
    mask[tuple(slice(c, c + n) for c, n in zip(CORNER, EXTENT, strict=True))] = share > 0.5
    return mask


def summary(cases: Cases) -> dict[str, Any]:
    """Every statistic of every output with its interval, the baselines', and the asymmetries'.

    The baselines predict a volume from one number by an affine map fitted to all the other subjects; their
    correlation is that of the number itself.

    Returns:
        ``n``, ``outputs`` and ``asymmetry``, ready for JSON.
    """
    outputs = {}
    for i, name in enumerate(synthetic.OUTPUTS):
        truth, prediction = cases.truth[:, i], cases.prediction[:, i]
        outputs[name] = {
            "network": _statistics(truth, prediction),
            "brain_volume": _baseline(truth, cases.brain),
            "ventricle_intensity": _baseline(truth, cases.ventricle),
        }
    sides = {}
    for i, (name, _, _) in enumerate(STRUCTURES):
        left_right = (slice(None), slice(2 * i, 2 * i + 2))
        truth, prediction = _asymmetry(cases.truth[left_right]), _asymmetry(cases.prediction[left_right])
        sides[name] = {"pearson": metrics.bootstrap(metrics.pearson, truth, prediction)._asdict()}
    return {"n": len(cases.truth), "outputs": outputs, "asymmetry": sides}


def _statistics(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    # A resample repeats subjects, and a subject left out would still be among the others: the interval of the
    # calibrated R^2 resamples subjects whose calibrated predictions were made once, on the whole sample.
    out = {name: metrics.bootstrap(f, truth, prediction)._asdict() for name, f in STATISTICS.items()}
    out["r2_calibrated"] = metrics.bootstrap(metrics.r2, truth, metrics.calibrated(truth, prediction))._asdict()
    return out


def _baseline(truth: np.ndarray, number: np.ndarray) -> dict[str, Any]:
    return {
        "pearson": metrics.bootstrap(metrics.pearson, truth, number)._asdict(),
        "r2_calibrated": metrics.bootstrap(metrics.r2, truth, metrics.calibrated(truth, number))._asdict(),
    }


def _asymmetry(pairs: np.ndarray) -> np.ndarray:
    """(R - L) / (R + L) of volumes [n, 2], left first."""
    return (pairs[:, 1] - pairs[:, 0]) / (pairs[:, 1] + pairs[:, 0])


def evaluate(model: Path, *, oasis: Path | None, cohort: Path | None) -> dict[str, Any]:
    """All that the model card reports.

    Args:
        model: the network.
        oasis: folder of labelled real scans, or None.
        cohort: folder of an unseen synthetic cohort, or None.

    Returns:
        Sections ``synthetic``, ``oasis_all`` and ``oasis_up_to_50`` as far as asked for, and the model's ``training``.
    """
    sections: dict[str, Any] = {"model": zoo.load(model).record.name, "training": zoo.load(model).record.training}
    if cohort is not None:
        sections["synthetic"] = summary(synthetic_cases(model, cohort))
    if oasis is not None:
        cases = oasis_cases(model, oasis)
        sections["oasis_all"] = summary(cases)
        young = cases.age <= _OLD
        sections["oasis_up_to_50"] = summary(Cases(*(field[young] for field in cases)))
    return sections
