"""From the maps of many scans to one table of numbers, plain data throughout."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.localisation import mass
from benchmarks.localisation.maps import Maps, Scan
from jaxsal.optim import Status

KINDS = {
    "mask": "mask",
    "blob_spread": "centre blob, same spread",
    "blob_values": "centre blob, same values",
    "feature_norm": "feature norm",
    "gradient": "gradient x feature",
    "tail": "mask, fresh tail",
    "copies": "shifted copies (median)",
    "saliency": "thresholded map",
    "saliency_blob": "thresholded values as a blob",
    "structure": "the structure itself",
}
"""Every map that is measured, and its title; ``structure`` is the structure brought to the mask's grid, a ceiling."""

CONTROLS = ("blob_spread", "blob_values", "feature_norm", "gradient", "tail", "copies")
BLOBS = ("blob_spread", "blob_values")
LEVEL = 0.05
_COPIES, _SEED = 100, 0


class Measures(NamedTuple):
    """Of ``n`` scans, ``k`` outputs and their ``k`` structures.

    Attributes:
        ratio: of every kind, ``[n, k, k]``.
        p: of the mask's ratio among its copies, scan by scan, ``[n, k, k]``.
        p_people: the same for the mean ratio over scans, all scans shifted alike, ``[k, k]``.
        ipsilateral: share of the mass in the output's own side, of each kind, ``[n, k]``; NaN without a pair.
        chance: what a uniform map gives for it, ``[n, k]``.
        structure_share: of the brain's voxels, ``[n, k]``.
    """

    ratio: dict[str, np.ndarray]
    p: np.ndarray
    p_people: np.ndarray
    ipsilateral: dict[str, np.ndarray]
    chance: np.ndarray
    structure_share: np.ndarray


def other_side(names: Sequence[str]) -> np.ndarray:
    """Position of the same structure on the other side, -1 where there is none.

    Example:
        >>> other_side(["left_caudate", "right_caudate", "brain_stem"]).tolist()
        [1, 0, -1]
    """
    names = [name.lower() for name in names]
    swapped = [
        name.replace("left", "right", 1) if "left" in name else name.replace("right", "left", 1) for name in names
    ]
    return np.array(
        [names.index(twin) if twin in names and twin != name else -1 for name, twin in zip(names, swapped, strict=True)]
    )


def measure(scans: Sequence[Maps], names: Sequence[str], copies: int = _COPIES, seed: int = _SEED) -> Measures:
    """Ratios, p-values and shares of the mass of every map of every scan."""
    box = mass.brain_box(np.stack([scan.weights[0] for scan in scans]))
    drawn = mass.draw_copies(box, copies, seed)
    other = other_side(names)
    found = [_measure_one(scan, other, box, drawn) for scan in scans]
    ratio, shared, copied = (list(part) for part in zip(*found, strict=True))
    stacked = {kind: np.stack([one[kind] for one in ratio]) for kind in KINDS}
    copied = np.stack(copied)  # [n, copies, k, s]
    voxels = np.stack([scan.weights.reshape(len(scan.weights), -1).sum(1, dtype=np.float64) for scan in scans])
    size = voxels[:, 1:]
    return Measures(
        ratio=stacked,
        p=np.stack([mass.p_value(one, many) for one, many in zip(stacked["mask"], copied, strict=True)]),
        p_people=mass.p_value(stacked["mask"].mean(0), copied.mean(0)),
        ipsilateral={kind: np.stack([one[kind] for one in shared]) for kind in shared[0]},
        chance=np.where(other >= 0, size / (size + size[:, other]), np.nan),
        structure_share=size / voxels[:, :1],
    )


