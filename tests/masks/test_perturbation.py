import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from jaxsal import optim
from jaxsal.masks import Recipe, fills, meaningful_perturbation, penalties, preset
from jaxsal.masks.ball import ball_mask, ball_start
from jaxsal.masks.objective import Image, Plan, Shared, Wanted, objective
from jaxsal.masks.scores import output, probability

KEY = jax.random.key(3)
WEIGHTS = np.random.default_rng(7).normal(size=(512, 3))


def classifier(x):
    """Logits of three classes from an image of any rank."""
    flat = jnp.tanh(x.reshape(x.shape[0], -1))
    return flat @ jnp.asarray(WEIGHTS[: flat.shape[1]], x.dtype) / 3


def softmax(logits):
    e = np.exp(logits - logits.max())
    return e / e.sum()


def by_hand(name, x, mask, step=0.0, jitter=0, offsets=None):
    """Objective of a preset for class 1 of one image x[*space], from its publication."""
    rank = x.ndim
    axes = tuple(range(rank))
    far = np.pad(x, jitter * np.array([[0, 1]] * rank), mode="edge")
    null = {
        "fong": lambda: ndimage.gaussian_filter(far, 10.0, mode="nearest"),
        "fong-torch": lambda: ndimage.gaussian_filter(far, 10.0, radius=5, mode="nearest"),
        "jacobgil": lambda: ndimage.median_filter(far, 11, mode="nearest"),
        "kan": lambda: ndimage.gaussian_filter(far, 10.0, radius=2, mode="nearest"),
    }[name]()
    here = tuple(slice(o, o + n) for o, n in zip(offsets or (0,) * rank, x.shape, strict=True))
    factors = [n / t for n, t in zip(x.shape, mask.shape, strict=True)]
    full = mask
    if name == "fong":
        full = ndimage.gaussian_filter(np.kron(mask, np.ones([int(f) for f in factors])), 5.0, mode="nearest")
    else:
        for axis, (n, t, f) in enumerate(zip(x.shape, mask.shape, factors, strict=True)):
            at = np.linspace(0, t - 1, n) if name == "jacobgil" else (np.arange(n) + 0.5) / f - 0.5
            full = np.apply_along_axis(lambda line: np.interp(at, np.arange(t), line), axis, full)  # noqa: B023
        if name == "kan":
            full = ndimage.gaussian_filter(full, 10.0, radius=2, mode="nearest")
    seen = full * far[here] + (1 - full) * null[here]
    p = softmax(np.tanh(seen.ravel()) @ WEIGHTS[: x.size] / 3)[1]

    def steps(m, beta):
        return sum((np.abs(np.diff(m, axis=axis)) ** beta).sum() / max(np.diff(m, axis=axis).size, 1) for axis in axes)

    ends = [np.diff(mask, axis=axis, append=np.take(mask, [-1], axis)) ** 2 for axis in axes]
    isotropic = (sum(ends) ** 1.5).sum()
    if name == "fong":
        return p + 1e-4 * np.abs(1 - mask).sum() + 1e-2 * isotropic
    if name == "fong-torch":
        return p + 1e-2 * np.abs(1 - mask).mean() + 1e-4 * isotropic
    if name == "jacobgil":
        return p + 1e-2 * np.abs(1 - mask).mean() + 0.2 * steps(mask, 3)
    return max(p - 0.05, 0) + min(step / 60, 1) * (3 * np.abs(1 - mask).mean() + steps(full, 7))


def lane(recipe, x, index=1):
    """What meaningful_perturbation compiles for one image x[*space]."""
    space = x.shape
    padding = [(0, 0), *[(0, recipe.jitter)] * len(space), (0, 0)]
    state = recipe.fill.prepare(jnp.pad(jnp.asarray(x)[None, ..., None], padding, mode="edge"))
    plan = Plan(recipe.fill.apply, recipe.fill.expand, probability, False, 1, True, recipe, space)
    lam = jnp.asarray(recipe.lam1, x.dtype), jnp.asarray(recipe.lam2, x.dtype)
    image = Image(recipe.fill.expand(jax.tree.map(lambda a: a[0], state)), KEY)
    one = jnp.ones((), x.dtype)
    return plan, Shared(jax.tree_util.Partial(classifier), *lam), image, Wanted(jnp.int32(index), one, one)


