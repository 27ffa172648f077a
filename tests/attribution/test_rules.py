"""Rules at one layer, against the textbook's sums over a dense matrix of weights; small cases computed by hand."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsal import composites, lrp, rules
from jaxsal.engine.rewire import rewire, sites

# what is small need not be compiled well
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
LOW, HIGH = (-3.0, -2.5), (3.0, 4.0)


class Case(NamedTuple):
    """``layer(before(x))``, where only the layer has weights and what is before works element by element."""

    shape: tuple[int, ...]
    layer: Callable[[jax.Array], jax.Array]
    before: Callable[[jax.Array], jax.Array] = lambda x: x
    slope: Callable[[np.ndarray], np.ndarray] = np.ones_like


def _random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape))


def _conv(kernel: tuple[int, ...], bias: bool = True, **how) -> Callable[[jax.Array], jax.Array]:
    """Channel-last convolution with a kernel ``[*space, in, out]`` and a bias of both signs."""
    letters = "DHW"[5 - len(kernel) :]
    how = {"window_strides": (1,) * len(letters), "padding": "SAME"} | how
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")

    def call(x: jax.Array) -> jax.Array:
        z = lax.conv_general_dilated(x, _random(*kernel), dimension_numbers=numbers, **how)
        return z + _per_channel(_random(kernel[-1], seed=1), z.ndim) if bias else z

    return call


def _per_channel(values: jax.Array, rank: int) -> jax.Array:
    return values.reshape((1,) * (rank - 1) + (-1,))


def _norm(channels: int, rank: int) -> Callable[[jax.Array], jax.Array]:
    """BatchNorm in inference, as it is written; of the channels' scales one is below 0."""
    mean, scale, shift = (_per_channel(_random(channels, seed=s), rank) for s in (2, 3, 4))
    variance = jnp.abs(_per_channel(_random(channels, seed=5), rank)) + 0.5
    scale = jnp.where(jnp.arange(channels) == 0, -1.3, scale)

    def call(z: jax.Array) -> jax.Array:
        return (z - mean) * (lax.rsqrt(variance + 1e-5) * scale) + shift

    return call


def _cases() -> dict[str, Case]:
    dense = _random(3, 2, 5)
    conv, norm = _conv((3, 3, 1, 4), feature_group_count=2, rhs_dilation=(2, 1)), _norm(4, 4)
    before = _norm(2, 4)
    gain = np.asarray(before(jnp.ones((1, 1, 1, 2))) - before(jnp.zeros((1, 1, 1, 2))))
    return {
        "dense": Case((2,), lambda x: x @ dense[1] + _random(1, 5)),
        "dense at every place": Case((3, 2), lambda x: jnp.einsum("bsc,co->bso", x, dense[0]) + _random(1, 1, 5)),
        "1-D, stride": Case((7, 2), _conv((3, 2, 3), window_strides=(2,), padding=[(1, 2)])),
        "2-D, groups, dilated, BatchNorm after": Case((4, 3, 2), lambda x: norm(conv(x))),
        "3-D, stride": Case((3, 4, 3, 2), _conv((2, 3, 2, 2, 3), window_strides=(1, 2, 1))),
        "2-D, transposed": Case((2, 3, 2), _conv((3, 3, 2, 3), lhs_dilation=(2, 2), padding=[(1, 1), (2, 1)])),
        "2-D, BatchNorm before": Case((3, 3, 2), _conv((2, 2, 2, 3)), before, lambda x: np.broadcast_to(gain, x.shape)),
        "2-D, ReLU before": Case((3, 4, 2), _conv((3, 2, 2, 3)), jax.nn.relu),
        "1-D, without bias": Case((5, 2), _conv((3, 2, 2), bias=False)),
    }


