import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.optim import Status


def quadratic(params):
    return jnp.sum(jnp.array([1.0, 10.0]) * (params - 2.0) ** 2), {"first": params[0]}


def by_hand(start, rate, factor, count):
    """The paper's rule, written out in numpy."""
    m, tau, previous, values = np.array(start), rate, np.inf, []
    for _ in range(count):
        value = (np.array([1.0, 10.0]) * (m - 2) ** 2).sum()
        if not value < previous:
            tau *= factor
        values.append(value)
        m, previous = m - tau * 2 * np.array([1.0, 10.0]) * (m - 2), value
    return m, tau, values


@pytest.mark.parametrize("rate", [0.01, 0.0999, 0.15])
def test_armijo_once_is_the_rule_of_the_paper_step_by_step(x64, rate):
    solver, stop = optim.armijo_once(rate, 0.9), optim.max_steps(1000)
    lane = optim.start(quadratic, jnp.zeros(2, jnp.float64), solver, stop)
    for count in range(1, 40):
        lane = jax.jit(lambda lane: optim.step(quadratic, lane, solver, stop))(lane)
        m, tau, values = by_hand([0.0, 0.0], rate, 0.9, count)
        chex.assert_trees_all_close((lane.params, lane.solver.step_size, lane.value), (m, tau, values[-1]), rtol=1e-12)
    assert int(lane.steps) == int(lane.evaluations) == 39


def test_minimise_reaches_the_minimum_and_returns_the_value_there():
    lane = optim.minimise(
        quadratic,
        jnp.zeros(2),
        solver=optim.armijo_once(0.04),
        stop=optim.any_of(optim.stagnation(), optim.max_steps(999)),
    )
    assert Status(int(lane.status)) is Status.STAGNATED
    chex.assert_trees_all_close(lane.params, jnp.full(2, 2.0), atol=1e-3)
    chex.assert_trees_all_close(lane.value, quadratic(lane.params)[0])
    assert float(lane.aux["first"]) == float(lane.params[0])
    assert int(lane.evaluations) == int(lane.steps) + 1


def test_stagnation_compares_with_the_value_a_window_ago():
    rule = optim.stagnation(window=3, tolerance=0.5)
    values = [10.0, 8.0, 7.0, 6.0, 7.6, 9.0]  # |7.6 - 8.0| <= 0.5 at step 4
    state, seen = rule.init(jnp.zeros(1)), []
    for count, value in enumerate(values):
        state, status = rule.update(state, optim.Progress(jnp.int32(count), jnp.float32(value), None, None))
        seen.append(Status(int(status)))
    assert seen == [Status.RUNNING] * 4 + [Status.STAGNATED, Status.RUNNING]


def test_stagnation_never_stops_before_a_full_window():
    lane = optim.minimise(
        lambda p: (0.0 * p.sum(), ()), jnp.ones(1), solver=optim.armijo_once(), stop=optim.stagnation(window=7)
    )
    assert int(lane.steps) == 7


def test_the_first_rule_that_stops_gives_the_status():
    both = optim.any_of(optim.max_steps(0), optim.stagnation(1))
    assert (
        Status(int(optim.minimise(quadratic, jnp.ones(2), solver=optim.armijo_once(), stop=both).status))
        is Status.MAX_STEPS
    )


def test_no_steps_evaluate_once_and_stay():
    lane = optim.minimise(quadratic, jnp.ones(2), solver=optim.armijo_once(), stop=optim.max_steps(0))
    assert (int(lane.steps), int(lane.evaluations)) == (0, 1)
    assert (lane.params == 1).all()


def test_a_value_that_is_not_finite_ends_the_lane_where_it_is():
    def cliff(p):
        return jnp.where(p[0] > 1.5, p[0] ** 2, jnp.nan), ()

    lane = optim.minimise(cliff, jnp.array([3.0]), solver=optim.armijo_once(0.1), stop=optim.max_steps(50))
    assert Status(int(lane.status)) is Status.NOT_FINITE
    assert 0 < int(lane.steps) < 50


def test_lanes_of_a_vmap_are_those_of_a_loop():
    starts = jax.random.normal(jax.random.key(0), (5, 2)) * jnp.arange(1.0, 6.0)[:, None]
    stop = optim.any_of(optim.stagnation(10, 1e-3), optim.max_steps(200))

    def run(start):
        return optim.minimise(quadratic, start, solver=optim.armijo_once(0.04), stop=stop)

    together = jax.jit(jax.vmap(run))(starts)
    alone = [jax.jit(run)(start) for start in starts]
    assert len(set(together.steps.tolist())) > 1
    assert together.steps.tolist() == [int(lane.steps) for lane in alone]
    chex.assert_trees_all_close(together.params, jnp.stack([lane.params for lane in alone]), rtol=1e-5)


