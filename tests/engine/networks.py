"""Small networks of many kinds, each written once with what relevance propagation holds constant left open.

With :data:`PLAIN` a network is what a user writes. With :data:`TEXTBOOK` its gradient times the image is LRP-0 with
biases: activations are multiplied by what they multiplied with, statistics and gates are constants, products give half
of their relevance to each factor.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

hold = lax.stop_gradient


class Ops(NamedTuple):
    """How a network does what relevance propagation does in another way."""

    act: Callable[..., Any]  # (fn, x)
    hold: Callable[..., Any]  # a statistic or a gate
    product: Callable[..., Any]  # (fn, a, b)


PLAIN = Ops(lambda fn, x: fn(x), lambda x: x, lambda fn, a, b: fn(a, b))
TEXTBOOK = Ops(
    lambda fn, x: x * hold(fn(x) / jnp.where(x == 0, 1, x)),
    hold,
    lambda fn, a, b: (fn(a, hold(b)) + fn(hold(a), b)) / 2,
)


class Network(NamedTuple):
    """A network and its images' shape."""

    name: str
    fn: Callable[..., Any]  # (ops, w, x), of which w(*shape) draws weights
    shape: tuple[int, ...]
    sites: str

    def model(self, ops: Ops) -> Callable[[jax.Array], jax.Array]:
        """The network; its weights are the same for the same way to run it."""
        rng = np.random.default_rng(7)
        drawn = []
        jax.eval_shape(functools.partial(self.fn, ops, _Drawing(rng, drawn)), self.image())
        weights = jax.tree.map(jnp.asarray, drawn)
        return lambda x: self.fn(ops, _Handing(weights), x)

    def image(self) -> jax.Array:
        """Images, some values below 0."""
        return jnp.asarray(np.random.default_rng(1).normal(size=self.shape) + 0.2)


class _Drawing:
    def __init__(self, rng: Any, drawn: list[np.ndarray]):
        self.rng, self.drawn = rng, drawn

    def __call__(self, *shape: int) -> Any:
        self.drawn.append(self.rng.normal(size=shape) / np.sqrt(max(np.prod(shape[:-1]), 1)))
        return jnp.asarray(self.drawn[-1])


class _Handing:
    def __init__(self, weights: list[Any]):
        self.weights = iter(weights)

    def __call__(self, *shape: int) -> Any:
        return next(self.weights)


NETWORKS: list[Network] = []


def network(*shape: int, sites: str = "") -> Callable[[Any], Any]:
    """Note a network, with the kinds of its sites in order, abbreviated."""

    def note(fn: Any) -> Any:
        NETWORKS.append(Network(fn.__name__, fn, shape, sites))
        return fn

    return note


def conv(x: Any, kernel: Any, strides: Any = 1, padding: Any = "SAME", **more: Any) -> Any:
    rank = x.ndim - 2
    strides = (strides,) * rank if isinstance(strides, int) else strides
    dims = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}[rank]
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dims, **more)


def bn(w: Any, h: Any, axis: int = -1) -> Any:
    """BatchNorm in inference."""
    channels = h.shape[axis]
    shape = [1] * h.ndim
    shape[axis] = channels
    mean, var, scale, shift = (w(channels).reshape(shape) for _ in range(4))
    return (h - mean) / jnp.sqrt(var**2 + 0.5) * (1 + scale) + shift


def dense(w: Any, h: Any, k: int = 3) -> Any:
    h = h.reshape(len(h), -1)
    return h @ w(h.shape[1], k) + w(k)[None]


def relu(x: Any) -> Any:
    return jax.nn.relu(x)


# convolutions


@network(2, 6, 5, 2, sites="conv act dense")
def conv_bn(o, w, x):
    return dense(w, o.act(relu, bn(w, conv(x, w(3, 3, 2, 4)) + w(4).reshape(1, 1, 1, 4))))


@network(2, 4, 4, 5, 1, sites="conv act conv act dense")
def volume(o, w, x):
    h = o.act(relu, bn(w, conv(x, w(3, 3, 3, 1, 3), 2)))
    return dense(w, o.act(relu, bn(w, conv(h, w(2, 2, 2, 3, 2), padding="VALID"))))


@network(2, 9, 2, sites="conv act dense")
def signal(o, w, x):
    return dense(w, o.act(relu, bn(w, conv(x, w(3, 2, 4), rhs_dilation=(2,)))))