@pytest.mark.parametrize("space", [(16, 24), (8, 8, 8)])
@pytest.mark.parametrize("name", ["fong", "fong-torch", "jacobgil", "kan"])
def test_presets_are_their_publications(name, space, x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=space)
    recipe = preset(name)
    still = dataclasses.replace(recipe, jitter=0, noise=0.0, samples=1)
    mask = rng.uniform(size=[max(1, n // recipe.factor) for n in space])
    for step in (0, 12, 90):
        value, _ = objective(*lane(still, x), jnp.asarray(mask), jnp.int32(step))
        assert np.isclose(value, by_hand(name, x, mask, step), rtol=1e-10), step


@pytest.mark.parametrize("name", ["fong", "kan"])
def test_jitter_moves_the_image_under_the_mask(name, x64):
    rng = np.random.default_rng(0)
    x, recipe = rng.normal(size=(16, 16)), dataclasses.replace(preset(name), samples=1)
    mask = rng.uniform(size=[16 // recipe.factor] * 2)
    shifts = list(itertools.product(range(recipe.jitter + 1), repeat=2))
    possible = np.array([by_hand(name, x, mask, 99.0, recipe.jitter, offsets) for offsets in shifts])
    parts = lane(recipe, x)
    evaluate = jax.jit(lambda step: objective(*parts, jnp.asarray(mask), step)[0])
    found = np.array([evaluate(100 + step) for step in range(200)])
    distance = np.abs(found[:, None] - possible)
    assert distance.min(1).max() < 1e-10
    # all shifts occur; those below the floor look alike
    assert len(set(distance.argmin(1))) > 0.8 * len(np.unique(possible.round(9))) > 8


def test_samples_are_averaged_one_by_one(x64):
    x = np.random.default_rng(0).normal(size=(8, 8))
    recipe = dataclasses.replace(preset("kan"), samples=3, noise=0.3)
    mask = jnp.full((2, 2), 0.7)
    plan, shared, image, wanted = lane(recipe, x)
    _, parts = objective(plan, shared, image, wanted, mask, jnp.int32(5))
    single = plan._replace(recipe=dataclasses.replace(recipe, samples=1))
    evaluate = jax.jit(lambda step: objective(single, shared, image, wanted, mask, step)[1].score)
    floors = [float(evaluate(float(step))) for step in range(300)]
    # each sample has its own floor, and the mean of three varies less than one
    assert min(floors) >= 0
    assert np.isclose(parts.score, np.mean(floors), atol=4 * np.std(floors) / np.sqrt(3))


def test_added_noise_has_its_standard_deviation(x64):
    x = np.random.default_rng(0).normal(size=(8, 8))
    weights = jnp.asarray(WEIGHTS[:64, :2])
    plan, shared, image, wanted = lane(dataclasses.replace(preset("jacobgil"), noise=0.2), x)
    shared = shared._replace(model=jax.tree_util.Partial(lambda w, x: x.reshape(len(x), -1) @ w, weights))
    plan = plan._replace(measure=output)
    evaluate = jax.jit(lambda step: objective(plan, shared, image, wanted, jnp.ones((1, 1)), step)[0])
    found = np.array([evaluate(step) for step in range(400)])
    assert np.isclose(found.std(), 0.2 * np.linalg.norm(weights[:, 1]), rtol=0.1)
    assert np.isclose(found.mean(), x.ravel() @ weights[:, 1], atol=4 * found.std() / 20)


@pytest.mark.parametrize("name", ["fong-torch", "kan"])
def test_the_first_steps_are_adams(name, x64):
    x = np.random.default_rng(0).normal(size=(16, 16))
    still = dataclasses.replace(preset(name), jitter=0, noise=0.0, samples=1, best_after=None, warm_up=0)
    parts = lane(still, x)
    slope_of = jax.jit(jax.grad(lambda mask: objective(*parts, mask, jnp.int32(0))[0]))
    rate, b2 = (0.3, 0.99) if name == "kan" else (0.1, 0.999)
    mask = np.full([16 // still.factor] * 2, still.start)
    first = second = largest = np.zeros_like(mask)
    for t in range(1, 6):
        slope = np.asarray(slope_of(jnp.asarray(mask)))
        if t == 3:  # the textbook's slope, away from the kink of |1 - m|
            for at in np.argwhere(mask < 1)[:3]:
                nudge = np.zeros_like(mask)
                nudge[tuple(at)] = 1e-6
                by_differences = (by_hand(name, x, mask + nudge, 60.0) - by_hand(name, x, mask - nudge, 60.0)) / 2e-6
                assert np.isclose(slope[tuple(at)], by_differences, rtol=1e-4, atol=1e-8)
        first, second = 0.9 * first + 0.1 * slope, b2 * second + (1 - b2) * slope**2
        largest = np.maximum(largest, second) if name == "kan" else second
        mask = mask - rate * first / (1 - 0.9**t) / (np.sqrt(largest / (1 - b2**t)) + 1e-8)
        mask = np.clip(mask, 0, 1)
    found = meaningful_perturbation(classifier, jnp.asarray(x)[None, ..., None], 1, preset=still, max_steps=5)
    np.testing.assert_allclose(found.mask[0], mask, atol=1e-9)


BOXES = [
    ((32, 32), (slice(8, 16), slice(12, 24))),
    ((16, 16, 20), (slice(4, 12), slice(4, 12), slice(8, 16))),
]


def box_case(space, box):
    """Random signs, whose power within a box is the output: constants, noise and blur all destroy it."""
    inside = np.zeros(space, bool)
    inside[box] = True
    x = jax.random.rademacher(jax.random.key(1), (1, *space, 1), jnp.float32)
    return x, lambda x: 10 * (x[(slice(None), *box)] ** 2).mean(range(1, x.ndim - 1)), inside


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize(("space", "box"), BOXES, ids=["2d", "3d"])
@pytest.mark.parametrize("fill", ["constant", fills.noise(0.0, 0.1)], ids=["constant", "noise"])
def test_deletion_finds_the_box(space, box, fill):
    x, model, inside = box_case(space, box)
    result = meaningful_perturbation(model, x, fill=fill, factor=2, max_steps=150, key=KEY)
    assert overlap(np.asarray(result.saliency[0]) > 0.5, inside) > 0.9
    assert abs(float(result.recovered[0])) < 0.1
    assert result.lanes == ("image",)
    assert result.status_names == ["max_steps"]


@pytest.mark.parametrize(("space", "box"), BOXES, ids=["2d", "3d"])
def test_blur_finds_the_box(space, box):
    # blobs of the box's size, so that it takes a wide blur to destroy them
    _, model, inside = box_case(space, box)
    x = jnp.asarray(inside, jnp.float32)[None, ..., None]
    result = meaningful_perturbation(model, x, fill=fills.blur(8.0), factor=2, lam1=3.0, max_steps=150)
    saliency = np.asarray(result.saliency[0])
    assert overlap(saliency > 0.5 * saliency.max(), inside) > 0.7
    assert float(result.recovered[0]) < 0.2


@pytest.mark.parametrize(("space", "box"), BOXES, ids=["2d", "3d"])
def test_preservation_keeps_the_box(space, box):
    x, model, inside = box_case(space, box)
    result = meaningful_perturbation(model, x, fill="constant", game="preservation", factor=1, lam2=0.0, max_steps=150)
    assert overlap(np.asarray(result.saliency[0]) > 0.5, inside) > 0.9
    assert float(result.recovered[0]) > 0.9


def test_a_class_and_each_published_preset_on_a_network_that_sees_a_box():
    space = (32, 32)
    inside = np.zeros(space, bool)
    inside[8:16, 12:24] = True
    x = jax.random.normal(jax.random.key(1), (1, *space, 1))

    def model(x):
        power = (x[:, 8:16, 12:24] ** 2).mean((1, 2, 3))
        return jnp.stack([jnp.zeros_like(power), 8 * power - 4], axis=-1)

    for name in ("fong", "fong-torch", "jacobgil", "kan"):
        result = meaningful_perturbation(model, x, 1, preset=name, max_steps=80, key=KEY)
        saliency = np.asarray(result.saliency[0])
        assert float(result.prediction[0]) > 0.9, name
        assert float(result.masked_prediction[0]) < 0.3, name
        # their grids and blurs are made for 224 pixels and are coarse here
        assert saliency[inside].mean() > 1.02 * saliency[~inside].mean(), name
        assert saliency.min() >= -1e-6
        assert saliency.max() <= 1 + 1e-6


def test_the_ball_is_the_smallest_that_destroys(x64):
    x = np.random.default_rng(0).normal(size=(28, 28))
    plan, shared, image, wanted = lane(dataclasses.replace(preset("fong"), jitter=0), x)

    def model(x):
        power = (x[:, 10:18, 9:17] ** 2).mean((1, 2, 3))
        return jnp.stack([jnp.zeros_like(power), 8 * power - 4], axis=-1)

    shared = shared._replace(model=jax.tree_util.Partial(model))
    null = ndimage.gaussian_filter(x, 10.0, mode="nearest")
    row, column = np.mgrid[-14:14, -14:14]
    values, masks = [], []
    for radius in np.arange(0, 175, 5) * 28 / 224:
        ball = (row**2 + column**2 <= radius**2).astype(float)
        masks.append(1 - ndimage.gaussian_filter(ball, 10 * 28 / 224))
        seen = masks[-1] * x + (1 - masks[-1]) * null
        values.append(softmax(np.asarray(model(seen[None, ..., None]))[0])[1])
    whole = softmax(np.asarray(model(x[None, ..., None]))[0])[1]
    shares = (np.array(values) - values[-1]) / (whole - values[-1])
    chosen = int(np.argmax(shares < 1e-2))
    assert 3 < chosen < 30
    found = ball_start(plan, (28, 28), shared, image, wanted)
    np.testing.assert_allclose(found, masks[chosen], atol=1e-9)
    coarse = ball_start(plan, (7, 7), shared, image, wanted)
    np.testing.assert_allclose(coarse, masks[chosen][2::4, 2::4], atol=1e-9)
    assert ball_mask(jnp.asarray(0.2), (12, 13, 14), jnp.float32).shape == (12, 13, 14)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(5), (3, 12, 12, 1))


@pytest.fixture(scope="module")
def every_output(images):
    return meaningful_perturbation(
        classifier, images, outputs="all", fill="noise", jitter=1, noise=0.1, max_steps=20, key=KEY
    )


def test_results_lead_with_outputs_and_images(every_output):
    assert every_output.mask.shape == (3, 3, 3, 3)
    assert every_output.saliency.shape == (3, 3, 12, 12)
    for field in ("value", "steps", "evaluations", "status", "prediction", "recovered"):
        assert getattr(every_output, field).shape == (3, 3), field
    assert every_output.lanes == ("output", "image")
    assert "deletion masks of 3 x 3 voxels" in repr(every_output)


@pytest.mark.parametrize("batch_size", [2, 6])
def test_batches_are_as_all_at_once(batch_size, images, every_output):
    found = meaningful_perturbation(
        classifier, images, outputs="all", fill="noise", jitter=1, noise=0.1, max_steps=20, key=KEY,
        batch_size=batch_size,
    )  # fmt: skip
    for a, b in zip(jax.tree.leaves(vars(found)), jax.tree.leaves(vars(every_output)), strict=True):
        if hasattr(a, "shape"):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_one_target_per_image_is_that_output(images, every_output):
    found = meaningful_perturbation(
        classifier, images, [2, 0, 1], fill="noise", jitter=1, noise=0.1, max_steps=20, key=KEY
    )
    np.testing.assert_allclose(found.mask, every_output.mask[np.array([2, 0, 1]), np.arange(3)], atol=2e-5)
    by_function = meaningful_perturbation(
        classifier, images, lambda y: y[:, 2], fill="noise", jitter=1, noise=0.1, max_steps=20, key=KEY
    )
    np.testing.assert_allclose(by_function.mask, every_output.mask[2], atol=2e-5)


def test_the_key_makes_it_reproducible(images):
    def run(seed):
        return meaningful_perturbation(
            classifier, images[:1], 0, fill="noise", max_steps=5, key=jax.random.key(seed)
        ).mask

    assert (run(1) == run(1)).all()
    assert (run(1) != run(2)).any()


def test_the_diagnostics_are_what_they_say(images):
    for game in ("deletion", "preservation"):
        result = meaningful_perturbation(
            classifier, images, 1, fill=fills.constant(0.3), game=game, sigma=0.5, max_steps=30
        )
        kept = 1 - result.saliency if game == "deletion" else result.saliency
        seen = kept[..., None] * images + (1 - kept[..., None]) * 0.3
        whole, masked, null = (classifier(x)[:, 1] for x in (images, seen, jnp.full_like(images, 0.3)))
        np.testing.assert_allclose(result.prediction, whole, rtol=1e-5)
        np.testing.assert_allclose(result.masked_prediction, masked, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.null_prediction, null, rtol=1e-5)
        np.testing.assert_allclose(result.recovered, (masked - null) / (whole - null), rtol=1e-3)
        np.testing.assert_allclose(result.terms.score, -np.abs(masked - whole) / 0.5, rtol=1e-3)
        share = 1 - result.mask if game == "deletion" else result.mask
        np.testing.assert_allclose(result.terms.sparsity, share.mean((1, 2)), rtol=1e-5)
        sign = 1 if game == "deletion" else -1
        np.testing.assert_allclose(
            result.value, sign * result.terms.score + 10 * result.terms.sparsity + result.terms.smoothness, rtol=1e-4
        )
        assert (result.evaluations == result.steps + 1).all()


def test_an_output_is_moved_to_a_goal(images):
    x = images[:1] + 1
    found = meaningful_perturbation(
        lambda x: x.mean((1, 2)), x, fill="constant", goal=0.6, sigma=0.05, lam1=1.0, max_steps=200, factor=2
    )
    assert float(found.prediction[0]) > 0.8
    assert np.isclose(found.masked_prediction[0], 0.6, atol=0.03)


def test_one_compilation_for_new_images_weights_and_keys(images):
    traces = []

    def counting(x):
        traces.append(x.shape)
        return classifier(x)

    def run(x, **options):
        return meaningful_perturbation(counting, x, 1, fill="noise", max_steps=3, key=KEY, **options)

    run(images)
    first = len(traces)
    run(images + 1, lam1=0.3, lam2=0.1, sigma=2.0)
    assert len(traces) == first
    meaningful_perturbation(counting, images, 0, fill="noise", max_steps=3, key=jax.random.key(9))
    assert len(traces) == first


def test_a_users_own_recipe_penalty_solver_and_rule(images):
    own = Recipe(
        fill=fills.crossfade(1.0), score="output", solver=optim.preset(optax.sgd, 0.5), steps=40, lam1=0.1,
        sparsity=penalties.share_norm(2), lam2=0.0, smoothness=penalties.variation_norm(1), factor=3,
    )  # fmt: skip
    result = meaningful_perturbation(classifier, images, 1, preset=own, stop=optim.stagnation(3, 1e9))
    assert (result.steps == 3).all()
    np.testing.assert_allclose(result.terms.sparsity, jnp.sqrt(((1 - result.mask) ** 2).sum((1, 2))), rtol=1e-5)


def test_a_lane_that_is_not_finite_says_so_and_leaves_the_others_alone(images):
    def breaking(x):
        # the second image breaks as soon as some of it is deleted
        away = jnp.abs(x - images[1:2]).mean((1, 2, 3))
        return jnp.where(((away < 0.5) & (away > 1e-6))[:, None], jnp.nan, classifier(x))

    options = dict(fill="constant", max_steps=5)
    result = meaningful_perturbation(breaking, images, 1, **options)
    expected = meaningful_perturbation(classifier, images, 1, **options)
    assert result.status_names[1] == "not_finite"
    np.testing.assert_allclose(result.mask[::2], expected.mask[::2], atol=1e-5)


def test_an_image_that_equals_its_fill_is_uninformative(images):
    result = meaningful_perturbation(classifier, jnp.zeros_like(images), 1, fill="constant", max_steps=3)
    assert result.status_names == ["uninformative"] * 3


BAD = [
    (dict(x=jnp.ones((1, 4, 4, 1), jnp.int32)), TypeError, "dtype int32, floating point is needed"),
    (dict(x=jnp.ones((1, 12, 12, 1)).at[0, 0, 0].set(jnp.nan)), ValueError, "1 NaN or infinite values of 144"),
    (dict(target=3), ValueError, r"the network has 3: give positions from 0 to 2"),
    (dict(target=None), ValueError, "has 3 outputs: give target=, one of 0 to 2"),
    (dict(target=[0, 1]), ValueError, r"target has shape \(2,\): give one number, or one per image \(3\)"),
    (dict(target=0.5), TypeError, "target got 0.5, a whole number"),
    (dict(outputs="all"), ValueError, "Both target and outputs"),
    (dict(target=lambda y: y), ValueError, r"target returns .*, one number per image is needed"),
    (dict(target=lambda y: y[:, 0], score="probability"), ValueError, "a value of its own"),
    (dict(model=lambda x: x.mean((1, 2)), target=None, score="probability"), ValueError, "the softmax of which"),
    (dict(model=lambda x: x), ValueError, r"\[batch, outputs\] is needed"),
    (dict(model=3), TypeError, "The model is a int"),
    (dict(score="logit"), ValueError, "score got 'logit': give one of 'probability', 'output', 'closeness'"),
    (dict(game="keep"), ValueError, "game got 'keep'"),
    (dict(goal=1.0, game="preservation"), ValueError, "goal moves an output by deleting"),
    (dict(goal=np.nan), ValueError, "goal holds NaN"),
    (dict(sigma=0.0), ValueError, "sigma must be positive"),
    (dict(sigma=[1.0, 2.0]), ValueError, r"sigma has shape \(2,\)"),
    (dict(preset="ffong"), ValueError, "preset got 'ffong': give one of 'fong', 'fong-torch', 'jacobgil', 'kan'"),
    (dict(fill="grey"), ValueError, "give one of blur, noise, constant"),
    (dict(fill="noise"), ValueError, r"draws random numbers .*: give key=jax.random.key\(0\)"),
    (dict(jitter=2), ValueError, "draws random numbers"),
    (dict(fill="noise", key=7), TypeError, "key got 7"),
    (dict(lam1=-1.0), ValueError, "lam1 got -1.0"),
    (dict(lam2=np.inf), ValueError, "lam2 got inf"),
    (dict(factor=0), ValueError, "factor got 0, a whole number of at least 1"),
    (dict(jitter=1.5, key=KEY), ValueError, "jitter got 1.5"),
    (dict(batch_size=0), ValueError, "batch_size got 0"),
    (dict(max_steps=-1), ValueError, "max_steps got -1"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_answered(change, error, message, images):
    arguments = dict(model=classifier, x=images, target=1, fill="constant", max_steps=1) | change
    with pytest.raises(error, match=message):
        meaningful_perturbation(**arguments)
