"""Solvers on the unit sphere, and on its non-negative part."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.optim import Status
from tests.optim.test_solvers import every_solver

RNG = np.random.default_rng(0)
MIXED = RNG.normal(size=(6, 6))
SYMMETRIC = (MIXED + MIXED.T) / 2
STOP = optim.any_of(optim.gradient_norm(1e-4), optim.max_steps(2000))


def rayleigh(matrix):
    def objective(x):
        return x @ jnp.asarray(matrix, x.dtype) @ x, ()

    return objective


@every_solver
def test_the_smallest_eigenvector_is_found_from_off_the_sphere(x64, build):
    solver = optim.on_sphere(build())
    values, vectors = np.linalg.eigh(SYMMETRIC)
    starts = jnp.array(RNG.normal(size=(2, 6)) * [[1.0], [5.0]])
    lanes = jax.jit(jax.vmap(lambda start: optim.minimise(rayleigh(SYMMETRIC), start, solver=solver, stop=STOP)))(
        starts
    )
    for lane in range(2):
        assert Status(int(lanes.status[lane])) is Status.CONVERGED
        assert abs(float(lanes.value[lane]) - values[0]) < 1e-6
        assert abs(abs(np.asarray(lanes.params[lane]) @ vectors[:, 0]) - 1) < 1e-6


def nonnegative_minimum(matrix):
    """Of x'Ax over the sphere's non-negative part: eigenvectors of every principal submatrix, by hand."""
    best = np.inf, None
    for support in range(1, 2 ** len(matrix)):
        chosen = [i for i in range(len(matrix)) if support >> i & 1]
        values, vectors = np.linalg.eigh(matrix[np.ix_(chosen, chosen)])
        for value, vector in zip(values, vectors.T, strict=True):
            if (vector > 0).all() or (vector < 0).all():
                x = np.zeros(len(matrix))
                x[chosen] = abs(vector)
                best = min(best, (value, x), key=lambda pair: pair[0])
    return best


@every_solver
def test_both_constraints_hold_after_every_step_in_either_order(build):
    matrix = SYMMETRIC + 0.4  # one minimum, with zeros
    least, at = nonnegative_minimum(matrix)
    assert 0 < (at == 0).sum() < 5
    assert optim.on_sphere(optim.nonnegative(build())) == optim.nonnegative(optim.on_sphere(build()))
    solver = optim.nonnegative(optim.on_sphere(build()))
    objective = rayleigh(matrix)

    def walk(lane, _):
        lane = optim.step(objective, lane, solver, optim.max_steps(10**6))
        return lane, lane.params

    start = optim.start(objective, jnp.ones(6), solver, optim.max_steps(10**6))
    lane, path = jax.jit(lambda lane: jax.lax.scan(walk, lane, None, length=400))(start)
    assert (path >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(np.asarray(path, np.float64), axis=1), 1, atol=1e-6)
    end = optim.Incumbent(lane.params, lane.value, None, None)
    held = optim.incumbent(lane.solver) or end
    np.testing.assert_allclose(held.value, least, atol=1e-4)
    np.testing.assert_allclose(held.params, at, atol=3e-2)


def test_the_free_gradient_is_the_projection_onto_the_tangent_cone():
    """Against the projection computed as a non-negative least-squares problem."""
    from scipy.optimize import lsq_linear

    point = np.array([0.6, 0.0, 0.8, 0.0, 0.0])
    grad = np.array([1.0, 2.0, -3.0, -4.0, 0.0])
    solver = optim.on_sphere(optim.nonnegative(optax.sgd(1.0)))
    found = optim.free_gradient(jnp.asarray(point, jnp.float32), jnp.asarray(grad, jnp.float32), solver)
    # v = B z runs over the tangent space: z free along the sphere, z >= 0 in the coordinates that are 0
    basis = np.zeros((5, 4))
    basis[[0, 2], 0] = [0.8, -0.6]
    basis[[1, 3, 4], [1, 2, 3]] = 1
    v = basis @ lsq_linear(basis, -grad, bounds=([-np.inf, 0, 0, 0], np.inf)).x
    np.testing.assert_allclose(found, -v, atol=1e-4)


def test_parameters_at_zero_with_outward_gradient_stay_and_others_leave():
    solver = optim.on_sphere(optim.nonnegative(optax.sgd(0.5)))
    point = jnp.array([1.0, 0.0, 0.0])
    updates, _ = solver.update(jnp.array([0.0, 1.0, -1.0]), solver.init(point), point)
    np.testing.assert_allclose(point + updates, np.array([1, 0, 0.5]) / np.sqrt(1.25), atol=1e-6)


@pytest.mark.parametrize("shape", [(14, 14, 17), (300, 400)])
def test_the_norm_is_one_after_many_steps_in_float32(shape):
    target = jax.random.normal(jax.random.key(0), shape)
    solver = optim.on_sphere(optim.preset(optax.sgd, 0.3, momentum=0.9))

    @functools.partial(jax.jit, static_argnums=1)
    def moved(params, steps):
        def one(carry, _):
            params, state = carry
            updates, state = solver.update(jnp.sign(params) * target, state, params)
            return (params + updates, state), None

        return jax.lax.scan(one, (params, solver.init(params)), None, length=steps)[0][0]

    start = optim.feasible(jnp.ones(shape), solver)
    for steps in (0, 1, 100):
        norm = np.linalg.norm(np.asarray(moved(start, steps), np.float64))
        assert abs(norm - 1) < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_parameters_can_be_normalised(scale):
    found = optim.feasible(jnp.array([3.0, 4.0]) * scale, optim.on_sphere(optax.sgd(1.0)))
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)


def test_nothing_to_normalise_becomes_the_uniform_mask():
    found = optim.feasible(jnp.zeros(4), optim.on_sphere(optim.nonnegative(optax.sgd(1.0))))
    np.testing.assert_allclose(found, 0.5)


def test_momentum_is_carried_to_the_new_tangent_space_and_squares_are_not():
    point = {"a": jnp.array([0.6, 0.0]), "b": jnp.array([[0.8]])}
    state = optax.ScaleByAdamState(
        count=jnp.int32(3),
        mu={"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])},
        nu={"a": jnp.array([1.0, 2.0]), "b": jnp.array([[3.0]])},
    )
    seen = []

    def update(updates, state, params=None):
        seen.append((updates, state))
        return jax.tree.map(jnp.zeros_like, updates), state

    solver = optim.on_sphere(optax.GradientTransformation(lambda params: (), update))
    solver.update(point, (state, jnp.ones(7)), point)
    updates, (carried, other) = seen[0]
    chex.assert_trees_all_close(updates, jax.tree.map(jnp.zeros_like, point), atol=1e-6)  # radial: nothing is left
    # mu - <mu, M> M with <mu, M> = 0.6 + 2.4
    chex.assert_trees_all_close(carried.mu, {"a": jnp.array([1 - 1.8, 2.0]), "b": jnp.array([[3 - 2.4]])}, atol=1e-6)
    chex.assert_trees_all_equal((carried.nu, carried.count, other), (state.nu, state.count, jnp.ones(7)))


def test_momentum_on_the_sphere_is_the_textbook_of_projections(x64):
    """Heavy ball with transport by projection, in numpy."""
    solver = optim.on_sphere(optim.preset(optax.sgd, 0.05, momentum=0.9))
    x, m = np.full(6, 6**-0.5), np.zeros(6)
    params, state = jnp.asarray(x), solver.init(jnp.asarray(x))
    for _ in range(15):
        g = 2 * SYMMETRIC @ x
        m = (g - (g @ x) * x) + 0.9 * (m - (m @ x) * x)
        updates, state = solver.update(jnp.asarray(2 * SYMMETRIC @ params), state, params)
        x, params = (x - 0.05 * m) / np.linalg.norm(x - 0.05 * m), params + updates
        np.testing.assert_allclose(params, x, atol=1e-12)


def test_equation_one_of_smocam_is_solved_exactly():
    """The sphere's minimum of a distance, where the penalty form ends off the sphere."""

    def distance(x):
        return jnp.abs(jnp.sum(jnp.array([1.0, 2.0, 3.0]) * x) - 10.0), ()

    def penalised(x):
        return distance(x)[0] + jnp.abs(1 - jnp.sqrt(jnp.sum(x * x))), ()

    on = optim.minimise(distance, jnp.ones(3), solver=optim.on_sphere(optim.lbfgs()), stop=STOP)
    np.testing.assert_allclose(on.params, np.array([1, 2, 3]) / np.sqrt(14), atol=1e-3)
    off = optim.minimise(penalised, jnp.ones(3), solver=optim.lbfgs(), stop=STOP)
    assert abs(float(jnp.linalg.norm(off.params)) - 1) > 1


def test_a_box_keeps_both_bounds():
    def objective(p):
        return jnp.sum((p - jnp.array([-1.0, 0.3, 4.0])) ** 2), ()

    lane = optim.minimise(objective, jnp.full(3, 9.0), solver=optim.in_box(optim.lbfgs()), stop=STOP)
    np.testing.assert_allclose(lane.params, [0.0, 0.3, 1.0], atol=1e-3)
    assert Status(int(lane.status)) is Status.CONVERGED