CASES = (
    "dense", "dense at every place", "1-D, stride", "2-D, groups, dilated, BatchNorm after", "3-D, stride",
    "2-D, transposed", "2-D, BatchNorm before", "2-D, ReLU before", "1-D, without bias",
)  # fmt: skip
RULES = {
    "z": rules.z(),
    "epsilon": rules.epsilon(0.25),
    "epsilon without bias": rules.epsilon(0.25, bias=False),
    "alpha-beta 2 1": rules.alpha_beta(),
    "alpha-beta 2 1 without bias": rules.alpha_beta(bias=False),
    "alpha-beta 1 0": rules.alpha_beta(1, 0, eps=1e-3),
    "z+ without bias": rules.z_plus(bias=False),
    "gamma": rules.gamma(0.25),
    "gamma without bias": rules.gamma(0.5, bias=False),
    "flat": rules.flat(),
    "w^2": rules.w_square(),
    "w^2 with bias": rules.w_square(bias=True),
    "z-box": rules.z_box(LOW, HIGH),
}


def _stabilised(z: np.ndarray, eps: float) -> np.ndarray:
    return np.where(z >= 0, z + eps, z - eps)


def _shares(parts: np.ndarray, rest: np.ndarray | float, eps: float = 1e-6) -> np.ndarray:
    """Of every output, each input's part in the sum of all parts and the rest: ``[m, n]``."""
    return parts / _stabilised(parts.sum(1) + rest, eps)[:, None]


def _textbook(w: np.ndarray, b: np.ndarray, a: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """Every rule's matrix of shares ``[m, n]``, from contributions ``a_i w_ji`` written out and split by sign."""
    c = w * a
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    b_up, b_down = np.maximum(b, 0), np.minimum(b, 0)
    positive, negative = ((sign * (c.sum(1) + b) > 0)[:, None] for sign in (1, -1))

    def gamma(g: float, bias: float) -> np.ndarray:
        above = _shares(c + g * up, bias * (b + g * b_up))
        return np.where(positive, above, 0) + np.where(negative, _shares(c + g * down, bias * (b + g * b_down)), 0)

    return {
        "z": _shares(c, b, 1e-9),
        "epsilon": _shares(c, b, 0.25),
        "epsilon without bias": _shares(c, 0, 0.25),
        "alpha-beta 2 1": 2 * _shares(up, b_up) - _shares(down, b_down),
        "alpha-beta 2 1 without bias": 2 * _shares(up, 0) - _shares(down, 0),
        "alpha-beta 1 0": _shares(up, b_up, 1e-3),
        "z+ without bias": _shares(up, 0),
        "gamma": gamma(0.25, 1),
        "gamma without bias": gamma(0.5, 0),
        "flat": _shares((w != 0).astype(float), 0),
        "w^2": _shares(w**2, 0),
        "w^2 with bias": _shares(w**2, b**2),
        "z-box": _shares(c - np.maximum(w, 0) * low - np.minimum(w, 0) * high, 0),
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CASES)
def test_rules_of_linear_layers_are_the_textbooks(name: str):
    case = _cases()[name]
    x = _random(2, *case.shape, seed=7)
    zero = jnp.zeros((1, *case.shape))
    out = jax.eval_shape(case.layer, x).shape
    r = _random(*out, seed=8)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def everything(x: jax.Array, r: jax.Array):
        propagated = {
            rule_name: jax.vjp(rewire(lambda x: case.layer(case.before(x)), composites.uniform(rule)), x)[1](r)[0]
            for rule_name, rule in RULES.items()
        }
        flat = lambda x: case.layer(x.reshape(zero.shape)).ravel()  # noqa: E731
        return propagated, jax.jacfwd(flat)(zero.ravel()), case.layer(zero), case.before(x)

    found, w, b, a = jax.tree.map(np.asarray, everything(x, r))
    low, high = (np.broadcast_to(np.asarray(bound), case.shape).ravel() for bound in (LOW, HIGH))
    assert w.min() < 0 < w.max()
    for image in range(2):
        expected = _textbook(w, b.ravel(), a[image].ravel(), low, high)
        for rule_name, shares in expected.items():
            relevance = (shares.T @ np.asarray(r[image]).ravel()).reshape(case.shape)
            scale = np.abs(relevance).max()
            np.testing.assert_allclose(
                found[rule_name][image], relevance, rtol=0, atol=1e-10 * scale, err_msg=rule_name
            )


@pytest.mark.usefixtures("x64")
def test_a_batchnorm_before_a_convolution_shares_with_its_shift_or_passes_on():
    case = _cases()["2-D, BatchNorm before"]
    x, rule = _random(1, *case.shape, seed=7), rules.epsilon(0.1)

    @jax.jit
    def both(x: jax.Array):
        fn = lambda x: case.layer(case.before(x))  # noqa: E731
        a, r = case.before(x), jnp.ones_like(case.layer(x))
        at_conv = jax.vjp(rewire(case.layer, composites.uniform(rule)), a)[1](r)[0]
        return a, at_conv, jax.vjp(rewire(fn, composites.uniform(rule, affine=rule)), x)[1](r)[0]

    a, at_conv, shared = map(np.asarray, both(x))
    np.testing.assert_allclose(shared, np.asarray(x) * case.slope(np.asarray(x)) / _stabilised(a, 0.1) * at_conv)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 0.5), (0.5, -0.5)])
