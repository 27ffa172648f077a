import io

import numpy as np
import pytest
from matplotlib.image import imread

from jaxsal.data import Volume
from jaxsal.report import cuts_png

AFFINE = np.array([[2.0, 0, 0, -40], [0, 2.0, 0, -40], [0, 0, 2.0, -40], [0, 0, 0, 1]])


def pixels(png: bytes) -> np.ndarray:
    return imread(io.BytesIO(png))[..., :3]


def coloured(picture: np.ndarray) -> np.ndarray:
    """Pixels that are not grey, without those of the colour bar."""
    return (np.ptp(picture, axis=-1) > 0.3) & (np.arange(picture.shape[1]) < 0.88 * picture.shape[1])


@pytest.fixture
def scan() -> Volume:
    grid = np.indices((40, 40, 40))
    ball = (((grid - 19.5) ** 2).sum(axis=0) < 18**2).astype(np.float32)
    return Volume(ball * 0.6, AFFINE)


def spot(scan: Volume, *voxel: int) -> Volume:
    array = np.zeros(scan.shape, np.float32)
    array[tuple(slice(v - 1, v + 2) for v in voxel)] = 1
    return scan.like(array)


@pytest.mark.parametrize("flip", [False, True])
def test_a_spot_on_the_left_is_drawn_on_the_left(scan, flip):
    saliency = spot(scan, 10, 20, 20)  # x = -20 mm
    if flip:  # stored from right to left: the same place
        affine = scan.affine @ np.array([[-1, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        scan, saliency = (Volume(volume.array[::-1], affine) for volume in (scan, saliency))
    picture = pixels(cuts_png(scan, saliency, (-20.0, 0.0, 0.0), "left"))
    columns = np.nonzero(coloured(picture).any(axis=0))[0]
    axial = columns[columns > 0.6 * picture.shape[1]]
    brain = np.nonzero((picture.mean(axis=-1) > 0.3)[150:380].mean(axis=0) > 0.5)[0]
    brain = brain[(brain > 0.6 * picture.shape[1]) & (brain < 0.88 * picture.shape[1])]
    assert len(axial)
    assert axial.mean() < brain.mean() - 20


def test_an_empty_map_is_drawn_and_named(scan):
    empty = cuts_png(scan, scan.like(np.zeros(scan.shape, np.float32)), None, "nothing")
    assert not coloured(pixels(empty)).any()
    assert pixels(empty).std() > 0.1
    assert b"empty map" in empty  # the picture's own title


def test_a_map_of_both_signs_is_drawn(scan):
    both = spot(scan, 12, 20, 20).array - spot(scan, 28, 20, 20).array
    assert coloured(pixels(cuts_png(scan, scan.like(both), (0.0, 0.0, 0.0), "both"))).any()


def test_a_peak_outside_the_scan_is_replaced_by_one_inside(scan):
    inside = cuts_png(scan, spot(scan, 10, 20, 20), (-20.0, 0.0, 0.0), "a")
    assert coloured(pixels(inside)).sum() > 50
    outside = cuts_png(scan, spot(scan, 10, 20, 20), (500.0, 0.0, 0.0), "a")
    assert coloured(pixels(outside)).sum() > 50


def test_pyplot_is_left_as_it_was(scan):
    import matplotlib
    from matplotlib import pyplot

    backend, figures = matplotlib.get_backend(), pyplot.get_fignums()
    cuts_png(scan, spot(scan, 10, 20, 20), None, "a")
    assert matplotlib.get_backend() == backend
    assert pyplot.get_fignums() == figures


def test_a_long_title_is_not_cut_off(scan):
    title = "A very long name of an output, " * 6
    picture = pixels(cuts_png(scan, spot(scan, 10, 20, 20), None, title))
    edge = picture[:45, [*range(3), *range(-3, 0)]]
    assert edge.max() < 0.2


def test_a_map_outside_the_brain_is_drawn_where_it_is(scan):
    picture = pixels(cuts_png(scan, spot(scan, 4, 4, 6), (-32.0, -32.0, -28.0), "outside"))
    assert coloured(picture).sum() > 50
    rows = np.nonzero(coloured(picture).any(axis=1))[0]
    assert rows.min() > 0.6 * picture.shape[0]  # low in the picture, as it is low in space


def test_a_signed_map_has_colours_for_both_signs_also_where_it_has_but_one(scan):
    one_sign = pixels(cuts_png(scan, spot(scan, 10, 20, 20), (-20.0, 0.0, 0.0), "a", signed=True))
    red, _, blue = np.moveaxis(one_sign, -1, 0)
    shown = np.arange(one_sign.shape[1]) < 0.88 * one_sign.shape[1]
    assert (red - blue > 0.8)[:, shown].sum() > 50
    assert not (blue - red > 0.3)[:, shown].any()
    assert (blue - red > 0.8)[:, ~shown].any()  # the colour bar goes as far below zero as above


def test_single_large_voxels_do_not_hide_the_rest(scan):
    saliency = spot(scan, 10, 20, 20).array * 0.01
    saliency[30, 30, 30] = 100.0
    hidden, seen = (
        coloured(pixels(cuts_png(scan, scan.like(saliency), (-20.0, 0.0, 0.0), "a", brightest=percentile))).sum()
        for percentile in (100.0, 90.0)
    )
    assert hidden == 0
    assert seen > 50
