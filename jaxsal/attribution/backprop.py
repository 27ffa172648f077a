"""DeconvNet and guided backprop: gradients with another rule at ReLUs."""

import jax

from jaxsal.attribution import composites
from jaxsal.attribution.pulling import Outputs, Start, Target, choose
from jaxsal.attribution.relevance import propagated
from jaxsal.model import Model, as_pytree


def deconvnet(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "one",
) -> jax.Array:
    r"""DeconvNet: the gradient, with ``max(r, 0)`` at every ReLU in place of its derivative.

    ReLUs are told from what they compute (``max(x, 0)``, also ``relu6``), wherever and however often they are called.
    Max-pools give back by their switches; other activations keep their derivative.

    The four ways to pass a ReLU, by the gates they have:

    ======================  ====================  =====================
    ..                      no gate backward      ``max(r, 0)`` backward
    ======================  ====================  =====================
    no gate forward         relevance             DeconvNet
    ``z > 0`` forward       gradient              guided backprop
    ======================  ====================  =====================

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each (int ``[b]``), a function ``y[b, k] -> s[b]``, or None where
            there is only one output.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"one"``, or ``"value"`` for what starts from the output's value, as in iNNvestigate.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.

    Reference:
        Zeiler and Fergus 2014, Visualizing and understanding convolutional networks,
        https://doi.org/10.1007/978-3-319-10590-1_53

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return jax.nn.relu(x.sum(1)) @ jnp.array([[1.0], [-1.0]])
        >>> deconvnet(model, jnp.array([[[-3.0, 2.0]]])).ravel().tolist()
        [1.0, 0.0]
    """
    choice = choose(model, x, target, outputs)
    return propagated(as_pytree(model), x, choice, composites.deconvnet(), batch_size, start)


def guided_backprop(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: Outputs = None,
    batch_size: int | None = None,
    start: Start = "one",
) -> jax.Array:
    r"""Guided backprop: the gradient, with ``max(r, 0)`` at every ReLU before its derivative.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: as for :func:`deconvnet`, which also says what counts as a ReLU.
        outputs: ``"all"`` or positions, instead of a target: a map for each.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.
        start: ``"one"``, or ``"value"``.

    Returns:
        The shape of ``x``, with ``outputs`` ``[o, b, *space, c]``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.

    Reference:
        Springenberg et al. 2015, Striving for simplicity: the all convolutional net,
        https://doi.org/10.48550/arXiv.1412.6806

    Example:
        >>> import jax.numpy as jnp
        >>> def model(x):
        ...     return jax.nn.relu(x.sum(1)) @ jnp.array([[1.0], [-1.0]])
        >>> guided_backprop(model, jnp.array([[[3.0, 2.0]]])).ravel().tolist()
        [1.0, 0.0]
    """
    choice = choose(model, x, target, outputs)
    return propagated(as_pytree(model), x, choice, composites.guided_backprop(), batch_size, start)