def test_alpha_beta_must_conserve(alpha: float, beta: float):
    with pytest.raises(ValueError, match="alpha - beta must be 1"):
        rules.alpha_beta(alpha, beta)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), ((0.0, 2.0), 1.0), ((0.0, 2.0), (1.0, 1.0))])
def test_bounds_must_be_in_order(low, high):
    with pytest.raises(ValueError, match="must lie below"):
        rules.z_box(low, high)


def test_bounds_must_be_one_for_each_channel():
    box = composites.uniform(rules.z_box((0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match=r"2 bounds.*give one number, or 3"):
        jax.grad(lambda x: rewire(lambda x: x @ jnp.ones((3, 1)), box)(x)[0, 0])(jnp.ones((1, 3)))


def test_equal_rules_are_one_static_argument():
    assert rules.gamma(0.1) == rules.gamma(0.1) != rules.gamma(0.2)
    assert hash(rules.z_box([0.0, 1.0], 2)) == hash(rules.z_box((0.0, 1.0), 2.0))
    assert rules.z_box(np.zeros(2), jnp.ones(2)) == rules.z_box((0, 0), [1.0, 1.0])
    single = np.float32(0.5)
    for rule in (rules.epsilon, rules.z, rules.flat, rules.w_square, rules.z_plus, rules.same_sign, rules.in_proportion,
                 rules.by_magnitude):  # fmt: skip
        assert hash(rule(eps=jnp.asarray(single))) == hash(rule(eps=single)) == hash(rule(eps=0.5))
    assert hash(rules.gamma(jnp.asarray(single), np.True_, single)) == hash(rules.gamma(0.5, eps=0.5))
    assert hash(rules.alpha_beta(jnp.asarray(2.0), single * 2)) == hash(rules.alpha_beta())
    lrp(lambda x: x.sum(1), jnp.ones((1, 2, 1)), composite=composites.epsilon(jnp.float32(1e-3)))  # type: ignore[arg-type]


def test_stabilisers_must_not_be_below_zero():
    for rule in (rules.epsilon, rules.flat, rules.in_proportion, rules.gamma):
        with pytest.raises(ValueError, match=r"-1.*at least 0 is needed"):
            rule(-1)
    with pytest.raises(ValueError, match=r"shape \(1, 2\).*one for each channel"):
        rules.z_box(0.0, np.ones((1, 2)))


@pytest.mark.parametrize(("composite", "dtype"), [
    (composites.epsilon(0.0), "float32"), (composites.z(), "float16"), (composites.epsilon(), "float16"),
    (composites.z_plus(), "bfloat16"), (dataclasses.replace(composites.z(), sum=rules.by_magnitude(0.0)), "float32"),
])  # fmt: skip
def test_an_image_of_zeros_has_a_map_of_zeros(composite, dtype: str):
    w = jnp.array([[1.0, -2.0], [3.0, 1.0]], dtype)

    def model(x: jax.Array) -> jax.Array:
        return (x[..., 0] @ w + x[..., 0]).sum(1, keepdims=True)

    found = lrp(model, jnp.array([[[0.0], [0.0]], [[2.0], [1.0]]], dtype), composite=composite, start="one")
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1].astype(jnp.float32).sum(), 1, rtol=0.05)


