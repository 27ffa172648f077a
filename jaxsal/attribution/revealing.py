"""DeepLIFT's rule reveal-cancel: what raises a value and what lowers it are followed apart.

A network runs for four images beside each other, its lanes: the image, the reference, and the reference with only what
raises, or only what lowers, each of its values. What comes back to the last two are the multipliers of the two parts;
the image and the reference themselves have none.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsal.attribution.changes import above_and_below, larger, per_change
from jaxsal.engine.sites import Passage, Pool, Rule, Site, constant, gradient, hand_over

# the axis of the lanes
LANES = "image, reference, risen and fallen"


def composite(site: Site) -> Rule:
    """Reveal-cancel at every site, under ``jax.vmap`` over :data:`LANES`.

    Raises:
        NotImplementedError: at a product or a statistic.
    """
    if site.kind in ("product", "statistic"):
        where = f" at {site.source}" if site.source else ""
        raise NotImplementedError(
            f"Reveal-cancel has no rule for {site.operation!r}{where}, where two values that depend on the image are "
            "multiplied, or one normalises the other: take jaxsal.deep_lift, or explain the layers behind it "
            "(jaxsal.split)."
        )
    if site.kind == "activation":
        return revealed
    if site.kind == "pool":
        return revealed_maximum
    return gradient if site.kind == "sum" else Passage(contributed)


def four(x: jax.Array, reference: jax.Array) -> jax.Array:
    """The lanes of an image, ``[4, ...]``; the image gets back the multipliers times what they multiply."""
    up, down = above_and_below(constant(x - reference))
    none = jnp.zeros_like(x)
    return hand_over(
        jnp.stack([none, none, up * x, down * x]), jnp.stack([x, reference, reference + up, reference + down])
    )


def to_both(lanes: jax.Array) -> jax.Array:
    """The image's lane of the output; what comes back to it goes to both parts of its change."""
    return hand_over(lanes[2] + lanes[3], lanes[0])


def contributed(forward: Any, a: jax.Array, weights: Any, bias: jax.Array) -> jax.Array:
    """A linear layer: contributions ``w_i (a_i - a'_i)`` above 0 raise an output, those below 0 lower it.

    The multiplier of an input, of both of its parts, is ``w_i m^+`` where it raises the output and ``w_i m^-`` where it
    lowers it; where it does not change, the mean of the two.
    """
    image, reference, *parts = _all(a)
    change, both = constant(image - reference), parts[0] + parts[1]
    raising, lowering = above_and_below(weights)

    def raised(up: jax.Array, down: jax.Array) -> jax.Array:
        return forward(up, raising) + forward(down, lowering)

    def where(chosen: jax.Array) -> jax.Array:
        return jnp.where(chosen, both, jnp.zeros_like(both))

    z, before = forward(image, weights) + bias, forward(reference, weights) + bias
    up, down = above_and_below(change)
    rises, falls, still = where(change > 0), where(change < 0), forward(where(change == 0), weights) / 2
    return hand_over(
        _parts(raised(rises, falls) + still, raised(falls, rises) + still),
        _own(z, before, before + raised(up, down), before + raised(down, up)),
    )


def revealed(root: jax.Array, value: jax.Array) -> jax.Array:
    r"""An activation changes by what raises its input before and after what lowers it, the mean of both.

    ``dy^+ = (f(z' + dz^+) - f(z')) / 2 + (f(z' + dz^- + dz^+) - f(z' + dz^-)) / 2``, and ``dy^-`` with the signs
    exchanged; the multipliers are ``m^+ dy^+ / dz^+`` and ``m^- dy^- / dz^-``.
    """

    @jax.custom_vjp
    def call(root: jax.Array, value: jax.Array) -> jax.Array:
        image, reference, risen, fallen = _all(value)
        up = (risen - reference + image - fallen) / 2
        down = (fallen - reference + image - risen) / 2
        return _own(image, reference, reference + up, reference + down)

    def fwd(root: jax.Array, value: jax.Array):
        out = call(root, value)
        (_, before, *_), (_, after, *_) = _all(root), _all(out)
        size = jnp.maximum(larger(root, before), larger(out, after))
        return out, per_change(out - after, root - before, size)

    def bwd(saved: Any, r: jax.Array):
        changed, multiplier = saved
        none = jnp.zeros_like(r)
        return jnp.where(changed, r * multiplier, none), jnp.where(changed, none, r)

    call.defvjp(fwd, bwd)
    return call(root, value)


def revealed_maximum(pool: Pool, x: jax.Array) -> jax.Array:
    """A maximum that rises is raised by the place where it is now, one that falls is lowered by where it was.

    The paper has no rule for it: this is :func:`jaxsal.rules.rescaled_maximum`, with what rises and what falls apart.
    """

    @jax.custom_vjp
    def taken(x: jax.Array, at: jax.Array) -> jax.Array:
        """Of ``x`` what lies where ``at`` has its maxima; asked for its backward pass only."""
        return jnp.zeros_like(pool.forward(at))

    taken.defvjp(lambda x, at: (taken(x, at), at), lambda at, r: (jax.vjp(pool.forward, at)[1](r)[0], None))

    image, reference, *parts = _all(x)
    now, before, both = constant(image), constant(reference), parts[0] + parts[1]
    changed, per = per_change(jnp.ones_like(now), now - before, larger(now, before))
    moves = both * jnp.where(changed, per, jnp.zeros_like(per))
    still = taken(jnp.where(changed, jnp.zeros_like(both), both), now) / 2
    top, bottom = pool.forward(now), pool.forward(before)
    up, down = above_and_below(top - bottom)
    return hand_over(
        _parts(taken(moves, now) * up + still, taken(moves, before) * down + still),
        _own(top, bottom, bottom + up, bottom + down),
    )


def _all(x: jax.Array) -> jax.Array:
    """Of every lane, all four."""
    return lax.all_gather(x, LANES)


def _own(*lanes: jax.Array) -> jax.Array:
    """Of all four, every lane its own."""
    return jnp.stack(lanes)[lax.axis_index(LANES)]


def _parts(risen: jax.Array, fallen: jax.Array) -> jax.Array:
    none = jnp.zeros_like(risen)
    return _own(none, none, risen, fallen)
