"""Total variation by proximal steps, against an independent solver in numpy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import optim
from jaxsal.masks import terms
from tests.optim import textbook

RNG = np.random.default_rng(3)
SHAPES = [(9,), (6, 7), (4, 5, 3), (5, 1, 4)]


def noisy(shape):
    image = np.zeros(shape)
    image[tuple(slice(0, (n + 1) // 2) for n in shape)] = 2.0
    return image + 0.3 * RNG.normal(size=shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("prox", "isotropic"), [(optim.tv_prox, True), (optim.tv_prox_anisotropic, False)], ids=["isotropic", "anisotropic"]
)
def test_the_prox_solves_the_model_of_rudin_osher_and_fatemi(x64, shape, prox, isotropic):
    image = noisy(shape)
    expected = textbook.denoise(image, 0.4, isotropic=isotropic)
    found = jax.jit(prox, static_argnums=2)(jnp.asarray(image), 0.4, 1500)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(expected - image).max() > 0.1


def test_a_prox_without_weight_changes_nothing_and_a_heavy_one_leaves_the_mean():
    image = jnp.asarray(noisy((5, 6)), jnp.float32)
    np.testing.assert_array_equal(optim.tv_prox(image, 0.0), image)
    np.testing.assert_allclose(optim.tv_prox(image, 50.0, 800), image.mean(), atol=1e-3)


def test_an_image_of_whole_numbers_is_refused():
    with pytest.raises(TypeError, match="dtype int32, a floating-point"):
        optim.tv_prox(jnp.ones((3, 3), jnp.int32), 1.0)


PROXIMAL = {
    "isotropic": (optim.proximal_tv, terms.isotropic_total_variation, True),
    "anisotropic": (optim.proximal_tv_anisotropic, terms.total_variation, False),
}


@pytest.mark.parametrize(("solver", "term", "isotropic"), PROXIMAL.values(), ids=PROXIMAL)
def test_fista_is_the_textbook_step_by_step(x64, solver, term, isotropic):
    """Of 1/2 ||K M - b||^2 + TV, with a blur K along the first axis."""
    shape = (6, 6)  # equal axes: the mean over differences has one weight
    kernel, b = np.eye(6) + 0.5 * np.eye(6, k=1), noisy(shape)
    count = 36 if isotropic else 2 * 30
    weight, step_size = 0.2, 0.3  # below 1 / L = 1 / 2.25
    made = solver(weight * count, step_size, iterations=1500)

    def objective(m):
        return 0.5 * jnp.sum((kernel @ m - b) ** 2), ()

    lane = optim.start(objective, jnp.zeros(shape), made, optim.max_steps(99))
    step, found = jax.jit(lambda lane: optim.step(objective, lane, made, optim.max_steps(99))), []
    for _ in range(6):
        lane = step(lane)
        found.append(np.asarray(optim.incumbent(lane.solver).params))
    expected = textbook.fista(
        lambda m: kernel.T @ (kernel @ m - b),
        lambda m: textbook.denoise(m, step_size * weight, isotropic=isotropic, iterations=2500),
        np.zeros(shape),
        step_size=step_size,
        steps=6,
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("solver", "term", "isotropic"), PROXIMAL.values(), ids=PROXIMAL)
def test_it_minimises_the_objective_with_the_term_of_that_name_alone_and_under_vmap(x64, solver, term, isotropic):
    """No step from the end lowers objective plus term; a step size that is too long mends itself."""
    weights = jnp.asarray(RNG.uniform(0.5, 4.0, size=(5, 4)))
    images = jnp.asarray(np.stack([noisy((5, 4)), noisy((5, 4))]))
    rough = 3.0

    def whole(m, image):
        return 0.5 * jnp.sum(weights * (m - image) ** 2) + rough * term(m)

    def run(image):
        return optim.minimise(
            lambda m: (0.5 * jnp.sum(weights * (m - image) ** 2), ()),
            jnp.zeros((5, 4)),
            solver=solver(rough, 5.0, iterations=100),
            stop=optim.max_steps(300),
        )

    together = jax.jit(jax.vmap(run))(images)
    for lane, image in enumerate(images):
        alone = jax.jit(run)(image)
        np.testing.assert_allclose(together.params[lane], alone.params, atol=1e-9)
        held = together.params[lane]
        np.testing.assert_allclose(together.value[lane], whole(held, image) - rough * term(held), rtol=1e-9)
        around = np.asarray(held) + 10.0 ** RNG.uniform(-4, -1, size=(300, 1, 1)) * RNG.normal(size=(300, 5, 4))
        assert float(whole(held, image)) <= float(jax.vmap(whole, (0, None))(jnp.asarray(around), image).min()) + 1e-7


def test_nonnegative_solves_the_constrained_proximal_problem(x64):
    image = noisy((6, 5)) - 0.7
    solver = optim.nonnegative(optim.proximal_tv(0.3 * 30, iterations=800))
    assert solver == optim.nonnegative(optim.proximal_tv(9.0, iterations=800))
    lane = optim.minimise(
        lambda m: (0.5 * jnp.sum((m - jnp.asarray(image)) ** 2), ()),
        jnp.full((6, 5), -1.0),
        solver=solver,
        stop=optim.max_steps(5),
    )
    expected = textbook.denoise(image, 0.3, nonnegative=True)
    assert (lane.params >= 0).all()
    np.testing.assert_allclose(lane.params, expected, atol=2e-4)
    boxed = optim.minimise(
        lambda m: (0.5 * jnp.sum((m - jnp.asarray(image)) ** 2), ()),
        jnp.zeros((6, 5)),
        solver=optim.in_box(optim.proximal_tv(9.0), 0.0, 0.5),
        stop=optim.max_steps(20),
    )
    assert float(boxed.params.min()) >= 0
    assert float(boxed.params.max()) == 0.5


def test_a_lane_that_is_not_finite_ends_as_such():
    def run(scale):
        return optim.minimise(
            lambda m: (scale * jnp.sum((m - 1) ** 2), ()),
            jnp.zeros((3, 3)),
            solver=optim.proximal_tv(0.1, 0.2),
            stop=optim.max_steps(10),
        )

    lanes = jax.vmap(run)(jnp.array([1.0, jnp.nan]))
    assert [optim.Status(s).name for s in lanes.status.tolist()] == ["MAX_STEPS", "NOT_FINITE"]
    np.testing.assert_allclose(lanes.params[0], run(jnp.float32(1.0)).params, atol=1e-6)
