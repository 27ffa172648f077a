"""Gradients integrated along paths, against definitions written out in double precision and published values."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import ndimage

from jaxsal.attribution import (
    blur_integrated_gradients,
    blurred,
    completeness,
    expected_gradients,
    guided_integrated_gradients,
    integrated_gradients,
    interior_gradients,
    path_integrated_gradients,
    quadrature,
)
from tests.attribution.goldens import golden
from tests.attribution.networks import images, linear_network, relu_network, small_network

RULES = (quadrature.gauss_legendre, quadrature.midpoint, quadrature.trapezoid, quadrature.left, quadrature.right)
KEY = jax.random.key(3)


def column(*values):
    """One image of some voxels and one channel."""
    return jnp.asarray(values, float).reshape(1, -1, 1)


def of_voxels(fn):
    """A network with one output from a function of the voxels of one image."""
    return Partial(lambda x: jax.vmap(fn)(x[..., 0])[:, None])


@functools.partial(jax.jit, static_argnums=2)
def gradient(model, x, k):
    return jax.grad(lambda x: model(x)[:, k].sum())(x)


def test_the_golden_network(x64, shared):
    reference = golden(shared)

    def rounded(steps):  # as the recorded maps were made
        at, weights = quadrature.gauss_legendre(steps)
        return at, weights.astype(np.float32)

    found = integrated_gradients(reference.model, reference.x, outputs="all", steps=64, rule=rounded)
    checked = completeness(reference.model, reference.x, found, outputs="all")
    for t in (0, 1):
        chex.assert_trees_all_close(found[t], reference.maps[f"captum_ig_gl64/t{t}"], rtol=1e-9, atol=1e-13)
        chex.assert_trees_all_close(checked.error[t], reference.maps[f"captum_ig_gl64_delta/t{t}"], atol=1e-10)


def test_two_networks_that_compute_the_same_have_the_same_map(x64):
    relu = jax.nn.relu
    one = of_voxels(lambda x: relu(relu(x[0]) - 1 - relu(x[1])))
    other = of_voxels(lambda x: relu(relu(x[0] - 1) - relu(x[1])))
    for model in (one, other):
        chex.assert_trees_all_close(integrated_gradients(model, column(3, 1)), column(1.5, -0.5), rtol=1e-10)


def test_voxels_that_count_on_their_own(x64):
    model = of_voxels(lambda x: 5 * x[0] + x[1] ** 2 + jnp.sin(x[2]))
    start, end = column(0.5, 1, 1), column(1, 2, 3)
    expected = column(2.5, 3, np.sin(3) - np.sin(1))
    chex.assert_trees_all_close(integrated_gradients(model, end, baseline=start), expected, rtol=1e-10)
    guided = guided_integrated_gradients(model, end, baseline=start, steps=2000)
    chex.assert_trees_all_close(guided, expected, rtol=2e-3)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_complete_on_a_linear_network(x64, rule):
    x = images((2, 3, 2, 1))
    model = linear_network(x)
    for steps in (2, 7):
        found = integrated_gradients(model, x, outputs="all", steps=steps, rule=rule, baseline=images((3, 2, 1), 5))
        checked = completeness(model, x, found, outputs="all", baseline=images((3, 2, 1), 5))
        assert jnp.abs(checked.error).max() < 1e-12
    slopes = interior_gradients(model, x, 1, rule=rule, steps=7)
    chex.assert_trees_all_close(slopes[0].ravel(), model.args[0][:, 1], rtol=1e-10)


@pytest.mark.parametrize(("rule", "degree"), list(zip(RULES, (7, 1, 1, 0, 0), strict=True)))
def test_rules_integrate_polynomials_up_to_their_degree_and_no_further(rule, degree):
    at, weights = quadrature.checked_nodes(rule, 4)
    errors = [abs(weights @ at**power - 1 / (power + 1)) for power in range(9)]
    assert max(errors[: degree + 1]) < 1e-12
    assert errors[degree + 1] > 1e-6


def _integrated(model, x, outputs, **more):
    return integrated_gradients(model, x, outputs=outputs, steps=150, baseline=0.1, **more)


def _blurred(model, x, outputs, **more):
    return blur_integrated_gradients(model, x, outputs=outputs, steps=150, sigma=2.0, **more)


def _guided(model, x, outputs, **more):
    return guided_integrated_gradients(model, x, outputs=outputs, steps=150, max_dist=0.1, **more)


def _interior(model, x, outputs, **more):
    return interior_gradients(model, x, outputs=outputs, steps=7, **more)


def _expected(model, x, outputs, **more):
    background = images((4, *x.shape[1:]), seed=9, dtype=x.dtype)
    return expected_gradients(model, x, outputs=outputs, samples=7, background=background, key=KEY, **more)


CASES = [
    (_integrated, (4, 3, 4), lambda x: 0.1, 0.01),
    (_blurred, (4, 3, 4), lambda x: blurred(x, 2.0), 0.03),
    (_guided, (4, 5), lambda x: 0.0, 0.1),
    (_interior, (4, 5), None, 0.0),
    (_expected, (4, 5), None, 0.0),
]


@pytest.mark.parametrize(("method", "space", "start", "error"), CASES)
def test_batches_outputs_and_compilation_change_nothing(x64, method, space, start, error):
    x = images((2, *space, 1))
    model = relu_network(x)
    found = method(model, x, [2, 0])
    assert found.shape == (2, *x.shape)
    one = jax.jit(lambda model, x: method(model, x, [0], batch_size=4))(model, x[1:])
    chex.assert_trees_all_close(one[0, 0], found[1, 1], rtol=1e-8, atol=1e-12)
    if start is not None:
        checked = completeness(model, x, found, outputs=[2, 0], baseline=start(x))
        assert jnp.abs(checked.error).max() < error * jnp.abs(checked.difference).max(), checked


def test_integrated_gradients_with_a_baseline_for_each_image_are_their_definition(x64):
    x, baseline = images((2, 4, 5, 1)), images((2, 4, 5, 1), 4)
    model = relu_network(x)
    at, weights = np.polynomial.legendre.leggauss(5)
    points = [
        (baseline + (t + 1) / 2 * (x - baseline), w / 2) for t, w in zip(at.tolist(), weights.tolist(), strict=True)
    ]
    means = [sum(w * gradient(model, point, k) for point, w in points) for k in (1, 2)]
    mean = jnp.stack([means[0][0], means[1][1]])
    chex.assert_trees_all_close(
        integrated_gradients(model, x, [1, 2], steps=5, baseline=baseline), (x - baseline) * mean, rtol=1e-9
    )
    chex.assert_trees_all_close(interior_gradients(model, x, [1, 2], steps=5, baseline=baseline), mean, rtol=1e-9)


def textbook_guided(slope, x, baseline, steps, fraction, max_dist):
    """The path of one image, its values in a row, step by step."""
    at, found, length = baseline.copy(), np.zeros_like(x), np.abs(x - baseline).sum()
    for number in range(1, steps + 1):
        t = number / steps
        low, high = (baseline + (x - baseline) * np.clip(t + d, 0, 1) for d in (-max_dist, max_dist))
        before, g = at.copy(), slope(at)
        behind = np.abs(at - baseline) < np.abs(low - baseline)
        at[behind] = low[behind]
        while (missing := np.abs(x - at).sum() - length * (1 - t)) > 1e-12:
            left = np.where(at == high, np.inf, np.abs(g))
            chosen = (left <= np.sort(left)[int(fraction * (len(x) - 1))]) & (left < np.inf)
            reach = np.abs(high - at)[chosen].sum()
            if not reach:
                break
            at[chosen] = high[chosen] if missing >= reach else (at + (high - at) * missing / reach)[chosen]
        found += (at - before) * g
    return found


def test_guided_integrated_gradients_are_their_definition(x64):
    x, baseline = images((2, 4, 5, 1)), images((1, 4, 5, 1), 4)
    model = relu_network(x)
    options = dict(steps=12, fraction=0.2, max_dist=0.15)
    found = guided_integrated_gradients(model, x, [2, 0], baseline=baseline[0], **options)
    for i, k in enumerate((2, 0)):

        def slope(at, k=k):
            return np.asarray(gradient(model, jnp.asarray(at.reshape(1, 4, 5, 1)), k)).ravel()

        expected = textbook_guided(slope, np.asarray(x[i]).ravel(), np.asarray(baseline).ravel(), **options)
        chex.assert_trees_all_close(found[i].ravel(), expected, rtol=1e-9, atol=1e-12)


def test_guided_paths_with_known_ends(x64):
    linear = of_voxels(lambda x: 2 * x[0] + x[1])
    alone = of_voxels(lambda x: 2 * x[0] ** 2 + x[1] ** 2)
    together = of_voxels(lambda x: (2 * x[0] + x[1]) ** 2)
    options = dict(steps=1000, fraction=0.1)
    found = guided_integrated_gradients(linear, column(10, 5), baseline=column(-1, -3), max_dist=0.5, **options)
    chex.assert_trees_all_close(found, column(22, 8), rtol=1e-8)
    found = guided_integrated_gradients(alone, column(3, 3), max_dist=0.4, **options)
    chex.assert_trees_all_close(found, column(18, 9), rtol=1e-2)
    found = guided_integrated_gradients(alone, column(0, 0), baseline=3.0, max_dist=0.4, **options)
    chex.assert_trees_all_close(found, column(-18, -9), rtol=1e-2)
    # without room the straight line, without bounds first one voxel and then the other
    for max_dist, expected in ((0.0, (54, 27)), (1.0, (72, 9))):
        found = guided_integrated_gradients(together, column(3, 3), max_dist=max_dist, **options)
        chex.assert_trees_all_close(found, column(*expected), rtol=1e-2)
    found = guided_integrated_gradients(together, column(3, 3), steps=1000, fraction=1.0)
    chex.assert_trees_all_close(found, column(54, 27), rtol=1e-2)
    found = guided_integrated_gradients(together, column(3, 3), max_dist=0.2, **options)
    assert found.sum() == pytest.approx(81, abs=0.2)
    assert 55 < found[0, 0, 0] < 71
    assert (guided_integrated_gradients(together, column(3, 3), baseline=3.0, **options) == 0).all()


def test_guided_integrated_gradients_in_single_precision():
    x = images((1, 9, 8, 1), dtype=jnp.float32).at[:, :4].set(0.0)  # much of an image is where it starts
    found = guided_integrated_gradients(relu_network(x), x, 0, steps=50)
    with jax.enable_x64(True):
        wide = x.astype(jnp.float64)
        model = jax.tree.map(lambda a: a.astype(jnp.float64), relu_network(x))
        expected = guided_integrated_gradients(model, wide, 0, steps=50)
    assert np.corrcoef(np.ravel(found), np.ravel(expected))[0, 1] > 0.99


def test_a_blur_is_that_of_a_gaussian(x64):
    x = images((1, 21, 31, 2))
    expected = ndimage.gaussian_filter(np.asarray(x), (0, 1.0, 2.0, 0), truncate=7)
    middle = (0, slice(8, 13), slice(14, 17))  # as far from the edges as the kernel reaches
    chex.assert_trees_all_close(blurred(x, (1.0, 2.0))[middle], expected[middle], atol=1e-10)
    noise = images((1, 5, 6, 2))
    chex.assert_trees_all_close(blurred(noise, 0.0), noise)
    chex.assert_trees_all_close(blurred(jnp.ones((1, 5, 6, 2)), 3.0), jnp.ones((1, 5, 6, 2)), rtol=1e-12)
    for sigma in (0.0, 0.01, 0.5):
        assert jnp.isfinite(jax.jacfwd(lambda s: blurred(noise, s))(sigma)).all()


def test_blur_integrated_gradients_of_voxels_that_count_on_their_own(x64):
    x = jnp.zeros((1, 5, 5, 1)).at[0, 1, 1].set(0.7).at[0, 2, 2].set(1.0)
    model = Partial(lambda x: jnp.sin(x).sum((1, 2)))
    found = blur_integrated_gradients(model, x, sigma=10.0, steps=100)
    chex.assert_trees_all_close(found, jnp.sin(x) - jnp.sin(blurred(x, 10.0)), atol=1e-8)


def test_blur_integrated_gradients_are_their_definition_with_a_width_per_axis(x64):
    x = images((2, 4, 3, 4, 1))
    model, sigma = relu_network(x), jnp.array([3.0, 2.0, 1.0])
    at, weights = quadrature.gauss_legendre(4)
    expected, step = jnp.zeros_like(x), 1e-5
    for t, w in zip(at.tolist(), weights.tolist(), strict=True):
        here, more, less = (blurred(x, sigma * (1 - s) ** 2) for s in (t, t + step, t - step))
        expected += w * gradient(model, here, 1) * (more - less) / (2 * step)
    found = blur_integrated_gradients(model, x, 1, sigma=sigma, steps=4)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-9)


def test_expected_gradients_are_their_definition(x64):
    x, background = images((2, 4, 5, 1)), images((3, 4, 5, 1), 8)
    model = relu_network(x)
    found = expected_gradients(model, x, 1, background=background, samples=6, key=KEY)
    expected = jnp.zeros_like(x)
    for key in jax.random.split(KEY, 6):
        for_image, for_place = jax.random.split(key)
        way = x - background[int(jax.random.randint(for_image, (), 0, 3))][None]
        place = jax.random.uniform(for_place, (), jnp.float64)
        expected += way * gradient(model, x - (1 - place) * way, 1) / 6
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-12)


def test_expected_gradients_add_up_to_the_distance_from_the_mean_prediction(x64):
    x, background = images((1, 4, 5, 1)), images((3, 4, 5, 1), 8)
    model = relu_network(x)
    found = expected_gradients(model, x, 1, background=background, samples=4000, key=KEY, batch_size=1000)
    difference = model(x)[0, 1] - model(background)[:, 1].mean()
    assert found.sum() == pytest.approx(float(difference), abs=0.1 * float(jnp.abs(found).sum()))
    baselines = [integrated_gradients(model, x, 1, baseline=image, steps=200) for image in background]
    chex.assert_trees_all_close(found, sum(baselines) / 3, atol=0.1 * float(jnp.abs(found).max()))


def test_a_path_and_a_rule_of_ones_own(x64):
    def bent(end, x, t):
        return x * t + end * t * (1 - t)

    x = images((2, 4, 3, 1))
    model = linear_network(x)
    path = Partial(bent, images((1, 4, 3, 1), 2))
    found = path_integrated_gradients(model, x, 0, path=path, rule=quadrature.midpoint, steps=3)
    assert jnp.abs(completeness(model, x, found, 0).error).max() < 1e-12
    with pytest.raises(ValueError, match="The path gives"):
        path_integrated_gradients(model, x, 0, path=lambda x, t: t * x[0])


def _no_retrace_cases():
    yield integrated_gradients, lambda s, x: dict(steps=5, baseline=0.1 * s, rule=RULES[s])
    yield integrated_gradients, lambda s, x: dict(steps=5, baseline=images(x.shape[1:], s))
    yield blur_integrated_gradients, lambda s, x: dict(steps=5, sigma=1.0 + s)
    yield guided_integrated_gradients, lambda s, x: dict(steps=5, max_dist=0.1 + 0.1 * s)
    yield (
        expected_gradients,
        lambda s, x: dict(samples=5, background=images((3, *x.shape[1:]), s), key=jax.random.key(s)),
    )


@pytest.mark.parametrize(("method", "options"), list(_no_retrace_cases()))
def test_new_weights_images_targets_and_baselines_are_no_new_program(method, options):
    x = images((2, 4, 4, 1))
    traces = []

    def counted(model, x):
        traces.append(1)
        return model(x)

    def call(seed, targets):
        model = Partial(counted, linear_network(x, seed=seed))
        return method(model, images(x.shape, seed), targets, **options(seed, x))

    call(0, [0, 1])
    before = len(traces)
    assert jnp.isfinite(call(1, [2, 2])).all()
    call(2, 1)
    assert len(traces) == before


def test_memory_grows_with_what_is_held_at_once():
    x = images((1, 32, 32, 1), dtype=jnp.float32)
    model = small_network(x, width=8)

    def temporary(batch_size):
        compiled = jax.jit(lambda model, x: integrated_gradients(model, x, outputs=[0, 1], batch_size=batch_size))
        return compiled.lower(model, x).compile().memory_analysis().temp_size_in_bytes

    assert 4 * temporary(2) < temporary(32)


def test_completeness_is_printed_as_a_table():
    x = column(1, 3)
    model = of_voxels(lambda x: (x**2).sum())
    found = completeness(model, x, jnp.stack([x, x]), outputs=[0, 0], baseline=1.0)
    assert found.error.tolist() == [[-4.0], [-4.0]]
    assert str(found).splitlines()[1].split() == ["0", "0", "4", "8", "-4"]
    with pytest.raises(ValueError, match="The map has shape"):
        completeness(model, x, x[0])


BAD = [
    (integrated_gradients, dict(steps=0), "steps got 0"),
    (integrated_gradients, dict(steps=1, rule=quadrature.trapezoid), "both ends"),
    (integrated_gradients, dict(rule=lambda n: (np.arange(n) / n, np.full(n, 1 / (n + 1)))), "sum to 0.98"),
    (integrated_gradients, dict(rule=lambda n: (np.arange(n), np.full(n, 1 / n))), "outside of"),
    (integrated_gradients, dict(rule=lambda n: (np.zeros(n), np.ones(1))), "positions"),
    (integrated_gradients, dict(baseline=np.zeros((2, 1))), r"baseline has shape \(2, 1\)"),
    (integrated_gradients, dict(baseline=np.nan), "baseline holds NaN"),
    (integrated_gradients, dict(batch_size=0), "batch_size got 0"),
    (blur_integrated_gradients, dict(sigma=-1.0), "sigma got -1"),
    (blur_integrated_gradients, dict(sigma=(1.0, 2.0)), "one per spatial axis"),
    (guided_integrated_gradients, dict(fraction=1.5), "fraction got 1.5"),
    (guided_integrated_gradients, dict(max_dist=-0.1), "max_dist got -0.1"),
    (expected_gradients, dict(background=jnp.zeros((2, 4, 1)), key=KEY), "background has shape"),
    (expected_gradients, dict(background=jnp.zeros((2, 3, 1)), key=1), "random key"),
]


@pytest.mark.parametrize(("method", "options", "message"), BAD)
def test_options_that_mean_nothing_are_refused(method, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        method(lambda x: x.sum(1), jnp.ones((1, 3, 1)), **options)
