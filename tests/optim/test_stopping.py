"""Stopping rules, on sequences made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import optim
from jaxsal.optim import Status


def names(rule, values, grads=None):
    state, seen = rule.init(jnp.zeros(2)), []
    for count, value in enumerate(values):
        grad = jnp.ones(2) if grads is None else jnp.asarray(grads[count])
        progress = optim.Progress(jnp.int32(count), jnp.float32(value), grad, jnp.zeros(2))
        state, status = rule.update(state, progress)
        seen.append(Status(int(status)).name)
    return seen


def test_relative_decrease_is_a_share_of_the_larger_value():
    rule = optim.relative_decrease(0.1, window=2)
    # 100 -> 80 falls by 20 %, 90 -> 79 by 12 %, 80 -> 75 by 6 %
    assert names(rule, [100, 90, 80, 79, 75]) == ["RUNNING"] * 4 + ["STAGNATED"]
    assert names(rule, [-100, -105, -120, -114, -121]) == ["RUNNING"] * 3 + ["STAGNATED"] * 2
    assert names(rule, [1, 1, 5]) == ["RUNNING"] * 2 + ["STAGNATED"]  # it rose


def test_gradient_norm_is_over_all_leaves():
    rule = optim.gradient_norm(5.0)
    assert names(rule, [0, 0], [[3.0, 4.1], [3.0, 4.0]]) == ["RUNNING", "CONVERGED"]
    pair = optim.Progress(jnp.int32(0), jnp.float32(0), {"a": jnp.array([3.0]), "b": jnp.array([[4.1]])}, None)
    assert int(rule.update((), pair)[1]) == Status.RUNNING


def test_gradient_norm_on_a_sphere_is_of_the_tangent_gradient():
    def objective(x):
        return x @ jnp.array([3.0, 4.0]) * -1, ()

    stop = optim.any_of(optim.gradient_norm(1e-3), optim.max_steps(200))
    lane = optim.minimise(objective, jnp.ones(2), solver=optim.on_sphere(optim.backtracking(0.1)), stop=stop)
    assert Status(int(lane.status)) is Status.CONVERGED  # the whole gradient is 5 everywhere
    lane = optim.minimise(
        lambda x: (jnp.sum(x), ()), jnp.ones(2), solver=optim.nonnegative(optim.backtracking(0.1)), stop=stop
    )
    assert Status(int(lane.status)) is Status.CONVERGED
    assert (lane.params == 0).all()


def test_target_value():
    assert names(optim.target_value(2.0), [3, 2, 1]) == ["RUNNING", "TARGET_REACHED", "TARGET_REACHED"]


def test_all_of_stops_when_all_do_at_the_same_step():
    rule = optim.all_of(optim.target_value(5.0), optim.max_steps(2))
    assert names(rule, [9, 4, 9, 4, 9]) == ["RUNNING"] * 3 + ["TARGET_REACHED", "RUNNING"]
    nested = optim.any_of(optim.all_of(optim.target_value(0.0), optim.max_steps(1)), optim.max_steps(4))
    assert names(nested, [9] * 5) == ["RUNNING"] * 4 + ["MAX_STEPS"]


def test_rules_built_alike_are_equal():
    assert optim.relative_decrease(1e-3, 5) == optim.relative_decrease(1e-3, 5)
    assert optim.all_of(optim.gradient_norm(1e-3)) == optim.all_of(optim.gradient_norm(np.float64(1e-3)))
    assert optim.all_of(optim.gradient_norm(1e-3)) != optim.any_of(optim.gradient_norm(1e-3))
    assert optim.target_value(1.0) != optim.target_value(2.0)


def test_tolerances_may_be_traced():
    def steps(tolerance, target):
        stop = optim.any_of(
            optim.gradient_norm(tolerance), optim.relative_decrease(tolerance), optim.target_value(target)
        )
        return optim.minimise(
            lambda p: (jnp.sum(p**2), ()), jnp.ones(2), solver=optim.armijo_once(0.1), stop=stop
        ).steps

    together = jax.vmap(steps)(jnp.array([1e-1, 1e-2, 0.0]), jnp.array([-1.0, -1.0, 0.5]))
    assert together.tolist() == [int(steps(1e-1, -1.0)), int(steps(1e-2, -1.0)), int(steps(0.0, 0.5))]
    assert len(set(together.tolist())) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.relative_decrease(-1.0), "relative_decrease got a tolerance of -1.0"),
        (lambda: optim.relative_decrease(1e-3, 0), "relative_decrease got window=0"),
        (lambda: optim.gradient_norm(-0.1), "gradient_norm got a tolerance of -0.1"),
        (lambda: optim.any_of(), "any_of got no rules"),
        (lambda: optim.all_of(), "all_of got no rules"),
    ],
)
def test_bad_arguments_are_answered(call, message):
    with pytest.raises(ValueError, match=message):
        call()
