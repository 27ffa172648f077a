"""ResNet-50 and the AD-spectrum networks: the same as in PyTorch, maps that add up, relevance as zennit's."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsal
from jaxsal import composites, rules
from jaxsal.attribution import pull
from jaxsal.attribution.quadrature import midpoint
from jaxsal.engine.lower import lower
from jaxsal.engine.rewire import rewire
from tests.attribution import real_networks as networks
from tests.attribution.real_networks import (
    ad_scan,
    resnet50,
    torch_ad_network,
    torch_resnet50,
    twins,
    whole_ad_network,
    without_biases,
    zennit_epsilon_plus,
)
from tests.peers import to_torch

# of LRP-epsilon that loses next to nothing to its stabiliser: absolute relevance is thousands of times the score
EPSILON, PLUS = composites.epsilon(1e-9, bias=False), composites.z_plus(bias=False)


def total(maps):
    return np.asarray(maps, np.float64).reshape(len(maps), -1).sum(1)


@pytest.fixture
def zennit():
    pytest.importorskip("torch", reason="zennit needs torch==2.13.0")
    return networks.zennit() or pytest.skip("the peer is zennit==0.5.1")


@jax.jit
def _lowered(model, x):
    return lower(model)(x)


def in_double(tree):
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), tree)


# ResNet-50

# compiling takes longer than running
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# parts of both signs cancel in residual sums: only shares by magnitude are sure to stay small
STABLE = dataclasses.replace(PLUS, sum=rules.by_magnitude())


@functools.partial(jax.jit, compiler_options=QUICKLY, static_argnames="chosen")
def pulled(model, x, chosen):
    """Prediction, and maps of the largest output by composites, from its value."""
    y = model(x)
    return y, [pull(rewire(model, composite), x, y.argmax(1), start="value") for composite in chosen]


@pytest.fixture(scope="module")
def resnet():
    return resnet50(outputs=10)


@pytest.fixture(scope="module")
def image():
    return networks.smooth_noise(0, 1)


@pytest.fixture(scope="module")
def found(resnet, image):
    """With biases and without, by the same program."""
    chosen = (STABLE, EPSILON)
    return {"biased": pulled(resnet, image, chosen), "bare": pulled(without_biases(resnet), image, chosen)}


def test_resnet_is_the_same_as_in_torch(resnet, image, found):
    pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    both = twins(resnet, image, torch_resnet50(resnet))
    expected = both.peer(both.image).numpy()
    # values keep their scale through fifty layers
    assert 0.1 < expected.std() < 10
    np.testing.assert_allclose(found["biased"][0], expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("x64")
def test_resnet_relevance_is_zennits(zennit, resnet, image):
    model, x = in_double(resnet), in_double(image)
    both = twins(model, x, torch_resnet50(model, functools.partial(zennit.layer.Sum, dim=-1)))
    y, (relevance,) = pulled(model, x, (composites.epsilon_plus(),))
    expected = zennit_epsilon_plus(both.peer, both.image, y.argmax(1).tolist())
    assert np.abs(relevance - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.usefixtures("x64")
def test_resnet_without_rules_is_its_gradient(resnet, image):
    # in double precision: a ReLU whose argument is 0 but for rounding may be on either side
    model, x = in_double(resnet), in_double(image)
    y, (plain,) = pulled(model, x, (composites.plain(),))
    expected = jax.jit(jax.grad(lambda x, model: model(x).max()), compiler_options=QUICKLY)(x, model) * y.max()
    assert np.abs(plain - expected).max() < 1e-9 * np.abs(expected).max()


def test_resnet_relevance_sums_to_the_output(found):
    for y, (stable, *_) in found.values():
        np.testing.assert_allclose(total(stable), y.max(1), rtol=1e-4)
    # of the network without biases: in the other one LRP-epsilon without them overflows
    y, (_, epsilon) = found["bare"]
    np.testing.assert_allclose(total(epsilon), y.max(1), rtol=1e-4)


@pytest.mark.usefixtures("x64")
def test_resnet_relevance_sums_to_the_output_in_double_precision(resnet, image):
    exact = composites.epsilon(1e-14, bias=False)
    exact = dataclasses.replace(exact, sum=rules.in_proportion(1e-14), average=rules.proportional(1e-14))
    y, (relevance,) = pulled(in_double(without_biases(resnet)), in_double(image), (exact,))
    np.testing.assert_allclose(total(relevance), y.max(1), rtol=1e-8)


def test_resnet_integrated_gradients_are_complete(resnet, image):
    # without biases the gradient is one all the way from black
    model = without_biases(resnet)
    maps = jaxsal.integrated_gradients(model, image, 3, steps=5)
    report = jaxsal.completeness(model, image, maps, 3)
    assert np.abs(report.error / report.difference).max() < 0.01


def test_resnet_integrated_gradients_with_biases_are_complete_for_the_output_that_changes_most(resnet):
    # with biases that of random weights jumps so often that it takes thousands of steps, here on a small image; outputs
    # that hardly change miss by a larger share of that
    image = networks.smooth_noise(0, 1, 16)
    change = np.asarray(_lowered(resnet, image) - _lowered(resnet, jnp.zeros_like(image)))[0]
    most = int(np.abs(change).argmax())
    maps = jaxsal.integrated_gradients(resnet, image, most, steps=4000, rule=midpoint, batch_size=100)
    report = jaxsal.completeness(resnet, image, maps, most)
    assert np.abs(report.error / report.difference).max() < 0.01


# AD-spectrum networks


@pytest.fixture(scope="module")
def scan(shared):
    return ad_scan(shared)


@pytest.fixture(scope="module")
def folds(shared):
    """The five published networks."""
    pytest.importorskip("torch", reason="the published weights are PyTorch files; torch==2.13.0 reads them")
    return [whole_ad_network(shared, fold) for fold in range(5)]


@pytest.fixture(scope="module")
def tails(folds, scan):
    """What each makes of the features behind its second block; weights are all that differs, compiled once."""
    return [jaxsal.split(model, scan, "leaky2").tail for model in folds]


@pytest.fixture(scope="module")
def features(folds, scan):
    """What the first two blocks of fold 0 make of a real scan: an image for the tail of any fold."""
    return _lowered(jaxsal.split(folds[0], scan, "leaky2").head, scan)


def test_ad_network_at_full_size(shared, folds, scan):
    """The same score as in PyTorch, and relevance without bias sums to it."""
    model, peer = folds[0], torch_ad_network(shared, 0)
    expected = twins(model, scan, peer).peer(to_torch(scan)).numpy()
    # of what comes to the air, by shifts of BatchNorm, no product of voxels and weights can take any
    report = jaxsal.conservation(model, scan, composite=dataclasses.replace(PLUS, first=rules.flat()))
    np.testing.assert_allclose(report.score, expected[:, 0], rtol=1e-4)
    np.testing.assert_allclose(total(report.map), report.score, rtol=1e-4)


@pytest.mark.parametrize("fold", [0, 3])
def test_ad_relevance_sums_to_the_output(tails, features, fold):
    """By rules without bias, of the published network and of the one without biases."""
    for tail in (tails[fold], without_biases(tails[fold])):
        score = np.asarray(_lowered(tail, features))[:, 0]
        for composite in (EPSILON, PLUS):
            np.testing.assert_allclose(total(jaxsal.lrp(tail, features, composite=composite)), score, rtol=1e-4)


@pytest.mark.parametrize("fold", range(5))
def test_ad_relevance_of_every_fold_sums_to_the_output_in_double_precision(tails, features, fold, x64):
    features = in_double(features)
    for tail in (in_double(tails[fold]), in_double(without_biases(tails[fold]))):
        score = np.asarray(_lowered(tail, features))[:, 0]
        # the second has a stabiliser of its own, which takes its share
        for composite, off in ((composites.epsilon(1e-14, bias=False), 1e-8), (PLUS, 1e-4)):
            np.testing.assert_allclose(total(jaxsal.lrp(tail, features, composite=composite)), score, rtol=off)


def test_ad_relevance_is_zennits(zennit, shared, tails, features):
    both = twins(tails[0], features, torch_ad_network(shared, 0, first=2))
    found, expected = jaxsal.lrp(both.model, features), zennit_epsilon_plus(both.peer, both.image, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_ad_integrated_gradients_are_complete(tails, features):
    maps = jaxsal.integrated_gradients(tails[0], features, steps=100)
    report = jaxsal.completeness(tails[0], features, maps)
    assert np.abs(report.error / report.difference).max() < 0.01


@pytest.mark.parametrize("fold", range(5))
def test_ad_integrated_gradients_of_every_fold_are_complete(folds, scan, fold):
    """From what each fold's own first three blocks make of a real scan; fifty steps are off by up to 5 %."""
    head, tail = jaxsal.split(folds[fold], scan, "leaky3")
    features = _lowered(head, scan)
    maps = jaxsal.integrated_gradients(tail, features, steps=200)
    report = jaxsal.completeness(tail, features, maps)
    assert np.abs(report.error / report.difference).max() < 0.01
