"""Relevance of whole networks: recorded maps, a peer, cases by hand, and what must add up."""

import dataclasses
import functools
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import (
    composites,
    conservation,
    deconvnet,
    deep_taylor,
    excitation_backprop,
    guided_backprop,
    lrp,
    rules,
    sites,
)
from jaxsal.attribution import contrastive_excitation_backprop, pull
from jaxsal.engine.rewire import rewire
from jaxsal.engine.sites import Site
from tests.attribution.goldens import golden
from tests.attribution.residual import QUICKLY, channels_first, channels_last, conv, image, in_torch, max_pool, network

RECORDED = {
    "lrp_eps1e-6": composites.epsilon(1e-6),
    "lrp_eps0.25": composites.epsilon(0.25),
    "lrp_eps1e-6_nobias": composites.epsilon(1e-6, bias=False),
    "lrp_zplus": composites.z_plus(),
    "lrp_a2b1": composites.alpha_beta(),
    "lrp_a1b0_nobias": composites.alpha_beta(1, 0, bias=False),
    "lrp_gamma0.25": composites.gamma(),
    "lrp_gamma0.5": composites.gamma(0.5),
    "lrp_wsquare": composites.w_square(bias=True),
    "lrp_flat": composites.flat(),
    "lrp_zbox_-3_3": composites.uniform(rules.z_box(-3, 3)),
    "EpsilonGammaBox_-3_3": composites.epsilon_gamma_box(-3, 3),
    "EpsilonPlus": composites.epsilon_plus(),
    "EpsilonPlusFlat": composites.epsilon_plus_flat(),
    "EpsilonAlpha2Beta1": composites.epsilon_alpha2_beta1(),
    "EpsilonAlpha2Beta1Flat": composites.epsilon_alpha2_beta1_flat(),
    "ExcitationBackprop": composites.excitation_backprop(bias=True),
    "zennit_guided_backprop": composites.guided_backprop(),
    "zennit_deconvnet": composites.deconvnet(),
    "gradient": composites.plain(),
}


@pytest.mark.usefixtures("x64")
def test_recorded_maps_of_a_3d_network(shared):
    model, x, y, maps = golden(shared)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(model, x):
        start = lambda name: "one" if name[0] in "zg" else "value"  # noqa: E731
        return model(x), {
            name: pull(rewire(model, composite), x, outputs="all", start=start(name))
            for name, composite in RECORDED.items()
        }

    outputs, found = everything(model, x)
    np.testing.assert_allclose(outputs, y, rtol=1e-10)
    assert set(RECORDED) <= {name.split("/")[0] for name in maps}
    for name, both in found.items():
        for t in range(2):
            recorded = maps[f"{name}/t{t}"]
            assert np.abs(np.asarray(both[t]) - recorded).max() < 1e-10 * np.abs(recorded).max(), (name, t)


@pytest.fixture
def zennit(monkeypatch):
    """It asks for a package of networks that these tests do not need."""
    pytest.importorskip("torch", reason="zennit needs torch==2.13.0")
    if "zennit" not in sys.modules:
        for name in ("torchvision", "torchvision.models", "torchvision.models.resnet"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        for block in ("Bottleneck", "BasicBlock", "ResNet"):
            setattr(sys.modules["torchvision.models.resnet"], block, type(block, (), {}))
    return pytest.importorskip("zennit", reason="the peer is zennit==0.5.1")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, 3])
def test_composites_as_in_zennit(zennit, rank: int):
    import torch
    import zennit.canonizers
    import zennit.composites
    import zennit.layer

    model, x = network(rank), image(rank)
    merge = [zennit.canonizers.SequentialMergeBatchNorm()]
    low, high = torch.tensor(-4.0).double(), torch.tensor(4.0).double()
    peers = {
        "plus": (composites.epsilon_plus(), zennit.composites.EpsilonPlus(canonizers=merge)),
        "box": (
            composites.epsilon_gamma_box(-4, 4),
            zennit.composites.EpsilonGammaBox(low=low, high=high, canonizers=merge),
        ),
        "flat": (composites.epsilon_alpha2_beta1_flat(), zennit.composites.EpsilonAlpha2Beta1Flat(canonizers=merge)),
    }

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(model, x):
        return model(x), {n: pull(rewire(model, ours), x, [2, 0], start="value") for n, (ours, _) in peers.items()}

    y, found = everything(model, x)
    for name, (_, composite) in peers.items():
        theirs = channels_first(x).requires_grad_()
        with composite.context(in_torch(model, zennit.layer.Sum())) as modified:
            out = modified(theirs)
            start = out.detach() * torch.eye(3).double()[[2, 0]]
            (relevance,) = torch.autograd.grad(out, theirs, start)
        np.testing.assert_allclose(out.detach(), y, rtol=1e-10)
        expected = channels_last(relevance)
        assert np.abs(np.asarray(found[name]) - expected).max() < 1e-9 * np.abs(expected).max(), name


