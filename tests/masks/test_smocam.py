import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.engine.geometry import Geometry
from jaxsal.masks import keep_top, smocam, terms, upsample
from jaxsal.masks.result import judge
from jaxsal.masks.smocam import smocam_objective, uniform_mask
from jaxsal.splitting import Split

WEIGHTS = jnp.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0]])


def head(x):
    """Three feature maps of the image, one of them smooth."""
    return jnp.concatenate([x, jnp.tanh(x), jnp.roll(x, 1, 1)], axis=-1)


def tail(features):
    """Output 0 looks at one corner, output 1 at the opposite one."""
    near = features[:, :3, :3, :3].mean((1, 2, 3))
    far = features[:, -3:, -3:, -3:].mean((1, 2, 3))
    return jnp.stack([near @ WEIGHTS[:, 0], far @ WEIGHTS[:, 1]], axis=-1)


PARTS = Split(head, tail)


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 8, 9, 10, 1)) + 1


@pytest.fixture(scope="module")
def result(x):
    return smocam(PARTS, x, sigma=0.02, gamma=1.0, max_steps=400)


def test_shapes_lead_with_outputs_and_images(result, x):
    assert result.mask.shape == (2, 2, 8, 9, 10)
    assert result.saliency.shape == (2, 2, 8, 9, 10)
    for field in ("value", "steps", "evaluations", "status", "prediction", "recovered", "negative_energy"):
        assert getattr(result, field).shape == (2, 2), field
    assert "MaskResult: masks of 8 x 9 x 10 voxels" in repr(result)


def test_what_the_lanes_cost_is_told(result):
    assert result.usage.useful == int(result.evaluations.sum())
    assert 0 < result.usage.utilisation <= 1
    share = f"{result.usage.utilisation:.0%}"
    assert repr(result).splitlines()[1] == f"{result.usage.lanes} lanes side by side, {share} of their steps of use"


def test_the_mask_finds_the_corner_that_an_output_looks_at(result):
    near = np.zeros((8, 9, 10), bool)
    near[:3, :3, :3] = True
    for image in range(2):
        energy = np.asarray(result.mask[0, image]) ** 2
        assert energy[near].sum() / energy.sum() > 0.9
        energy = np.asarray(result.mask[1, image]) ** 2
        assert energy[near[::-1, ::-1, ::-1]].sum() / energy.sum() > 0.9


def test_the_diagnostics_are_what_they_say(result, x):
    features = head(x)
    for lane, image in np.ndindex(2, 2):
        mask = result.mask[lane, image]
        masked = tail(features[image : image + 1] * mask[None, ..., None])[0, lane]
        y, null = tail(features)[image, lane], tail(jnp.zeros_like(features))[image, lane]
        chex.assert_trees_all_close(result.masked_prediction[lane, image], masked, rtol=1e-4, atol=1e-5)
        chex.assert_trees_all_close(result.prediction[lane, image], y, rtol=1e-5)
        chex.assert_trees_all_close(result.null_prediction[lane, image], null, atol=1e-6)
        chex.assert_trees_all_close(result.recovered[lane, image], (masked - null) / (y - null), rtol=1e-4)
        parts = jax.tree.map(lambda a: a[lane, image], result.terms)  # noqa: B023
        chex.assert_trees_all_close(
            result.value[lane, image], parts.distance + parts.norm + 1.0 * parts.smoothness, rtol=1e-5
        )
        energy = np.asarray(mask) ** 2
        chex.assert_trees_all_close(
            result.negative_energy[lane, image], energy[np.asarray(mask) < 0].sum() / energy.sum(), atol=1e-6
        )
    # a lane that ends elsewhere than at its best mask goes back there
    assert set(np.ravel(result.evaluations - result.steps)) <= {1, 2}


def test_images_and_outputs_do_not_influence_each_other(x):
    options = dict(sigma=0.02, gamma=1.0, max_steps=400, solver=optim.armijo_once())
    alone, together = smocam(PARTS, x[1:], outputs=[1], **options), smocam(PARTS, x, **options)
    chex.assert_trees_all_close(alone.mask[0, 0], together.mask[1, 1], rtol=1e-3, atol=1e-5)
    assert int(alone.steps[0, 0]) == int(together.steps[1, 1])