@network(2, 6, 5, 2, sites="conv act dense")
def channels_first(o, w, x):
    """As a converted network computes: its own layout inside, the scale of BatchNorm behind a transposition."""
    h = jnp.moveaxis(x, -1, 1)
    h = lax.conv_general_dilated(h, w(4, 2, 3, 3), (1, 1), "SAME")
    h = h + w(4).reshape(1, 4, 1, 1)
    return dense(w, o.act(relu, bn(w, h, axis=1)))


@network(2, 6, 5, 2, sites="conv act dense")
def conv_transpose_bn(o, w, x):
    h = lax.conv_general_dilated(jnp.moveaxis(x, -1, 1), w(4, 2, 3, 3), (1, 1), "SAME")
    return dense(w, o.act(relu, bn(w, jnp.moveaxis(h, 1, -1))))


@network(2, 3, 3, 2, sites="dense act dense")
def dense_bn(o, w, x):
    return dense(w, o.act(relu, bn(w, dense(w, x, 5))))


@network(2, 3, 3, 2, sites="dense act dense")
def dense_transposed(o, w, x):
    """Weights first, examples last."""
    h = jnp.tensordot(w(18, 5), x.reshape(2, -1), ((0,), (1,)))
    return dense(w, o.act(relu, bn(w, h, axis=0)).T)


@network(2, 4, 4, 2, sites="conv act dense")
def full_bias(o, w, x):
    h = conv(x, w(3, 3, 2, 3))
    return dense(w, o.act(relu, h + jnp.broadcast_to(w(3), h.shape)))


@network(2, 4, 4, 2, sites="conv act dense")
def bias_of_places(o, w, x):
    return dense(w, o.act(relu, conv(x, w(3, 3, 2, 3)) + w(4, 4, 3)[None]))


@network(2, 4, 4, 2, sites="conv affine act dense")
def scale_of_places(o, w, x):
    return dense(w, o.act(relu, conv(x, w(3, 3, 2, 3)) * (1 + w(4, 4, 3)[None]) + 0.1))


@network(2, 4, 4, 2, sites="affine conv act affine conv act dense")
def bn_first(o, w, x):
    h = o.act(relu, conv(bn(w, x), w(3, 3, 2, 3)))
    return dense(w, o.act(relu, conv(bn(w, h), w(3, 3, 3, 2))))


@network(2, 3, 4, 2, sites="conv act dense")
def transposed_conv(o, w, x):
    return dense(w, o.act(relu, bn(w, lax.conv_transpose(x, w(3, 3, 2, 3), (2, 2), "SAME"))))


@network(2, 5, 5, 4, sites="conv act conv act conv act dense")
def grouped(o, w, x):
    act = functools.partial(o.act, jax.nn.elu)
    h = act(bn(w, conv(x, w(3, 3, 2, 6), feature_group_count=2)))
    h = act(bn(w, conv(h, w(3, 3, 1, 6), rhs_dilation=(2, 2), feature_group_count=6)))
    return dense(w, act(bn(w, conv(h, w(1, 1, 6, 2), 2))))


@network(2, 4, 4, 2, sites="dense act dense")
def pointwise_dense(o, w, x):
    return dense(w, o.act(relu, jnp.einsum("bhwc,ck->bhwk", x, w(2, 3)) + w(3).reshape(1, 1, 1, 3)))


@network(2, 4, 4, 2, sites="conv act dense")
def negated(o, w, x):
    return dense(w, o.act(relu, 1.5 - conv(x, w(3, 3, 2, 3)) / 2))


# sums


@network(2, 4, 4, 2, sites="conv act conv act conv sum act dense")
def residual(o, w, x):
    h = o.act(relu, bn(w, conv(x, w(3, 3, 2, 3))))
    r = bn(w, conv(o.act(relu, bn(w, conv(h, w(3, 3, 3, 3)))), w(3, 3, 3, 3)))
    return dense(w, o.act(relu, h + r))


@network(2, 4, 4, 2, sites="conv act conv sum affine act dense")
def residual_scaled(o, w, x):
    h = o.act(relu, bn(w, conv(x, w(3, 3, 2, 3))))
    return dense(w, o.act(relu, bn(w, h + conv(h, w(3, 3, 3, 3)))))


@network(2, 4, 4, 2, sites="conv conv affine sum dense")
def difference(o, w, x):
    return dense(w, conv(x, w(3, 3, 2, 3)) - conv(x, w(3, 3, 2, 3)))


