import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jaxsal import zoo
from jaxsal.engine.lower import lower

DIMS = {2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def convolution(strides, padding, rank=3, **more):
    def call(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMS[rank], **more)

    return call


def primitives(fn, *args):
    found = []

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            found.append(eqn)
            for value in eqn.params.values():
                for body in value if isinstance(value, tuple | list) else [value]:
                    if hasattr(body, "eqns") or hasattr(body, "jaxpr"):
                        visit(getattr(body, "jaxpr", body))

    visit(jax.make_jaxpr(fn)(*args).jaxpr)
    return found


CASES = [
    (1, (1, 1, 1), "VALID", 9, 4),
    (1, (3, 2, 1), "SAME", 9, 4),
    (1, (2, 1, 2), [(0, 1), (1, 0), (2, 1)], 9, 4),
    (5, (2, 2, 2), "SAME", 1, 4),
    (3, (1, 1, 1), "SAME", 9, 5),
    (3, (1, 2, 3), "VALID", 3, 2),
    (4, (1, 1, 1), [(0, 3), (2, 1), (1, 0)], 8, 3),
    (2, (1, 1, 1), [(3, 4), (0, 2), (1, 1)], 2, 2),  # padded by more than the kernel reaches
    (11, (3, 3, 3), "SAME", 1, 2),
    (1, (2, 2, 2), "VALID", 9, 3),
    (2, (3, 4, 3), [(1, 0), (5, 4), (0, 2)], 3, 2),  # fewer taps than steps, and more padding than reach
]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("size", "strides", "padding", "channels", "width"), CASES)
def test_values_and_both_gradients_are_those_of_the_convolution(x64, rank, size, strides, padding, channels, width):
    keys = jax.random.split(jax.random.key(size), 3)
    x = jax.random.normal(keys[0], (2, *(13, 12, 14)[-rank:], channels), dtype=jnp.float64)
    kernel = jax.random.normal(keys[1], (*(size,) * rank, channels, width), dtype=jnp.float64)
    plain = convolution(strides[-rank:], padding if isinstance(padding, str) else padding[-rank:], rank)
    expected, back = jax.vjp(plain, x, kernel)
    found, lowered_back = jax.vjp(jax.jit(lower(plain)), x, kernel)
    chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-10)
    g = jax.random.normal(keys[2], expected.shape, dtype=jnp.float64)
    chex.assert_trees_all_close(lowered_back(g), back(g), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(
    ("size", "dilation", "padding"),
    [(3, (2, 1, 4), "SAME"), (2, (3, 2, 1), "VALID"), (3, (1, 2, 3), [(0, 2), (4, 1), (3, 0)]), (1, (1, 2, 2), "SAME")],
)
def test_dilated_kernels_and_their_gradients(x64, rank, size, dilation, padding):
    keys = jax.random.split(jax.random.key(size), 3)
    x = jax.random.normal(keys[0], (2, *(9, 8, 10)[-rank:], 3), dtype=jnp.float64)
    kernel = jax.random.normal(keys[1], (*(size,) * rank, 3, 2), dtype=jnp.float64)
    padding = padding if isinstance(padding, str) else padding[-rank:]
    plain = convolution((1,) * rank, padding, rank, rhs_dilation=dilation[-rank:])
    expected, back = jax.vjp(plain, x, kernel)
    found, lowered_back = jax.vjp(jax.jit(lower(plain)), x, kernel)
    chex.assert_trees_all_close(found, expected, rtol=1e-10, atol=1e-10)
    g = jax.random.normal(keys[2], expected.shape, dtype=jnp.float64)
    chex.assert_trees_all_close(lowered_back(g), back(g), rtol=1e-10, atol=1e-10)
    if rank == 3 and size > 1:
        text = jax.jit(lower(plain)).lower(x, kernel).compile().as_text()
        assert f"size={size}x{size}x{size}" not in text


POOLS = [(2, 2, "VALID"), (3, 2, "VALID"), (3, 1, "SAME"), (2, 3, "VALID"), (4, 2, "SAME")]


@pytest.mark.parametrize(("window", "stride", "padding"), POOLS)
@pytest.mark.parametrize(("operation", "start"), [(lax.max, -jnp.inf), (lax.add, 0.0)])
def test_pools_and_their_gradients_are_those_of_reduce_window(window, stride, padding, operation, start):
    def plain(x):
        sizes, strides = ((1, *(n,) * 3, 1) for n in (window, stride))
        return lax.reduce_window(x, start, operation, sizes, strides, padding)

    # small whole numbers: many equal maxima, of which the first takes all
    x = jax.random.randint(jax.random.key(0), (2, 9, 8, 11, 3), 0, 3).astype(jnp.float32)
    expected, back = jax.vjp(plain, x)
    found, lowered_back = jax.vjp(jax.jit(lower(plain)), x)
    assert (found == expected).all()
    g = jax.random.randint(jax.random.key(1), expected.shape, -5, 5).astype(jnp.float32)
    assert (lowered_back(g)[0] == back(g)[0]).all()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
@pytest.mark.parametrize("activation", [lambda y: y, lambda y: jax.nn.relu(y + 1)])
def test_compiled_is_uncompiled_for_a_convolution_and_a_pool(batch, window, stride, activation):
    # jaxlib 0.10.2 miscompiles elementwise -> reshape to a batch of 1 -> reduce_window on CPU
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 3, 8, 16))
    x = jax.random.normal(jax.random.key(1), (batch, 12, 14, 13, 8))

    def block(x):
        y = activation(convolution((1, 1, 1), "VALID")(x, kernel))
        return lax.reduce_window(y, -jnp.inf, lax.max, (1, *(window,) * 3, 1), (1, *(stride,) * 3, 1), "VALID")

    expected = block(x)
    chex.assert_trees_all_close(jax.jit(lower(block))(x), expected, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(jax.jit(jax.vmap(lower(block)))(x[:, None])[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_on_cpu_no_3d_convolution_is_left():
    x, kernel = jnp.ones((1, 8, 8, 8, 9)), jnp.ones((3, 3, 3, 9, 2))
    text = jax.jit(lower(convolution((1, 1, 1), "SAME"))).lower(x, kernel).compile().as_text()
    windows = [line for line in text.splitlines() if "convolution(" in line]
    assert windows
    assert not any("window={size=3x3x3" in line for line in windows)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("channels", [2, 9])
def test_no_gradient_of_an_input_multiplies_with_zeros_between_outputs(rank, channels):
    x, kernel = jnp.ones((1, *(8,) * rank, channels)), jnp.ones((*(3,) * rank, channels, 2))
    plain = convolution((2,) * rank, "SAME", rank)
    text = jax.jit(jax.grad(lambda x: lower(plain)(x, kernel).sum())).lower(x).compile().as_text()
    assert "lhs_dilate" not in text
    assert "lhs_dilate" in jax.jit(jax.grad(lambda x: plain(x, kernel).sum())).lower(x).compile().as_text()


@pytest.mark.parametrize(
    ("fn", "x", "kernel"),
    [
        (convolution((2, 1), "SAME", rank=2, rhs_dilation=(2, 2)), (1, 8, 8, 2), (3, 3, 2, 4)),
        (convolution((1, 1, 1), "SAME", feature_group_count=2), (1, 6, 6, 6, 2), (3, 3, 3, 1, 4)),
        (convolution((1, 1, 1), [(5, 0), (0, 0), (0, 0)], rhs_dilation=(2, 2, 2)), (1, 8, 8, 8, 2), (3, 3, 3, 2, 4)),
        (convolution((1, 1, 1), [(1, 1)] * 3, lhs_dilation=(2, 2, 2)), (1, 5, 5, 5, 2), (3, 3, 3, 2, 4)),
        (
            lambda x, k: convolution((1, 1, 1), "SAME", preferred_element_type=jnp.float32)(
                x.astype(jnp.bfloat16), k.astype(jnp.bfloat16)
            ),
            (1, 8, 8, 8, 2),
            (3, 3, 3, 2, 4),
        ),
        (convolution((1, 1, 1), [(-1, 0), (0, 0), (0, -1)]), (1, 8, 8, 8, 2), (3, 3, 3, 2, 4)),
    ],
)
def test_other_convolutions_are_left_alone(fn, x, kernel):
    x, kernel = jax.random.normal(jax.random.key(0), x), jax.random.normal(jax.random.key(1), kernel)
    assert (lower(fn)(x, kernel) == fn(x, kernel)).all()
    count = sum(eqn.primitive.name == "conv_general_dilated" for eqn in primitives(lower(fn), x, kernel))
    assert count == 1


@pytest.mark.parametrize(("channels", "operation"), [(2, "dot_general"), (9, "conv_general_dilated")])
def test_the_precision_asked_for_is_kept_both_ways(channels, operation):
    x, kernel = jnp.ones((1, 5, 5, 5, channels)), jnp.ones((3, 3, 3, channels, 2))
    fn = lower(convolution((1, 1, 1), "SAME", precision=("highest", "high")))

    def both(x, kernel):
        value, back = jax.vjp(fn, x, kernel)
        return back(value)

    found = [eqn for eqn in primitives(both, x, kernel) if eqn.primitive.name == operation]
    assert len(found) >= 3
    assert {eqn.params["precision"] for eqn in found} == {(lax.Precision.HIGHEST, lax.Precision.HIGH)}


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: nnx.max_pool(x, (2, 2, 2), (2, 2, 2)),
        lambda x: convolution((1, 1, 1), "SAME")(x, jnp.ones((3, 3, 3, 1, 1))),
    ],
)
def test_forward_mode_is_refused(fn):
    x = jnp.ones((1, 4, 4, 4, 1))
    jax.jvp(fn, (x,), (x,))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lower(fn), (x,), (x,))


