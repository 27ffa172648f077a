"""What is written out of a network, and what is refused."""

import functools
import inspect

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxsal import composites
from jaxsal.engine.program import line, program
from jaxsal.engine.rewire import rewire, sites
from jaxsal.jaxpr import trace

X = jnp.ones((2, 4, 4, 3))
PLAIN = composites.plain()


def line_of(fn, text):
    """Number of the line of a function's source that holds a text."""
    lines, first = inspect.getsourcelines(fn)
    return first + next(i for i, line in enumerate(lines) if text in line)


def sorts(x):
    h = jnp.tanh(x)
    return lax.sort(h.reshape(2, -1), dimension=1)[:, :3]


def test_an_operation_without_a_rule_is_named_with_its_line_and_the_ways_out():
    with pytest.raises(NotImplementedError) as error:
        sites(sorts, X, PLAIN)
    text = str(error.value)
    assert text.startswith(
        "There is no rule for the operation 'sort' on values of the image, of shapes (2, 48), at "
        f"{__file__}:{line_of(sorts, 'lax.sort')}. Write it with operations that there are rules for"
    )
    for way_out in ("jax.custom_jvp", "jax.lax.stop_gradient", "jaxsal.split"):
        assert way_out in text


def loops(x):
    return lax.while_loop(lambda h: h.sum() < 0, lambda h: h + 1, x).sum((1, 2))


def branches(x):
    return lax.cond(x.sum() > 0, lambda x: x.sum((1, 2)), lambda x: x.max((1, 2)), x)


REFUSED = {
    "sort": sorts,
    "cumprod": lambda x: jnp.cumprod(x, 1).sum((1, 2)),
    "fft": lambda x: jnp.abs(jnp.fft.fft(x, axis=1)).sum((1, 2)),
    "while": loops,
    "cond": branches,
    "cholesky": lambda x: jnp.linalg.cholesky(jnp.einsum("bijc,bijd->bcd", x, x))[:, 0],
}


@pytest.mark.parametrize("name", REFUSED)
def test_operations_without_a_rule(name):
    with pytest.raises(NotImplementedError, match=name):
        sites(REFUSED[name], X, PLAIN)


def test_a_long_scan_is_no_stack_of_layers():
    with pytest.raises(NotImplementedError, match=r"scan of 201 iterations at .*test_program.py:\d+ is too long"):
        sites(lambda x: lax.scan(lambda h, _: (h / 2, None), x, length=201)[0].sum((1, 2)), X, PLAIN)


def test_a_composite_that_has_no_rule_for_a_site():
    with pytest.raises(ValueError, match="no rule for the average site"):
        sites(lambda x: x.mean((1, 2)), X, lambda site: None)


def test_an_output_that_does_not_depend_on_the_image():
    with pytest.raises(ValueError, match="does not depend on its input"):
        rewire(lambda x: jnp.ones((2, 1)), PLAIN)(X)
    with pytest.raises(ValueError, match="does not depend on its input"):
        rewire(lambda x: lax.stop_gradient(x).sum((1, 2)), PLAIN)(X)


def test_several_outputs():
    with pytest.raises(ValueError, match="returns 2 arrays"):
        rewire(lambda x: (x.sum((1, 2)), x), PLAIN)(X)


def names(fn, *args):
    return [step.name for step in program(trace(fn, *args)).steps]


def test_calls_are_written_out_and_what_nobody_reads_is_left_out():
    @jax.jit
    def block(h):
        unread = jnp.cumprod(h)
        return jax.checkpoint(jnp.tanh)(h), unread

    assert names(lambda x: block(block(x)[0])[0], 1.0 * jnp.ones(3)) == ["tanh", "tanh"]


def test_activations_stay_whole():
    fns = (jax.nn.relu, jax.nn.selu, jax.nn.silu, jax.nn.softplus, jax.nn.leaky_relu, jax.nn.relu6)
    assert [names(fn, jnp.ones(3)) for fn in fns] == [[fn.__name__] for fn in fns]


@jax.custom_jvp
def relu(z):
    """Another function of the same name."""
    return z * jnp.where(z > 0, 1.0, 0.5)


@jax.custom_jvp
def shifted(z):
    """One that contains an activation."""
    return jax.nn.softplus(z) - 0.7


@jax.custom_jvp
def stopped(z):
    """A ReLU with a derivative of its own."""
    return jnp.maximum(z, 0.0)


@jax.custom_jvp
def renamed(z):
    return jax.nn.softplus(z)


for fn in (relu, shifted, stopped, renamed):
    fn.defjvp(lambda primals, tangents, fn=fn: (fn(*primals), tangents[0]))


def test_functions_are_told_from_what_they_compute_not_from_their_names():
    @jax.jit
    def softplus(z):
        return jnp.log1p(jnp.exp(z)) - 0.7

    found = [names(fn, jnp.ones(3)) for fn in (relu, shifted, stopped, renamed, softplus)]
    own = [["custom_jvp_call relu"], ["custom_jvp_call shifted"], ["relu"], ["softplus"]]
    assert found == [*own, ["exp", "log1p", "sub"]]


def test_a_users_folder_may_be_called_like_a_library(tmp_path):
    file = tmp_path / "jax" / "network.py"
    file.parent.mkdir()
    file.write_text("import jax.numpy as jnp\n\ndef network(x):\n    return jnp.where(x > 1, x, 2 * x)\n")
    scope = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    step = next(step for step in program(trace(scope["network"], jnp.ones(3))).steps if step.name == "select_n")
    assert line(step.source) == f"{file}:4"


def test_a_scan_is_written_out():
    layers = jnp.ones((3, 2, 2))
    for reverse in (False, True):
        scan = functools.partial(lax.scan, lambda h, w: (h @ w, h), reverse=reverse)
        steps = names(lambda x, scan=scan: scan(x, layers)[1], jnp.ones((1, 2)))
        assert [step for step in steps if step in ("dot_general", "stack")] == ["dot_general"] * 2 + ["stack"]


def first(x):
    return jnp.where(x > 1, x, 2 * x)


def second(x):
    return jnp.where(x > 1, x, 2 * x)


def test_a_function_of_jax_stands_where_it_is_called_now():
    """JAX keeps its own functions traced, with the place of the first call."""
    for fn in (first, second):
        step = next(step for step in program(trace(fn, jnp.ones(3))).steps if step.name == "select_n")
        assert line(step.source) == f"{__file__}:{line_of(fn, 'where')}"