# by hand


def _simple(corner: float):
    w = jnp.full((3, 3), 2.0).at[0, 0].set(corner)
    return lambda x: jax.nn.relu(x[:, 0] @ w) @ jnp.full((3, 1), 3.0)


def _mixed(first: rules.LayerRule, second: rules.LayerRule):
    return lambda site: (first if site.first else second) if site.kind == "dense" else composites.z()(site)


@pytest.mark.parametrize(("model", "composite", "expected"), [
    (_simple(2.0), composites.epsilon(1e-9), [18, 36, 54]),
    (_simple(-2.0), _mixed(rules.gamma(1.0), rules.gamma(0.25)), [28 / 3, 104 / 3, 52]),
    (_simple(-2.0), composites.alpha_beta(1, 0), [12, 33.6, 50.4]),
    (lambda x: jnp.tanh(x[:, 0] @ jnp.full((3, 3), 0.1)) @ jnp.full((3, 1), 0.1), composites.epsilon(1e-9),
     [0.0269, 0.0537, 0.0806]),
])  # fmt: skip
def test_small_dense_networks(model, composite, expected):
    found = lrp(model, jnp.array([[[1.0, 2.0, 3.0]]]), composite=composite)
    np.testing.assert_allclose(found.ravel(), expected, rtol=2e-3 if expected[0] < 1 else 1e-5)


def test_a_skip_connection():
    model = lambda x: x[:, 0] @ jnp.full((2, 2), 5.0) + x[:, 0]  # noqa: E731
    found = lrp(model, jnp.array([[[2.0, 3.0]]]), 1, composite=composites.epsilon(1e-9))
    np.testing.assert_allclose(found.ravel(), [10, 18], rtol=1e-5)


def one_convolution(x: jax.Array) -> jax.Array:
    """Of ones, biases -50 and -75; then rows of five ones and three times -1."""
    h = conv(x, jnp.ones((3, 3, 1, 2)), padding="VALID") + jnp.array([-50.0, -75.0]).reshape(1, 1, 1, 2)
    h = jnp.moveaxis(jax.nn.relu(h), -1, 1).reshape(len(x), 8)
    return jax.nn.relu(h @ jnp.repeat(jnp.array([1.0, -1.0]), jnp.array([5, 3]), total_repeat_length=8)[:, None])


@pytest.mark.parametrize(("method", "expected"), [
    (functools.partial(lrp, composite=composites.epsilon(1e-9)),
     [[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]]),
    (guided_backprop, [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]),
    (deconvnet, [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]),
])  # fmt: skip
def test_one_convolution(method, expected):
    found = method(one_convolution, jnp.arange(16.0).reshape(1, 4, 4, 1))
    np.testing.assert_allclose(found[0, ..., 0], expected, rtol=1e-5, atol=1e-5)


# what must add up


@pytest.mark.usefixtures("x64")
def test_relevance_sums_to_the_score_through_batchnorm_residual_sums_and_pools():
    model, bare, x = network(3), network(3, bias=False), image(3)

    exact = composites.epsilon(1e-12)
    exact = dataclasses.replace(exact, average=rules.epsilon(1e-12), sum=rules.in_proportion(1e-12))

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def sums(model, bare, x):
        def total(model, composite):
            return pull(rewire(model, composite), x, outputs="all", start="value").reshape(3, len(x), -1).sum(-1)

        gradient = pull(rewire(bare, composites.plain()), x, outputs="all")
        return (
            (total(model, composites.epsilon(1e-12, bias=False)), model(x).T),
            (total(bare, composites.z()), bare(x).T),
            (pull(rewire(bare, exact), x, outputs="all", start="value"), gradient * x[None]),
        )

    (total, score), (bare_total, bare_score), (epsilon, gradient) = sums(model, bare, x)
    np.testing.assert_allclose(total, score, rtol=1e-4)
    np.testing.assert_allclose(bare_total, bare_score, rtol=1e-4)
    assert np.asarray(bare_score).min() < 0 < np.asarray(bare_score).max()
    # without biases, and nothing added to what is divided by, it is the image times the gradient
    np.testing.assert_allclose(epsilon, gradient, atol=1e-8)


