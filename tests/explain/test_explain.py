import dataclasses
import logging

import jax
import numpy as np
import pytest

import jaxsal
from jaxsal.data import Volume
from jaxsal.explanation import Plan, plan, run
from jaxsal.explanation.notes import grouped, notes
from jaxsal.masks import smocam
from jaxsal.optim import Status
from jaxsal.splitting import split

from .conftest import AFFINE, LEFT, NOTHING, RIGHT, SHAPE, scan_array, write_scan

HALF_FIELD = 6.0 + 1.0  # half of a planted structure's field, and a grid's rounding, in millimetres


def peak_in_file(volume: Volume) -> np.ndarray:
    """Millimetres of the largest voxel, by the map's own affine."""
    voxel = np.unravel_index(volume.array.argmax(), volume.array.shape)
    return (volume.affine @ [*voxel, 1])[:3]


@pytest.mark.parametrize("order", ["RAS", "LPS", "SAR", "IPL"])
def test_saliency_lies_where_the_network_looks_however_the_scan_is_stored(tmp_path, planted, order):
    path = write_scan(tmp_path / f"{order}.nii.gz", order)
    found = jaxsal.explain(path, planted, max_steps=150)
    for structure in (LEFT, RIGHT):
        saliency = found.map(structure.output)
        assert "".join(saliency.axcodes) == order
        assert np.abs(peak_in_file(saliency) - structure.centre).max() < HALF_FIELD
        voxel = np.rint(np.linalg.inv(saliency.affine) @ [*found.peak(structure.output), 1])[:3].astype(int)
        assert saliency.array[tuple(voxel)] == pytest.approx(saliency.array.max())


def test_saliency_lies_there_on_a_finer_oblique_grid_too(tmp_path, planted):
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix() * 2.5
    affine[:3, 3] = affine[:3, :3] @ [-25, -25, -25] + [6, -6, 2]
    scan = Volume(scan_array(), AFFINE).resample((50, 50, 50), affine)
    found = jaxsal.explain(scan, planted, outputs=[LEFT.output], max_steps=300)
    saliency = found.map(LEFT.output)
    assert saliency.shape == (50, 50, 50)
    np.testing.assert_array_equal(saliency.affine, affine)
    assert np.abs(peak_in_file(saliency) - LEFT.centre).max() < HALF_FIELD


def test_it_is_smocam_with_the_records_layer_and_sigma(planted, explanation):
    x = jax.numpy.asarray(scan_array()[None, ..., None])
    expected = smocam(split(planted.model, x, "relu2"), x, sigma=np.array([100, 0.2, 1.0]), max_steps=400)
    np.testing.assert_array_equal(explanation.result.mask, expected.mask)
    np.testing.assert_allclose(explanation.table["prediction"], planted.model(x)[0], rtol=1e-6)
    on_grid = explanation.map(LEFT.output).canonical()
    np.testing.assert_array_equal(on_grid.array, expected.saliency[0, 0])
    np.testing.assert_allclose(on_grid.affine, AFFINE)


def test_the_table_shares_the_seconds_by_evaluations(explanation):
    table = explanation.table.set_index("output")
    assert list(table.index) == [LEFT.output, RIGHT.output, NOTHING]
    assert list(table["unit"]) == ["mm^3", "1", "years"]
    assert table["seconds"].sum() == pytest.approx(explanation.timing.masks)
    assert table["seconds"][LEFT.output] > table["seconds"][NOTHING]
    total = table["distance"] + table["norm"] + 30 * table["smoothness"]
    np.testing.assert_allclose(total, table["value"], rtol=1e-5)
    assert table["status"][NOTHING] == "uninformative"
    assert np.isnan(table["recovered"][NOTHING])
    assert "uninformative" in repr(explanation)


def test_an_output_that_sees_nothing_has_an_empty_map_and_says_so(explanation):
    assert explanation.peak(NOTHING) is None
    assert not explanation.map(NOTHING).array.any()
    texts = [note.text for note in notes(explanation) if note.output == NOTHING]
    assert any("nothing to explain" in text for text in texts)
    assert any("The map is empty" in text for text in texts)
    assert not [note for note in notes(explanation) if note.output == LEFT.output]


@pytest.mark.parametrize(
    ("status", "negative", "texts"),
    [
        ("STAGNATED", 0.05, []),
        ("MAX_STEPS", 0.09, []),
        ("UNEXPLAINED", 0.0, ["recovers less than half of the prediction"]),
        ("UNINFORMATIVE", 0.0, ["nothing to explain"]),
        ("NOT_FINITE", 0.0, ["NaN or infinite"]),
        ("UNEXPLAINED", 0.99, ["recovers less than half", "99 % of the mask's energy is negative"]),
    ],
)
def test_what_must_not_be_believed_is_said(explanation, status, negative, texts):
    lanes = np.ones((3, 1))
    result = dataclasses.replace(
        explanation.result,
        status=lanes.astype(int) * Status[status],
        recovered=jax.numpy.asarray(0.2 * lanes),
        negative_energy=jax.numpy.asarray(negative * lanes),
    )
    found = [note.text for note in notes(dataclasses.replace(explanation, result=result)) if note.output == LEFT.output]
    assert len(found) == len(texts)
    for text, expected in zip(found, texts, strict=True):
        assert expected in text


def test_a_mask_that_overshoots_is_told(explanation):
    lanes = np.ones((3, 1))
    result = dataclasses.replace(
        explanation.result, status=lanes.astype(int) * Status.UNEXPLAINED, recovered=jax.numpy.asarray(3 * lanes)
    )
    (text,) = {note.text for note in notes(dataclasses.replace(explanation, result=result)) if "recovers" in note.text}
    assert "recovers more than one and a half times the prediction" in text


