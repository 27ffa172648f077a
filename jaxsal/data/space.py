"""Does a scan lie where its network expects it? Measured, because a header can say anything."""

from typing import Literal, NamedTuple

import numpy as np

from jaxsal.data.prepare import check_scan
from jaxsal.data.template import Template, brain_template
from jaxsal.data.volume import Volume

Space = Literal["MNI152", "native"]

_MINIMUM_DICE = 0.85
# Real brains aligned to the template measure .73 to .90; the same turned by 20 degrees at most .57.
_MINIMUM_CORRELATION = 0.6
# Foreground over the template brain's volume: aligned brains measure .9 to 1.06, heads 1.6 and more, but less
# when the field of view cuts them; bright tissue outside the brain decides in between.
_CERTAINLY_HEAD = 1.35
_PERHAPS_HEAD = 1.1
_HEAD_OUTSIDE = 0.13

_REGISTER = (
    "Register the scan to MNI152 with an affine tool and give the registered image, for example with FSL: "
    "flirt -in IN -ref $FSLDIR/data/standard/MNI152_T1_2mm_brain -out OUT -dof 12; or with ANTs: "
    "antsRegistrationSyNQuick.sh -d 3 -t a -f MNI152_BRAIN -m IN -o OUT."
)


class SpaceError(ValueError):
    """The scan is not in the space, or not of the kind, that the network expects."""


class SpaceCheck(NamedTuple):
    """What was measured, for the run's record; None where the space is ``"native"``.

    Attributes:
        space: that the network expects.
        dice: overlap of the scan's brain with the template's after header alignment.
        correlation: of the scan's structures with the template's, within both brains.
        volume_ratio: the scan's foreground (head or brain) over the template's brain.
        with_skull: whether scalp, face or neck were seen.
    """

    space: Space
    dice: float | None = None
    correlation: float | None = None
    volume_ratio: float | None = None
    with_skull: bool | None = None


def check_space(volume: Volume, space: Space, skull_stripped: bool | None = None) -> SpaceCheck:
    r"""Compare a scan with the space that a network's record states.

    For ``"MNI152"`` the brain is found by intensity, placed by the header, and compared with the template on
    a 2 mm grid: by shape, :math:`\mathrm{Dice}(A, B) = 2 |A \cap B| / (|A| + |B|)`, and, since a brain turned
    by 20 degrees still has a Dice of .9, by structure: the correlation of intensities between 4 and 16 mm
    (difference of Gaussians), of either sign so that other contrasts than T1 pass. Aligned scans of young and
    old people measure .95 to .97 and .73 to .90. Of a whole head the best of several brain guesses counts.

    A brain is nearly its own mirror image: **left and right swapped is not seen by this check**, nor are
    misalignments of a few millimetres or degrees. For ``"native"`` only voxel sizes and field of view are
    looked at.

    Args:
        volume: the scan.
        space: ``"MNI152"`` or ``"native"``.
        skull_stripped: True when the network expects only the brain (a whole head is refused then), False when it
            expects the whole head (what is certainly no more than a brain is refused then), None for either.

    Returns:
        The measurements.

    Raises:
        SpaceError: if the scan shows a skull that the network does not know, or lacks one that it does, has no
            orientation, its Dice is below .85 or its correlation below .6; the message says how to mend it.
        ValueError: if it is no plausible scan.
    """
    # scipy.ndimage takes a quarter of a second to import, too long for --help
    from jaxsal.data.brain import brain_candidates, outside_share, solid_foreground

    if space not in ("MNI152", "native"):
        raise ValueError(f"The space {space!r} is not known: MNI152 or native.")
    check_scan(volume)
    _check_view(volume)
    if space == "native":
        return SpaceCheck(space)
    _check_oriented(volume)
    template = brain_template()
    scan = volume.frame()
    shown = solid_foreground(scan, template.inside.shape, template.affine)
    if not shown.any():
        raise SpaceError(
            f"Nothing of {volume.name} lies near the MNI152 brain (Dice 0.00): its header places it "
            f"elsewhere. Resampling by header is not registration. {_REGISTER}"
        )
    # air may have any value, and noise; the darkest voxels stand for it
    air = np.percentile(scan.array, 1).astype(np.float32)
    intensity = scan.like(np.maximum(scan.array - air, 0)).resample(shown.shape, template.affine).array
    ratio = float(shown.sum() / template.inside.sum())
    with_skull = ratio > _CERTAINLY_HEAD or (ratio > _PERHAPS_HEAD and outside_share(intensity, shown) > _HEAD_OUTSIDE)
    if with_skull and skull_stripped:
        raise SpaceError(
            f"{volume.name} seems to show the whole head (its foreground is {ratio:.2f} times the brain of "
            "the MNI152 template), the network was trained on brains without skull. Strip the skull first, for "
            "example with mri_synthstrip -i IN -o OUT (SynthStrip) or hd-bet -i IN -o OUT (HD-BET). "
            f"If the scan is not in MNI152 space yet: {_REGISTER}"
        )
    guesses = [shown, *(brain_candidates(intensity, shown) if with_skull else ())]
    brain = max(guesses, key=lambda guess: _dice(guess, template.inside))
    dice = _dice(brain, template.inside)
    if dice < _MINIMUM_DICE:
        raise SpaceError(
            f"{volume.name} is not in MNI152 space: placed by its header, its brain overlaps the template's "
            f"with a Dice of {dice:.2f}, at least {_MINIMUM_DICE} is needed ({_difference(brain, template)}). "
            f"Resampling by header is not registration. {_REGISTER}"
        )
    correlation = _correlation(intensity, brain, template)
    if correlation < _MINIMUM_CORRELATION:
        raise SpaceError(
            f"{volume.name} has the shape of the MNI152 brain (Dice {dice:.2f}) but not its structures: placed "
            f"by its header, they correlate by {correlation:.2f}, at least {_MINIMUM_CORRELATION} is needed. It "
            f"may be turned or flipped: its header says that its axes lead to {''.join(volume.axcodes)}; look at "
            f"it over the template. {_REGISTER}"
        )
    # last: now it is known that what is shown is a brain in its place, and not a part of a head elsewhere
    if skull_stripped is False and ratio <= _PERHAPS_HEAD:
        raise SpaceError(
            f"{volume.name} seems to show the brain alone (its foreground is {ratio:.2f} times the brain of the MNI152 "
            "template), the network was trained on whole heads. Give the scan as it was before its skull was stripped, "
            "brought to MNI152 by the same transform; or take a network that was trained on brains."
        )
    return SpaceCheck(space, round(dice, 4), round(correlation, 4), round(ratio, 4), with_skull)