def test_re_used_layers_and_3d_convolutions():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 1, 1)), jnp.float32) / 3

    def twice(first, second, x: jax.Array) -> jax.Array:
        return jax.nn.relu(conv(jax.nn.relu(conv(x, first)), second)).mean((1, 2, 3))

    x = image(3, 1).astype(jnp.float32)
    again = lrp(jax.tree_util.Partial(lambda w, x: twice(w, w, x), kernel), x, composite=composites.gamma())
    apart = lrp(jax.tree_util.Partial(twice, kernel, kernel + 0), x, composite=composites.gamma())
    np.testing.assert_allclose(again, apart, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(again.sum(), twice(kernel, kernel, x).sum(), rtol=1e-3)


@pytest.mark.parametrize("depth", [1, 6])
def test_residual_sums_do_not_double_relevance(depth: int):
    def model(x: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = x + jax.nn.relu(x * jnp.asarray(0.5))
        return x.sum(1)

    x = jnp.array([[[1.0], [2.0]], [[-3.0], [-1.0]]])
    y = model(x)
    np.testing.assert_allclose(deep_taylor(model, x).sum((1, 2)), y[:, 0], rtol=1e-4)
    np.testing.assert_allclose(lrp(model, x, start="one").sum((1, 2)), 1.0, rtol=1e-4)


def test_outputs_below_zero_are_explained_too():
    model = lambda x: jax.nn.relu(x[..., 0] @ jnp.array([[1.0, 2.0], [3.0, 1.0]])) @ jnp.array([[-1.0], [-2.0]])  # noqa: E731
    x = jnp.array([[[1.0], [2.0]]])
    for method in (deep_taylor, functools.partial(deep_taylor, bounds=(0.0, 5.0)), lrp):
        found = method(model, x)
        assert (np.asarray(found) < 0).all()
        assert float(found.sum()) == pytest.approx(float(model(x)[0, 0]), rel=1e-3)


def test_deep_taylor_takes_w_square_or_z_box_where_the_image_comes_in():
    model = lambda x: jax.nn.relu(x[..., 0] @ jnp.array([[3.0], [-1.0]])) @ jnp.array([[2.0]])  # noqa: E731
    x = jnp.array([[[1.0], [1.0]]])  # 2 before the ReLU, 4 behind
    np.testing.assert_allclose(deep_taylor(model, x).ravel(), [3.6, 0.4], rtol=1e-5)
    # from the lower bound -1 where the weight is above 0, from the upper bound 2 where it is below: 6 and 1
    np.testing.assert_allclose(deep_taylor(model, x, bounds=(-1, 2)).ravel(), [24 / 7, 4 / 7], rtol=1e-5)
    with pytest.raises(ValueError, match="must lie below"):
        deep_taylor(model, x, bounds=(1, 1))


def test_excitation_backprop_is_a_distribution_and_its_contrast_adds_up_to_nothing():
    rng = np.random.default_rng(0)
    w1, w2, w3 = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3, 3, 2, 8), (8, 16), (16, 3)))

    def model(x: jax.Array) -> jax.Array:
        h = max_pool(jax.nn.relu(conv(x, w1)))
        return jax.nn.relu(h.mean((1, 2)) @ w2) @ w3

    x = jnp.abs(image(2, 2, 2)).astype(jnp.float32)
    score = model(x).T
    value = excitation_backprop(model, x, outputs="all")
    np.testing.assert_allclose(value.sum((2, 3, 4)), score, rtol=1e-3)
    chance = excitation_backprop(model, x, [1, 2], start="one")
    np.testing.assert_allclose(chance.sum((1, 2, 3)), 1, rtol=1e-3)
    assert float(chance.min()) >= 0
    contrast = contrastive_excitation_backprop(model, x, outputs="all", start="one")
    np.testing.assert_allclose(contrast.sum((2, 3, 4)), 0, atol=1e-3)
    assert float(jnp.abs(contrast).max()) > 0.01
    # one output against its opposite: the last weights negated by hand
    against = excitation_backprop(lambda x: -model(x), x, outputs="all", start="one")
    np.testing.assert_allclose(
        contrast, excitation_backprop(model, x, outputs="all", start="one") + against * -1, atol=1e-5
    )