@network(2, 4, 4, 2, sites="conv conv sum conv sum sum dense")
def four_summands(o, w, x):
    parts = [conv(x, w(3, 3, 2, 2)) for _ in range(3)]
    return dense(w, sum(parts[1:], parts[0]) + x)


@network(2, 4, 4, 2, sites="conv act act affine dense")
def doubled(o, w, x):
    h = conv(x, w(3, 3, 2, 3))
    return dense(w, o.act(relu, h + h) + 0.5)


@network(2, 4, 4, 2, sites="conv act conv sum act conv sum dense")
def reused(o, w, x):
    """One activation, one kernel, used again and again."""
    kernel, act = w(3, 3, 2, 2), functools.partial(o.act, jax.nn.relu)
    h = act(conv(x, kernel))
    h = act(h + conv(h, kernel))
    return dense(w, h + conv(h, kernel))


# moves


@network(2, 4, 4, 2, sites="conv conv act act conv act dense")
def concatenated(o, w, x):
    a, b = (o.act(relu, conv(x, w(3, 3, 2, 2))) for _ in range(2))
    constant = jnp.broadcast_to(w(1), (2, 4, 4, 1))
    return dense(w, o.act(relu, conv(jnp.concatenate([a, b, x, constant], -1), w(1, 1, 7, 2))))


@network(2, 4, 5, 2, sites="conv act dense")
def moved(o, w, x):
    h = jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))
    h = jnp.pad(h, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")[:, ::2, 1:-1]
    h = jnp.roll(jnp.flip(h, 1), 1, 2).reshape(2, -1, 4)[:, jnp.array([5, 7, 7, 9])]
    a, b = jnp.split(o.act(jax.nn.leaky_relu, conv(h, w(3, 4, 4))), 2, -1)
    h = jnp.stack([a, b], 1)[:, 0].swapaxes(1, 2)[:, None].squeeze(1)
    return dense(w, jnp.tile(h, (1, 2, 1)))


@network(2, 4, 4, 4, sites="conv act dense")
def pixel_shuffled(o, w, x):
    h = conv(x, w(3, 3, 4, 8)).reshape(2, 4, 4, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5).reshape(2, 8, 8, 2)
    return dense(w, o.act(relu, h))


@network(2, 4, 4, 2, sites="average average conv act average average dense")
def resized(o, w, x):
    h = jax.image.resize(x, (2, 7, 8, 2), "linear")
    h = jax.image.resize(o.act(relu, conv(h, w(3, 3, 2, 2))), (2, 3, 3, 2), "cubic")
    return dense(w, h)


# pools


def avg_pool(x, window, padding="VALID"):
    size = (1, *(window,) * (x.ndim - 2), 1)
    return lax.reduce_window(x, 0.0, lax.add, size, size, padding)


@network(2, 6, 6, 2, sites="conv act average conv act average dense")
def average_pools(o, w, x):
    h = o.act(relu, conv(x, w(3, 3, 2, 3)))
    h = avg_pool(h, 2) / 4
    h = o.act(relu, conv(h, w(3, 3, 3, 2)))
    return dense(w, avg_pool(h, 2, "SAME") / avg_pool(jnp.ones_like(h), 2, "SAME"))


@network(2, 5, 4, 2, sites="conv act average affine dense")
def global_average(o, w, x):
    return dense(w, bn(w, o.act(relu, conv(x, w(3, 3, 2, 3))).mean((1, 2))))


@network(2, 6, 5, 2, sites="conv act pool conv act pool dense")
def max_pools(o, w, x):
    h = nnx.max_pool(o.act(relu, conv(x, w(3, 3, 2, 3))), (2, 2), (2, 2), padding="SAME")
    return dense(w, o.act(relu, conv(h, w(3, 3, 3, 2))).max((1, 2)))


@network(2, 6, 6, 2, sites="conv pool pool dense")
def minima(o, w, x):
    h = conv(x, w(3, 3, 2, 2))
    return dense(w, lax.reduce_window(h, jnp.inf, lax.min, (1, 2, 2, 1), (1, 2, 1, 1), "VALID").min(2))


# normalisation


def normalise(o, x, axes, fast=False):
    mean = x.mean(axes, keepdims=True)
    var = (x**2).mean(axes, keepdims=True) - mean**2 if fast else ((x - mean) ** 2).mean(axes, keepdims=True)
    return (x - o.hold(mean)) * o.hold(lax.rsqrt(var + 1e-3))


@network(2, 5, 4, 2, sites="conv statistic statistic affine act dense")
def instance_norm(o, w, x):
    h = normalise(o, conv(x, w(3, 3, 2, 3)), (1, 2))
    return dense(w, o.act(relu, h * (1 + w(3).reshape(1, 1, 1, 3)) + w(3).reshape(1, 1, 1, 3)))


@network(2, 4, 4, 2, sites="conv statistic statistic affine act dense")
def instance_norm_fast(o, w, x):
    h = conv(x, w(3, 3, 2, 3))
    mean = h.mean((1, 2), keepdims=True)
    var = jnp.maximum(0, (h**2).mean((1, 2), keepdims=True) - mean**2)
    return dense(w, o.act(relu, (h - o.hold(mean)) / o.hold(jnp.sqrt(var + 1e-3))))


@network(2, 4, 4, 2, sites="conv statistic statistic affine affine act dense")
def group_norm(o, w, x):
    h = conv(x, w(3, 3, 2, 4))
    h = normalise(o, h.reshape(2, 4, 4, 2, 2), (1, 2, 4), fast=True).reshape(h.shape)
    return dense(w, o.act(relu, h * (1 + w(4).reshape(1, 1, 1, 4))))


@network(2, 4, 3, sites="dense statistic statistic affine act dense")
def layer_norm(o, w, x):
    return dense(w, o.act(relu, normalise(o, x @ w(3, 5), -1) * w(5).reshape(1, 1, 5) + 0.1))


@network(2, 4, 3, sites="dense statistic affine act dense")
def rms_norm(o, w, x):
    h = x @ w(3, 5)
    return dense(w, o.act(relu, h / o.hold(jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-3))))


