"""Line searches, step by step against their textbooks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.optim import Status
from tests.optim import textbook

CURVATURES = np.array([1.0, 4.0, 30.0, 7.0])
START = np.array([1.0, -2.0, 0.5, 3.0])


def f(x):
    return 0.5 * (CURVATURES * x**2).sum() + (x**4).sum() / 4


def gradient(x):
    return CURVATURES * x + x**3


def objective(params):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURES, params.dtype) * params**2) + jnp.sum(params**4) / 4, ()


def rosenbrock(params):
    x, y = params[:-1], params[1:]
    return jnp.sum(100 * (y - x * x) ** 2 + (1 - x) ** 2), ()


def walk(solver, fn, start, count):
    """Lanes after each of the first steps: where the objective was evaluated, and what the solver holds."""
    lane, lanes = optim.start(fn, jnp.asarray(start), solver, optim.max_steps(10**6)), []
    advance = jax.jit(lambda lane: optim.step(fn, lane, solver, optim.max_steps(10**6)))
    for _ in range(count):
        following = advance(lane)
        lanes.append((lane.params, optim.incumbent(following.solver), following.solver))
        lane = following
    return lanes


def accepted(lanes):
    """Points, gradients, directions and steps of the accepted points."""
    kept = []
    for params, held, state in lanes:
        if (params == held.params).all():
            line = state.line.held
            kept.append(tuple(np.asarray(a) for a in (held.params, held.grad, line.direction, held.value)))
    return [list(column) for column in zip(*kept, strict=True)]


def test_backtracking_is_the_textbook_trial_by_trial(x64):
    lanes = walk(optim.backtracking(0.2, 0.4, 1.3, 0.1), objective, START, 40)
    points, kept = textbook.backtracking(
        f, gradient, START, step_size=0.2, decrease=0.4, increase=1.3, sufficient=0.1, trials=40
    )
    assert 3 < kept.count(False) < 20
    np.testing.assert_allclose([params for params, _, _ in lanes], points, rtol=1e-9, atol=1e-12)
    assert [bool((params == held.params).all()) for params, held, _ in lanes] == kept


@pytest.mark.parametrize(
    ("solver", "long"), [(optim.barzilai_borwein, True), (optim.barzilai_borwein_short, False)], ids=["BB1", "BB2"]
)
def test_barzilai_borwein_is_the_textbook_trial_by_trial(x64, solver, long):
    lanes = walk(solver(first_length=20.0, memory=3), objective, START, 25)
    points = textbook.barzilai_borwein(f, gradient, START, first_length=20.0, long=long, memory=3, trials=25)
    np.testing.assert_allclose([params for params, _, _ in lanes], points, rtol=1e-7, atol=1e-10)
    values = np.array([f(point) for point in points])
    assert (np.diff(values) > 0).any()  # the search is not monotone


@pytest.mark.parametrize(
    ("solver", "directions"),
    [(optim.conjugate_gradient(), textbook.polak_ribiere), (optim.hager_zhang(), textbook.hager_zhang)],
    ids=["PR+", "HZ"],
)
def test_conjugate_directions_are_those_of_the_textbook(x64, solver, directions):
    points, gradients, found, _ = accepted(walk(solver, objective, START, 25))
    assert len(points) > 8
    np.testing.assert_allclose(gradients, [gradient(x) for x in points], rtol=1e-12)
    np.testing.assert_allclose(found[:10], directions(gradients)[:10], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("memory", [2, 10])
def test_lbfgs_directions_are_those_of_dense_bfgs(x64, memory):
    points, gradients, found, _ = accepted(walk(optim.lbfgs(memory), rosenbrock, [-1.0, 1.0, 0.5], 16))
    assert len(points) > 8
    np.testing.assert_allclose(found, textbook.bfgs(points, gradients, memory), rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "curvature"),
    [(optim.conjugate_gradient(1.0, 0.1), 0.1), (optim.lbfgs(first_length=0.01), 0.9)],
    ids=["cg", "lbfgs"],
)
def test_every_accepted_step_satisfies_both_strong_wolfe_conditions(x64, solver, curvature):
    points, gradients, directions, values = accepted(walk(solver, rosenbrock, [-1.0, 1.0, 0.5, 2.0], 60))
    sound = sum(np.linalg.norm(g) > 1e-5 for g in gradients)  # from there on, values differ by their rounding
    assert sound > 15
    for k in range(sound - 1):
        moved = points[k + 1] - points[k]
        assert values[k + 1] <= values[k] + 1e-4 * gradients[k] @ moved
        assert abs(gradients[k + 1] @ directions[k]) <= curvature * abs(gradients[k] @ directions[k]) * (1 + 1e-9)


def test_lbfgs_needs_about_as_many_evaluations_as_scipy(x64):
    from scipy.optimize import minimize

    start = np.array([-1.2, 1.0, -1.2, 1.0, 0.3])
    fun = jax.jit(jax.value_and_grad(lambda p: rosenbrock(p)[0]))
    peer = minimize(lambda p: tuple(map(np.asarray, fun(p))), start, jac=True, method="L-BFGS-B", tol=1e-12)
    stop = optim.any_of(optim.target_value(float(peer.fun) + 1e-12), optim.max_steps(500))
    lane = optim.minimise(rosenbrock, jnp.asarray(start), solver=optim.lbfgs(), stop=stop)
    assert Status(int(lane.status)) is Status.TARGET_REACHED
    assert int(lane.evaluations) < 1.5 * peer.nfev


def test_a_lane_that_ends_on_a_trial_returns_to_the_accepted_point():
    solver = optim.backtracking(1.0, 0.5)  # the first trials fail: 0.5 * 30 curvature needs a step below 1/15
    lane = optim.minimise(objective, jnp.asarray(START, jnp.float32), solver=solver, stop=optim.max_steps(2))
    np.testing.assert_array_equal(lane.params, START)
    np.testing.assert_allclose(lane.value, f(START), rtol=1e-6)
    assert (int(lane.steps), int(lane.evaluations)) == (2, 4)


def test_a_trial_that_is_not_finite_is_rejected():
    def barrier(p):
        return -jnp.log(p[0]) + p[0], ()

    stop = optim.any_of(optim.gradient_norm(1e-3), optim.max_steps(100))
    lane = optim.minimise(barrier, jnp.array([0.1]), solver=optim.backtracking(10.0), stop=stop)
    far = optim.minimise(barrier, jnp.array([5.0]), solver=optim.backtracking(100.0), stop=stop)  # beyond the barrier
    for end in (lane, far):
        assert Status(int(end.status)) is Status.CONVERGED
        np.testing.assert_allclose(end.params, [1.0], atol=2e-3)


def test_a_search_that_finds_nothing_lower_ends_the_lane():
    """A gradient that is wrong by its sign: no step along it lowers the objective."""

    @jax.custom_vjp
    def wrong(p):
        return jnp.sum(p**2)

    wrong.defvjp(lambda p: (wrong(p), p), lambda p, t: (-2 * t * p,))
    lane = optim.minimise(lambda p: (wrong(p), ()), jnp.ones(2), solver=optim.lbfgs(), stop=optim.max_steps(1000))
    assert Status(int(lane.status)) is Status.STAGNATED
    np.testing.assert_allclose(lane.params, 1, atol=1e-5)
    np.testing.assert_allclose(lane.value, 2, rtol=2e-6)  # within rounding, and it does not add up


SEARCHES = {
    "backtracking": lambda: optim.backtracking(1.0),
    "lbfgs": lambda: optim.lbfgs(),
    "armijo_once_rejecting": lambda: optim.armijo_once_rejecting(0.3, 0.5),
    "optax.lbfgs": lambda: optim.preset(optax.lbfgs),
    "optax's backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=20)
    ),
    "optax's, non-negative": lambda: optim.nonnegative(optim.preset(optax.lbfgs)),
}


@pytest.mark.parametrize("build", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.filterwarnings("ignore:.*Explicitly requested dtype:UserWarning")
def test_every_evaluation_is_counted(build):
    """Counted on the host, within line searches, too."""
    calls = []

    def counted(params):
        jax.debug.callback(lambda: calls.append(1))
        return rosenbrock(params)

    with jax.numpy_dtype_promotion("standard"):
        lane = optim.minimise(counted, jnp.array([-1.0, 1.0, 0.5]), solver=build(), stop=optim.max_steps(7))
    jax.effects_barrier()
    assert int(lane.steps) == 7
    assert int(lane.evaluations) == len(calls)


def test_the_objective_is_traced_once_per_loop():
    traces = []

    @functools.partial(jax.jit, static_argnums=1)
    def run(params, solver):
        def traced(p):
            traces.append(1)
            return rosenbrock(p)

        return optim.minimise(traced, params, solver=solver, stop=optim.max_steps(5)).value

    run(jnp.zeros(3), optim.lbfgs())
    assert len(traces) <= 2  # for its shape and in the loop: no search of its own evaluates it


def armijo_rejecting(x, count, step_size, decrease):
    points, best, tau = [], (np.inf, None), step_size
    for _ in range(count):
        points.append(x)
        if f(x) < best[0]:
            best = f(x), x
        else:
            tau *= decrease
        x = best[1] - tau * gradient(best[1])
    return points


def test_the_rejecting_variant_steps_back_to_where_the_objective_was_lower(x64):
    lanes = walk(optim.armijo_once_rejecting(0.5, 0.6), objective, START, 30)
    np.testing.assert_allclose([p for p, _, _ in lanes], armijo_rejecting(START, 30, 0.5, 0.6), rtol=1e-9, atol=1e-12)
    values = [float(held.value) for _, held, _ in lanes]
    assert (np.diff(values) <= 0).all()


def armijo_sufficient(x, count, tau, decrease, sufficient):
    points, before = [], None
    for _ in range(count):
        points.append(x)
        if before is not None:
            earlier, step = before
            if not f(x) <= f(earlier) - sufficient * step * (gradient(earlier) ** 2).sum():
                tau *= decrease
        before = x, tau
        x = x - tau * gradient(x)
    return points


def test_the_sufficient_variant_asks_for_a_decrease_in_proportion(x64):
    solver = optim.armijo_once_sufficient(0.06, 0.8, 0.6)
    lane, points = optim.start(objective, jnp.asarray(START), solver, optim.max_steps(99)), []
    step = jax.jit(lambda lane: optim.step(objective, lane, solver, optim.max_steps(99)))
    for _ in range(30):
        points.append(lane.params)
        lane = step(lane)
    expected = armijo_sufficient(START, 30, 0.06, 0.8, 0.6)
    np.testing.assert_allclose(points, expected, rtol=1e-9, atol=1e-12)
    assert float(lane.solver.step_size) < 0.06
    # the paper's test alone is content with any decrease
    plain = optim.minimise(objective, jnp.asarray(START), solver=optim.armijo_once(0.06, 0.8), stop=optim.max_steps(30))
    assert float(plain.solver.step_size) > float(lane.solver.step_size)
