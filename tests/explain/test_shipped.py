"""The networks that come with the package, on the image that comes with nilearn."""

import numpy as np
import pytest

import jaxsal
from jaxsal import models
from jaxsal.data import default_image
from jaxsal.explanation import plan


@pytest.fixture(scope="module")
def name() -> str:
    if not models.shipped():
        pytest.skip("this checkout has no trained network in jaxsal/zoo/weights")
    return models.default_model()


def test_the_shipped_network_is_small_and_says_what_it_is(name):
    assert models.locate(name).stat().st_size <= 6e6
    record = jaxsal.load_model(name).record
    assert record.name == name
    assert len(record.outputs) >= 14
    assert all(output.unit == "mm^3" and output.sigma > 1 for output in record.outputs)
    assert record.input.space == "MNI152"
    assert record.description
    assert record.licence
    assert record.credits


def test_it_makes_nothing_of_features_of_nothing(name):
    prepared = plan(name)
    spec = prepared.record.input
    features = prepared.split.head(np.ones((1, *spec.shape, spec.channels), np.float32))
    np.testing.assert_array_equal(prepared.split.tail(np.zeros_like(features)), 0)
    assert prepared.parameters["solver"] == "recommended"
    assert prepared.parameters["lam"] == 0.1


def test_its_masks_have_voxels_of_8_to_12_millimetres(name):
    prepared = plan(name)
    spec = prepared.record.input
    features = prepared.split.head(np.zeros((1, *spec.shape, spec.channels), np.float32))
    millimetres = np.array(spec.shape) * np.diag(spec.affine)[:3] / np.array(features.shape[1:-1])
    assert ((millimetres > 7.5) & (millimetres < 12.5)).all()


def test_it_measures_the_default_image_and_its_maps_lie_on_it(name):
    image = default_image()
    found = jaxsal.explain(image, name, max_steps=20)
    assert (found.table["prediction"] > 0).all()
    assert found.space.dice > 0.95
    output = found.output_names[0]
    saliency = found.map(output)
    assert saliency.shape == image.shape
    np.testing.assert_array_equal(saliency.affine, image.affine)
    assert 0 < (saliency.array > 0).mean() < 0.08