def test_advance_in_chunks_is_one_run():
    stop, solver = optim.any_of(optim.stagnation(10, 1e-4), optim.max_steps(300)), optim.armijo_once(0.04)
    whole = optim.minimise(quadratic, jnp.zeros(2), solver=solver, stop=stop)
    lane = optim.start(quadratic, jnp.zeros(2), solver, stop)
    for until in range(7, 400, 7):
        lane = optim.advance(quadratic, lane, solver, stop, jnp.int32(until))
    chex.assert_trees_all_close(lane, whole)


def test_nonnegative_projects_and_finds_the_constrained_minimum():
    def objective(p):
        return jnp.sum((p - jnp.array([1.0, -1.0])) ** 2), ()

    lane = optim.minimise(objective, jnp.ones(2), solver=optim.nonnegative(optax.sgd(0.1)), stop=optim.max_steps(200))
    chex.assert_trees_all_close(lane.params, jnp.array([1.0, 0.0]), atol=1e-5)


def test_nonnegative_of_armijo_keeps_the_extra_arguments():
    lane = optim.minimise(
        quadratic, jnp.array([-0.0, 5.0]), solver=optim.nonnegative(optim.armijo_once(0.04)), stop=optim.max_steps(300)
    )
    chex.assert_trees_all_close(lane.params, jnp.full(2, 2.0), atol=1e-3)


def test_solvers_built_alike_are_equal_so_that_nothing_compiles_again():
    @functools.partial(jax.jit, static_argnames=("solver", "stop"))
    @chex.assert_max_traces(n=1)
    def run(params, solver, stop):
        return optim.minimise(quadratic, params, solver=solver, stop=stop).value

    for rate in (0.1, jnp.float32(0.1), np.float32(0.1)):
        solver = optim.nonnegative(optim.armijo_once(float(np.float32(rate)) if isinstance(rate, float) else rate))
        run(jnp.zeros(2), solver, optim.any_of(optim.stagnation(50), optim.max_steps(jnp.int32(5))))
    assert optim.armijo_once(0.1) == optim.armijo_once(step_size=0.1) != optim.armijo_once(0.2)
    assert optim.nonnegative(optim.armijo_once()) != optim.armijo_once()
    assert optim.any_of(optim.stagnation(), optim.max_steps(5)) != optim.any_of(optim.stagnation(), optim.max_steps(6))
    mine = optax.sgd(0.1)
    assert optim.nonnegative(mine) == optim.nonnegative(mine)


def test_rates_limits_and_tolerances_may_be_traced():
    def run(rate, decrease, limit, tolerance):
        return optim.minimise(
            quadratic,
            jnp.zeros(2),
            solver=optim.nonnegative(optim.armijo_once(rate, decrease)),
            stop=optim.any_of(optim.stagnation(5, tolerance), optim.max_steps(limit)),
        )

    values = [(0.01, 0.9, 7, 1e-5), (0.04, 0.99, 300, 1e-3), (0.15, 0.5, 20, 0.0)]
    with jax.checking_leaks():
        together = jax.vmap(run)(*(jnp.array(column) for column in zip(*values, strict=True)))
    alone = [run(*each) for each in values]
    assert together.steps.tolist() == [int(lane.steps) for lane in alone]
    chex.assert_trees_all_close(together.params, jnp.stack([lane.params for lane in alone]), rtol=1e-5)


def test_the_step_size_can_be_a_hyperparameter_of_optax():
    solver = optax.inject_hyperparams(optim.armijo_once)(step_size=0.04)
    lane = jax.jit(lambda p: optim.minimise(quadratic, p, solver=solver, stop=optim.max_steps(5)))(jnp.zeros(2))
    plain = optim.minimise(quadratic, jnp.zeros(2), solver=optim.armijo_once(0.04), stop=optim.max_steps(5))
    chex.assert_trees_all_close(lane.params, plain.params, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.max_steps(10.5), "max_steps got 10.5, a whole number"),  # type: ignore[arg-type]
        (lambda: optim.max_steps(True), "max_steps got True"),
        (lambda: optim.stagnation(2.5), "window got 2.5"),  # type: ignore[arg-type]
        (lambda: jax.jit(lambda n: optim.stagnation(n).init(jnp.ones(1)))(3), "traced window"),
    ],
)
def test_what_is_no_whole_number_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.armijo_once(0.0), "step_size=0.0"),
        (lambda: optim.armijo_once(0.1, 1.5), "decrease=1.5"),
        (lambda: optim.stagnation(0), "window of 0"),
        (lambda: optim.max_steps(-3), "max_steps got -3"),
        (lambda: optim.nonnegative(optax.sgd(1.0)).update(jnp.ones(1), optax.EmptyState()), "call update"),
    ],
)
def test_bad_arguments_are_answered(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_status_has_a_message():
    assert all(status.message for status in Status)
