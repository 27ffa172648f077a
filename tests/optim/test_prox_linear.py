"""Mask problems solved whole: against linear programs, proximal steps by hand, and gradient steps on a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from jaxsal import optim
from jaxsal.optim import linearised
from jaxsal.optim.composite import Composite, MaskPenalty
from jaxsal.optim.status import Status

STOP = optim.max_steps(400)


def affine(slope, wanted):
    return lambda m: (jnp.abs((slope * m).sum() - wanted), {})


def least_by_linear_programming(slope, wanted, gamma):
    """Least ``|<slope, m> - wanted| + gamma * mean |differences|`` over ``m >= 0``, of a mask with one axis."""
    n = len(slope)
    # variables: m, the distance, the size of every difference
    cost = np.concatenate([np.zeros(n), [1.0], np.full(n - 1, gamma / (n - 1))])
    rows, most = [], []
    for sign in (1.0, -1.0):
        rows.append(np.concatenate([sign * slope, [-1.0], np.zeros(n - 1)]))
        most.append(sign * wanted)
        for i in range(n - 1):
            row = np.zeros(2 * n)
            row[i + 1], row[i], row[n + 1 + i] = sign, -sign, -1.0
            rows.append(row)
            most.append(0.0)
    found = linprog(cost, np.array(rows), np.array(most), bounds=[(0, None)] * (2 * n))
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize(("gamma", "wanted"), [(0.2, 3.0), (2.0, -1.0), (40.0, 2.0), (300.0, 5.0)])
def test_a_convex_problem_ends_at_the_value_of_its_linear_program(x64, gamma, wanted):
    slope = np.random.default_rng(0).normal(size=12)
    objective = Composite(affine(jnp.asarray(slope), wanted), MaskPenalty(0.0, gamma))
    solver = optim.nonnegative(optim.prox_linear(iterations=1000, tolerance=1e-9))
    lane = optim.minimise(objective, jnp.full(12, 0.3), solver=solver, stop=STOP)
    least = least_by_linear_programming(slope, wanted, gamma)
    assert least - 1e-9 <= float(lane.value) <= least + 1e-3 * max(least, 0.1)
    assert (lane.params >= 0).all()


RAMP = jnp.array([10.0, 20.0, 30.0, 40.0])
# of all masks with <RAMP, M> = 100 the shortest is 100 RAMP / ||RAMP||^2, and ||M|| - 1 is what remains
SHORTEST = 100 / np.sqrt(3000) - 1


def length_of_a_mask_that(distance, start, **given):
    objective = Composite(lambda m: (distance(m), {}), MaskPenalty(1.0, 0.0))
    solver = optim.nonnegative(optim.prox_linear(**given))
    return optim.minimise(objective, start, solver=solver, stop=optim.max_steps(50))


def test_the_shortest_mask_is_what_a_general_solver_finds():
    found = minimize(
        lambda m: m @ m, np.ones(4), constraints={"type": "eq", "fun": lambda m: m @ np.asarray(RAMP) - 100.0}
    )
    assert np.isclose(np.sqrt(found.fun) - 1, SHORTEST, atol=1e-6)


@pytest.mark.parametrize("steepness", [1.0, 10.0, 100.0, 1000.0])
def test_a_distance_much_steeper_than_the_penalty(x64, steepness):
    ramp = steepness * RAMP.astype(float)
    lane = length_of_a_mask_that(lambda m: jnp.abs((ramp * m).sum() - 100 * steepness), jnp.full(4, 0.99))
    assert SHORTEST - 1e-12 <= float(lane.value) <= SHORTEST + 1e-6
    assert int(lane.evaluations) <= 15


@pytest.mark.parametrize("sign", [jnp.sign, lambda r: jnp.where(r < 0, -1.0, 1.0)])
def test_a_start_where_the_distance_is_exactly_0(x64, sign):
    """The slope at the kink is 0 by one convention, and one of both sides' by the other."""

    def distance(m):
        r = jnp.maximum(RAMP.astype(float) * m, 0).sum() - 100
        return r * jax.lax.stop_gradient(sign(r))

    lane = length_of_a_mask_that(distance, jnp.ones(4))
    assert SHORTEST - 1e-12 <= float(lane.value) <= SHORTEST + 1e-6


def test_the_inner_problem_is_solved(x64):
    """Against many plain subgradient-free checks: no nearby point is lower."""
    rng = np.random.default_rng(1)
    centre, grad = (jnp.asarray(rng.normal(size=(4, 3, 3))) for _ in range(2))
    problem = linearised.Linearised(centre, jnp.asarray(0.7), grad, MaskPenalty(0.5, 3.0), jnp.asarray(0.8))
    x, _ = linearised.solve(problem, linearised.no_dual(centre), 3000, lambda m: jnp.maximum(m, 0))

    def value(m):
        return problem.model(m) + jnp.sum((m - centre) ** 2) / (2 * problem.step_size)

    least = float(value(x))
    assert (x >= 0).all()
    for size in (1e-1, 1e-2, 1e-3):
        around = jnp.maximum(x[None] + size * jnp.asarray(rng.normal(size=(500, *x.shape))), 0)
        assert (jax.vmap(value)(around) >= least - 1e-9).all()