# by hand


def _back(fn, x, r, composite) -> np.ndarray:
    x, r = jnp.asarray(x, float), jnp.asarray(r, float)
    return np.asarray(jax.vjp(rewire(fn, composite), x)[1](r)[0])


def test_lrp_0_of_two_neurons():
    fn = lambda a: a @ jnp.array([[3.0, 5.0], [4.0, 6.0]]) + jnp.array([[7.0, 8.0]])  # noqa: E731
    found = _back(fn, [[1, 2]], [[1 / 3, 2 / 3]], composites.z())
    np.testing.assert_allclose(found, [[17 / 90, 316 / 675]], rtol=1e-6)


def test_skip_connection_shares_with_what_it_skips():
    def fn(a: jax.Array) -> jax.Array:
        return a + jax.nn.relu(a @ jnp.array([[3.0, 5.0], [4.0, 6.0]]) + jnp.array([[7.0, 8.0]]))

    for r, expected in (([[1, 0]], [4 / 19, 8 / 19]), ([[0, 1]], [5 / 27, 14 / 27])):
        np.testing.assert_allclose(_back(fn, [[1, 2]], r, composites.z())[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("composite", "expected"), [
    (composites.alpha_beta(1, 0), [-1, 0]), (composites.z_plus(), [-1, 0]), (composites.alpha_beta(2, 1), [-2, 0.5]),
])  # fmt: skip
def test_a_bias_below_zero_counts_among_what_inhibits_alone(composite, expected):
    fn = lambda a: a @ jnp.array([[1.0], [-1.0]]) + jnp.array([[-1.0]])  # noqa: E731
    np.testing.assert_allclose(_back(fn, [[1, 1]], [[-1]], composite)[0], expected, rtol=1e-5)


def test_gamma_favours_what_inhibits_where_the_output_is_below_zero():
    fn = lambda a: jax.nn.leaky_relu(a @ jnp.array([[1.0], [-2.0]]), 0.1)  # noqa: E731
    # parts 1 and -2; -2 counts half as much again, so they are 1 and -3 of -2; and likewise for an input below 0
    np.testing.assert_allclose(_back(fn, [[1, 1]], [[-0.1]], composites.gamma(0.5)), [[0.05, -0.15]], rtol=1e-5)
    np.testing.assert_allclose(_back(fn, [[1, -1]], [[3.0]], composites.gamma(0.5)), [[1.0, 2.0]], rtol=1e-5)


def test_overlapping_maxima_gather_and_the_first_of_equals_wins():
    x = jnp.array([[1.0, 2, 3], [10, 5, 6], [7, 8, 9]]).reshape(1, 3, 3, 1)
    r = jnp.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1) / 30
    fn = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")  # noqa: E731
    found = _back(fn, x, r, composites.z())
    np.testing.assert_allclose(found[0, ..., 0] * 30, [[0, 0, 0], [4, 0, 2], [0, 0, 4]], rtol=1e-6)
    tied = _back(fn, jnp.ones((1, 3, 3, 1)), r, composites.z())
    np.testing.assert_allclose(tied[0, ..., 0] * 30, [[1, 2, 0], [3, 4, 0], [0, 0, 0]], rtol=1e-6)
    everywhere = _back(fn, x, r, composites.response(unpool=rules.repeated))
    np.testing.assert_allclose(everywhere[0, ..., 0] * 30, [[1, 3, 2], [4, 10, 6], [3, 7, 4]], rtol=1e-6)