@pytest.mark.parametrize("solver", [None, optim.armijo_once()], ids=["recommended", "published"])
def test_the_number_of_lanes_touches_no_mask(x, solver):
    options = dict(sigma=0.02, gamma=1.0, max_steps=400, solver=solver)
    few, many = (smocam(PARTS, x, lanes=lanes, **options) for lanes in (1, 2))
    assert few.usage.lanes < many.usage.lanes
    chex.assert_trees_all_close(few.mask, many.mask, rtol=0, atol=1e-5)


def test_a_batch_of_images_has_the_masks_of_its_images_up_to_rounding(result, x):
    alone = smocam(PARTS, x[1:], outputs=[1], sigma=0.02, gamma=1.0, max_steps=400)
    # the head rounds a batch differently than an image, and whether a step is accepted is a yes or no
    chex.assert_trees_all_close(alone.mask[0, 0], result.mask[1, 1], rtol=1e-3, atol=1e-3)
    chex.assert_trees_all_close(alone.value[0, 0], result.value[1, 1], rtol=1e-2)


def test_one_compilation_for_new_images_and_new_weights(x):
    traces = []

    def counted(features):
        traces.append(features.shape)
        return tail(features)

    parts = Split(head, jax.tree_util.Partial(counted))
    smocam(parts, x, max_steps=3)
    first = len(traces)
    smocam(parts, x + 1, sigma=3.0, lam=2.0, gamma=5.0, max_steps=3)
    assert len(traces) == first


def test_every_step_evaluates_the_tail_once(x):
    calls = []

    def counted(features):
        jax.debug.callback(lambda: calls.append(1))
        return tail(features)

    result = smocam(Split(head, counted), x[:1], outputs=[0], max_steps=7, solver=optim.armijo_once())
    jax.effects_barrier()
    # two evaluations give the prediction and the null prediction
    assert len(calls) == 2 + int(result.evaluations.sum()) == 2 + 8


def test_the_objective_is_equation_2(x64):
    rng = np.random.default_rng(0)
    mask, features = rng.normal(size=(4, 5, 3)), rng.normal(size=(1, 4, 5, 3, 2))
    weights = rng.normal(size=(120, 3))

    def linear(f):
        return f.reshape(1, -1) @ jnp.asarray(weights)

    value, (parts, masked) = smocam_objective(linear, jnp.asarray(features), 2, 1.5, 0.7, 2.0, 30.0)(jnp.asarray(mask))
    by_hand = (features * mask[None, ..., None]).reshape(1, -1) @ weights[:, 2]
    tv = np.mean([np.abs(np.diff(mask, axis=axis)).mean() for axis in range(3)])
    norm = abs(1 - np.sqrt((mask**2).sum()))
    assert np.allclose(masked, by_hand, rtol=1e-12)
    assert np.allclose(parts, [abs(by_hand[0] - 1.5) / 0.7, norm, tv], rtol=1e-12)
    assert np.allclose(value, abs(by_hand[0] - 1.5) / 0.7 + 2 * norm + 30 * tv, rtol=1e-12)


def test_the_start_is_uniform_and_its_smoothness_has_no_slope():
    mask = uniform_mask((4, 5, 6))
    assert np.isclose(float(terms.l2_norm(mask)), 1.1)
    assert (jax.grad(terms.total_variation)(mask) == 0).all()
    assert (jax.grad(lambda m: terms.absolute(m).sum())(jnp.zeros(3)) == 0).all()
    assert (jax.grad(terms.l2_norm)(jnp.zeros(3)) == 0).all()
    # the trap: jnp.abs pushes a uniform mask to one corner
    assert (jax.grad(lambda m: jnp.abs(jnp.diff(m)).sum())(jnp.ones(3)) != 0).any()


def test_smoothness_is_a_mean_hence_independent_of_the_grid():
    ramp = jnp.linspace(0, 1, 9)
    assert np.isclose(float(terms.total_variation(jnp.broadcast_to(ramp, (4, 4, 9)))), 1 / 8 / 3)
    assert np.isclose(float(terms.total_variation(jnp.broadcast_to(ramp, (40, 40, 9)))), 1 / 8 / 3)
    assert float(terms.total_variation(jnp.ones((1, 3)))) == 0


def test_a_nonnegative_mask_has_no_negative_energy(x):
    solver = optim.nonnegative(optim.armijo_once(0.05))
    result = smocam(PARTS, x, sigma=0.02, gamma=1.0, max_steps=200, solver=solver)
    assert (result.mask >= 0).all()
    assert (result.negative_energy == 0).all()