def test_heads_that_are_added_are_contrasted_like_one():
    body = jnp.arange(1.0, 13).reshape(3, 4)
    first, second = jnp.array([[1.0], [-1.0], [2.0], [-0.5]]), jnp.array([[-1.0], [1.0], [0.5], [-1.0]])
    x = jnp.array([[[1.0], [2.0], [0.5]]])

    def two(x: jax.Array) -> jax.Array:
        h = jax.nn.relu(x[..., 0] @ body)
        return h @ first + h @ second

    found = contrastive_excitation_backprop(two, x, start="one")
    np.testing.assert_allclose(found.sum(), 0, atol=1e-4)
    (index,) = (site.index for site, _ in sites(two, x, composites.z_plus()) if site.first and site.kind == "dense")
    assert composites.contrastive(two, x).indices == {index + 2, index + 3}
    # a network behind which nothing but its input is added again
    skipped = lambda x: jax.nn.relu(x[..., 0] @ body) @ jnp.ones((4, 1)) + x.sum(1)  # noqa: E731
    chosen = [site.kind for site, rule in sites(skipped, x, composites.contrastive(skipped, x))
              if rule == rules.contrasted(rules.z_plus(bias=False))]  # fmt: skip
    assert chosen == ["dense"]


def test_contrast_needs_weights():
    with pytest.raises(ValueError, match="the network has none"):
        contrastive_excitation_backprop(lambda x: x.sum(1), jnp.ones((1, 2, 1)))


# what holds for every method


@pytest.mark.parametrize(("method", "rank"), [
    (functools.partial(lrp, composite=composites.epsilon_gamma_box(-4, 4)), 2), (guided_backprop, 3),
])  # fmt: skip
def test_contract(method, rank: int):
    model, other = (jax.tree.map(lambda a: a.astype(jnp.float32), network(rank, seed=s)) for s in (0, 1))
    x = image(rank, 3).astype(jnp.float32)
    traces = []

    def counted(model, x):
        traces.append(1)
        return model(x)

    maps = method(jax.tree_util.Partial(counted, model), x, outputs="all")
    assert maps.shape == (3, *x.shape)
    assert maps.dtype == x.dtype
    assert np.isfinite(maps).all()
    before = len(traces)
    fresh = method(jax.tree_util.Partial(counted, other), x + 1, outputs=[0, 1, 2])
    assert len(traces) == before, "traced again for other weights"
    assert float(jnp.abs(fresh - maps).max()) > 1e-3
    close = functools.partial(np.testing.assert_allclose, atol=1e-5 * float(jnp.abs(maps).max()))
    own = method(model, x, [2, 0, -2])
    close(own, jnp.stack([maps[2, 0], maps[0, 1], maps[1, 2]]))
    close(method(model, x[1:2], 0)[0], maps[0, 1])
    close(method(model, x, outputs="all", batch_size=2), maps)
    close(jax.jit(method)(model, x, jnp.array([2, 0, 1])), own)


def test_relevance_starts_from_the_score_and_gradients_from_one():
    model = lambda x: jax.nn.relu(x.sum(1)) * jnp.array([[3.0]])  # noqa: E731
    x = jnp.array([[[1.0], [2.0]]])
    np.testing.assert_allclose(lrp(model, x).sum(), 9, rtol=1e-5)
    np.testing.assert_allclose(lrp(model, x, start="one").sum(), 1, rtol=1e-5)
    for method in (guided_backprop, deconvnet):
        np.testing.assert_allclose(method(model, x, start="value"), 9 * method(model, x), rtol=1e-5)


def test_relevance_of_a_difference_of_outputs_sums_to_it():
    model = lambda x: x[..., 0] @ jnp.array([[2.0, 1.0, 5.0], [1.0, 3.0, 7.0]])  # noqa: E731
    x = jnp.array([[[3.0], [1.0]], [[1.0], [2.0]]])
    found = lrp(model, x, lambda y: y[:, 0] - 0.5 * y[:, 1], composite=composites.z())
    np.testing.assert_allclose(found[..., 0], [[4.5, -0.5], [1.5, -1.0]], rtol=1e-5)


