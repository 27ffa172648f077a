"""What a composite has to know of a network before it can choose rules; nothing of it is computed."""

from typing import Any

import jax

from jaxsal.engine.program import Step, program
from jaxsal.engine.rewire import observe, sites, survey
from jaxsal.engine.sites import Composite
from jaxsal.jaxpr import is_literal, trace
from jaxsal.model import Model

# what leaves the channels at the end of an array where they were
_KEEPS_CHANNELS = frozenset((
    "concatenate", "copy", "pad", "reduce_window_max", "reduce_window_sum", "slice",
))  # fmt: skip
_PRODUCTS = frozenset(("conv_general_dilated", "dot_general"))


def layer_names(model: Model, x: jax.Array, composite: Composite) -> tuple[str, ...]:
    """Names of the layers with linear sites, from the image to the output.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, or its shape.
        composite: ``site -> rule``.
    """
    found = (site.name for site, _ in sites(model, x, composite) if site.linear)
    return tuple(dict.fromkeys(name for name in found if name))


def last_weights(model: Model, x: jax.Array, composite: Composite) -> frozenset[int]:
    """Indices of the convolution and dense sites that reach the output by a way without another one.

    Args:
        model: as for :func:`layer_names`.
        x: as for :func:`layer_names`.
        composite: as for :func:`layer_names`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxsal import composites
        >>> def model(x):
        ...     h = jax.nn.relu(x.sum(1) @ jnp.ones((1, 2)))
        ...     return h @ jnp.ones((2, 1)) + h @ jnp.ones((2, 1))
        >>> sorted(last_weights(model, jnp.ones((1, 3, 1)), composites.z_plus()))
        [3, 4]
    """
    found = survey(model, composite, x)
    weighted = [site.index for site, _ in found.sites if site.weighted]

    def output(x: jax.Array, offsets: list[jax.Array]) -> jax.Array:
        return observe(model, composite, x, dict(zip(weighted, offsets, strict=True))).output

    jaxpr = trace(output, x, [found.values[index] for index in weighted]).jaxpr
    # what is added to the output of a site stands for the site
    added = dict(zip(jaxpr.invars[-len(weighted) :], weighted, strict=True)) if weighted else {}
    return frozenset(_first_met(jaxpr, added))


def _first_met(jaxpr: Any, wanted: dict[Any, int]) -> set[int]:
    """Of some arguments, those that a walk back from the result comes to before another one of them."""
    made_by = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    found: set[int] = set()
    waiting, passed = [var for var in jaxpr.outvars if not is_literal(var)], set()
    while waiting:
        var = waiting.pop()
        if var in passed or var not in made_by:
            continue
        passed.add(var)
        eqn = made_by[var]
        operands = [atom for atom in eqn.invars if not is_literal(atom)]
        met = {wanted[atom] for atom in operands if atom in wanted}
        found |= met
        if not met and eqn.primitive.name != "stop_gradient":
            waiting += operands
    return found


def channels_stay_last(model: Model, x: jax.Array) -> bool:
    """Whether every convolution and dense layer that the image reaches first has its channels at the end, too.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, or its shape.

    Example:
        >>> import jax.numpy as jnp
        >>> def moved(x):
        ...     return x.transpose(0, 2, 1) @ jnp.ones((2, 1))
        >>> [channels_stay_last(model, jnp.ones((1, 2, 2))) for model in (lambda x: x @ jnp.ones((2, 1)), moved)]
        [True, False]
    """
    code = program(trace(model, x))
    last, elsewhere = {code.inputs[-1]}, set()
    for step in code.steps:
        if step.name in _PRODUCTS:
            if elsewhere & set(_numbers(step)):
                return False
        elif elsewhere & set(_numbers(step)):
            elsewhere |= set(step.outputs)
        elif last & set(_numbers(step)):
            kept = _keeps_channels(step, x.shape)
            (last if kept else elsewhere).update(step.outputs)
    return True


def _numbers(step: Step) -> list[int]:
    return [ref for ref in step.inputs if isinstance(ref, int)]


def _keeps_channels(step: Step, shape: tuple[int, ...]) -> bool:
    same_end = all(len(aval.shape) == len(shape) and aval.shape[-1] == shape[-1] for aval in step.avals)
    return same_end and (step.elementwise or step.name in _KEEPS_CHANNELS)
