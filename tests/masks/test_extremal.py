import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal.masks import extremal_perturbation, fills
from jaxsal.masks.smooth_max import kernel, parameter_grid, smooth_max

BOX = (slice(4, 12), slice(8, 20))
OPTIONS = dict(fill="constant", step=4, smoothness=4.0, max_steps=600)


def network(x):
    return 7 * x[:, 4:12, 8:20].mean((1, 2))


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 24, 28, 1), minval=0.9, maxval=1.1)


@pytest.fixture(scope="module")
def result(x):
    return extremal_perturbation(network, x, area=[0.2, 0.35], **OPTIONS)


def soft(values):
    weights = np.exp(20 * values)
    return (weights * values).sum() / weights.sum()


def test_along_one_axis_it_is_the_published_soft_maximum(x64):
    params = np.random.default_rng(0).uniform(size=5)
    found = smooth_max(jnp.asarray(params), (31,), 7, 9.0)
    radius = 1 + int(np.ceil(9.0 / 7))
    expected = []
    for u in range(31):
        near = range(u // 7 - radius, u // 7 + radius + 1)
        taps = [kernel(np.array((u - 7 * j) / 9.0)) * (params[j] if 0 <= j < 5 else 0) for j in near]
        expected.append(soft(np.array(taps)))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_over_several_axes_it_is_close_to_the_maximum_of_products(x64):
    params = np.random.default_rng(0).uniform(size=(3, 4, 3))
    space = (10, 15, 12)
    assert parameter_grid(space, 4) == (3, 4, 3)
    found = smooth_max(jnp.asarray(params), space, 4, 5.0)
    assert found.shape == space
    factors = [kernel((np.arange(n)[:, None] - 4 * np.arange(t)) / 5.0) for n, t in zip(space, (3, 4, 3), strict=True)]
    hard = np.max(np.einsum("ai,bj,ck,ijk->abcijk", *factors, params), axis=(3, 4, 5))
    # a soft maximum of values within [0, 1] at a coldness of 20 stays below the hard one, and near it
    assert (found <= hard + 1e-12).all()
    assert np.abs(found - hard).max() < 0.25
    assert np.abs(found - hard).mean() < 0.1


def test_empty_and_single_parameters():
    assert (smooth_max(jnp.zeros((3, 3)), (10, 11), 4, 4.0) == 0).all()
    peak = smooth_max(jnp.zeros((4, 4, 4)).at[1, 2, 1].set(1.0), (16, 16, 16), 4, 4.0)
    assert np.unravel_index(int(peak.argmax()), peak.shape)[1] in (6, 7, 8, 9, 10)
    assert float(peak[4, 8, 4]) > 0.95
    assert float(peak[15, 0, 15]) < 1e-3


def test_memory_is_that_of_a_few_images():
    space = (32, 32, 32)
    slope = jax.jit(jax.grad(lambda p: (smooth_max(p, space, 7, 21.0) ** 2).sum()))
    shape = jax.ShapeDtypeStruct(parameter_grid(space, 7), jnp.float32)
    images = slope.lower(shape).compile().memory_analysis().temp_size_in_bytes / (4 * 32**3)
    assert images < 40  # all neighbours at once are 729


def test_areas_are_met(result):
    assert result.lanes == ("area", "image")
    assert result.saliency.shape == (2, 2, 24, 28)
    for masks, area in zip(result.saliency, (0.2, 0.35), strict=True):
        np.testing.assert_allclose(masks.mean((1, 2)), area, atol=0.04)
        # almost all voxels are in or out
        assert ((masks > 0.2) & (masks < 0.8)).mean() < 0.15


def check_region(mask, inside):
    """The soft kernels cannot draw corners: the region is covered, with a margin around it."""
    mask = np.asarray(mask) > 0.5
    assert (mask & inside).sum() / inside.sum() > 0.9
    assert (mask & inside).sum() / (mask | inside).sum() > 0.55


@pytest.fixture(scope="module")
def inside():
    region = np.zeros((24, 28), bool)
    region[BOX] = True  # a share of 0.143
    return region


def test_the_region_that_counts_is_found(result, inside):
    for mask in result.saliency[0]:
        check_region(mask, inside)
    assert (result.recovered[0] > 0.8).all()


def test_the_units_of_the_output_do_not_matter(result, x):
    other = extremal_perturbation(lambda x: 1e-3 * network(x), x, area=0.2, **OPTIONS)
    np.testing.assert_allclose(other.mask, result.mask[0], atol=1e-3)


def test_areas_and_images_do_not_influence_each_other(result, x):
    alone = extremal_perturbation(network, x[1:], area=0.35, **OPTIONS, batch_size=1)
    assert alone.lanes == ("image",)
    np.testing.assert_allclose(alone.mask[0], result.mask[1, 1], atol=1e-3)


def test_several_outputs_are_jobs_like_areas(result, x):
    def two(x):
        return jnp.concatenate([network(x), x[:, 14:22, 2:12].mean((1, 2))], axis=1)

    options = OPTIONS | dict(max_steps=200)
    both = extremal_perturbation(two, x, outputs=[1, 0], area=[0.2, 0.35], batch_size=3, **options)
    assert both.lanes == ("output", "area", "image")
    assert both.saliency.shape == (2, 2, 2, 24, 28)
    alone = extremal_perturbation(two, x, 0, area=0.35, **options)
    np.testing.assert_allclose(both.mask[1, 1], alone.mask, atol=1e-3)
    np.testing.assert_allclose(both.prediction[:, 0], two(x).T[::-1], rtol=1e-5)
    single = extremal_perturbation(two, x[:1], outputs="all", area=0.2, **options)
    assert single.lanes == ("output", "image")
    np.testing.assert_allclose(single.mask[0], both.mask[1, 0, :1], atol=1e-3)


@pytest.mark.parametrize("game", ["deletion", "dual"])
def test_other_games_find_the_same_region(game, x, inside):
    found = extremal_perturbation(network, x[:1], area=0.2, game=game, **OPTIONS)
    check_region(found.saliency[0], inside)


def test_three_dimensions_are_the_same_code():
    region = np.zeros((12, 14, 16), bool)
    region[:6, 7:, 8:] = True
    # the weight of the area grows: the longer it runs, the better it is met
    longer = OPTIONS | dict(max_steps=1000)
    found = extremal_perturbation(
        lambda x: 2 * x[:, :6, 7:, 8:].mean((1, 2, 3)), jnp.ones((1, 12, 14, 16, 1)), area=0.16, **longer
    )
    check_region(found.saliency[0], region)
    assert np.isclose(found.saliency.mean(), 0.16, atol=0.04)


def test_the_first_steps_are_by_hand(x64):
    x = np.random.default_rng(0).uniform(size=(1, 10, 11, 1))
    weights = np.random.default_rng(1).normal(size=(10, 11))
    params = np.ones((3, 3))
    velocity = None

    def energy(params, step):
        mask = smooth_max(params, (10, 11), 4, 4.0)
        reference = np.zeros(110)
        reference[int(110 * (1 - 0.3)) :] = 1
        reward = (mask * x[0, ..., 0] * weights).sum()
        return -reward + 300 * 1.0035**step * ((jnp.sort(mask.ravel()) - reference) ** 2).mean()

    slope_of = jax.jit(jax.grad(energy))
    for step in range(4):
        slope = np.asarray(slope_of(jnp.asarray(params), float(step)))
        velocity = slope if velocity is None else 0.9 * velocity + 0.1 * slope
        params = np.clip(params - 0.01 * velocity, 0, 1)
    model = jax.tree_util.Partial(lambda w, x: (x[..., 0] * w[None]).sum((1, 2))[:, None], jnp.asarray(weights))
    found = extremal_perturbation(model, jnp.asarray(x), area=0.3, scale=1.0, **(OPTIONS | dict(max_steps=4)))
    np.testing.assert_allclose(found.mask[0], params, atol=1e-9)


def test_sides_are_swapped_only_when_asked(x64):
    # the output is that of one side; flipped on every second step, both sides share the mask
    x = jnp.ones((1, 16, 16, 1))

    def side(x):
        return x[:, :, :6].mean((1, 2))

    options = dict(area=0.3, fill="constant", step=4, smoothness=4.0, max_steps=300)
    plain = extremal_perturbation(side, x, **options).saliency[0]
    flipped = extremal_perturbation(side, x, flip_axes=[1], **options).saliency[0]
    assert float(plain[:, 10:].mean()) < 0.1
    assert float(flipped[:, 10:].mean()) > 0.2


def test_an_output_of_a_regression_is_kept_close(x):
    result = extremal_perturbation(
        network, x[:1], area=0.2, score="closeness", sigma=5.0, game="preservation", **OPTIONS
    )
    assert abs(float(result.recovered[0]) - 1) < 0.15
    np.testing.assert_allclose(
        result.terms.score[0], -abs(result.masked_prediction[0] - result.prediction[0]) / 5, rtol=1e-4
    )


BAD = [
    (dict(area=0.0), ValueError, "area got 0.0: give a share"),
    (dict(area=[0.1, 1.0]), ValueError, "area got"),
    (dict(game="keep"), ValueError, "game got 'keep'"),
    (dict(score="loss"), ValueError, "score got 'loss'"),
    (dict(step=0), ValueError, "step got 0"),
    (dict(smoothness=0.0), ValueError, "smoothness got 0.0"),
    (dict(lam=np.nan), ValueError, "lam got nan"),
    (dict(scale=-1.0), ValueError, "scale got -1.0"),
    (dict(flip_axes=[2]), ValueError, "spatial axes from 0 to 1"),
    (dict(sigma=-1.0), ValueError, "sigma must be positive"),
    (dict(target=1), ValueError, "the network has 1"),
    (dict(target=0, outputs="all"), ValueError, "Both target and outputs"),
    (dict(fill=fills.noise()), ValueError, "give key="),
    (dict(batch_size=0), ValueError, "batch_size got 0"),
    (dict(max_steps=-1), ValueError, "max_steps got -1"),
    (dict(x=jnp.ones((4, 4))), ValueError, r"\[batch, \*space, channels\] is needed"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_answered(change, error, message, x):
    arguments = dict(model=network, x=x, **OPTIONS) | change
    with pytest.raises(error, match=message):
        extremal_perturbation(**arguments)