@network(2, 4, 4, 2, sites="conv act dense")
def weight_standardised(o, w, x):
    kernel = w(3, 3, 2, 4)
    kernel = (kernel - kernel.mean((0, 1, 2), keepdims=True)) / kernel.std((0, 1, 2), keepdims=True)
    return dense(w, o.act(relu, conv(x, kernel)))


# activations


ACTIVATIONS = {
    "elu": jax.nn.elu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "exact_gelu": functools.partial(jax.nn.gelu, approximate=False),
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_swish": jax.nn.hard_swish,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "mish": jax.nn.mish,
    "where": lambda x: jnp.where(x > 0, x, 0),
    "maximum": lambda x: jnp.maximum(x, 0),
    "clip": lambda x: jnp.clip(x, 0, 1),
    "half_squared": lambda x: x * jnp.abs(x) / 2,
}

# a ReLU is a site of its own, and so is a scale that is no part of a named activation
_SITES = {"clip": "conv act act dense act act", "half_squared": "conv act affine dense act affine"}


def _activated(name, fn):
    @network(2, 4, 4, 2, sites=_SITES.get(name, "conv act dense act"))
    def activated(o, w, x):
        return o.act(fn, dense(w, o.act(fn, bn(w, conv(x, w(3, 3, 2, 3))))))

    NETWORKS[-1] = NETWORKS[-1]._replace(name=name)


for _name, _fn in ACTIVATIONS.items():
    _activated(_name, _fn)


@network(2, 4, 4, 2, sites="conv act dense")
def prelu(o, w, x):
    slope = 0.3 * w(3).reshape(1, 1, 1, 3)
    return dense(w, o.act(lambda h: jnp.where(h >= 0, h, slope * h), conv(x, w(3, 3, 2, 3))))


@jax.custom_jvp
def cubed(x):
    return x**3


cubed.defjvp(lambda primals, tangents: (cubed(*primals), 3 * primals[0] ** 2 * tangents[0]))


@jax.custom_vjp
def doubled_root(x):
    return 2 * jnp.sqrt(1 + x**2)


doubled_root.defvjp(lambda x: (doubled_root(x), x), lambda x, g: (2 * x / jnp.sqrt(1 + x**2) * g,))


@network(2, 4, 4, 2, sites="conv act dense act dense")
def own_derivatives(o, w, x):
    h = o.act(cubed, conv(x, w(3, 3, 2, 3)))
    return dense(w, o.act(doubled_root, dense(w, h, 4)))


# program structure


