"""Names and layouts, on dictionaries."""

import numpy as np
import pytest

from jaxsal.converters.pairing import ad_spectrum_names, in_turn, torch_pairs


def test_layouts():
    shapes = {"conv.kernel": (3, 2, 5, 4, 6), "bn.mean": (6,), "fc.kernel": (24, 7), "last.kernel": (7, 1)}
    names = {"conv.kernel": "c.weight", "bn.mean": "b.running_mean", "fc.kernel": "f.weight", "last.kernel": "l.weight"}
    pairs = torch_pairs(shapes, names, {"fc": (2, 3)})
    kernel = np.random.default_rng(0).standard_normal((6, 4, 3, 2, 5))
    assert pairs["conv.kernel"].laid(kernel)[1, 0, 4, 2, 3] == kernel[3, 2, 1, 0, 4]
    weight = np.arange(7 * 24.0).reshape(7, 24)
    features = np.random.default_rng(1).standard_normal((2, 3, 4))  # h, w, c
    channels_first = np.moveaxis(features, -1, 0).reshape(-1)
    laid = pairs["fc.kernel"].laid(weight)
    np.testing.assert_allclose(features.reshape(-1) @ laid, weight @ channels_first)
    assert pairs["last.kernel"].laid(np.ones((1, 7))).shape == (7, 1)
    assert pairs["bn.mean"].source == "b.running_mean"


def test_names_of_the_ad_network():
    names = ad_spectrum_names(["conv4.kernel", "bn1.scale", "bn1.mean", "heads.ADD.dense1.kernel"])
    assert list(names.values()) == [
        "backbone.block4.conv.weight", "backbone.block1.BN.weight", "backbone.block1.BN.running_mean",
        "ADD.dense1.1.weight",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"The weight other.kernel has no counterpart"):
        ad_spectrum_names(["other.kernel"])


def test_layers_in_turn():
    with pytest.raises(ValueError, match=r"3 layers with weights \(a, b, c\), the network 2 \(conv1, classify\)"):
        in_turn(["conv1.kernel", "conv1.bias", "classify.kernel"], ["a", "b", "c"])
