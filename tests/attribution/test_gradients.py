"""Gradients, and their statistics over noise, against definitions written out in double precision."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from jaxsal import attribution
from jaxsal.attribution import input_x_gradient, saliency, smooth_grad, smooth_grad_squared, var_grad
from jaxsal.attribution.accumulating import total, variance
from tests.attribution.goldens import golden
from tests.attribution.networks import images, linear_network, relu_network, small_network

NOISY = (smooth_grad, smooth_grad_squared, var_grad)
KEY = jax.random.key(7)


@functools.partial(jax.jit, static_argnums=2)
def gradient(model, x, k):
    return jax.grad(lambda x: model(x)[:, k].sum())(x)


def test_the_golden_network(x64, shared):
    reference = golden(shared)
    model, x = reference.model, reference.x
    gradients, products = saliency(model, x, outputs="all"), input_x_gradient(model, x, outputs="all")
    for t in (0, 1):
        chex.assert_trees_all_close(gradients[t], reference.maps[f"gradient/t{t}"], rtol=1e-10)
        chex.assert_trees_all_close(products[t], reference.maps[f"input_x_gradient/t{t}"], rtol=1e-10)


def test_gradients_of_every_output_batch_and_start(x64):
    x = images((2, 4, 3, 5, 2))
    model = small_network(x)
    expected = jnp.stack([gradient(model, x, k) for k in range(3)])
    chex.assert_trees_all_close(saliency(model, x, outputs="all", batch_size=2), expected, rtol=1e-10)
    each = jnp.stack([expected[2, 0], expected[1, 1]])
    chex.assert_trees_all_close(saliency(model, x, [2, 1]), each, rtol=1e-10)
    by_score = model(x)[jnp.arange(2), jnp.array([2, 1])].reshape(-1, 1, 1, 1, 1)
    compiled = jax.jit(lambda model, x: input_x_gradient(model, x, [2, 1], start="value"))(model, x)
    chex.assert_trees_all_close(compiled, x * each * by_score, rtol=1e-10)
    chex.assert_trees_all_close(saliency(model, x[1:], 1), each[1:], rtol=1e-10)


@pytest.mark.parametrize("method", NOISY)
def test_statistics_over_noise_are_their_definitions(x64, method):
    x = images((2, 4, 3, 1)) * jnp.array([1.0, 10.0]).reshape(2, 1, 1, 1)
    model = relu_network(x)
    found = method(model, x, outputs=[2, 0], samples=7, noise=0.2, key=KEY)
    std = 0.2 * np.array([np.ptp(image) for image in np.asarray(x)]).reshape(2, 1, 1, 1)
    for lane, k in enumerate((2, 0)):
        gradients = []
        for key in jax.random.split(KEY, 7):
            drawn = np.asarray(jax.random.normal(key, (1, 4, 3, 1), jnp.float64))
            gradients.append(np.asarray(gradient(model, jnp.asarray(np.asarray(x) + std * drawn), k)))
        of = {smooth_grad: np.mean, smooth_grad_squared: lambda g, axis: np.mean(g**2, axis), var_grad: np.var}
        chex.assert_trees_all_close(found[lane], of[method](np.stack(gradients), axis=0), rtol=1e-10, atol=1e-14)
    # alone, and several gradients at a time
    alone = method(model, x[1:], outputs=[2, 0], samples=7, noise=0.2, key=KEY, batch_size=5)
    chex.assert_trees_all_close(alone[:, 0], found[:, 1], rtol=1e-10, atol=1e-14)


def test_the_noise_has_the_spread_that_is_asked_for(x64):
    # of the cube, whose gradient is 3 x^2, the mean gradient over noise of width s is 3 (x^2 + s^2)
    x = jnp.array([-2.0, 0.5, 8.0]).reshape(1, 3, 1)
    cube = Partial(lambda x: (x**3).sum(1))
    found = smooth_grad(cube, x, noise=0.1, samples=20000, key=KEY, batch_size=5000)
    chex.assert_trees_all_close(found, 3 * (x**2 + 1.0), rtol=0.05)
    # of the square, whose gradient is 2 x, the variance is 4 s^2
    square = Partial(lambda x: (x**2).sum(1))
    chex.assert_trees_all_close(
        var_grad(square, x, noise=0.1, samples=20000, key=KEY, batch_size=5000), jnp.full_like(x, 4.0), rtol=0.05
    )


def test_clipped_noise_stays_within_the_range_of_the_image(x64):
    x = images((1, 6, 1))
    outside = Partial(lambda lo, hi, x: (jnp.maximum(x - hi, 0.0) + jnp.maximum(lo - x, 0.0)).sum(1), x.min(), x.max())
    options = dict(samples=20, noise=1.0, key=KEY)
    assert (jnp.abs(smooth_grad(outside, x, **options)) > 0).any()
    found = smooth_grad(outside, x, clip=True, **options)
    # at the ends themselves the slope of a maximum with a tie is a half
    assert jnp.abs(found).max() <= 0.5


def test_a_variance_of_nearly_equal_large_numbers_is_not_lost():
    values = 1e4 + jnp.arange(10.0)
    found = variance(lambda value: value, values, 10, (), at_once=4, dtype=jnp.float32)
    chex.assert_trees_all_close(found, jnp.float32(8.25), rtol=1e-3)
    assert total(lambda value: value, values, jnp.full(10, 0.1), (), at_once=4) == pytest.approx(10004.5, rel=1e-6)


@pytest.mark.parametrize("method", [saliency, var_grad])
def test_new_weights_images_targets_and_noise_are_no_new_program(method):
    x = images((2, 4, 4, 1))
    traces = []

    def counted(model, x):
        traces.append(1)
        return model(x)

    def call(seed, targets):
        model = Partial(counted, relu_network(x, seed=seed))
        more = {} if method is saliency else dict(key=jax.random.key(seed), noise=0.1 + seed, samples=3)
        return method(model, images(x.shape, seed), targets, **more)

    first = call(0, [0, 1])
    before = len(traces)
    assert (call(1, [2, 2]) != first).any()
    call(2, 1)
    assert len(traces) == before


def test_a_linear_network_gives_its_weights(x64):
    x = images((2, 3, 2, 1))
    model = linear_network(x)
    weights = model.args[0].T.reshape(3, 1, 3, 2, 1)
    expected = jnp.broadcast_to(weights, (3, *x.shape))
    chex.assert_trees_all_close(saliency(model, x, outputs="all"), expected, rtol=1e-10)
    chex.assert_trees_all_close(smooth_grad(model, x, outputs="all", key=KEY), expected, rtol=1e-10)
    assert jnp.abs(var_grad(model, x, outputs="all", key=KEY)).max() < 1e-25
    # the sign of an output is no matter
    assert (model(-x)[:, 0] < 0).all()
    total = input_x_gradient(model, -x, 0).sum((1, 2, 3))
    chex.assert_trees_all_close(total, model(-x)[:, 0] - 1.0, rtol=1e-10)


def test_memory_grows_with_what_is_held_at_once():
    x = images((1, 32, 32, 1), dtype=jnp.float32)
    model = small_network(x, width=8)

    def temporary(batch_size):
        compiled = jax.jit(lambda model, x: smooth_grad(model, x, 0, samples=16, key=KEY, batch_size=batch_size))
        return compiled.lower(model, x).compile().memory_analysis().temp_size_in_bytes

    assert 4 * temporary(1) < temporary(16)


def test_short_numbers_give_short_maps():
    x = images((1, 4, 1), dtype=jnp.bfloat16)
    model = Partial(lambda x: (x**2).sum(1))
    found = smooth_grad(model, x, 0, samples=100, noise=0.0, key=KEY)
    assert found.dtype == jnp.bfloat16
    # a hundred equal gradients have that as their mean, however coarse the numbers are
    assert (found == saliency(model, x, 0)).all()


BAD = [
    (dict(noise=-0.1), "noise got -0.1"),
    (dict(noise=jnp.inf), "noise got"),
    (dict(samples=1), "at least 2"),
    (dict(samples=2.5), "whole number"),
    (dict(key=0), "random key"),
    (dict(batch_size=0), "batch_size got 0"),
    (dict(x=jnp.ones((3, 3))), "shape"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_mean_nothing_are_refused(options, message):
    given = dict(x=jnp.ones((1, 3, 1)), key=KEY) | options
    with pytest.raises((TypeError, ValueError), match=message):
        var_grad(lambda x: x.sum(1), **given)


def test_captum_gives_the_same_gradients(x64):
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    x = images((2, 3, 4, 1))
    weights, second = np.random.default_rng(0).normal(size=(12, 5)), np.random.default_rng(1).normal(size=(5, 3))
    peer = torch.nn.Sequential(torch.nn.Linear(12, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)).double()
    with torch.no_grad():
        for layer, matrix in ((peer[0], weights), (peer[2], second)):
            layer.weight.copy_(torch.from_numpy(matrix.T))
            layer.bias.zero_()
    model = Partial(
        lambda one, two, x: jax.nn.relu(x.reshape(len(x), -1) @ one) @ two, jnp.asarray(weights), jnp.asarray(second)
    )
    flat = torch.from_numpy(np.asarray(x).reshape(2, -1).copy()).requires_grad_()
    target = torch.tensor([2, 0])

    def expected(peers, **more):
        return peers.attribute(flat, target=target, **more).detach().numpy().reshape(x.shape)

    chex.assert_trees_all_close(saliency(model, x, [2, 0]), expected(captum.Saliency(peer), abs=False), rtol=1e-10)
    chex.assert_trees_all_close(input_x_gradient(model, x, [2, 0]), expected(captum.InputXGradient(peer)), rtol=1e-10)
    baseline = np.full_like(np.asarray(x), 0.3)
    for ours, theirs in (
        ("gauss_legendre", "gausslegendre"),
        ("midpoint", "riemann_middle"),
        ("right", "riemann_right"),
    ):
        peers = captum.IntegratedGradients(peer)
        chex.assert_trees_all_close(
            attribution.integrated_gradients(
                model, x, [2, 0], steps=9, baseline=0.3, rule=getattr(attribution.quadrature, ours)
            ),
            expected(peers, baselines=torch.from_numpy(baseline.reshape(2, -1)), n_steps=9, method=theirs),
            rtol=1e-10,
        )
