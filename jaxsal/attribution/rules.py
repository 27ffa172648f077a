r"""Rules of relevance propagation, one small function each.

A rule for a linear site is ``(layer, r) -> r_in``, see :class:`jaxsal.engine.sites.Layer`: of the relevance of the
outputs, shaped like ``layer.z``, it makes that of the inputs, shaped like ``layer.a``. Rules for activations are
``(root, value) -> value``, functions with a backward pass of their own, for max-pools ``(pool, x) -> out``, for sums
``(parts, total, r) -> one relevance for each part``, for products of two values that both depend on the image
``(forward, a, b) -> out``, for statistics a function of the array.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsal.attribution.changes import above_and_below, larger, per_change
from jaxsal.engine.sites import Layer, Pool, constant, hand_over, mended
from jaxsal.engine.sites import gradient as gradient
from jaxsal.optim.applied import Applied, concrete

LayerRule = Callable[[Layer, jax.Array], jax.Array]
Bound = float | Sequence[float] | np.ndarray | jax.Array
# the axis that images and references lie along
PAIR = "image and reference"


def stabilised(z: jax.Array, eps: float) -> jax.Array:
    """``z`` moved away from 0 by ``eps``, to the side where it is; 0 counts as positive.

    Args:
        z: to divide by.
        eps: at least 0. What the dtype cannot tell from 0 counts as 0; there an output of exactly 0 becomes infinite,
            so that it passes nothing on.

    Example:
        >>> stabilised(jnp.array([2.0, -2.0, 0.0]), 0.5).tolist()
        [2.5, -2.5, 0.5]
        >>> (1 / stabilised(jnp.array([2.0, 0.0]), 0.0)).tolist()
        [0.5, 0.0]
    """
    least = jnp.asarray(eps, z.dtype)
    # what is below the least normal number would make quotients overflow
    least = jnp.where(least > 0, jnp.maximum(least, float(jnp.finfo(z.dtype).tiny)), least)
    moved = z + jnp.where(z >= 0, least, -least)
    return jnp.where(moved == 0, jnp.inf, moved)


def _at_least_0(name: str, given: Any) -> Any:
    """A number as Python's own: rules built alike are then equal, and have a hash; a traced one as it is."""
    number = concrete(given)
    if not isinstance(number, jax.core.Tracer) and not number >= 0:
        raise ValueError(f"{name} got {given}, at least 0 is needed.")
    return number


def epsilon(eps: float = 1e-6, bias: bool = True) -> LayerRule:
    r"""LRP-epsilon: ``r_i = a_i sum_j w_ij r_j / (z_j + eps sign z_j)``.

    Args:
        eps: at least 0; the larger, the less small and contradicting outputs pass on. Relevance is lost by it.
        bias: whether the bias counts in ``z``; its share is then lost. Without, relevance is conserved.

    Raises:
        ValueError: if ``eps`` is below 0, in this rule as in all others.

    Reference:
        Bach et al. 2015, On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
        propagation, https://doi.org/10.1371/journal.pone.0130140

    Example:
        >>> from jaxsal import composites, lrp
        >>> model = lambda x: x.reshape(1, -1) @ jnp.array([[2.0], [1.0]])
        >>> lrp(model, jnp.array([[[3.0], [4.0]]]), composite=composites.epsilon(0.0)).ravel().tolist()
        [6.0, 4.0]
    """
    return Applied(_epsilon, (_at_least_0("eps", eps), bool(bias)))


def _epsilon(eps: float, bias: bool, layer: Layer, r: jax.Array) -> jax.Array:
    z = layer.z if bias else layer.forward(layer.a, layer.weights)
    return layer.a * layer.back(layer.weights, r / stabilised(z, eps))


def z(eps: float = 1e-9, bias: bool = True) -> LayerRule:
    """LRP-0, ``r_i = a_i sum_j w_ij r_j / z_j``, with so little added to ``z`` that 0 is not divided by 0.

    Args:
        eps: see :func:`epsilon`.
        bias: see :func:`epsilon`.
    """
    return epsilon(eps, bias)


