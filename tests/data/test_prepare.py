import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

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
    # the brain keeps its size: neither a rim is lost nor a haze added
    assert abs(8 * (x > 0).sum() / (brain.array > 0).sum() - 1) < 0.01
    # white matter is bright, ventricles are dark, air is 0
    at = lambda *mm: float(x[(0, *(np.subtract(mm, affine[:3, 3]) // 2).astype(int), 0)])  # noqa: E731
    assert at(26, -20, 28) > 1.1 > 0.8 > at(8, -10, 22) > 0
    assert at(0, -126, -72) == 0


def test_noise_is_averaged_not_aliased():
    noise = np.random.default_rng(0).normal(100, 10, (60, 60, 60)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    x = prepare(Volume(noise, np.eye(4)), (30, 30, 30), affine, divide_by="nothing")
    inner = x[0, 3:-3, 3:-3, 3:-3, 0]
    # variance of white noise under a Gaussian: (4 pi sigma^2)^(-1/2) per axis
    sigma = np.sqrt(3 / (8 * np.log(2)))
    assert abs(inner.std() / (10 * (4 * np.pi * sigma**2) ** -0.75) - 1) < 0.05
    assert abs(inner.mean() - 100) < 0.2


def test_only_the_coarser_axes_are_smoothed():
    """Slices of 3 mm in a grid of 2 mm keep their own resolution."""
    array = np.random.default_rng(0).random((20, 16, 8)).astype(np.float32)
    scan = Volume(array, np.diag([1.0, 2.0, 3.0, 1.0]))
    x = prepare(scan, (10, 16, 8), np.diag([2.0, 2.0, 3.0, 1.0]), divide_by="nothing")[0, ..., 0]
    sigma = np.sqrt(3 / (8 * np.log(2)))
    np.testing.assert_allclose(x, gaussian_filter1d(array, sigma, axis=0)[::2], rtol=1e-4)


def test_real_scans_of_1_mm_equal_their_2_mm_versions(shared):
    """The 2 mm files were made by another program."""
    for subject in ("1000", "1101", "1113", "1125"):
        fine, coarse = (
            Volume.load(shared / "data" / folder / f"{subject}_T1.nii.gz") for folder in ("oasis_1mm", "oasis_2mm")
        )
        x = prepare(fine, coarse.shape, coarse.affine)
        expected = prepare(coarse, coarse.shape, coarse.affine)
        inside = expected > 0
        assert np.corrcoef(x[inside], expected[inside])[0, 1] > 0.999
        assert np.abs(x - expected)[inside].mean() < 0.01
        assert abs((x > 0).sum() / inside.sum() - 1) < 0.005
