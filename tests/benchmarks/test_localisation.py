"""Localisation: the arithmetic on planted maps, and the criterion on two real brains."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks.localisation import mass
from benchmarks.localisation.maps import Maps, Scan, make_maps, onto_mask, people, prepare_setup, regions_of
from benchmarks.localisation.page import write_page
from benchmarks.localisation.summary import greater, measure, other_side, rows, summarise
from jaxsal.data import Volume
from jaxsal.engine.geometry import Geometry
from jaxsal.masks.upsample import upsample
from jaxsal.models import default_model, shipped

GRID = (12, 14, 12)
NAMES = ("left_lateral_ventricle", "right_lateral_ventricle")


def brain_with_boxes() -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid with a structure on either side of the middle; regions [3, *t] and centres [*t, 3] in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij"), -1)
    middle = (np.array(GRID) - 1) / 2
    brain = (((index - middle) / (np.array(GRID) / 2)) ** 2).sum(-1) < 1
    left, right = np.zeros(GRID, bool), np.zeros(GRID, bool)
    left[2:4, 5:8, 5:7] = True
    right[8:10, 5:8, 5:7] = True
    return np.stack([brain, brain & left, brain & right]).astype(np.float32), 8.0 * index


def smooth_noise(rng: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return np.abs(gaussian_filter(rng.standard_normal(GRID), 1.0, mode="wrap"))


def test_ratio_by_hand():
    weights = np.zeros((3, 4, 5), np.float32)
    weights[0, :, :4] = 1  # 16 voxels of brain
    weights[1, 0, :2] = 1  # 2 voxels, an eighth
    weights[2, 1:3, :2] = 1  # 4 voxels, a quarter
    map = np.ones((4, 5))
    map[0, :2] = 8
    map[:, 4] = 1000  # outside the brain, must not count
    # masses: brain 14 * 1 + 2 * 8 = 30, first structure 16, second 4
    np.testing.assert_allclose(mass.ratios(map, weights), [(16 / 30) / (2 / 16), (4 / 30) / (4 / 16)])
    np.testing.assert_allclose(mass.ratios(np.ones((4, 5)), weights), 1)
    assert mass.ratios(np.stack([map, map])[None], weights).shape == (1, 2, 2)
    assert np.isnan(mass.ratios(np.zeros((4, 5)), weights)).all()


def test_mass_on_the_masks_grid_is_that_of_the_upsampled_map():
    rng = np.random.default_rng(0)
    lattice, space, grid = Geometry((1.0, 2.0, 0.5), (4.0, 3.0, 2.5)), (17, 19, 15), (4, 6, 6)
    regions = rng.random((3, *space)) < 0.3
    mask = rng.random((2, *grid)).astype(np.float32)
    full = np.asarray(upsample(jnp.asarray(mask), lattice, space))
    weights = onto_mask(regions, lattice, grid)
    np.testing.assert_allclose(mass.masses(mask, weights), mass.masses(full, regions), rtol=1e-5)
    np.testing.assert_allclose(weights.sum((1, 2, 3)), regions.sum((1, 2, 3)), rtol=1e-5)


def test_blob_has_the_maps_mass_and_spread_around_the_brains_centre():
    regions, centres = brain_with_boxes()
    map = 0.05 + regions[1]  # peaked far from the centre
    blob = mass.blob_of_spread(map, regions[0], centres)
    assert (blob * regions[0]).sum() == pytest.approx((map * regions[0]).sum(), rel=1e-6)
    assert mass.spread(blob, regions[0], centres) == pytest.approx(mass.spread(map, regions[0], centres), rel=1e-6)
    at = (blob * regions[0]).ravel() @ centres.reshape(-1, 3) / (blob * regions[0]).sum()
    np.testing.assert_allclose(at, 8 * (np.array(GRID) - 1) / 2, atol=1e-6)
    # a map wider than the brain's own spread cannot be matched by a Gaussian inside it: uniform is the widest
    rim = regions[0] * (((centres - at) ** 2).sum(-1) > 30**2)
    uniform = mass.blob_of_spread(rim, regions[0], centres)
    assert np.ptp(uniform) == pytest.approx(0, abs=1e-9)


def test_blob_of_values_keeps_the_histogram_and_falls_from_the_centre():
    regions, centres = brain_with_boxes()
    inside = regions[0] > 0
    map = smooth_noise(np.random.default_rng(1))
    blob = mass.blob_of_values(map, regions[0], centres)
    np.testing.assert_allclose(np.sort(blob[inside]), np.sort(map[inside]), rtol=1e-6)
    distance = np.sqrt(((centres - 8 * (np.array(GRID) - 1) / 2) ** 2).sum(-1))[inside]
    nearest_first = np.lexsort((-blob[inside], distance.round(6)))
    assert (np.diff(blob[inside][nearest_first]) <= 1e-12).all()


def test_p_value_of_a_planted_map_is_the_smallest_and_of_random_maps_uniform():
    regions, _ = brain_with_boxes()
    mirrored = regions[:, ::-1]
    box = mass.brain_box(regions[0])
    copies = mass.draw_copies(box, 100, seed=0)
    assert copies.shift.shape == (100, 3)
    assert copies.mirrored.sum() == 50
    sizes = np.array([s.stop - s.start for s in box])
    assert np.minimum(copies.shift, sizes - copies.shift).max(1).min() >= 2

    planted = 0.01 + regions[1:]
    observed = mass.ratios(planted, regions)
    found = mass.p_value(observed, mass.copy_ratios(planted, regions, mirrored, box, copies))
    assert np.diag(found) == pytest.approx(1 / 101)

    rng = np.random.default_rng(2)
    random = np.stack([smooth_noise(rng) for _ in range(300)])
    p = mass.p_value(mass.ratios(random, regions), mass.copy_ratios(random, regions, mirrored, box, copies))
    assert stats.kstest(p[:, 0], "uniform").pvalue > 0.01
    assert 0.02 < (p[:, 0] < 0.05).mean() < 0.09


def test_a_mirrored_copy_without_shift_is_the_mirrored_map():
    regions, _ = brain_with_boxes()
    map = smooth_noise(np.random.default_rng(3))[None]
    box = mass.brain_box(regions[0])
    still = mass.Copies(np.zeros((1, 3), int), np.array([True]))
    copied = mass.copy_ratios(map, regions, regions[:, ::-1], box, still)
    np.testing.assert_allclose(copied[0], mass.ratios(map[:, ::-1], regions), rtol=1e-6)


def test_ipsilateral_share_by_hand():
    masses = np.array([[10.0, 3.0, 1.0], [10.0, 2.0, 2.0]])  # brain, left, right
    own, other = np.array([0, 1]), np.array([1, 0])
    np.testing.assert_allclose(mass.ipsilateral_share(masses, own, other), [0.75, 0.5])
    assert other_side(["left_x", "Right-Y", "Left-Y", "stem"]).tolist() == [-1, 2, 1, -1]


def test_wilcoxon_is_one_sided_and_says_when_there_is_nothing_to_compare():
    low, high = np.arange(6.0), np.arange(6.0) + np.arange(1, 7)
    assert greater(high, low) == pytest.approx(1 / 64)
    assert greater(low, high) == pytest.approx(1)
    assert greater(low, low) is None
    assert greater(low, np.full(6, np.nan)) is None


def maps_with(mask: np.ndarray, rng: np.random.Generator) -> Maps:
    regions, centres = brain_with_boxes()
    lanes = len(mask)
    noise = np.stack([smooth_noise(rng) for _ in range(lanes)])
    values = np.ones(lanes)
    return Maps(
        weights=regions,
        mirrored=regions[:, ::-1],
        centres=centres,
        mask=mask,
        saliency_mass=mass.masses(mask, regions),
        saliency_blob_mass=mass.masses(np.stack([mass.blob_of_values(m, regions[0], centres) for m in mask]), regions),
        feature_norm=noise[0],
        gradient=noise,
        tail_mask=noise[None],
        prediction=values,
        recovered=0.9 * values,
        negative_energy=0 * values,
        steps=100 * values,
        status=np.ones(lanes, int),
        tail_recovered=values[None],
    )


def cohort(mask: np.ndarray) -> tuple[list[Scan], list[Maps]]:
    rng = np.random.default_rng(4)
    maps = [maps_with(np.abs(mask + 0.01 * rng.random(mask.shape)), rng) for _ in range(6)]
    return [Scan(str(i), 20.0 + i, None, None) for i in range(6)], maps  # type: ignore[arg-type]


def test_summary_and_page_of_planted_masks(tmp_path):
    regions, _ = brain_with_boxes()
    scans, maps = cohort(0.05 + regions[1:])
    found = measure(maps, NAMES)
    summary = summarise(scans, maps, NAMES, found)
    assert summary["verdict"] == {"outputs": list(NAMES), "passed": True}
    assert summary["dominance"]["own_first"] == summary["dominance"]["output_first_for_structure"] == 2
    left = summary["outputs"]["left_lateral_ventricle"]
    assert left["copies_p"] == pytest.approx(1 / 101)
    assert left["rank"] == 1
    assert left["first_in_scans"] == 6
    assert left["wilcoxon_p"]["blob_values"] == pytest.approx(1 / 64)
    assert left["ipsilateral"]["mask"] > 0.9
    assert left["ipsilateral_chance"] == pytest.approx(0.5)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    table = rows(scans, NAMES, found)
    planted = [row["ratio"] for row in table if row["map"] == "mask" and row["output"] == row["structure"]]
    assert np.median(planted[::2]) == pytest.approx(left["ratio"]["mask"])

    summary["run"] = {
        "command": "c", "date": "d", "model": "m", "sha256": None, "layer": "l", "mask_shape": "s", "tails": 1,
        "tail_outputs": 2, "mask_voxel_mm": "8 mm", "options": {"solver": "paper"}, "cpu": "p",
        "cores": 1, "backend": "cpu", "versions": {"jax": "0"},
    }  # fmt: skip
    text = write_page(tmp_path, summary).read_text()
    assert "**passed**" in text
    assert f"{left['ratio']['mask']:.2f}" in text
    assert "$" not in text
    assert (tmp_path / "figures" / "localisation.png").stat().st_size > 10_000


def test_a_central_mask_does_not_pass():
    _, centres = brain_with_boxes()
    distance = ((centres - 8 * (np.array(GRID) - 1) / 2) ** 2).sum(-1)
    scans, maps = cohort(np.stack([np.exp(-distance / (2 * 20.0**2))] * 2))
    summary = summarise(scans, maps, NAMES, measure(maps, NAMES))
    assert not summary["verdict"]["passed"]
    assert "blob_values" not in summary["outputs"]["left_lateral_ventricle"]["beaten"]


def test_labels_are_found_by_name_and_people_span_the_ages(shared):
    folder = shared / "data" / "oasis_2mm"
    names = ("left_thalamus", "right_lateral_ventricle", "left_hippocampus", "right_amygdala")
    assert [region.value for region in regions_of(names, folder / "labels.csv")] == [60, 51, 48, 31]
    with pytest.raises(ValueError, match="left_nothing"):
        regions_of(("left_nothing",), folder / "labels.csv")
    scans = people(folder)
    assert len(scans) == 23
    assert not {"1024", "1025", "1039"} & {scan.name for scan in scans}
    assert max(scan.age for scan in scans[:8]) > 50
    assert min(scan.age for scan in scans[:8]) < 20


def test_left_labels_lie_on_the_left_of_the_networks_grid(shared):
    scan = people(shared / "data" / "oasis_2mm")[0]
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    for name, side in (("left_hippocampus", -1), ("right_hippocampus", 1), ("left_putamen", -1)):
        (region,) = regions_of((name,), scan.labels.parent / "labels.csv")
        labels = Volume.load(scan.labels).resample((91, 109, 91), affine, "nearest").array
        x = affine[0, 3] + 2.0 * np.argwhere(labels == region.value)[:, 0]
        assert np.sign(x).min() == np.sign(x).max() == side


def test_ventricle_masks_of_the_shipped_network_beat_the_blobs_on_real_brains(shared):
    if not shipped():
        pytest.skip("this checkout has no trained network in jaxsal/zoo/weights")
    folder = shared / "data" / "oasis_2mm"
    setup = prepare_setup(default_model(), folder / "labels.csv", tails=0, outputs=NAMES)
    assert [region.output for region in setup.regions] == list(NAMES)
    maps = [make_maps(setup, scan) for scan in people(folder)[:2]]
    found = measure(maps, NAMES)
    own = {kind: np.stack([np.diag(one) for one in ratio]) for kind, ratio in found.ratio.items()}
    assert (own["mask"] > own["blob_spread"]).all()
    assert (own["mask"] > own["blob_values"]).all()
    assert (np.diag(found.p_people) < 0.05).all()