@network(2, 4, 4, 2, sites="conv act conv act dense")
def nested_jit(o, w, x):
    block = jax.jit(lambda h, k, b: o.act(jax.nn.relu, conv(h, k) + b.reshape(1, 1, 1, -1)))
    outer = jax.jit(lambda h, k, b: block(block(h, k, b), k, b))
    return dense(w, outer(x, w(3, 3, 2, 2), w(2)))


@network(2, 4, 4, 2, sites="conv act conv act dense")
def checkpointed(o, w, x):
    block = jax.checkpoint(lambda h, k: o.act(jax.nn.relu, conv(h, k)))
    return dense(w, block(block(x, w(3, 3, 2, 2)), w(3, 3, 2, 2)))


@network(2, 4, 4, 2, sites="conv act conv act conv act average average average average sum sum dense")
def scanned(o, w, x):
    """A stack of layers, their kernels stacked, and what they give on the way, summed up."""

    def layer(h, kernel):
        h = o.act(jax.nn.relu, conv(h, kernel))
        return h, h.mean((1, 2))

    h, ys = lax.scan(layer, x, w(3, 3, 3, 2, 2))
    return dense(w, h.mean((1, 2)) + ys[0] + ys[1])


@network(2, 4, 2, sites="dense dense dense sum act dense dense sum act dense dense sum act dense")
def recurrent(o, w, x):
    inward, onward = w(2, 3), w(3, 3)
    step = lambda h, x_t: (o.act(jnp.tanh, x_t @ inward + h @ onward), None)  # noqa: E731
    start = x[:, 0] @ w(2, 3)
    return dense(w, lax.scan(step, start, x.swapaxes(0, 1)[1:], reverse=True)[0])


# products


@network(2, 4, 4, 3, sites="conv act statistic affine dense")
def squeezed_and_excited(o, w, x):
    h = o.act(relu, conv(x, w(3, 3, 3, 4)))
    gate = o.hold(jax.nn.sigmoid(dense(w, relu(dense(w, h.mean((1, 2)), 2)), 4)))
    return dense(w, h * gate[:, None, None, :])


@network(2, 4, 4, 3, sites="conv statistic affine dense")
def gated(o, w, x):
    a, b = conv(x, w(3, 3, 3, 3)), conv(x, w(3, 3, 3, 3))
    return dense(w, a * o.hold(jax.nn.sigmoid(b)))


@network(2, 4, 4, 3, sites="conv statistic affine dense")
def glu(o, w, x):
    a, b = jnp.split(conv(x, w(3, 3, 3, 4)), 2, -1)
    return dense(w, a * o.hold(jax.nn.sigmoid(b)))


@network(2, 4, 4, 3, sites="conv conv act product dense")
def swiglu(o, w, x):
    """Neither factor is a gate: half to each."""
    a, b = conv(x, w(3, 3, 3, 3)), conv(x, w(3, 3, 3, 3))
    return dense(w, o.product(jnp.multiply, o.act(jax.nn.silu, a), b))


@network(2, 5, 3, sites="dense statistic average dense")
def attention(o, w, x):
    q, k, v = (x @ w(3, 4) for _ in range(3))
    weights = o.hold(jax.nn.softmax(q @ k.swapaxes(1, 2) / 2, axis=-1))
    return dense(w, weights @ v)


@network(2, 5, 3, sites="dense dense product dense")
def scores(o, w, x):
    """The product of queries and keys itself."""
    q, k = (x @ w(3, 4) for _ in range(2))
    return dense(w, o.product(lambda q, k: jnp.einsum("bic,bjc->bij", q, k), q, k))


@network(2, 4, 4, 2, sites="conv conv product dense")
def bilinear(o, w, x):
    a, b = conv(x, w(3, 3, 2, 3)), conv(x, w(3, 3, 2, 3))
    return dense(w, o.product(jnp.multiply, a, b))


@network(2, 4, 4, 2, sites="conv conv pool dense")
def maxout(o, w, x):
    a, b = conv(x, w(3, 3, 2, 3)), conv(x, w(3, 3, 2, 3))
    return dense(w, jnp.maximum(a, b))


@network(2, 4, 4, 2, sites="conv conv affine dense")
def chosen_by_place(o, w, x):
    a, b = conv(x, w(3, 3, 2, 3)), conv(x, w(3, 3, 2, 3))
    here = (jnp.arange(4) % 2 == 0).reshape(1, 4, 1, 1)
    return dense(w, jnp.where(here, a, b) * jnp.where(here, 1.5, 0.5))
