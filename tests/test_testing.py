"""The battery over jaxsal's own methods, and that it finds what is wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import jaxsal
from jaxsal import composites, testing
from jaxsal.testing import ALWAYS, completes, conserves, exact_where_linear, one_by_one, repeats_by_key

LRP = functools.partial(functools.partial, jaxsal.lrp)
NOISY = tuple(check for check in ALWAYS if check is not one_by_one)
METHODS = {
    "saliency": (jaxsal.saliency, ALWAYS),
    "input_x_gradient": (jaxsal.input_x_gradient, (*ALWAYS, exact_where_linear, conserves)),
    "integrated_gradients": (
        functools.partial(jaxsal.integrated_gradients, steps=8),
        (*ALWAYS, exact_where_linear, completes),
    ),
    "smooth_grad": (
        functools.partial(jaxsal.smooth_grad, samples=3, key=jax.random.key(0)),
        (*NOISY, repeats_by_key),
    ),
    "deconvnet": (jaxsal.deconvnet, ALWAYS),
    "guided_backprop": (jaxsal.guided_backprop, ALWAYS),
    "deep_lift": (jaxsal.deep_lift, (*ALWAYS, exact_where_linear, completes)),
    "reveal_cancel": (jaxsal.reveal_cancel, (*ALWAYS, exact_where_linear, completes)),
    "deep_taylor": (jaxsal.deep_taylor, (*ALWAYS, conserves)),
    "excitation_backprop": (jaxsal.excitation_backprop, (*ALWAYS, conserves)),
    "lrp_z": (LRP(composite=composites.z(bias=False)), (*ALWAYS, exact_where_linear, conserves)),
    "lrp_epsilon_plus": (LRP(composite=composites.epsilon_plus()), (*ALWAYS, exact_where_linear, conserves)),
    "lrp_alpha_beta_flat": (LRP(composite=composites.epsilon_alpha2_beta1_flat()), (*ALWAYS, conserves)),
}


def network(weights, x):
    """A convolution, ReLU, max-pool and dense layer without biases: it is 0 for zeros."""
    h = jax.lax.conv_general_dilated(x, weights[0], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    h = jax.lax.reduce_window(jax.nn.relu(h), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return h.reshape(len(h), -1) @ weights[1]


def drawn(*shape):
    # above 0 for the most part, so that no share is of nothing
    return jnp.asarray(np.random.default_rng(5).uniform(-0.3, 1, shape), jnp.float32)


MODEL = Partial(network, (drawn(3, 3, 1, 2), drawn(8, 2)))
X = drawn(2, 4, 4, 1)


@pytest.mark.parametrize("name", METHODS)
def test_the_methods_of_jaxsal(name):
    method, checks = METHODS[name]
    testing.check_method(method, MODEL, X, checks=checks)


def gradient(model, x, target=None, *, outputs=None, batch_size=None, change=lambda g: g):
    def one(target):
        targets = jnp.broadcast_to(jnp.asarray(target), (len(x),))
        return change(jax.grad(lambda x: jnp.take_along_axis(model(x), targets[:, None], 1).sum())(x))

    return one(target) if outputs is None else jnp.stack([one(k) for k in range(model(x).shape[1])])


def linear(x):
    return x.reshape(len(x), -1) @ jnp.arange(2.0 * x[0].size).reshape(-1, 2)


WRONG = {
    "shape_and_dtype": functools.partial(gradient, change=lambda g: g / 0),
    "one_by_one": functools.partial(gradient, change=lambda g: g / len(g)),
    "every_output": lambda model, x, target=0, *, outputs=None, batch_size=None: gradient(
        model, x, target, outputs=outputs
    )[:: 1 if outputs is None else -1],
    "targets_of_images": lambda model, x, target: gradient(model, x, jnp.max(jnp.asarray(target))),
    "under_jit": lambda model, x, target: gradient(model, x, target) * (1 + isinstance(x, jax.core.Tracer)),
    "no_new_trace": gradient,
    "exact_where_linear": gradient,
    "conserves": gradient,
    "completes": gradient,
    "repeats_by_key": lambda model, x, target, *, key: gradient(model, x, target),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_check_fails_where_its_property_does_not_hold(name):
    with pytest.raises(AssertionError, match=name):
        testing.check_method(WRONG[name], linear, X, checks=[getattr(testing, name)])


def test_every_check_that_fails_is_named():
    wrong = functools.partial(gradient, change=lambda g: g[:1])
    with pytest.raises(AssertionError, match=r"shape_and_dtype: .*\n(.*\n)*one_by_one: "):
        testing.check_method(wrong, linear, X, checks=ALWAYS[:2])