def test_flipped_masks_are_warned_about(x):
    # the features are negative where the output wants them positive: only a flipped mask reaches it
    def through_abs(features):
        return jnp.stack([(jnp.square(features) * features).mean((1, 2, 3)).sum(-1)] * 2, axis=-1)

    def flipped(features):
        return through_abs(features) + jax.nn.relu(-features.mean((1, 2, 3, 4)))[:, None] * 1e3

    with pytest.warns(UserWarning, match="negative values: they reproduce the prediction with flipped features"):
        smocam(
            Split(head, flipped),
            3 * x[:1],
            outputs=[0],
            sigma=1e-3,
            gamma=0.0,
            max_steps=200,
            solver=optim.armijo_once(),
        )


def test_an_output_that_ignores_the_image_is_uninformative(x):
    def constant(features):
        return tail(features) * jnp.array([[1.0, 1e-4]])

    result = smocam(Split(head, constant), x[:1], sigma=0.1, gamma=1.0, max_steps=300)
    assert result.status_names[1] == ["uninformative"]
    assert result.status_names[0] != ["uninformative"]


def test_a_mask_that_recovers_less_than_half_is_unexplained(x):
    result = smocam(PARTS, x, sigma=0.02, gamma=1.0, max_steps=0)
    assert (result.recovered < 0.5).all()
    assert result.status_names == [["unexplained"] * 2] * 2


def test_a_share_far_from_one_is_unexplained_on_either_side():
    good, poor, none = int(optim.Status.STAGNATED), int(optim.Status.UNEXPLAINED), int(optim.Status.NOT_FINITE)
    recovered = np.array([-2.0, 0.0, 0.49, 0.5, 1.0, 1.5, 1.51, 3.0])
    found = judge(np.full(8, good), np.ones(8), np.zeros(8), recovered, 1.0)
    assert found.tolist() == [poor, poor, poor, good, good, good, poor, poor]
    assert judge([none], np.ones(1), np.zeros(1), np.array([3.0]), 1.0).tolist() == [none]


def test_a_lane_that_is_not_finite_says_so_and_leaves_the_others_alone(x):
    def fragile(features):
        y = tail(features)
        return jnp.stack([y[:, 0], jnp.where(y[:, 1] < 0.5 * tail(head(x))[0, 1], jnp.nan, y[:, 1])], axis=-1)

    options = dict(sigma=0.02, gamma=1.0, max_steps=50, solver=optim.armijo_once())
    expected = smocam(PARTS, x[:1], outputs=[0], **options)
    result = smocam(Split(head, fragile), x[:1], **options)
    assert result.status_names[1] == ["not_finite"]
    chex.assert_trees_all_close(result.mask[0], expected.mask[0], rtol=1e-4, atol=1e-6)


def test_two_dimensions_are_the_same_code():
    x = jnp.ones((1, 12, 10, 1)).at[:, 2:5, 6:9].set(9.0)
    parts = Split(lambda x: x, lambda f: f.mean((1, 2)))
    result = smocam(parts, x, sigma=0.05, gamma=1.0, max_steps=300, percentile=80)
    assert result.saliency.shape == (1, 1, 12, 10)
    inside = np.zeros((12, 10), bool)
    inside[2:5, 6:9] = True
    assert np.asarray(result.saliency[0, 0])[inside].mean() > 3 * np.asarray(result.saliency[0, 0])[~inside].mean()


def test_a_users_own_optax_solver_and_stopping_rule(x):
    def below(target):
        return optim.StoppingRule(
            lambda params: (),
            lambda state, progress: (
                state,
                jnp.where(progress.value < target, jnp.int32(optim.Status.STAGNATED), jnp.int32(0)),
            ),
        )

    with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes Python floats and int32
        result = smocam(PARTS, x, sigma=0.02, gamma=1.0, solver=optax.adam(1e-2), stop=below(5.0), max_steps=500)
    assert (result.value < 5.0).all()
    assert (result.steps < 500).all()


