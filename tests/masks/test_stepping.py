import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsal import optim
from jaxsal.masks.amsgrad import amsgrad
from jaxsal.masks.stepping import Variables, best, best_after, by_value, counted, within


def descend(solver, gradient, params, steps):
    state = solver.init(params)
    path = []
    for _ in range(steps):
        updates, state = solver.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params))
    return np.stack(path)


def test_amsgrad_with_stairs_is_torchs(x64):
    torch = pytest.importorskip("torch", reason="the peer needs torch==2.13.0")
    scale = np.array([1.0, 10.0, 0.1])

    def gradient(p):
        return jnp.asarray(scale) * p**3 + jnp.sin(5 * p)

    start = np.array([0.9, -0.7, 0.4])
    params = torch.tensor(start, requires_grad=True)
    solver = torch.optim.Adam([params], lr=0.3, betas=(0.9, 0.99), amsgrad=True)
    stairs = torch.optim.lr_scheduler.StepLR(solver, step_size=30, gamma=0.1)
    path = []
    for _ in range(70):
        solver.zero_grad()
        loss = (torch.from_numpy(scale) * params**4 / 4 - torch.cos(5 * params) / 5).sum()
        loss.backward()
        solver.step()
        stairs.step()
        path.append(params.detach().numpy().copy())
    found = descend(amsgrad(0.3, b1=0.9, b2=0.99, fall=0.1, every=30), gradient, jnp.asarray(start), 70)
    np.testing.assert_allclose(found, np.stack(path), rtol=1e-10)


def test_adam_by_value_is_optaxs_and_keeps_its_dtype():
    def gradient(p):
        return p**3 - 1

    start = jnp.array([0.2, 3.0])
    with jax.numpy_dtype_promotion("standard"):
        expected = descend(optax.adam(0.1), gradient, start, 20)
    solver = by_value(optax.adam, 0.1)
    np.testing.assert_allclose(descend(solver, gradient, start, 20), expected, rtol=1e-6)
    assert solver == by_value(optax.adam, 0.1) != by_value(optax.adam, 0.2)
    assert hash(within(solver)) == hash(within(by_value(optax.adam, 0.1)))


def test_steps_end_at_the_bounds():
    path = descend(within(optax.sgd(0.3)), lambda p: jnp.array([-1.0, 1.0, 0.0]), jnp.full(3, 0.5), 5)
    np.testing.assert_allclose(path[0], [0.8, 0.2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(path[-1], [1.0, 0.0, 0.5], rtol=1e-6)
    with pytest.raises(ValueError, match="projects the parameters"):
        within(optax.sgd(0.3)).update(jnp.ones(2), optax.sgd(0.3).init(jnp.ones(2)))


def test_the_objective_sees_the_step():
    seen = []

    def objective(variables):
        jax.debug.callback(lambda step: seen.append(float(step)), variables.step, ordered=True)
        return (variables.mask**2).sum() + 0 * variables.step, ()

    start = Variables(jnp.ones(2), jnp.float32(0))
    lane = optim.minimise(objective, start, solver=counted(optax.sgd(0.1)), stop=optim.max_steps(4))
    jax.effects_barrier()
    assert seen == [0, 1, 2, 3, 4]
    assert float(lane.params.step) == 4
    np.testing.assert_allclose(lane.params.mask, 0.8**4, rtol=1e-6)


def test_a_line_search_stays_at_its_step():
    def objective(variables):
        return ((variables.mask - variables.step) ** 2).sum(), ()

    solver = counted(optax.chain(optax.scale(-1.0), optax.scale_by_backtracking_linesearch(20)))
    with jax.numpy_dtype_promotion("standard"):
        lane = optim.minimise(objective, Variables(jnp.ones(2), jnp.float32(0)), solver=solver, stop=optim.max_steps(3))
    assert np.isfinite(lane.params.mask).all()
    assert float(lane.value) <= 2.0  # never further from its goal than the goal moved


def test_the_best_parameters_are_kept_from_some_evaluation_on():
    values = jnp.array([-9.0, 3.0, 1.0, 2.0, 1.0, 5.0])

    def objective(variables):
        # the value is a table over the steps, the gradient moves the mask by one per step
        return values[variables.step.astype(jnp.int32)] + variables.mask.sum() - jax.lax.stop_gradient(
            variables.mask.sum()
        ), ()

    solver = counted(best_after(optax.sgd(1.0), 1))
    lane = optim.minimise(objective, Variables(jnp.zeros(1), jnp.float32(0)), solver=solver, stop=optim.max_steps(5))
    assert best(lane.solver, lane.params.mask).tolist() == [-4.0]
    assert float(lane.solver.value) == 1.0
    never = counted(best_after(optax.sgd(1.0), 99))
    lane = optim.minimise(objective, Variables(jnp.zeros(1), jnp.float32(0)), solver=never, stop=optim.max_steps(5))
    assert best(lane.solver, lane.params.mask).tolist() == [-5.0]
