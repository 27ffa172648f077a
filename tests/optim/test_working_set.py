import jax
import jax.numpy as jnp
import pytest

from jaxsal import optim
from jaxsal.engine.masked import masked
from jaxsal.optim.budget import lanes_for
from jaxsal.optim.working_set import working_set


class Cpu:
    platform = "cpu"

    def memory_stats(self):
        return None


@pytest.mark.parametrize(("largest", "expected"), [(0, 16), (2**18, 16), (2**20, 4), (5 * 2**19, 1), (2**25, 1)])
def test_lanes_fit_the_cache_together(largest, expected):
    assert lanes_for(100, None, None, lambda lanes: 0, lambda: largest, Cpu()) == expected


def test_a_given_number_needs_no_look():
    def fail():
        raise AssertionError

    assert lanes_for(100, 7, None, lambda lanes: 0, fail, Cpu()) == 7
    assert lanes_for(1, None, None, lambda lanes: 0, fail, Cpu()) == 1


def test_what_the_parameters_do_not_touch_does_not_count():
    def objective(table):
        squares = table @ table.T  # 1000 x 1000
        return lambda m: (jnp.sum(m * squares[0, 0]), squares)

    assert working_set(objective, jnp.ones(10), jnp.ones((1000, 2))) == 40


def wide(m):
    """64 times what goes in, and nothing of it comes out."""
    return jnp.tanh(jnp.outer(jnp.ones(64), m)).sum(0)


@jax.custom_jvp
def ruled(m):
    return wide(m)


ruled.defjvp(lambda primals, tangents: (wide(*primals), tangents[0]))

CALLS = {
    "jit": jax.jit(wide),
    "custom_jvp": ruled,
    "checkpoint": jax.checkpoint(wide),
    "scan": lambda m: jax.lax.scan(lambda total, _: (wide(total), None), m, None, length=3)[0],
    "while": lambda m: jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, wide(s[1])), (0, m))[1],
    "cond": lambda m: jax.lax.cond(m[0] > 0, wide, lambda m: m, m),
    "map": lambda m: jax.lax.map(wide, m[None])[0],
    "nested": jax.jit(lambda m: jax.checkpoint(jax.jit(wide))(m)),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_loops_and_branches_are_looked_into(call):
    assert working_set(lambda: lambda m: (CALLS[call](m).sum(), ()), jnp.ones(10)) == 64 * 10 * 4


def test_in_a_call_too_what_the_parameters_do_not_touch_does_not_count():
    @jax.jit
    def first(table, m):
        return m * (table @ table.T)[0, 0]  # 1000 x 1000

    def objective(table):
        return lambda m: (first(table, m).sum(), ())

    assert working_set(objective, jnp.ones(10), jnp.ones((1000, 2))) == 40


def test_what_nobody_uses_does_not_count():
    def objective():
        def value(m):
            unused = jnp.outer(m, m)
            del unused
            return jnp.sum(2.0 * m), ()

        return value

    assert working_set(objective, jnp.ones(50)) == 200


def test_shared_products_leave_little_for_a_lane():
    """The features are computed once: what a lane holds is of the size of the convolution's output."""
    kernel = jnp.ones((2, 2, 2, 64, 1))

    def tail(features):
        y = jax.lax.conv_general_dilated(
            features, kernel, (2, 2, 2), "VALID", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )
        return jnp.tanh(y).sum((1, 2, 3))

    def plain(features):
        return lambda m: (tail(features * m[None, ..., None])[0, 0], ())

    def shared(features):
        under = masked(tail, features)
        return lambda m: (under(m)[0, 0], ())

    mask, features = jnp.ones((8, 8, 8)), jnp.ones((1, 8, 8, 8, 64))
    assert working_set(plain, mask, features) == 8**3 * 64 * 4
    assert working_set(shared, mask, features) <= 8**3 * 4


def test_many_lanes_of_little_run_side_by_side():
    def objective(goal, shared):
        return lambda m: (jnp.sum((m - goal) ** 2), ())

    found = optim.minimise_lanes(
        objective,
        jnp.arange(20.0),
        lambda goal, shared: jnp.zeros(3),
        solver=optim.armijo_once(0.1),
        stop=optim.max_steps(3),
    )
    assert found.usage.lanes == 16