@pytest.mark.parametrize(("pool", "shape"), [((2, 2, 2), (2, 2, 2)), ((2, 2), (2, 2))])
def test_a_maximum_pool_gives_all_to_the_largest_voxel(pool, shape):
    x = 1 + jnp.arange(float(np.prod(shape))).reshape(1, *shape, 1)
    window = (1, *pool, 1)

    def fn(x: jax.Array) -> jax.Array:
        return jax.nn.relu(lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")).reshape(1, 1)

    expected = np.zeros(x.shape)
    expected.flat[-1] = x.max()
    np.testing.assert_array_equal(lrp(fn, x, composite=composites.epsilon()), expected)
    across = lambda x: x.max(tuple(range(1, x.ndim - 1)))  # noqa: E731
    np.testing.assert_array_equal(lrp(across, x, composite=composites.epsilon()), expected)


def test_an_average_and_a_sum_share_in_proportion():
    x = jnp.array([[[1.0], [3.0], [-2.0], [4.0]]])
    mean = lambda x: x.mean(1)  # noqa: E731
    np.testing.assert_allclose(lrp(mean, x, composite=composites.z_plus()), x / 4, rtol=1e-5)
    pooled = lambda x: (lax.reduce_window(x, 0.0, lax.add, (1, 2, 1), (1, 2, 1), "VALID") / 2).sum(1)  # noqa: E731
    np.testing.assert_allclose(lrp(pooled, x, composite=composites.z_plus()), x / 2, rtol=1e-5)


def test_residual_sums_that_cancel_are_tamed_by_magnitude():
    fn = lambda x: x[..., :1] - x[..., 1:]  # noqa: E731
    x = jnp.array([[3.0, 2.99]])
    usual = composites.z()
    blown = _back(fn, x, [[1.0]], usual)
    np.testing.assert_allclose(blown, [[300.0, -299.0]], rtol=1e-3)
    tamed = _back(fn, x, [[1.0]], dataclasses.replace(usual, sum=rules.by_magnitude()))
    np.testing.assert_allclose(tamed, [[3 / 5.99, 2.99 / 5.99]], rtol=1e-5)


def test_a_product_gives_half_to_each_factor_and_a_gate_nothing():
    x = jnp.array([[3.0, -2.0]])
    both = lambda x: x[..., :1] * x[..., 1:]  # noqa: E731
    np.testing.assert_allclose(_back(both, x, [[-6.0]], composites.z()), [[-3.0, -3.0]], rtol=1e-5)
    gated = lambda x: x[..., :1] * jax.nn.sigmoid(x[..., 1:])  # noqa: E731
    np.testing.assert_allclose(_back(gated, x, [[2.0]], composites.z()), [[2.0, 0.0]], rtol=1e-5)


def test_tables_of_rules():
    w1, w2 = jnp.ones((3, 3, 1, 2)), jnp.ones((2, 3))
    weights = {"stem": {"kernel": w1}, "head": {"kernel": w2}}

    def fn(weights, x: jax.Array) -> jax.Array:
        h = lax.conv_general_dilated(
            x, weights["stem"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(h).mean((1, 2)) @ weights["head"]["kernel"]

    model, x = jax.tree_util.Partial(fn, weights), jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)

    def chosen(composite) -> list:
        return [rule for site, rule in sites(model, x, composite) if site.kind in ("convolution", "dense")]

    plus, eps, flat = rules.z_plus(), rules.epsilon(1e-6), rules.flat()
    assert chosen(composites.epsilon_plus()) == [plus, eps]
    assert chosen(composites.epsilon_plus_flat()) == [flat, eps]
    assert chosen(composites.epsilon_alpha2_beta1()) == [rules.alpha_beta(), eps]
    assert chosen(composites.epsilon_gamma_box(-1, 1)) == [rules.z_box(-1, 1), eps]
    assert chosen(composites.preset_a_flat()) == [flat, rules.epsilon(0.1)]
    assert chosen(composites.preset_b()) == [rules.alpha_beta(), rules.epsilon(0.1)]
    *_, (head, _) = sites(model, x, composites.epsilon_plus())
    assert head.name.endswith("head")
    assert chosen(composites.named({head.name: flat}, composites.epsilon_plus())) == [plus, flat]
    assert [site.kind for site, _ in sites(model, x, composites.epsilon_plus())] == [
        "convolution", "activation", "average", "dense",
    ]  # fmt: skip
