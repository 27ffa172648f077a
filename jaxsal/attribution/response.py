"""Attentive response maps: what the most active units of a layer respond to in the image."""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.attribution import composites, rules
from jaxsal.attribution.pulling import Choice, Outputs, check_batch_size, choose, mapped, pull
from jaxsal.engine.rewire import rewire
from jaxsal.engine.sites import Rule
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.splitting import Split


class AttentiveResponse(NamedTuple):
    """What :func:`attentive_response` finds.

    Attributes:
        maps: ``[n, b, *space, c]``, of each unit, strongest first.
        units: int32 ``[n, b]``, which feature map each belongs to.
        dominant: ``[b, *space]``, the largest response of them at each voxel, channels summed.
        unit: int32 ``[b, *space]``, the unit that has it.
    """

    maps: jax.Array
    units: jax.Array
    dominant: jax.Array
    unit: jax.Array


class ClassResponse(NamedTuple):
    """What :func:`clear` finds.

    Attributes:
        maps: ``[o, b, *space, c]``, of each output.
        outputs: int32 ``[o]``, which.
        dominant: ``[b, *space]``, the largest response at each voxel, channels summed.
        output: int32 ``[b, *space]``, the output that has it: the dominant class.
    """

    maps: jax.Array
    outputs: jax.Array
    dominant: jax.Array
    output: jax.Array


def attentive_response(
    split: Split,
    x: jax.Array,
    *,
    n: int = 25,
    rank: Literal["maximum", "sum"] = "maximum",
    peak: bool = False,
    gate: Rule = rules.handed_on,
    unpool: Rule = rules.winner,
    batch_size: int | None = None,
) -> AttentiveResponse:
    r"""The most active feature maps of a layer, each projected back to the image, and which of them dominates where.

    ``R(x|f) = G_1 U_1 ... G_(L-1) U_(L-1) G_L^f z_L``: transposed convolutions ``G`` and un-pooling ``U`` of the
    activations ``z_L`` of one feature map ``f``; the dominant map is their maximum over ``f`` at every voxel.

    Args:
        split: a network cut behind the layer; its head is what is projected through.
        x: ``[b, *space, c]``, floating point.
        n: how many feature maps; as many as there are, if there are fewer.
        rank: feature maps by their greatest activation or by the sum of their activations.
        peak: whether only the place of a map's greatest activation is projected, instead of the whole map.
        gate: at activations: :func:`jaxsal.attribution.rules.handed_on` none, as the formula says,
            :func:`jaxsal.attribution.rules.rectified` as in DeconvNet, :func:`jaxsal.attribution.rules.guided`.
        unpool: by switches (:func:`jaxsal.attribution.rules.winner`) or by repetition
            (:func:`jaxsal.attribution.rules.repeated`).
        batch_size: feature maps at once; None takes one on a CPU, elsewhere all ``n``.

    Raises:
        TypeError: if the image is of a wrong kind.
        ValueError: if the image or the network cannot be used, ``n`` or ``batch_size`` is below 1, or the layer has no
            feature maps.
        NotImplementedError: if an operation of the head has no rule.

    Reference:
        Kumar, Menkovski, Taylor and Wong 2017, Understanding anatomy classification through attentive response maps,
        https://doi.org/10.48550/arXiv.1611.06284

    Example:
        >>> parts = Split(lambda x: jax.nn.relu(x @ jnp.array([[1.0, 2.0]])), lambda f: f.mean((1, 2)))
        >>> found = attentive_response(parts, jnp.arange(4.0).reshape(1, 2, 2, 1), n=1)
        >>> found.units.tolist(), found.dominant.tolist()
        ([[1]], [[[0.0, 4.0], [8.0, 12.0]]])
    """
    check_model(split.head)
    check_input(x)
    check_batch_size(batch_size)
    if rank not in ("maximum", "sum"):
        raise ValueError(f'rank got {rank!r}: give "maximum" or "sum".')
    if n < 1:
        raise ValueError(f"n got {n}: at least one feature map is needed.")
    return _attentive(as_pytree(split.head), x, n, rank, peak, gate, unpool, batch_size)