def test_relu_stays_a_call_so_that_its_slope_at_zero_is_zero():
    kernel = jnp.zeros((3, 3, 3, 1, 1))

    def fn(x):
        return jax.nn.relu(convolution((1, 1, 1), "SAME")(x, kernel) + x).sum()

    assert (jax.grad(lower(fn))(jnp.zeros((1, 4, 4, 4, 1))) == 0).all()


def seven(fn):
    """The function with 7 for a gradient, whatever it computes."""
    ruled = jax.custom_vjp(fn)
    ruled.defvjp(lambda x: (fn(x), x), lambda x, g: (jnp.full_like(x, 7),))
    return ruled


def test_a_gradient_of_its_own_is_kept():
    kernel, x = jnp.ones((3, 3, 3, 1, 1)), jax.random.normal(jax.random.key(0), (1, 4, 4, 4, 1))

    def conv(x):
        return convolution((1, 1, 1), "SAME")(x, kernel)

    @jax.custom_jvp
    def straight_through(x):
        return nnx.max_pool(x, (2, 2, 2), (1, 1, 1), "SAME")

    straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), 7 * tangents[0]))

    for fn in (seven(conv), straight_through, jax.jit(seven(conv)), jax.checkpoint(seven(conv))):
        chex.assert_trees_all_close(lower(fn)(x), fn(x), rtol=1e-6)
        assert (jax.grad(lambda x, fn=fn: lower(fn)(x).sum())(x) == 7).all()