def proportional(eps: float = 1e-6) -> LayerRule:
    """Each input its share of the average, whatever is added to it: what pools by average and means pass on by.

    Args:
        eps: see :func:`epsilon`.
    """
    return epsilon(eps, bias=False)


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, bias: bool = True, eps: float = 1e-6) -> LayerRule:
    r"""LRP-alpha-beta: ``alpha`` times the share among what excites minus ``beta`` times that among what inhibits.

    ``r_i = sum_j (alpha (a_i w_ij)^+ / z_j^+ - beta (a_i w_ij)^- / z_j^-) r_j``; the positive part of the bias counts
    in ``z^+`` alone, the negative one in ``z^-`` alone.

    Args:
        alpha: weight of what excites.
        beta: ``alpha - 1``, at least 0.
        bias: whether the bias counts.
        eps: see :func:`epsilon`.

    Raises:
        ValueError: if ``alpha - beta`` is not 1, or ``beta`` is below 0.

    Reference:
        Bach et al. 2015, https://doi.org/10.1371/journal.pone.0130140
    """
    alpha, beta = float(alpha), float(beta)
    if abs(alpha - beta - 1) > 1e-6 or beta < 0:
        raise ValueError(f"alpha_beta got alpha = {alpha}, beta = {beta}: alpha - beta must be 1 and beta at least 0.")
    return Applied(_alpha_beta, (alpha, beta, bool(bias), _at_least_0("eps", eps)))


