"""What works voxel by voxel."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.graph.laid import Laid, aligned, plain, relaid


def pointwise(fn: Callable[..., jax.Array]) -> Callable[..., Laid]:
    """A function of one array, and numbers, as a rule."""

    def rule(x: Laid, *args: Any, **kwargs: Any) -> Laid:
        return Laid(fn(x.array, *args, **kwargs), x.order)

    return rule


def of_two(fn: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A function of two arrays or numbers as a rule; of two numbers it is one."""

    def rule(a: Any, b: Any) -> Any:
        if not isinstance(a, Laid) and not isinstance(b, Laid):
            return fn(a, b)
        (a, b), order = aligned(a, b)
        return Laid(fn(a, b), order)

    return rule


def scaled_sum(sign: int) -> Callable[..., Any]:
    """``a + alpha b`` or, with ``sign`` -1, ``a - alpha b``."""
    combine = of_two(operator.add if sign > 0 else operator.sub)

    def rule(a: Any, b: Any, alpha: float = 1) -> Any:
        if alpha != 1:
            b = Laid(b.array * alpha, b.order) if isinstance(b, Laid) else b * alpha
        return combine(a, b)

    return rule


def divide(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """``a / b``, or rounded to a whole number."""
    if rounding_mode is None:
        return of_two(operator.truediv)(a, b)
    rounded = {"floor": jnp.floor, "trunc": jnp.trunc}[rounding_mode]
    return of_two(lambda a, b: rounded(a / b))(a, b)


def clamp(x: Laid, low: Any = None, high: Any = None) -> Laid:
    """Cut off below and above."""
    if low is not None:
        x = of_two(jnp.maximum)(x, low)
    return x if high is None else of_two(jnp.minimum)(x, high)


def hardtanh(x: Laid, low: float = -1.0, high: float = 1.0) -> Laid:
    """Cut off; between 0 and 6 that is a ReLU6."""
    fn = jax.nn.relu6 if (low, high) == (0, 6) else lambda a: jnp.clip(a, low, high)
    return Laid(fn(x.array), x.order)


def elu(x: Laid, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Laid:
    """``scale (x if x > 0 else alpha (exp(input_scale x) - 1))``; of SELU's numbers that is SELU."""
    a = x.array
    if (scale, input_scale) == (1, 1):
        return Laid(jax.nn.elu(a, alpha), x.order)
    if input_scale == 1 and abs(scale - 1.05070098) < 1e-6 and abs(alpha - 1.67326324) < 1e-6:
        return Laid(jax.nn.selu(a), x.order)
    # of what is above 0 the exponential is not wanted, and may be infinite
    below = jnp.expm1(jnp.where(a > 0, 0.0, a) * input_scale)
    return Laid(scale * jnp.where(a > 0, a, alpha * below), x.order)


def gelu(x: Laid, approximate: str = "none") -> Laid:
    """Gaussian error linear unit, exact or by a tanh."""
    return Laid(jax.nn.gelu(x.array, approximate=approximate == "tanh"), x.order)


def leaky_relu(x: Laid, slope: float = 0.01) -> Laid:
    """A slope below 0."""
    return Laid(jax.nn.leaky_relu(x.array, slope), x.order)


def prelu(x: Laid, weight: Laid) -> Laid:
    """A learned slope below 0; one for all channels, or one each."""
    if weight.ndim == 1 and x.ndim > 1:
        weight = plain(weight.array.reshape([-1 if axis == 1 else 1 for axis in range(x.ndim)]))
    (a, w), order = aligned(x, weight)
    return Laid(jnp.where(a > 0, a, w * a), order)


def softplus(x: Laid, beta: float = 1.0, threshold: float = 20.0) -> Laid:
    """``log(1 + exp(beta x)) / beta``, or ``x`` where ``beta x`` is above the threshold."""
    a = x.array
    smooth = jax.nn.softplus(a) if beta == 1 else jax.nn.softplus(a * beta) / beta
    # beyond 20 both are the same to a ten thousand millionth
    return Laid(smooth if threshold >= 20 else jnp.where(a * beta > threshold, a, smooth), x.order)


def power(x: Any, exponent: Any) -> Any:
    """``x ** exponent``."""
    if isinstance(x, Laid) and isinstance(exponent, int | float):
        whole = float(exponent).is_integer()
        return Laid(lax.integer_pow(x.array, int(exponent)) if whole else x.array**exponent, x.order)
    return of_two(operator.pow)(x, exponent)


def where(condition: Laid, a: Any, b: Any) -> Laid:
    """``a`` where the condition holds, else ``b``."""
    numbers = [value for value in (a, b) if not isinstance(value, Laid)]
    if len(numbers) == 2:
        return Laid(jnp.where(condition.array, *map(jnp.float32, numbers)), condition.order)
    (x, y), order = aligned(a, b)
    rank = max(len(order), condition.ndim)
    # a condition of another order of axes is brought to that of the values
    shape = (1,) * (rank - condition.ndim) + condition.shape
    flags = plain(relaid(condition, range(condition.ndim)).reshape(shape))
    if len(order) < rank:
        (x, y, _), order = aligned(a, b, Laid(flags.array.astype(jnp.int32), flags.order))
    return Laid(jnp.where(relaid(flags, order), x, y), order)


def cast(x: Laid, dtype: Any = None) -> Laid:
    """A copy, in another dtype where one is asked for."""
    return x if dtype is None else Laid(x.array.astype(dtype), x.order)


def same(x: Any) -> Any:
    """What is only copied."""
    return x


def dropout(x: Laid, rate: float = 0.5, train: bool | None = False) -> Laid:
    """Dropout that predicts: everything is passed on."""
    if train:
        raise ValueError("dropout that leaves values out when the network predicts has no one result")
    return x


def native_dropout(x: Laid, rate: float = 0.5, train: bool | None = False) -> tuple[Laid]:
    """:func:`dropout` as the core operations have it."""
    return (dropout(x, rate, train),)