def clear(
    model: Model,
    x: jax.Array,
    *,
    outputs: Outputs = "all",
    gate: Rule = rules.handed_on,
    unpool: Rule = rules.winner,
    batch_size: int | None = None,
) -> ClassResponse:
    r"""CLEAR: the response map of every class, and which class dominates where.

    Each output's value is projected back to the image as in :func:`attentive_response`; the dominant class of a voxel
    is the one whose map is largest there. For some ten outputs at most: beyond, use :func:`attentive_response`.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``; before a softmax.
        x: ``[b, *space, c]``, floating point.
        outputs: ``"all"`` or positions.
        gate: as for :func:`attentive_response`.
        unpool: as for :func:`attentive_response`.
        batch_size: outputs at once; None takes one on a CPU, elsewhere all.

    Raises:
        TypeError: if the model or the image is of a wrong kind.
        ValueError: if the image or the network cannot be used, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule.

    Reference:
        Kumar, Wong and Taylor 2017, Explaining the unexplained: a class-enhanced attentive response (CLEAR) approach to
        understanding deep neural networks, https://arxiv.org/abs/1704.04133

    Example:
        >>> def model(x):
        ...     return x.reshape(len(x), -1) @ jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> clear(model, jnp.array([[[3.0], [4.0]]])).output.tolist()
        [[0, 1]]
    """
    choice = choose(model, x, None, outputs)
    return _clear(as_pytree(model), x, choice, gate, unpool, batch_size)


@functools.partial(jax.jit, static_argnames=("n", "rank", "peak", "gate", "unpool", "batch_size"))
def _attentive(
    head: Model, x: jax.Array, n: int, rank: str, peak: bool, gate: Rule, unpool: Rule, batch_size: int | None
) -> AttentiveResponse:
    features, back = jax.vjp(rewire(head, composites.response(gate, unpool)), x)
    if features.ndim < 3:
        raise ValueError(
            f"The layer gives {features.shape}, feature maps [b, *t, c] are needed: split behind a convolution."
        )
    flat = features.reshape(len(features), -1, features.shape[-1])
    activity = flat.max(1) if rank == "maximum" else flat.sum(1)
    units = jax.lax.top_k(activity, min(n, features.shape[-1]))[1].T  # [n, b]
    if peak:
        place = jax.nn.one_hot(flat.argmax(1), flat.shape[1], axis=1, dtype=flat.dtype)
        features = (flat * place).reshape(features.shape)

    def project(unit: jax.Array) -> jax.Array:
        chosen = jax.nn.one_hot(unit, features.shape[-1], dtype=features.dtype)
        return back(features * chosen.reshape(len(x), *(1,) * (features.ndim - 2), -1))[0]

    maps = mapped(project, units, batch_size)
    dominant, first = _dominant(maps)
    unit = jnp.take_along_axis(units, first.reshape(len(x), -1).T.reshape(-1, len(x)), axis=0)
    return AttentiveResponse(maps, units, dominant, unit.T.reshape(first.shape))


@functools.partial(jax.jit, static_argnames=("gate", "unpool", "batch_size"))
def _clear(
    model: Model, x: jax.Array, choice: Choice, gate: Rule, unpool: Rule, batch_size: int | None
) -> ClassResponse:
    fn = rewire(model, composites.response(gate, unpool))
    maps = pull(fn, x, choice, batch_size=batch_size, start="value")
    dominant, first = _dominant(maps)
    return ClassResponse(maps, choice.outputs, dominant, choice.outputs[first])


def _dominant(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest of some maps at every voxel, and its position among them."""
    responses = maps.sum(-1)
    return responses.max(0), responses.argmax(0).astype(jnp.int32)
