"""Solvers, wrappers and schedules that published masks were made with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.masks.optimising import between_0_and_1


def descend(solver, gradient, params, steps):
    state = solver.init(params)
    path = []
    for _ in range(steps):
        updates, state = solver.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params))
    return np.stack(path)


def by_torch(optimiser, scale, start, steps, schedule=lambda optimiser: None):
    torch = pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    params = torch.tensor(start, requires_grad=True)
    solver = optimiser(torch, [params])
    stairs = schedule(solver)
    path = []
    for _ in range(steps):
        solver.zero_grad()
        loss = (torch.from_numpy(scale) * params**4 / 4 - torch.cos(5 * params) / 5).sum()
        loss.backward()
        solver.step()
        if stairs:
            stairs.step()
        path.append(params.detach().numpy().copy())
    return np.stack(path)


SCALE, START = np.array([1.0, 10.0, 0.1]), np.array([0.9, -0.7, 0.4])


def slope(p):
    return jnp.asarray(SCALE) * p**3 + jnp.sin(5 * p)


def test_amsgrad_with_stairs_is_torchs(x64):
    def amsgrad(torch, params):
        return torch.optim.Adam(params, lr=0.3, betas=(0.9, 0.99), amsgrad=True)

    def stairs(solver):
        import torch

        return torch.optim.lr_scheduler.StepLR(solver, step_size=30, gamma=0.1)

    expected = by_torch(amsgrad, SCALE, START, 70, stairs)
    solver = optim.amsgrad(0.3, second_momentum=0.99, fall=0.1, every=30)
    np.testing.assert_allclose(descend(solver, slope, jnp.asarray(START), 70), expected, rtol=1e-10)


def test_damped_momentum_is_torchs(x64):
    def damped(torch, params):
        return torch.optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.9)

    expected = by_torch(damped, SCALE, START, 20)
    found = descend(optim.damped_momentum(0.1, 0.9), slope, jnp.asarray(START), 20)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


BUILT = [lambda: optim.amsgrad(0.1, every=5), lambda: optim.damped_momentum(0.02)]


@pytest.mark.parametrize("build", BUILT)
def test_they_are_equal_when_built_alike_and_take_trees(build):
    assert build() == build()
    assert hash(optim.clipped(build())) == hash(optim.clipped(build()))
    params = {"a": jnp.ones((2, 3)), "b": (jnp.ones(4),)}
    joint = optim.minimise(
        lambda p: (jnp.sum(p["a"] ** 2) + 3 * jnp.sum(p["b"][0] ** 4), ()),
        params, solver=build(), stop=optim.max_steps(7),
    ).params  # fmt: skip
    alone = optim.minimise(lambda p: (3 * jnp.sum(p**4), ()), jnp.ones(4), solver=build(), stop=optim.max_steps(7))
    np.testing.assert_allclose(joint["b"][0], alone.params, rtol=1e-6)


@pytest.mark.parametrize("build", BUILT)
def test_on_the_sphere_what_is_no_direction_stays_as_it_is(build):
    towards = jnp.array([3.0, 4.0, 0.5])
    lane = optim.minimise(
        lambda m: (-jnp.sum(towards * m), ()), jnp.ones(3), solver=optim.on_sphere(build()), stop=optim.max_steps(500)
    )
    np.testing.assert_allclose(lane.params, towards / jnp.linalg.norm(towards), atol=0.02)
    if isinstance(lane.solver, tuple) and hasattr(lane.solver, "nu_max"):
        assert (lane.solver.nu_max >= lane.solver.nu).all()
        assert (lane.solver.nu >= 0).all()


def test_numbers_of_new_solvers_may_be_traced():
    def end(rate):
        solver = optim.clipped(optim.amsgrad(rate, fall=rate), 0.0, rate)
        damped = optim.damped_momentum(rate)
        stop = optim.max_steps(5)
        first = optim.minimise(lambda p: (-p.sum(), ()), jnp.zeros(2), solver=solver, stop=stop)
        return first.params, optim.minimise(lambda p: (-p.sum(), ()), jnp.zeros(2), solver=damped, stop=stop).params

    rates = jnp.array([0.1, 0.4])
    together = jax.vmap(end)(rates)
    for i, rate in enumerate(rates):
        for a, b in zip(together, end(float(rate)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.amsgrad(0.0), ValueError, "step_size=0.0"),
        (lambda: optim.amsgrad(fall=1.5), ValueError, "fall=1.5"),
        (lambda: optim.amsgrad(every=0), ValueError, "every=0"),
        (lambda: optim.amsgrad(every=2.5), TypeError, "every=2.5"),
        (lambda: optim.damped_momentum(momentum=2.0), ValueError, "momentum=2.0"),
        (lambda: optim.best_so_far(optim.adam(), after=-1), ValueError, "after=-1"),
        (lambda: optim.best_so_far(optim.adam(), after=1.5), TypeError, "after=1.5"),
        (lambda: optim.clipped(optim.adam(), 1.0, 0.0), ValueError, "clipped got low=1.0"),
        (lambda: optim.clipped(optim.on_sphere(optim.adam())), ValueError, "clipped got a solver on the sphere"),
        (lambda: optim.clipped(optim.proximal_tv(1.0)), ValueError, "use in_box"),
    ],
)
def test_bad_arguments_are_answered(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_adam_by_value_is_optaxs_and_keeps_its_dtype():
    def gradient(p):
        return p**3 - 1

    start = jnp.array([0.2, 3.0])
    with jax.numpy_dtype_promotion("standard"):
        expected = descend(optax.adam(0.1), gradient, start, 20)
    np.testing.assert_allclose(descend(optim.preset(optax.adam, 0.1), gradient, start, 20), expected, rtol=1e-6)


@pytest.mark.parametrize("wrapper", [optim.clipped, optim.in_box])
def test_steps_end_at_the_bounds(wrapper):
    path = descend(wrapper(optax.sgd(0.3)), lambda p: jnp.array([-1.0, 1.0, 0.0]), jnp.full(3, 0.5), 5)
    np.testing.assert_allclose(path[0], [0.8, 0.2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(path[-1], [1.0, 0.0, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="projects the parameters"):
        wrapper(optax.sgd(0.3)).update(jnp.ones(2), optax.sgd(0.3).init(jnp.ones(2)))


def test_clipped_momentum_goes_on_against_the_bound():
    # two steps outwards, then inwards: what clip(p - v) does by hand
    slopes = [-1.0, -1.0, 1.0, 1.0, 1.0]
    solver, velocity, by_hand = optim.clipped(optim.damped_momentum(0.2, 0.5)), -1.0, 0.9
    state, params = solver.init(jnp.ones(1)), jnp.array([0.9])
    for t, g in enumerate(slopes):
        velocity = g if t == 0 else 0.5 * velocity + 0.5 * g
        by_hand = min(max(by_hand - 0.2 * velocity, 0.0), 1.0)
        updates, state = solver.update(jnp.array([g]), state, params)
        params = params + updates
        np.testing.assert_allclose(params, [by_hand], rtol=1e-6)
    assert 0 < by_hand < 1


def test_solvers_for_masks_keep_between_0_and_1_once():
    own = optim.clipped(optim.adam())
    assert between_0_and_1(own) is own
    assert between_0_and_1(optim.in_box(optim.adam())) == optim.in_box(optim.adam())
    assert between_0_and_1(optim.adam()) == optim.in_box(optim.adam())
    wide = between_0_and_1(optim.in_box(optim.adam(), 0.0, 2.0))
    lane = optim.minimise(lambda p: (-p.sum(), ()), jnp.ones(1), solver=wide, stop=optim.max_steps(9))
    assert lane.params.tolist() == [1.0]


def test_the_objective_sees_the_step():
    seen = []

    def objective(mask, step):
        jax.debug.callback(lambda step: seen.append(int(step)), step, ordered=True)
        return (mask**2).sum(), step

    lane = optim.minimise(
        optim.Scheduled(objective), jnp.ones(2), solver=optim.preset(optax.sgd, 0.1), stop=optim.max_steps(4)
    )
    jax.effects_barrier()
    assert seen == [0, 1, 2, 3, 4]
    assert int(lane.aux) == 4
    np.testing.assert_allclose(lane.params, 0.8**4, rtol=1e-6)


def test_many_lanes_each_know_their_own_step():
    def objective(job, shared):
        return optim.Scheduled(lambda mask, step: (job * mask.sum() * step.astype(mask.dtype), step))

    found = optim.minimise_lanes(
        objective, jnp.arange(5.0), lambda job, shared: jnp.zeros(1), lanes=2, chunk=3,
        solver=optim.preset(optax.sgd, 1.0), stop=optim.max_steps(4),
    )  # fmt: skip
    np.testing.assert_allclose(found.params[:, 0], -6 * np.arange(5.0))
    assert found.aux.tolist() == [4] * 5


def test_optaxs_line_search_stays_at_its_step():
    searched = []

    def objective(mask, step):
        jax.debug.callback(lambda step: searched.append(int(step)), step, ordered=True)
        return ((mask - step.astype(mask.dtype)) ** 2).sum(), ()

    solver = optim.preset(optax.lbfgs)
    lane = optim.minimise(optim.Scheduled(objective), jnp.ones(2), solver=solver, stop=optim.max_steps(3))
    jax.effects_barrier()
    assert searched == sorted(searched)
    assert set(searched) == {0, 1, 2, 3}
    assert len(searched) > 4  # the search evaluates more than the loop
    assert np.isfinite(lane.params).all()


def test_the_best_parameters_are_kept_from_some_evaluation_on():
    values = jnp.array([-9.0, 3.0, 1.0, 2.0, 4.0, 5.0])

    def objective(mask, step):
        # the value is a table over the steps, the gradient moves the mask by one per step
        return values[step] + mask.sum() - jax.lax.stop_gradient(mask.sum()), step

    def run(after, steps=5):
        solver = optim.best_so_far(optim.preset(optax.sgd, 1.0), after=after)
        return optim.minimise(optim.Scheduled(objective), jnp.zeros(1), solver=solver, stop=optim.max_steps(steps))

    assert run(0).params.tolist() == [0.0]
    assert run(1).params.tolist() == [-2.0]
    assert run(3).params.tolist() == [-3.0]
    early = run(99)  # nothing competes yet: the last one, without going back
    assert (early.params.tolist(), int(early.evaluations)) == ([-5.0], 6)


def test_the_first_evaluations_do_not_end_a_lane_at_a_bad_point():
    def breaking(mask, step):
        return jnp.where(step == 3, jnp.nan, mask.sum()), ()

    solver = optim.best_so_far(optim.preset(optax.sgd, 1.0), after=9)
    lane = optim.minimise(optim.Scheduled(breaking), jnp.zeros(1), solver=solver, stop=optim.max_steps(8))
    assert optim.Status(int(lane.status)) is optim.Status.NOT_FINITE
    assert lane.params.tolist() == [-2.0]