def test_an_empty_map_is_explained_by_its_cause(explanation):
    def note(mask: np.ndarray) -> str:
        lane = explanation.output_names.index(LEFT.output)
        result = dataclasses.replace(
            explanation.result,
            mask=explanation.result.mask.at[lane, 0].set(mask),
            saliency=explanation.result.saliency.at[lane, 0].set(0),
        )
        texts = [n.text for n in notes(dataclasses.replace(explanation, result=result)) if n.output == LEFT.output]
        return " ".join(text for text in texts if "empty" in text)

    shape = explanation.result.mask.shape[2:]
    assert "the mask is the same everywhere" in note(np.full(shape, 0.1, np.float32))
    negative = np.zeros(shape, np.float32)
    negative[:2, :2] = -0.25
    text = note(negative)
    assert "is not the same everywhere: its values reach from -0.25 to 0" in text


def test_resampling_is_told(tmp_path, explanation, planted):
    assert explanation.resampled == (
        "The scan's voxels were taken over to the network's grid of 24 x 24 x 24 voxels of 4 x 4 x 4 mm "
        "without interpolation."
    )
    affine = AFFINE.copy()
    affine[:3, :3] = 2.5 * np.eye(3)
    scan = Volume(scan_array(), AFFINE).resample((40, 40, 40), affine)
    found = jaxsal.explain(scan, planted, outputs=LEFT.output, max_steps=2)
    # from 2.5 to 4 mm: sqrt(4 ** 2 - 2.5 ** 2) = 3.12 mm at half maximum, divided by 2.355
    assert found.resampled == (
        "The scan, 40 x 40 x 40 voxels of 2.5 x 2.5 x 2.5 mm, was smoothed along its axes by Gaussians of standard "
        "deviation 1.33 x 1.33 x 1.33 mm and resampled linearly to the network's grid of 24 x 24 x 24 voxels of "
        "4 x 4 x 4 mm; voxels of which 50 % or less lie in the scan's non-zero part were set to 0."
    )
    affine[:3, :3] = np.diag([5, 4, 1])
    uneven = Volume(scan_array(), AFFINE).resample((20, 24, 96), affine)
    assert "standard deviation 0 x 0 x 1.64 mm" in dataclasses.replace(explanation, volume=uneven).resampled
    affine[:3, :3] = 4.5 * np.eye(3)
    coarse = Volume(scan_array(), AFFINE).resample((21, 21, 21), affine)
    assert dataclasses.replace(explanation, volume=coarse).resampled == (
        "The scan, 21 x 21 x 21 voxels of 4.5 x 4.5 x 4.5 mm, was resampled linearly to the network's grid of "
        "24 x 24 x 24 voxels of 4 x 4 x 4 mm."
    )


def test_the_smoothing_told_is_the_smoothing_done():
    """A point of light spreads by the standard deviation that is stated."""
    from jaxsal.data.coarsen import onto_grid, smoothing

    array = np.full((41, 41, 41), 1.0, np.float32)
    array[20, 20, 20] = 1e4
    point = Volume(array, np.diag([1.0, 1, 1, 1]))
    target = np.diag([4.0, 4, 1, 1])
    moved = onto_grid(point, (10, 10, 41), target)
    np.testing.assert_allclose(smoothing(point, target), [np.sqrt(15 / (8 * np.log(2)))] * 2 + [0])
    sigma = smoothing(point, target)[0]
    line = moved.array[3:8, 5, 20] - 1
    np.testing.assert_allclose(line / line[2], np.exp(-((4 * np.arange(-2, 3)) ** 2) / (2 * sigma**2)), atol=1e-4)


def test_notes_of_one_text_are_told_once(explanation):
    found = notes(explanation)
    assert grouped([*found, *(note._replace(output="Other") for note in found)])[0][0] == (NOTHING, "Other")


def test_one_plan_serves_many_scans_with_one_program(tmp_path, planted, caplog):
    def compiled(name: str, prepared: Plan) -> list[str]:
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            assert run(prepared, write_scan(tmp_path / name, "LPS")).name == name
        return [text for text in caplog.messages if "XLA compilation of" in text]

    prepared = plan(planted, max_steps=7, outputs=LEFT.output)
    assert compiled("a.nii.gz", prepared)
    assert not compiled("b.nii.gz", prepared)


def test_one_frame_is_a_scan_and_its_maps_are_three_dimensional(tmp_path, planted):
    path = write_scan(tmp_path / "a.nii.gz", array=scan_array()[..., None])
    found = jaxsal.explain(path, planted, outputs=LEFT.output, max_steps=5)
    assert found.map(LEFT.output).array.shape == SHAPE


def test_progress_says_what_is_going_on(tmp_path, planted):
    said = []
    jaxsal.explain(
        write_scan(tmp_path / "a.nii.gz"), planted, max_steps=120, progress=lambda done, total, text: said.append(text)
    )
    assert said[0] == "reading the scan"
    assert any(text.startswith("compiling") for text in said)
    assert said[-1] == "3 of 3 done, 0 running"


def test_maps_are_made_one_at_a_time(explanation):
    assert [name for name, _ in explanation.maps()] == [LEFT.output, RIGHT.output, NOTHING]
    with pytest.raises(KeyError, match="was not explained; those are: Left-Structure"):
        explanation.map("Other")
