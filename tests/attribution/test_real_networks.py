"""ResNet-50 and the AD-spectrum networks: the same as in PyTorch, maps that add up, relevance as zennit's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal
from jaxsal import composites, rules
from jaxsal.attribution.relevance import propagated
from jaxsal.engine.lower import lower
from tests.attribution import real_networks as networks
from tests.attribution.real_networks import (
    ad_scan,
    resnet50,
    torch_ad_network,
    torch_resnet50,
    twins,
    whole_ad_network,
    zennit_epsilon_plus,
)
from tests.peers import ad_network, to_torch

# of LRP-epsilon that loses next to nothing to its stabiliser: absolute relevance is thousands of times the score
EPSILON, PLUS = composites.epsilon(1e-9, bias=False), composites.z_plus(bias=False)


def total(maps):
    return np.asarray(maps, np.float64).reshape(len(maps), -1).sum(1)


@pytest.fixture
def zennit():
    pytest.importorskip("torch", reason="zennit needs torch==2.13.0")
    return networks.zennit() or pytest.skip("the peer is zennit==0.5.1")


# ResNet-50


@pytest.fixture(scope="module")
def resnet():
    """Of the real depth, a quarter as wide."""
    return resnet50(width=16, outputs=10)


@pytest.fixture(scope="module")
def image():
    smooth = jaxsal.blurred(jax.random.normal(jax.random.key(0), (1, 64, 64, 3)), 2.0)
    return smooth / smooth.std((1, 2, 3), keepdims=True)


def test_resnet_is_the_same_as_in_torch(resnet, image):
    pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    both = twins(resnet, image, torch_resnet50(resnet))
    expected = both.peer(both.image).numpy()
    # values keep their scale through fifty layers
    assert 0.1 < expected.std() < 30
    np.testing.assert_allclose(jax.jit(resnet)(image), expected, atol=2e-4 * np.abs(expected).max())


def test_resnet_relevance_is_zennits(zennit, resnet, image):
    both = twins(resnet, image, torch_resnet50(resnet, functools.partial(zennit.layer.Sum, dim=-1)))
    found, expected = jaxsal.lrp(resnet, image, 3), zennit_epsilon_plus(both.peer, both.image, 3)
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999


def test_resnet_without_rules_is_its_gradient(resnet, image):
    choice = jaxsal.attribution.choose(resnet, image, 3)
    found = propagated(resnet, image, choice, composites.plain(), None, "one")
    expected = jaxsal.saliency(resnet, image, 3)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_resnet_relevance_sums_to_the_output(resnet, image):
    score = jax.jit(resnet)(image)[:, 3]
    # parts of both signs cancel in residual sums: only shares by magnitude are sure to stay small
    stable = dataclasses.replace(PLUS, sum=rules.by_magnitude())
    np.testing.assert_allclose(total(jaxsal.lrp(resnet, image, 3, composite=stable)), score, rtol=1e-4)


def test_resnet_without_biases_shares_its_output_by_epsilon(image):
    model = resnet50(width=16, outputs=10, biases=False)
    score = jax.jit(model)(image)[:, 3]
    np.testing.assert_allclose(total(jaxsal.lrp(model, image, 3, composite=EPSILON)), score, rtol=1e-4)


def test_resnet_integrated_gradients_are_complete(resnet, image):
    maps = jaxsal.integrated_gradients(resnet, image, 3, steps=50)
    report = jaxsal.completeness(resnet, image, maps, 3)
    assert np.abs(report.error / report.difference).max() < 0.01


# AD-spectrum networks


@pytest.fixture(scope="module")
def scan(shared):
    return ad_scan(shared)


@pytest.fixture(scope="module")
def features(shared, scan):
    """What the first two blocks of fold 0 make of a real scan."""
    return jax.jit(lower(ad_network(shared, 0).split.head))(scan)


def test_ad_network_at_full_size(shared, scan):
    """The same score as in PyTorch, and relevance without bias sums to it."""
    model, peer = whole_ad_network(shared, 0), torch_ad_network(shared, 0)
    expected = twins(model, scan, peer).peer(to_torch(scan)).numpy()
    report = jaxsal.conservation(model, scan, composite=EPSILON)
    np.testing.assert_allclose(report.score, expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(total(report.map), report.score, rtol=1e-4)


@pytest.mark.parametrize("fold", [0, 3])
def test_ad_relevance_sums_to_the_output(shared, features, fold):
    # features of one fold are an image for the tail of any other
    tail = ad_network(shared, fold).split.tail
    score = np.asarray(tail(features))[:, 0]
    for composite in (EPSILON, PLUS):
        np.testing.assert_allclose(total(jaxsal.lrp(tail, features, composite=composite)), score, rtol=1e-4)


def test_ad_relevance_sums_to_the_output_in_double_precision(shared, features, x64):
    in_double = lambda tree: jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), tree)  # noqa: E731
    tail, features = in_double(ad_network(shared, 0).split.tail), in_double(features)
    exact = composites.epsilon(1e-14, bias=False)
    found = total(jaxsal.lrp(tail, features, composite=exact))
    np.testing.assert_allclose(found, np.asarray(tail(features))[:, 0], rtol=1e-8)


def test_ad_relevance_is_zennits(zennit, shared, features):
    both = twins(ad_network(shared, 0).split.tail, features, torch_ad_network(shared, 0, first=2))
    found, expected = jaxsal.lrp(both.model, features), zennit_epsilon_plus(both.peer, both.image, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_ad_integrated_gradients_are_complete(shared, features):
    tail = ad_network(shared, 0).split.tail
    maps = jaxsal.integrated_gradients(tail, features, steps=100)
    report = jaxsal.completeness(tail, features, maps)
    assert np.abs(report.error / report.difference).max() < 0.01