def test_without_bias_a_shift_behind_an_average_takes_nothing():
    def model(x: jax.Array) -> jax.Array:
        return (jax.nn.relu(x).mean(1) + jnp.array([[-0.2, -0.3]])) @ jnp.array([[1.0], [2.0]])

    x = jnp.array([[[1.0, 2.0], [0.5, 4.0]]])
    score = model(x)[0, 0]
    np.testing.assert_allclose(lrp(model, x, composite=composites.z(bias=False)).sum(), score, rtol=1e-5)
    np.testing.assert_allclose(lrp(model, x).sum(), score, rtol=1e-4)
    np.testing.assert_allclose(excitation_backprop(model, x, start="one").sum(), 1, rtol=1e-4)
    # with bias it does, as any other bias: input x gradient is left
    gradient = jax.grad(lambda x: model(x).sum())(x)
    np.testing.assert_allclose(lrp(model, x, composite=composites.z()), x * gradient, rtol=1e-4)


def _in_and_out(channels_first: bool, kernel: jax.Array, x: jax.Array) -> jax.Array:
    if channels_first:
        x, dims = x.transpose(0, 3, 1, 2) * 2, ("NCHW", "HWIO", "NHWC")
    else:
        x, dims = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0))) * 2, ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims).sum((1, 2))


def test_bounds_for_each_channel_are_refused_where_channels_are_no_longer_last():
    kernel, x = jnp.ones((2, 2, 2, 1)), jnp.ones((1, 2, 2, 2))
    bounds = (-1.0, -9.0), (1.0, 9.0)
    inside, kept = (jax.tree_util.Partial(functools.partial(_in_and_out, first), kernel) for first in (True, False))
    for method in (
        functools.partial(deep_taylor, bounds=bounds),
        functools.partial(lrp, composite=composites.epsilon_gamma_box(*bounds)),
        functools.partial(conservation, composite=composites.epsilon_gamma_box(*bounds)),
    ):
        with pytest.raises(ValueError, match="to another axis before its first layer: give one lower"):
            method(inside, x)
        method(kept, x)
    assert deep_taylor(inside, x, bounds=(-1.0, 1.0)).shape == x.shape


def test_what_differs_from_image_to_image_is_not_traced_again():
    traces = []

    def model(x: jax.Array) -> jax.Array:
        traces.append(1)
        return x[..., 0] @ jnp.array([[1.0], [2.0]])

    x = jnp.array([[[1.0], [2.0]]])
    for method in (
        lambda x, high: deep_taylor(model, x, bounds=(-high, high)),
        lambda x, high: lrp(model, x, composite=composites.epsilon_gamma_box(-high, [high])),
        lambda x, high: contrastive_excitation_backprop(model, x),
        lambda x, high: conservation(model, x).map,
    ):
        first = method(x, 3.0)
        before = len(traces)
        again = method(x + 1, 4.0)
        assert len(traces) == before
        assert (np.asarray(first) != np.asarray(again)).any()
    # bounds are used, and not those that it was compiled with: 2 + 4 and twice 3 + 4 of 8
    np.testing.assert_allclose(deep_taylor(model, x + 1, bounds=(-4, 9)).ravel(), [8 * 6 / 20, 8 * 14 / 20], rtol=1e-5)


def test_names_of_layers_that_do_not_exist_are_refused():
    weights = {"stem": {"kernel": jnp.ones((2, 3))}, "head": {"kernel": jnp.ones((3, 1))}}

    def fn(weights, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x[..., 0] @ weights["stem"]["kernel"]) @ weights["head"]["kernel"]

    model, x = jax.tree_util.Partial(fn, weights), jnp.ones((1, 2, 1))
    names = [site.name for site, _ in sites(model, x, composites.z()) if site.name]
    assert len(set(names)) == 2
    composite = composites.named({names[-1]: rules.flat()}, composites.z())
    np.testing.assert_allclose(lrp(model, x, composite=composite).sum(), 6, rtol=1e-5)
    wrong = composites.named({names[-1] + "v": rules.flat()}, composites.z())
    name = re.escape(names[-1])
    for method in (lrp, conservation):
        with pytest.raises(ValueError, match=f"'{name}v', there is: .*'{name}'. Was '{name}' meant"):
            method(model, x, composite=wrong)
    # a rule of linear sites is not given to others of that name
    product = Site(0, "product", "head", "mul", (1, 1), False, "")
    assert composites.named({"head": rules.flat()}, composites.z())(product) is rules.halved