def _alpha_beta(alpha: float, beta: float, bias: bool, eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    up, down = above_and_below(layer.weights)
    b_up, b_down = above_and_below(layer.bias) if bias else (jnp.zeros_like(layer.bias),) * 2
    out = alpha * _share(layer, (up, down), b_up, eps, r)
    return out - beta * _share(layer, (down, up), b_down, eps, r) if beta else out


def _share(layer: Layer, weights: tuple[Any, Any], bias: jax.Array, eps: float, r: jax.Array) -> jax.Array:
    """Shares of the outputs, with one set of weights for inputs above 0 and another for those below."""
    (above, below), (w_above, w_below) = above_and_below(layer.a), weights
    total = layer.forward(above, w_above) + bias
    if layer.nonnegative:
        return above * layer.back(w_above, r / stabilised(total, eps))
    s = r / stabilised(total + layer.forward(below, w_below), eps)
    return above * layer.back(w_above, s) + below * layer.back(w_below, s)


def z_plus(bias: bool = True, eps: float = 1e-6) -> LayerRule:
    r"""LRP-z+: ``r_i = sum_j (a_i w_ij)^+ / z_j^+ r_j``, also for inputs below 0.

    Args:
        bias: whether the positive part of the bias counts; its share is then lost.
        eps: see :func:`epsilon`.

    Reference:
        Montavon et al. 2017, Explaining nonlinear classification decisions with deep Taylor decomposition,
        https://doi.org/10.1016/j.patcog.2016.11.008
    """
    return alpha_beta(1.0, 0.0, bias, eps)


def same_sign(eps: float = 1e-6) -> LayerRule:
    r"""Deep Taylor's rule: an output above 0 is shared among what excites, one below 0 among what inhibits.

    ``r_i = sum_j (a_i w_ij)^+ / z_j^+ r_j`` where ``z_j > 0``, and with ``^-`` in place of ``^+`` where ``z_j < 0``;
    no bias. In front of ReLUs it is LRP-z+: an output below 0 has no relevance there. It differs where values below 0
    do have relevance: outputs of regressions, and branches of residual sums. There z+ would give nothing, if nothing
    excites.

    Args:
        eps: see :func:`epsilon`.

    Reference:
        Montavon et al. 2017, https://doi.org/10.1016/j.patcog.2016.11.008
    """
    return Applied(_same_sign, (_at_least_0("eps", eps),))


def _same_sign(eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    up, down = above_and_below(layer.weights)
    none, zero = jnp.zeros_like(layer.bias), jnp.zeros_like(r)
    out = _share(layer, (up, down), none, eps, jnp.where(layer.z > 0, r, zero))
    return out + _share(layer, (down, up), none, eps, jnp.where(layer.z < 0, r, zero))


def contrasted(rule: LayerRule) -> LayerRule:
    """A rule's shares less those that it would give were all weights negated.

    Args:
        rule: for a linear site.

    Reference:
        Zhang et al. 2018, Top-down neural attention by excitation backprop, https://doi.org/10.1007/s11263-017-1059-x
    """
    return Applied(_contrasted, (rule,))


def _contrasted(rule: LayerRule, layer: Layer, r: jax.Array) -> jax.Array:
    opposite = layer._replace(weights=jax.tree.map(jnp.negative, layer.weights), bias=-layer.bias, z=-layer.z)
    return rule(layer, r) - rule(opposite, r)


def gamma(g: float = 0.25, bias: bool = True, eps: float = 1e-6) -> LayerRule:
    r"""LRP-gamma, for inputs and outputs of any sign.

    With contributions ``c_ij = a_i w_ij``: ``r_i = sum_j (c_ij + g c_ij^+) / sum_i (c_ij + g c_ij^+) r_j`` where
    ``z_j > 0``, and with ``^-`` in place of ``^+`` where ``z_j < 0``. So outputs above 0 are shared by ``w + g w^+``
    where the input is above 0 and ``w + g w^-`` where it is below; outputs below 0 the other way round; an output of
    exactly 0 passes nothing on. The bias is favoured like a contribution.

    Args:
        g: at least 0; 0 is LRP-epsilon, infinity LRP-z+.
        bias: whether the bias counts.
        eps: see :func:`epsilon`.

    Reference:
        Montavon et al. 2019, Layer-wise relevance propagation: an overview,
        https://doi.org/10.1007/978-3-030-28954-6_10
    """
    return Applied(_gamma, (float(_at_least_0("g", g)), bool(bias), _at_least_0("eps", eps)))


def _gamma(g: float, bias: bool, eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    def favoured(x: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda a: a + g * jnp.maximum(a, 0), x), jax.tree.map(
            lambda a: a + g * jnp.minimum(a, 0), x
        )

    up, down = favoured(layer.weights)
    b_up, b_down = favoured(layer.bias) if bias else (jnp.zeros_like(layer.bias),) * 2
    zero = jnp.zeros_like(r)
    out = _share(layer, (up, down), b_up, eps, jnp.where(layer.z > 0, r, zero))
    return out + _share(layer, (down, up), b_down, eps, jnp.where(layer.z < 0, r, zero))


def flat(eps: float = 1e-6) -> LayerRule:
    """LRP-flat: every input of an output the same share, whatever its value.

    Args:
        eps: see :func:`epsilon`.

    Reference:
        Lapuschkin et al. 2019, Unmasking Clever Hans predictors, https://doi.org/10.1038/s41467-019-08987-4
    """
    return Applied(_flat, (_at_least_0("eps", eps),))


def _flat(eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    ones = jax.tree.map(jnp.ones_like, layer.weights)
    return layer.back(ones, r / stabilised(layer.forward(jnp.ones_like(layer.a), ones), eps))


def w_square(bias: bool = False, eps: float = 1e-6) -> LayerRule:
    """LRP-w^2: shares by the squared weights, whatever the inputs' values; for inputs without bounds.

    Args:
        bias: whether the squared bias takes its share, which is then lost; not so in the paper.
        eps: see :func:`epsilon`.

    Reference:
        Montavon et al. 2017, https://doi.org/10.1016/j.patcog.2016.11.008
    """
    return Applied(_w_square, (bool(bias), _at_least_0("eps", eps)))


def _w_square(bias: bool, eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    squares = jax.tree.map(jnp.square, layer.weights)
    total = layer.forward(jnp.ones_like(layer.a), squares)
    return layer.back(squares, r / stabilised(total + layer.bias**2 if bias else total, eps))


def z_box(low: Bound, high: Bound, eps: float = 1e-6) -> LayerRule:
    r"""LRP-z^B: for an image whose values lie between bounds.

    ``r_i = sum_j (a_i w_ij - l_i w_ij^+ - h_i w_ij^-) / (sum of these) r_j``.

    Args:
        low: least value, or one for each channel: for each place along the last axis of the layer's input.
        high: greatest value, or one for each channel.
        eps: see :func:`epsilon`.

    Raises:
        ValueError: if a lower bound is not below the upper one, or a bound is neither a number nor a list of numbers;
            when the rule is used, if there is not one bound for each channel of the layer's input.

    Reference:
        Montavon et al. 2017, https://doi.org/10.1016/j.patcog.2016.11.008
    """
    low, high = _bound(low), _bound(high)
    known = not any(isinstance(bound, jax.core.Tracer) for bound in (low, high))
    counts = {np.size(bound) for bound in (low, high) if np.ndim(bound)} - {1}
    if known and (len(counts) > 1 or not np.all(np.less(low, high))):
        raise ValueError(f"z_box got the bounds {low} and {high}: the lower ones must lie below the upper ones.")
    return Applied(_z_box, (low, high, _at_least_0("eps", eps)))


def is_box(rule: Any) -> bool:
    """Whether a rule is :func:`z_box`.

    Example:
        >>> is_box(z_box(0, 1)), is_box(flat())
        (True, False)
    """
    return isinstance(rule, Applied) and rule.fn is _z_box


def _bound(given: Any) -> Any:
    """A number, or a tuple of them; a traced array as it is."""
    if isinstance(given, jax.core.Tracer):
        return given
    found = np.asarray(given, np.float64)
    if found.ndim > 1:
        raise ValueError(f"z_box got a bound of shape {found.shape}: give a number, or one for each channel.")
    return tuple(found.tolist()) if found.ndim else float(found)


def _z_box(low: Any, high: Any, eps: float, layer: Layer, r: jax.Array) -> jax.Array:
    for bound in (low, high):
        if np.ndim(bound) and np.shape(bound)[0] not in (1, layer.a.shape[-1]):
            raise ValueError(
                f"z_box got {np.shape(bound)[0]} bounds for a layer whose input is {layer.a.shape}: give one number, "
                f"or {layer.a.shape[-1]} along its last axis."
            )
    up, down = above_and_below(layer.weights)
    channels = (1,) * (layer.a.ndim - 1) + (-1,)
    low, high = (jnp.broadcast_to(jnp.asarray(b, layer.a.dtype).reshape(channels), layer.a.shape) for b in (low, high))
    total = layer.forward(layer.a, layer.weights) - layer.forward(low, up) - layer.forward(high, down)
    s = r / stabilised(total, eps)
    return layer.a * layer.back(layer.weights, s) - low * layer.back(up, s) - high * layer.back(down, s)


def pass_on(layer: Layer, r: jax.Array) -> jax.Array:
    """A scale and shift of its own passes relevance on as it is, like an activation."""
    return jnp.broadcast_to(r, layer.a.shape)


def in_proportion(eps: float = 1e-6) -> Callable[..., Sequence[jax.Array]]:
    """A residual sum shares relevance as its parts share the sum.

    Args:
        eps: see :func:`epsilon`. Where parts nearly cancel, shares are many times the relevance: raise ``eps``, or take
            :func:`by_magnitude`.
    """
    return Applied(_in_proportion, (_at_least_0("eps", eps),))


def _in_proportion(eps: float, parts: Sequence[jax.Array], total: jax.Array, r: jax.Array) -> Sequence[jax.Array]:
    s = r / stabilised(total, eps)
    return [part * s for part in parts]


def by_magnitude(eps: float = 1e-6) -> Callable[..., Sequence[jax.Array]]:
    """A residual sum shares relevance by its parts' absolute values: no share is above the whole.

    Args:
        eps: added to the sum of absolute values.
    """
    return Applied(_by_magnitude, (_at_least_0("eps", eps),))


def _by_magnitude(eps: float, parts: Sequence[jax.Array], total: jax.Array, r: jax.Array) -> Sequence[jax.Array]:
    s = r / stabilised(sum(map(jnp.abs, parts), start=jnp.zeros_like(total)), eps)
    return [jnp.abs(part) * s for part in parts]


def handed_on(root: jax.Array, value: jax.Array) -> jax.Array:
    """An activation passes relevance on as it is."""
    return hand_over(root, value)


def rectified(root: jax.Array, value: jax.Array) -> jax.Array:
    """DeconvNet: a ReLU on the way back, in place of the derivative of the one on the way forward.

    Reference:
        Zeiler and Fergus 2014, Visualizing and understanding convolutional networks,
        https://doi.org/10.1007/978-3-319-10590-1_53
    """
    return hand_over(root, value, jax.nn.relu)


def guided(root: jax.Array, value: jax.Array) -> jax.Array:
    """Guided backprop: a ReLU on the way back, and the derivative of the one on the way forward.

    Reference:
        Springenberg et al. 2015, Striving for simplicity: the all convolutional net,
        https://doi.org/10.48550/arXiv.1412.6806
    """
    del root
    return mended(value, jax.nn.relu)


def winner(pool: Pool, x: jax.Array) -> jax.Array:
    """A max-pool gives all relevance to the first maximum of the window."""
    return pool.forward(x)


def repeated(pool: Pool, x: jax.Array) -> jax.Array:
    """A max-pool gives relevance to the whole window, to each place the same: un-pooling by repetition."""

    @jax.custom_vjp
    def call(x: jax.Array) -> jax.Array:
        return pool.forward(x)

    def bwd(x: jax.Array, r: jax.Array):
        zero = np.zeros((), x.dtype)  # not JAX's: traced, it would make this another operation, without a derivative

        def sums(x: jax.Array) -> jax.Array:
            return lax.reduce_window(
                x, zero, lax.add, pool.window, pool.strides, pool.padding, window_dilation=pool.dilation
            ).reshape(r.shape)

        return (jax.vjp(sums, jnp.zeros(x.shape, r.dtype))[1](r)[0],)

    call.defvjp(lambda x: (pool.forward(x), x), bwd)
    return call(x)


def halved(forward: Callable[[jax.Array, jax.Array], jax.Array], a: jax.Array, b: jax.Array) -> jax.Array:
    """A product of two values of which neither is a gate: half of the relevance to each, in proportion.

    A gate, what comes out of a sigmoid, a softmax or a reciprocal, is none of them: like a denominator it is a site of
    kind ``"statistic"``. Held there, it leaves all relevance to what it weighs.

    Reference:
        Achtibat et al. 2024, AttnLRP: attention-aware layer-wise relevance propagation for transformers,
        https://doi.org/10.48550/arXiv.2402.05602
    """

    @jax.custom_vjp
    def call(a: jax.Array, b: jax.Array) -> jax.Array:
        return forward(a, b)

    def bwd(saved: Any, r: jax.Array):
        a, b, out = saved
        to_a, to_b = jax.vjp(forward, a, b)[1](r / stabilised(2 * out, 1e-6))
        return a * to_a, b * to_b

    call.defvjp(lambda a, b: (forward(a, b), (a, b, forward(a, b))), bwd)
    return call(a, b)


def held(statistic: jax.Array) -> jax.Array:
    """A statistic is held constant: relevance does not go through it."""
    return constant(statistic)


def rescaled(root: jax.Array, value: jax.Array) -> jax.Array:
    """DeepLIFT: an activation multiplies by the change of its output per change of its input.

    For a network that is run for images and references beside each other, under ``jax.vmap`` over the two with the axis
    name :data:`PAIR`. Where an input hardly differs from its reference, the derivative stands in.

    Reference:
        Shrikumar, Greenside and Kundaje 2017, Learning important features through propagating activation differences,
        https://doi.org/10.48550/arXiv.1704.02685
    """

    @jax.custom_vjp
    def call(root: jax.Array, value: jax.Array) -> jax.Array:
        return value

    def bwd(saved: Any, r: jax.Array):
        changed, multiplier = saved
        by_change = jnp.where(changed, r * multiplier, jnp.zeros_like(r))
        return by_change, jnp.where(changed, jnp.zeros_like(r), r)

    def fwd(root: jax.Array, value: jax.Array):
        before, reference = _other(root), _other(value)
        # an output far from 0 is rounded more than a small change of the input would change it
        size = jnp.maximum(larger(root, before), larger(value, reference))
        return value, per_change(value - reference, root - before, size)

    call.defvjp(fwd, bwd)
    return call(root, value)


def rescaled_maximum(pool: Pool, x: jax.Array) -> jax.Array:
    """DeepLIFT at a max-pool: where the maximum rose, by the place where it is now; where it fell, where it was.

    The changes of the inputs times their multipliers then sum to the change of the maximum.
    """

    @jax.custom_vjp
    def call(x: jax.Array) -> jax.Array:
        return pool.forward(x)

    def bwd(saved: tuple[jax.Array, jax.Array], r: jax.Array):
        now, before = saved
        (top, back_now), (reference, back_before) = (jax.vjp(pool.forward, part) for part in (now, before))
        highest = jnp.maximum(top, reference)
        change = back_now(r * (highest - reference))[0] + back_before(r * (top - highest))[0]
        changed, multiplier = per_change(change, now - before, larger(now, before))
        return (jnp.where(changed, multiplier, back_now(r)[0]),)

    call.defvjp(lambda x: (call(x), (x, _other(x))), bwd)
    return call(x)


def _other(x: jax.Array) -> jax.Array:
    """Of an image the reference's value, of a reference the image's: wherever the batch's axis lies."""
    return lax.ppermute(x, PAIR, [(0, 1), (1, 0)])
