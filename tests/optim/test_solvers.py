"""What holds for every solver."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.optim import Status

SOLVERS = {
    "armijo_once": lambda: optim.armijo_once(0.03),
    "armijo_once_sufficient": lambda: optim.armijo_once_sufficient(0.03),
    "armijo_once_rejecting": lambda: optim.armijo_once_rejecting(0.15, 0.9),
    "backtracking": lambda: optim.backtracking(),
    "barzilai_borwein": lambda: optim.barzilai_borwein(),
    "barzilai_borwein_short": lambda: optim.barzilai_borwein_short(),
    "conjugate_gradient": lambda: optim.conjugate_gradient(),
    "hager_zhang": lambda: optim.hager_zhang(),
    "lbfgs": lambda: optim.lbfgs(memory=4),
    "adam": lambda: optim.adam(0.05),
    "best of adam": lambda: optim.best_so_far(optim.adam(0.05)),
    "momentum": lambda: optim.preset(optax.sgd, 0.01, momentum=0.5),
    "optax.lbfgs": lambda: optim.preset(optax.lbfgs),
}
every_solver = pytest.mark.parametrize("build", SOLVERS.values(), ids=SOLVERS)

STOP = optim.any_of(optim.gradient_norm(1e-5), optim.max_steps(3000))
CURVATURES = np.array([1.0, 3.0, 10.0])


def bowl(centre, scale):
    """A convex objective with its minimum at the centre, and one that is not a quadratic."""

    def objective(params):
        away = params["a"] - centre
        steep = jnp.sum(jnp.asarray(CURVATURES, away.dtype) * away**2)
        return scale * (steep + jnp.sum(jnp.cosh(params["b"] - 1) - 1)), {"away": away}

    return objective


def run(build, centre, scale):
    start = {"a": jnp.zeros(3, centre.dtype), "b": jnp.zeros((2, 1), centre.dtype)}
    return optim.minimise(bowl(centre, scale), start, solver=build(), stop=STOP)


@every_solver
def test_lanes_reach_the_minimum_each_as_it_would_alone(x64, build):
    centres = jnp.array([[1.0, -2.0, 0.5], [0.0, 0.1, 0.0], [3.0, 3.0, -3.0]])
    scales = jnp.array([1.0, 0.3, 2.0])
    together = jax.jit(jax.vmap(functools.partial(run, build)))(centres, scales)
    chex.assert_trees_all_close(together.params["a"], centres, atol=2e-4)
    chex.assert_trees_all_close(together.params["b"], jnp.ones((3, 2, 1)), atol=2e-4)
    chex.assert_trees_all_close(together.aux["away"], together.params["a"] - centres, atol=1e-12)
    assert [Status(s).name for s in together.status.tolist()] == ["CONVERGED"] * 3
    assert len(set(together.steps.tolist())) > 1
    alone = jax.jit(functools.partial(run, build))
    for lane in range(3):
        one = alone(centres[lane], scales[lane])
        chex.assert_trees_all_close(jax.tree.map(lambda a, i=lane: a[i], together.params), one.params, atol=1e-9)
        assert int(one.steps) == int(together.steps[lane])
        assert int(one.evaluations) == int(together.evaluations[lane])
        chex.assert_trees_all_close(one.value, bowl(centres[lane], scales[lane])(one.params)[0], atol=1e-12)


@every_solver
def test_a_lane_that_is_not_finite_ends_as_such_and_leaves_its_neighbours_alone(build):
    def short(centre, scale):
        start = {"a": jnp.zeros(3), "b": jnp.zeros((2, 1))}
        return optim.minimise(bowl(centre, scale), start, solver=build(), stop=optim.max_steps(20))

    centres, lanes = jnp.ones((3, 3)), jax.jit(jax.vmap(short))
    sound = lanes(centres, jnp.ones(3))
    broken = lanes(centres, jnp.array([1.0, jnp.nan, 1.0]))
    assert [Status(s).name for s in broken.status.tolist()] == ["MAX_STEPS", "NOT_FINITE", "MAX_STEPS"]
    assert int(broken.steps[1]) == 0
    for lane in (0, 2):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda a, i=lane: a[i], broken.params), jax.tree.map(lambda a, i=lane: a[i], sound.params)
        )


@every_solver
def test_solvers_built_alike_compile_once(build):
    traces = []

    @functools.partial(jax.jit, static_argnames="solver")
    def once(params, solver):
        traces.append(1)
        return solver.init(params)

    for wrap in (lambda s: s, optim.nonnegative, optim.on_sphere, lambda s: optim.on_sphere(optim.nonnegative(s))):
        assert wrap(build()) == wrap(build())
        assert hash(wrap(build())) == hash(wrap(build()))
    once(jnp.ones(3), build())
    once(jnp.ones(3), build())
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.backtracking(0.0), "backtracking got step_size=0.0, a number above 0"),
        (lambda: optim.backtracking(decrease=1.5), r"decrease=1.5, a number in \(0, 1\]"),
        (lambda: optim.backtracking(sufficient=2.0), "sufficient=2.0"),
        (lambda: optim.armijo_once_sufficient(-1.0), "armijo_once_sufficient got step_size=-1.0"),
        (lambda: optim.armijo_once_rejecting(decrease=2.0), "armijo_once_rejecting got decrease=2.0"),
        (lambda: optim.barzilai_borwein(memory=0), "memory=0, at least 1"),
        (lambda: optim.barzilai_borwein_short(largest=-1.0), "barzilai_borwein_short got largest=-1.0"),
        (lambda: optim.conjugate_gradient(curvature=1.2), "conjugate_gradient got curvature=1.2"),
        (lambda: optim.hager_zhang(first_length=0.0), "hager_zhang got first_length=0.0"),
        (lambda: optim.lbfgs(memory=-1), "lbfgs got memory=-1"),
        (lambda: optim.adam(momentum=3.0), "adam got momentum=3.0"),
        (lambda: optim.proximal_tv(0.0), "proximal_tv got weight=0.0"),
        (lambda: optim.in_box(optim.adam(), 1.0, 0.0), "low=1.0 and high=0.0"),
        (lambda: optim.in_box(optim.on_sphere(optim.adam())), "no projection onto both"),
        (lambda: optim.on_sphere(optim.in_box(optim.adam())), "no projection onto both"),
        (lambda: optim.on_sphere(optim.proximal_tv(1.0)), "need a convex set"),
        (lambda: optim.best_so_far(optim.proximal_tv(1.0)), "not all that it minimises"),
        (lambda: optim.lbfgs().update(jnp.ones(1), optim.lbfgs().init(jnp.ones(1)), value=1.0), "call update"),
    ],
)
def test_bad_arguments_are_answered(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.lbfgs(memory=2.5), "memory=2.5, a whole number"),  # type: ignore[arg-type]
        (lambda: optim.proximal_tv(1.0, iterations=True), "iterations=True, a whole number"),
        (lambda: jax.jit(lambda n: optim.lbfgs(memory=n).init(jnp.ones(1)))(3), "traced memory"),
    ],
)
def test_what_is_no_whole_number_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_numbers_may_be_traced_and_differ_between_lanes():
    def lane(rate, length):
        solver = optim.nonnegative(optim.best_so_far(optim.adam(rate)))
        first = optim.minimise(
            lambda p: (jnp.sum((p - 1) ** 2), ()), jnp.zeros(2), solver=solver, stop=optim.max_steps(9)
        )
        second = optim.minimise(
            lambda p: (jnp.sum((p - 1) ** 2), ()),
            jnp.zeros(2),
            solver=optim.on_sphere(optim.lbfgs(first_length=length)),
            stop=optim.any_of(optim.target_value(1e-9), optim.max_steps(2)),
        )
        return first.params, second.params

    numbers = jnp.array([0.1, 0.01]), jnp.array([0.1, 1.0])
    with jax.checking_leaks():
        together = jax.vmap(lane)(*numbers)
    for i in range(2):
        chex.assert_trees_all_close(
            jax.tree.map(lambda a, i=i: a[i], together), lane(numbers[0][i], numbers[1][i]), atol=1e-6
        )


def test_best_so_far_returns_the_best_and_stops_by_it():
    def ups_and_downs(p):
        return jnp.sum(p**2), ()

    solver = optim.best_so_far(optim.preset(optax.sgd, 1.05))  # overshoots further with every step
    lane = optim.minimise(ups_and_downs, jnp.array([0.5]), solver=solver, stop=optim.max_steps(6))
    assert float(lane.params[0]) == 0.5
    assert float(lane.value) == 0.25
    assert (int(lane.steps), int(lane.evaluations)) == (6, 8)
    stops = optim.minimise(ups_and_downs, jnp.array([0.5]), solver=solver, stop=optim.stagnation(3, 1e-9))
    assert Status(int(stops.status)) is Status.STAGNATED
    assert int(stops.steps) == 3


def test_best_so_far_of_a_diverging_solver_is_the_last_sound_point():
    def cliff(p):
        return jnp.where(p[0] < 2, -p[0], jnp.nan), ()

    lane = optim.minimise(
        cliff, jnp.zeros(1), solver=optim.best_so_far(optim.preset(optax.sgd, 0.75)), stop=optim.max_steps(50)
    )
    assert Status(int(lane.status)) is Status.NOT_FINITE
    assert float(lane.params[0]) == 1.5
    assert float(lane.value) == -1.5