def test_what_is_not_to_be_saved_stays_so():
    kernel, x = jnp.ones((3, 3, 3, 1, 1)), jnp.ones((1, 4, 4, 4, 1))
    fn = jax.checkpoint(lambda x: convolution((1, 1, 1), "SAME")(jnp.sin(x), kernel))
    names = [eqn.primitive.name for eqn in jax.make_jaxpr(lower(fn))(x).jaxpr.eqns]
    assert names == [eqn.primitive.name for eqn in jax.make_jaxpr(fn)(x).jaxpr.eqns]
    chex.assert_trees_all_close(*(jax.grad(lambda x, f=f: f(x).sum())(x) for f in (lower(fn), fn)), rtol=1e-5)


def test_a_network_under_vmap_grad_and_a_loop():
    blocks = (
        zoo.ConvBlock(4, 5, 2, True, 2, 2),
        zoo.ConvBlock(9, 3, 1, False, 2, 2),
        zoo.ConvBlock(9, 3, 1, True, 2, 2),
    )
    model = zoo.MorphometryVGG(3, shape=(24, 20, 22), blocks=blocks, dense=(8, 4), rngs=nnx.Rngs(0))
    model.eval()
    x = jax.random.normal(jax.random.key(0), (2, 24, 20, 22, 1))
    chex.assert_trees_all_close(lower(model)(x), model(x), rtol=1e-4, atol=1e-5)

    def descend(call):
        slope = jax.vmap(jax.grad(lambda x: call(x[None])[0, 1]))
        return lax.fori_loop(0, 4, lambda _, x: x - 0.1 * slope(x), x)

    chex.assert_trees_all_close(jax.jit(lambda: descend(lower(model)))(), descend(model), rtol=1e-3, atol=1e-4)


def test_nested_jit_and_unused_results_pass_through():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 1, 2)), jnp.float32)

    @jax.jit
    def block(x):
        return {"y": convolution((1, 1, 1), "SAME")(x, kernel), "top": lax.top_k(x.reshape(-1), 2)[0]}

    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 5, 1))
    chex.assert_trees_all_close(lower(block)(x), block(x), rtol=1e-5, atol=1e-5)
