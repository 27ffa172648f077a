import numpy as np
import pytest

from jaxsal.data import Volume, default_image, prepare, scale_intensities

BRAIN = np.array([0.0, 0.0, 1.0, 2.0, 3.0, 0.0], np.float32)


@pytest.mark.parametrize(
    ("divide_by", "divisor"), [("brain-mean", 2.0), ("volume-mean", 1.0), ("maximum", 3.0), ("nothing", 1.0)]
)
def test_the_four_divisors(divide_by, divisor):
    scaled = scale_intensities(BRAIN, divide_by)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, BRAIN / divisor, rtol=1e-6)
    np.testing.assert_allclose(
        scale_intensities(BRAIN, divide_by, (0.1, 0.9)), (BRAIN / divisor).clip(0.1, 0.9), rtol=1e-6
    )


@pytest.mark.parametrize("divide_by", ["brain-mean", "volume-mean", "maximum"])
def test_scaling_does_not_depend_on_the_scanner_s_units(divide_by):
    rng = np.random.default_rng(0)
    array = rng.random((20, 20, 20)).astype(np.float32)
    for factor in (1e-6, 3.7, 1e6):
        np.testing.assert_allclose(
            scale_intensities(array * np.float32(factor), divide_by), scale_intensities(array, divide_by), rtol=1e-5
        )
    integers = (array * 4000).astype(np.int16)
    np.testing.assert_allclose(
        scale_intensities(integers, divide_by), scale_intensities(integers.astype(np.float32), divide_by)
    )


def test_means_of_large_volumes_are_accurate():
    """A sum in single precision would lose digits."""
    array = np.full((200, 200, 200), 1000.1, np.float32)
    np.testing.assert_allclose(scale_intensities(array, "volume-mean"), 1.0, rtol=1e-6)


@pytest.mark.parametrize("divide_by", ["brain-mean", "volume-mean", "maximum"])
def test_a_divisor_of_zero_or_less(divide_by):
    with pytest.raises(ValueError, match=rf"divided by their {divide_by}, it is .*: a scan whose tissue is brighter"):
        scale_intensities(-BRAIN, divide_by)
    with pytest.raises(ValueError, match="brain-mean, volume-mean, maximum or nothing"):
        scale_intensities(BRAIN, "median")


def test_the_divisor_is_taken_on_the_network_s_grid():
    """What the network does not see does not count."""
    array = np.ones((10, 10, 10), np.float32)
    array[5:] = 100
    x = prepare(Volume(array, np.eye(4)), (5, 10, 10), np.eye(4), divide_by="volume-mean")
    np.testing.assert_array_equal(x, np.ones((1, 5, 10, 10, 1), np.float32))


def test_the_default_image_on_a_2_mm_grid():
    brain = default_image()
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    x = prepare(brain, (91, 109, 91), affine, divide_by="brain-mean", clip=(0.0, 4.0))
    assert x.shape == (1, 91, 109, 91, 1)
    assert x.dtype == np.float32
    assert x.min() == 0
    assert 0.98 < x[x > 0].mean() < 1.02
    # every grid point is a voxel of the 1 mm image, -90 mm being its voxel 8
    values = brain.array[8 : 8 + 182 : 2, 8 : 8 + 218 : 2, 0:182:2]
    np.testing.assert_allclose(x[0, ..., 0], scale_intensities(values, "brain-mean", (0, 4)), rtol=1e-4, atol=1e-5)
    # white matter is bright, ventricles are dark, air is 0
    at = lambda *mm: float(x[(0, *(np.subtract(mm, affine[:3, 3]) // 2).astype(int), 0)])  # noqa: E731
    assert at(26, -20, 28) > 1.1 > 0.8 > at(8, -10, 22) > 0
    assert at(0, -126, -72) == 0
