"""Products in a short format: where they are rounded, and what that does to masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxsal
from jaxsal import jaxpr, optim, zoo
from jaxsal.engine.masked import masked
from jaxsal.engine.narrow import Narrowed, narrow
from jaxsal.masks import smocam

DIMENSIONS = ("NDHWC", "DHWIO", "NDHWC")


def rounded(x):
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def products(fn, *args):
    """Types of the operands of every product, calls included."""

    def within(program):
        for eqn in program.eqns:
            body = jaxpr.computed(eqn)
            if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
                yield from (str(atom.aval.dtype) for atom in eqn.invars)
            elif body is not None:
                yield from within(body[0])

    return list(within(jaxpr.trace(fn, *args).jaxpr))


def test_a_matrix_product_is_that_of_rounded_operands_added_up_in_float32():
    a, b = (jax.random.normal(key, (40, 40)) for key in jax.random.split(jax.random.key(0)))
    found = narrow(jnp.dot)(a, b)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded(a) @ rounded(b), rtol=1e-4, atol=1e-4)


def test_a_convolution_is_that_of_rounded_operands_rounded_once():
    x = jax.random.normal(jax.random.key(0), (1, 6, 5, 4, 3))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 2))

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=DIMENSIONS)

    found = narrow(convolve)(x, kernel)
    expected = convolve(*(jnp.asarray(rounded(a), jnp.float32) for a in (x, kernel)))
    assert found.dtype == jnp.float32
    assert (found == found.astype(jnp.bfloat16).astype(jnp.float32)).all()
    np.testing.assert_allclose(found, expected, rtol=2**-8, atol=1e-5)


def test_everything_else_is_as_it_was():
    x = jax.random.normal(jax.random.key(0), (3, 50))

    def fn(x):
        return jax.nn.relu(jnp.exp(x) - x.mean()) + 1.0001, jnp.sort(x), x.astype(jnp.int32)

    for found, expected in zip(narrow(fn)(x), fn(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    # relu keeps its gradient at 0
    assert float(jax.grad(narrow(lambda x: jax.nn.relu(x)))(0.0)) == 0


def test_gradients_have_the_types_that_they_had_and_agree():
    convolutions = (nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), nnx.Conv(4, 2, (3, 3), rngs=nnx.Rngs(1)))
    # tanh: at a kink two correct gradients differ
    model = nnx.Sequential(convolutions[0], jnp.tanh, convolutions[1])
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    found, expected = (jax.grad(lambda x, m=m: (m(x) ** 2).sum())(x) for m in (narrow(model), model))
    assert found.dtype == jnp.float32
    off = float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))
    assert 1e-4 < off < 2e-2


def test_products_within_calls_and_of_closures_are_found():
    weights = jax.random.normal(jax.random.key(1), (4, 2))

    @jax.jit
    def inside(x):
        return x @ weights

    x = jnp.ones((3, 4))
    assert products(narrow(lambda x: inside(x) @ jnp.ones((2, 2))), x) == ["bfloat16"] * 4
    assert products(narrow(inside, jnp.float16), x) == ["float16"] * 2


def test_calls_with_a_gradient_of_their_own_are_left_alone():
    @jax.custom_jvp
    def own(x):
        return x @ jnp.ones((4, 4))

    own.defjvp(lambda primals, tangents: (own(*primals), 7 * tangents[0]))
    x = jax.random.normal(jax.random.key(0), (4, 4))
    np.testing.assert_array_equal(narrow(own)(x), own(x))
    assert (jax.grad(lambda x: narrow(own)(x).sum())(x) == 7).all()


def test_products_of_integers_and_of_short_types_are_left_alone():
    x = jnp.arange(16).reshape(4, 4)
    np.testing.assert_array_equal(narrow(jnp.dot)(x, x), x @ x)
    half = jnp.ones((4, 4), jnp.bfloat16)
    assert narrow(jnp.dot)(half, half).dtype == jnp.bfloat16


def test_double_precision_is_narrowed_too(x64):
    a = jax.random.normal(jax.random.key(0), (10, 10), jnp.float64)
    found = narrow(jnp.dot)(a, a)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, rounded(a) @ rounded(a), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.int16, "float8_e4m3fn"])
def test_other_types_are_refused(dtype):
    with pytest.raises(TypeError, match="a floating-point type of 16 bits is needed"):
        jaxsal.in_precision(jaxsal.Split(jnp.sqrt, jnp.sum), dtype)


BLOCKS = (zoo.ConvBlock(4, kernel=3, pool=2), zoo.ConvBlock(6, kernel=3, pool=2))


@pytest.fixture(scope="module")
def model():
    model = zoo.MorphometryVGG(2, shape=(12, 14, 12), blocks=BLOCKS, dense=(8,), rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.fixture(scope="module")
def x():
    return jax.random.uniform(jax.random.key(0), (2, 12, 14, 12, 1)).at[:, 3:6, 3:6, 3:6].add(2.0)


def test_the_products_of_a_masked_tail_are_shared_in_the_short_type_too(model, x):
    split = jaxsal.split(model, x, "relu1")
    features, mask = split.head(x)[:1], jax.random.uniform(jax.random.key(1), split.head(x).shape[1:-1])
    tail = jaxsal.in_precision(split).tail

    def convolutions(fn):
        def count(program):
            total = 0
            for eqn in program.eqns:
                bodies = (
                    [jaxpr.inner(eqn)[0]] if jaxpr.inner(eqn) else [b.jaxpr for b in eqn.params.get("branches", ())]
                )
                total += (eqn.primitive.name == "conv_general_dilated") + sum(map(count, bodies))
            return total

        return count(jaxpr.trace(fn, mask).jaxpr)

    under = masked(tail, features)
    assert convolutions(under) == convolutions(masked(split.tail, features))
    assert convolutions(under) < convolutions(lambda mask: tail(features * mask[None, ..., None])) + 1
    found, gradient = jax.value_and_grad(lambda mask: under(mask).sum())(mask)
    expected, slope = jax.value_and_grad(lambda mask: split.tail(features * mask[None, ..., None]).sum())(mask)
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=3e-2)
    np.testing.assert_allclose(gradient, slope, atol=5e-2 * float(jnp.abs(slope).max()))


def test_masks_in_the_short_type_are_the_masks(model, x):
    split = jaxsal.split(model, x, "relu1")
    short = jaxsal.in_precision(split)
    # at the kinks of distance and smoothness two close runs part, more with every step
    options = dict(sigma=0.3, gamma=1.0, max_steps=30, solver=optim.nonnegative(optim.armijo_once()))
    expected, found = (smocam(each, x, **options) for each in (split, short))
    assert found.mask.dtype == found.value.dtype == found.terms.norm.dtype == jnp.float32
    assert not (found.mask == expected.mask).all()
    for one, other in zip(found.mask.reshape(4, -1), expected.mask.reshape(4, -1), strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.95
        assert np.linalg.norm(one - other) < 0.15 * np.linalg.norm(other)
    np.testing.assert_allclose(found.prediction, expected.prediction, atol=0.05 * 0.3)
    # under the exact tail, what the masks of the short one recover
    exact = split.tail(split.head(x) * found.mask[0][..., None])[:, 0]
    np.testing.assert_allclose(exact, expected.masked_prediction[0], atol=0.02 * 0.3)


def test_one_compilation_for_new_weights(x):
    models = [zoo.MorphometryVGG(2, shape=(12, 14, 12), blocks=BLOCKS, dense=(8,), rngs=nnx.Rngs(i)) for i in (0, 1)]
    traces = []

    def counted(split):
        def tail(tail, features):
            traces.append(1)
            return tail(features)

        return tail

    once = counted(None)
    results = []
    for model in models:
        model.eval()
        split = jaxsal.split(model, x, "relu1")
        short = jaxsal.in_precision(split._replace(tail=jax.tree_util.Partial(once, split.tail)))
        before = len(traces)
        results.append(smocam(short, x, sigma=0.3, max_steps=3))
        if len(results) == 2:
            assert len(traces) == before
    assert not (results[0].prediction == results[1].prediction).all()


def test_a_tagged_function_is_narrowed_with_what_it_closes_over(x):
    weights = jax.random.normal(jax.random.key(2), (4, 2))

    def function(x):
        features = checkpoint_name(jnp.tanh(x @ jnp.ones((1, 4))), "features")
        return features.mean((1, 2, 3)) @ weights

    split = jaxsal.split(function, x, "features")
    short = jaxsal.in_precision(split)
    assert isinstance(short.tail, Narrowed)
    features = split.head(x)
    assert products(short.tail, features) == ["bfloat16"] * 2
    expected = rounded(features.mean((1, 2, 3))) @ rounded(weights)
    np.testing.assert_allclose(short.tail(features), expected, rtol=1e-5, atol=1e-6)