BAD = [
    (dict(x=jnp.ones((1, 4, 4, 4, 1), jnp.int32)), TypeError, "dtype int32, floating point is needed"),
    (dict(x=jnp.ones((4, 4))), ValueError, r"shape \(4, 4\), \[batch, \*space, channels\] is needed"),
    (dict(x=jnp.ones((1, 8, 9, 10, 1)).at[0, 0, 0].set(jnp.nan)), ValueError, "10 NaN or infinite values of 720"),
    (dict(outputs=[0, 2]), ValueError, r"\[0, 2\]; the network has 2"),
    (dict(outputs="some"), ValueError, '"all" or a sequence'),
    (dict(outputs=[]), ValueError, "the network has 2"),
    (dict(sigma=[1.0, 2.0, 3.0]), ValueError, r"sigma has shape \(3,\)"),
    (dict(sigma=0.0), ValueError, "sigma must be positive"),
    (dict(lam=-1.0), ValueError, "lam and gamma"),
    (dict(percentile=101), ValueError, "percentile got 101"),
    (dict(max_steps=-1), ValueError, "max_steps got -1"),
    (dict(split=Split(lambda x: x.reshape(2, -1), lambda f: f)), ValueError, "do not lie on a grid"),
    (dict(split=Split(lambda x: x, lambda f: f)), ValueError, r"\[batch, outputs\] is needed"),
    (dict(split=Split(jax.tree_util.Partial(jnp.add, jnp.float32(jnp.nan)), tail)), ValueError, "NaN or infinite"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_answered(change, error, message, x):
    arguments = dict(split=PARTS, x=x) | change
    with pytest.raises(error, match=message):
        smocam(**arguments)


def test_upsampling_puts_voxel_i_at_the_centre_of_its_receptive_field():
    mask = jnp.zeros((20, 24, 20)).at[4, 5, 6].set(1.0)
    big = np.asarray(upsample(mask, Geometry((13.0,) * 3, (8.0,) * 3), (182, 218, 182)))
    assert np.unravel_index(big.argmax(), big.shape) == (45, 53, 61)
    assert big[45, 53, 61] == 1
    assert np.isclose(big[45 + 4, 53, 61], 0.5)
    assert big[45 + 8, 53, 61] == 0


def test_upsampling_continues_the_edge_and_is_linear_in_between():
    line = upsample(jnp.array([1.0, 3.0, 2.0]), Geometry((2.0,), (4.0,)), (14,))
    assert np.allclose(line, np.interp(np.arange(14), [2, 6, 10], [1, 3, 2]))
    backwards = upsample(jnp.array([1.0, 3.0, 2.0]), Geometry((10.0,), (-4.0,)), (14,))
    assert np.allclose(backwards, np.interp(np.arange(14), [2, 6, 10], [2, 3, 1]))


def test_upsampling_one_voxel_and_wrong_ranks():
    assert (upsample(jnp.array([[5.0]]), Geometry((3.0, 3.0), (8.0, 8.0)), (7, 7)) == 5).all()
    with pytest.raises(ValueError, match="same spatial rank"):
        upsample(jnp.ones((3, 3)), Geometry((0.0,), (1.0,)), (7, 7))


def test_the_threshold_is_taken_over_the_whole_grid_of_each_map():
    maps = jnp.stack([jnp.arange(100.0), 100 * jnp.arange(100.0)]).reshape(2, 10, 10)
    kept = keep_top(maps, 95, rank=2)
    assert (kept[0] > 0).sum() == (kept[1] > 0).sum() == 5
    assert (kept.max((1, 2)) == maps.max((1, 2))).all()


@pytest.mark.parametrize("top", [1.0, 0.1, -0.5])
def test_a_plateau_that_reaches_the_percentile_is_kept(top):
    plateau = jnp.array([top - 1] * 90 + [top] * 10).reshape(10, 10)
    kept = keep_top(plateau, 95, rank=2)
    assert (kept[:9] == 0).all()
    assert (kept[9] == plateau[9]).all()


def test_a_plateau_is_kept_whole_whatever_its_rounding():
    plateau = jnp.array([0.0] * 90 + [0.7, np.nextafter(np.float32(0.7), np.float32(1))] * 5)
    assert (keep_top(plateau, 95, rank=1) > 0).sum() == 10
    mask = jnp.zeros((4, 5)).at[2:, 3:].set(0.1)
    big = upsample(mask, Geometry((2.3, 1.7), (3.1, 2.9)), (17, 19))
    kept = keep_top(big, 95, rank=2)
    assert (kept[-3:, -3:] > 0).all()


def test_a_constant_map_is_empty_whatever_its_rounding():
    mask = jnp.full((5, 6), 0.1)
    big = upsample(mask, Geometry((2.3, 1.7), (3.1, 2.9)), (17, 19))
    assert (keep_top(big, 95, rank=2) == 0).all()
    assert (keep_top(jnp.zeros((3, 3)), 95, rank=2) == 0).all()


def test_no_warning_when_nothing_is_wrong(x):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smocam(PARTS, x, sigma=0.02, gamma=1.0, max_steps=20, solver=optim.nonnegative(optim.armijo_once()))