@pytest.mark.parametrize(
    ("length", "weight", "expected"), [(3.0, 0.5, 2.5), (1.2, 0.5, 1.0), (0.2, 0.5, 0.7), (0.8, 0.5, 1.0)]
)
def test_the_norm_term_moves_the_length_towards_1(length, weight, expected):
    found = linearised._towards_unit_norm(jnp.array([0.6, 0.8]) * length, jnp.asarray(weight))
    assert np.allclose(found, np.array([0.6, 0.8]) * expected, atol=1e-6)


def bent(m):
    """A small network of ReLUs, linear in pieces."""
    hidden = jax.nn.relu(jnp.sin(jnp.arange(40.0)).reshape(5, 8) @ m + 0.1)
    return jnp.abs(hidden @ jnp.array([1.0, -0.5, 2.0, 0.7, 0.3]) - 1.5), {}


def test_it_goes_below_gradient_steps_in_a_tenth_of_the_evaluations():
    objective, start = Composite(bent, MaskPenalty(0.3, 3.0)), jnp.full(8, 0.4)
    published = optim.minimise(
        objective, start, solver=optim.nonnegative(optim.armijo_once()), stop=optim.max_steps(1000)
    )
    lane = optim.minimise(
        objective, start, solver=optim.nonnegative(optim.prox_linear(iterations=300)), stop=optim.max_steps(100)
    )
    assert float(lane.value) <= float(published.value) + 1e-6
    assert int(lane.evaluations) <= 100
    assert Status(int(lane.status)) is Status.STAGNATED


def test_all_other_solvers_see_the_sum():
    objective = Composite(bent, MaskPenalty(0.3, 3.0))

    def plain(m):
        value, aux = bent(m)
        return value + MaskPenalty(0.3, 3.0)(m), aux

    one, other = (
        optim.minimise(o, jnp.full(8, 0.4), solver=optim.armijo_once(), stop=optim.max_steps(30))
        for o in (objective, plain)
    )
    assert (one.params == other.params).all()


def test_masks_of_several_layers_share_one_step():
    objective = Composite(lambda m: (jnp.abs(m["a"].sum() + 2 * m["b"].sum() - 3.0), {}), MaskPenalty(0.1, 1.0))
    start = {"a": jnp.full((3, 2), 0.1), "b": jnp.full(4, 0.1)}
    lane = optim.minimise(objective, start, solver=optim.nonnegative(optim.prox_linear()), stop=STOP)
    assert float(lane.value) < 0.1
    assert all((leaf >= 0).all() for leaf in jax.tree.leaves(lane.params))


def test_a_point_that_is_not_finite_is_refused():
    """Beyond 1 the network is NaN: steps shrink until they stay below, and the lane ends well."""
    objective = Composite(
        lambda m: (jnp.where(m.sum() > 1.0, jnp.nan, jnp.abs(m.sum() - 0.9)), {}), MaskPenalty(0.0, 0.0)
    )
    lane = optim.minimise(objective, jnp.array([0.1]), solver=optim.prox_linear(100.0), stop=STOP)
    assert np.isclose(float(lane.params[0]), 0.9, atol=1e-3)


def test_an_objective_that_is_not_finite_at_the_start_ends_its_lane():
    objective = Composite(lambda m: (m.sum() * jnp.nan, {}), MaskPenalty(0.1, 0.1))
    lane = optim.minimise(objective, jnp.ones(3), solver=optim.prox_linear(), stop=STOP)
    assert Status(int(lane.status)) is Status.NOT_FINITE
    assert int(lane.steps) == 0


def test_lanes_are_those_of_one_by_one():
    goals = jnp.array([0.5, 1.0, 4.0])
    solver = optim.nonnegative(optim.prox_linear())

    def solve(goal):
        objective = Composite(lambda m: (jnp.abs(jax.nn.relu(m).sum() - goal), {}), MaskPenalty(0.2, 1.0))
        return optim.minimise(objective, jnp.full((2, 3), 0.2), solver=solver, stop=STOP)

    together = jax.vmap(solve)(goals)
    for lane, goal in enumerate(goals):
        alone = solve(goal)
        assert np.allclose(together.params[lane], alone.params, atol=1e-5)
        assert int(together.steps[lane]) == int(alone.steps)


def test_solvers_built_alike_are_equal():
    assert optim.nonnegative(optim.prox_linear()) == optim.nonnegative(optim.prox_linear())
    assert hash(optim.prox_linear()) == hash(optim.prox_linear())
    assert optim.prox_linear() != optim.prox_linear(memory=1)


def test_what_it_cannot_do_is_said():
    with pytest.raises(TypeError, match=r"needs optim\.Composite"):
        optim.minimise(bent, jnp.ones(8), solver=optim.prox_linear(), stop=STOP)
    with pytest.raises(ValueError, match="cones only"):
        optim.in_box(optim.prox_linear())
    with pytest.raises(ValueError, match="sphere"):
        optim.on_sphere(optim.prox_linear())
    with pytest.raises(ValueError, match="memory=0"):
        optim.prox_linear(memory=0)


def test_a_single_number_is_a_mask_too():
    objective = Composite(lambda m: (jnp.abs(m - 2.0).sum(), {}), MaskPenalty(0.0, 0.0))
    lane = optim.minimise(objective, jnp.array(1.0), solver=optim.prox_linear(), stop=STOP)
    assert np.isclose(float(lane.params), 2.0, atol=1e-3)