def _measure_one(
    scan: Maps, other: np.ndarray, box: tuple[slice, ...], drawn: mass.Copies
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    weights, brain, lanes = scan.weights, scan.weights[0], len(scan.mask)
    voxels = weights.reshape(len(weights), -1).sum(1, dtype=np.float64)
    masks = np.abs(scan.mask)
    amount = {
        "mask": mass.masses(masks, weights),
        "blob_spread": mass.masses(np.stack([mass.blob_of_spread(m, brain, scan.centres) for m in masks]), weights),
        "blob_values": mass.masses(np.stack([mass.blob_of_values(m, brain, scan.centres) for m in masks]), weights),
        "feature_norm": mass.masses(np.broadcast_to(scan.feature_norm, masks.shape), weights),
        "gradient": mass.masses(scan.gradient, weights),
        "saliency": scan.saliency_mass,
        "saliency_blob": scan.saliency_blob_mass,
        "structure": mass.masses(weights[1:], weights),
    }
    ratio = {kind: mass.mass_ratios(amounts, voxels) for kind, amounts in amount.items()}
    fresh = mass.ratios(np.abs(scan.tail_mask), weights).reshape(-1, lanes)
    # outputs of a fresh tail are interchangeable: their mean stands for every output
    ratio["tail"] = np.broadcast_to(fresh.mean(0) if len(fresh) else np.nan, (lanes, lanes))
    copied = mass.copy_ratios(masks, weights, scan.mirrored, box, drawn)
    ratio["copies"] = np.median(copied, axis=0)
    own = np.arange(lanes)
    shared = {
        kind: np.where(other >= 0, mass.ipsilateral_share(amounts, own, other), np.nan)
        for kind, amounts in amount.items()
    }
    return ratio, shared, copied


def rows(scans: Sequence[Scan], names: Sequence[str], found: Measures) -> list[dict[str, Any]]:
    """One row per scan, map, output and structure, for the CSV."""
    return [
        {
            "scan": scan.name,
            "age": scan.age,
            "map": kind,
            "output": output,
            "structure": structure,
            "ratio": float(found.ratio[kind][i, k, s]),
            "structure_share": float(found.structure_share[i, s]),
            "p": float(found.p[i, k, s]) if kind == "mask" else None,
        }
        for kind in KINDS
        for i, scan in enumerate(scans)
        for k, output in enumerate(names)
        for s, structure in enumerate(names)
    ]


def summarise(scans: Sequence[Scan], maps: Sequence[Maps], names: Sequence[str], found: Measures) -> dict[str, Any]:
    """Medians over people, tests over people, and the verdict; ready for JSON.

    Args:
        scans: one per person.
        maps: of these scans.
        names: of the outputs, which are also the structures'.
        found: from :func:`measure`.
    """
    with warnings.catch_warnings():
        # a kind of map that was not made is NaN throughout
        warnings.filterwarnings("ignore", message="All-NaN slice", category=RuntimeWarning)
        matrix = {kind: np.nanmedian(ratio, axis=0) for kind, ratio in found.ratio.items()}
    outputs = {name: _of_output(k, maps, found, matrix) for k, name in enumerate(names)}
    ventricles = [name for name in names if "ventricle" in name.lower()]
    mask = matrix["mask"]
    pairs = other_side(names)
    return {
        "scans": [{"name": scan.name, "age": scan.age} for scan in scans],
        "names": list(names),
        "copies": _COPIES,
        "verdict": {
            "outputs": ventricles,
            "passed": bool(ventricles) and all(outputs[name]["passes"] for name in ventricles),
        },
        "dominance": {
            "own_first": int((mask.argmax(1) == np.arange(len(names))).sum()),
            "own_or_other_side_first": sum(int(mask[k].argmax()) in (k, pairs[k]) for k in range(len(names))),
            "output_first_for_structure": int((mask.argmax(0) == np.arange(len(names))).sum()),
            "of": len(names),
            "diagonal": float(np.median(np.diag(mask))),
            "off_diagonal": float(np.median(mask[~np.eye(len(names), dtype=bool)])) if len(names) > 1 else None,
        },
        "tail_recovered": _median(np.concatenate([scan.tail_recovered.ravel() for scan in maps])),
        "outputs": outputs,
        "matrix": {kind: values.tolist() for kind, values in matrix.items() if np.isfinite(values).all()},
    }


def _of_output(k: int, maps: Sequence[Maps], found: Measures, matrix: dict[str, np.ndarray]) -> dict[str, Any]:
    own = {kind: ratio[:, k, k] for kind, ratio in found.ratio.items()}
    tests = {control: greater(own["mask"], own[control]) for control in CONTROLS}
    tests["saliency_blob"] = greater(own["saliency"], own["saliency_blob"])
    median = {kind: float(values[k, k]) for kind, values in matrix.items() if np.isfinite(values[k, k])}
    p_people = float(found.p_people[k, k])
    ranks = (found.ratio["mask"][:, k] > own["mask"][:, None]).sum(1) + 1
    return {
        "ratio": median,
        "range": [float(own["mask"].min()), float(own["mask"].max())],
        "wilcoxon_p": tests,
        "copies_p": p_people,
        "copies_p_below_level": int((found.p[:, k, k] < LEVEL).sum()),
        "passes": p_people < LEVEL and all(_beats(median, tests, "mask", blob) for blob in BLOBS),
        "beaten": [control for control in CONTROLS if _beats(median, tests, "mask", control)],
        "rank": int((matrix["mask"][k] > matrix["mask"][k, k]).sum()) + 1,
        "first_in_scans": int((ranks == 1).sum()),
        "ipsilateral": {kind: _median(shares[:, k]) for kind, shares in found.ipsilateral.items()},
        "ipsilateral_chance": _median(found.chance[:, k]),
        "ipsilateral_p": greater(found.ipsilateral["mask"][:, k], found.chance[:, k]),
        "recovered": _median(np.array([scan.recovered[k] for scan in maps])),
        "negative_energy": _median(np.array([scan.negative_energy[k] for scan in maps])),
        "steps": _median(np.array([scan.steps[k] for scan in maps])),
        "status": {
            status.name.lower(): count
            for status in Status
            if (count := int(sum(int(scan.status[k]) == status for scan in maps)))
        },
    }


def greater(values: np.ndarray, controls: np.ndarray) -> float | None:
    """One-sided Wilcoxon signed-rank p-value over people; None where nothing can be compared."""
    from scipy.stats import wilcoxon

    difference = (values - controls)[np.isfinite(values - controls)]
    if not len(difference) or not difference.any():
        return None
    return float(wilcoxon(difference, alternative="greater")[1])  # type: ignore[index]


def _beats(median: dict[str, float], tests: dict[str, float | None], kind: str, control: str) -> bool:
    p = tests[control]
    return p is not None and p < LEVEL and kind in median and control in median and median[kind] > median[control]


def _median(values: np.ndarray) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None