def _check_oriented(volume: Volume) -> None:
    if not volume.oriented:
        raise SpaceError(
            f"{volume.name} has no orientation: its header leaves open where its axes lead (NIfTI: sform and "
            "qform codes are both 0), so left and right are unknown, and the network needs them (MNI152). "
            "Convert the original again; or, if you are sure of the axes, state them, for example with FSL: "
            "fslorient -setsformcode 4 IMAGE, or with nibabel: set_sform(affine, code=4)."
        )


def _check_view(volume: Volume) -> None:
    extent = [size * n for size, n in zip(volume.zooms, volume.shape, strict=True)]
    if min(extent) < 20 or max(extent) > 1000 or min(volume.shape) < 2:
        view = " x ".join(f"{length:.0f}" for length in extent)
        raise ValueError(
            f"{volume.name} has a field of view of {view} mm ({volume.shape} voxels), 20 to 1000 mm along "
            "each axis are expected: give the whole 3-D scan, and check the voxel sizes in its header."
        )


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def _difference(brain: np.ndarray, template: Template) -> str:
    volume = f"volume {brain.sum() / template.inside.sum():.2f} times the template's"
    if not brain.any():
        return volume
    centres = [np.argwhere(mask).mean(axis=0) for mask in (brain, template.inside)]
    apart = np.linalg.norm(template.affine[:3, :3] @ (centres[0] - centres[1]))
    return f"{volume}, centre {apart:.0f} mm away"


def _correlation(intensity: np.ndarray, brain: np.ndarray, template: Template) -> float:
    from jaxsal.data.brain import bounding_box

    box = bounding_box(template.inside, 0)
    both = (brain & template.inside)[box]
    scan = _structures(intensity[box], brain[box])[both]
    mean = _structures(template.intensity[box], template.inside[box])[both]
    return float(abs(np.corrcoef(scan, mean)[0, 1])) if scan.std() > 0 else 0.0


def _structures(intensity: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Between 4 and 16 mm: neither noise and folds, which differ between people, nor bias fields."""
    return _smooth(intensity, inside, 2.0) - _smooth(intensity, inside, 8.0)


def _smooth(intensity: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the voxels inside, so that the brain's edge is no structure."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(inside.astype(np.float32), sigma)
    return gaussian_filter(np.where(inside, intensity, 0).astype(np.float32), sigma) / np.maximum(weight, 1e-3)
