"""SMOCAM: smooth conditional attention masks on the features of a split network."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsal import optim
from jaxsal.engine.geometry import Geometry, geometry
from jaxsal.engine.lower import lower
from jaxsal.engine.masked import masked
from jaxsal.masks import terms
from jaxsal.masks.result import MaskResult, SmocamConfig, Terms, judge, warn_of_flips
from jaxsal.masks.upsample import keep_top, upsample
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.progress import Meter, reporting
from jaxsal.splitting import Split
from jaxsal.target import output_indices

# between chunks the host looks at the lanes: often enough for a progress bar, rarely enough to cost nothing
_CHUNK = 50


class _Problem(NamedTuple):
    """What the masks of one image share, and what tells its lanes apart (the last two)."""

    features: jax.Array  # [1, *t, c]
    prediction: jax.Array  # [k]
    sigma: jax.Array  # [k]
    index: jax.Array  # [k]


def smocam(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    sigma: Any = 1.0,
    lam: float = 1.0,
    gamma: float = 30.0,
    solver: optax.GradientTransformation | None = None,
    stop: optim.StoppingRule | None = None,
    max_steps: int = 2000,
    percentile: float = 95,
    geometry: Geometry | None = None,
    progress: Meter | None = None,
) -> MaskResult:
    r"""Masks on a network's features that keep each output where it is, within a budget, smoothly.

    For every output ``k`` and image, minimises over masks ``M[*t]`` of the features ``F = head(x)``

    ``|tail(F * M)_k - y_k| / sigma_k + lam * |1 - ||M||_2| + gamma * TV(M)``

    from the uniform mask ``1.1 / ||1||_2``, with the mean total variation over voxels and axes. All outputs
    of all images are lanes of one compiled program; every step evaluates the tail once. The mask is then
    brought to the image's grid between receptive-field centres, and values at or below a percentile are set
    to zero.

    Args:
        split: head and tail, see :func:`jaxsal.split`.
        x: images ``[b, *space, c]``, float32.
        outputs: ``"all"`` or positions of the outputs to explain.
        sigma: standard deviation of the outputs over a population, in their units: a number for all, or one
            per output of the network.
        lam: weight of the norm term. Where the tail makes nothing of features that are zero, a mask of norm 1 over many
            voxels keeps little of a prediction; a smaller weight lets the mask grow, and at 0 a mask that is 1
            everywhere keeps everything and says nothing. ``terms.norm`` tells how far it grew.
        gamma: weight of the smoothness term.
        solver: an optax transform; None is the paper's :func:`jaxsal.optim.armijo_once`. Build it once and
            pass the same object, a new one compiles anew.
        stop: a stopping rule; None is the paper's stagnation over 50 steps at 1e-5.
        max_steps: most updates per lane, whatever the rule.
        percentile: 0 to 100; how much of the saliency is set to zero.
        geometry: where the features lie in the image; None reads it off the head's operations.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks, saliency and diagnostics; arrays lead with ``[k, b]``.

    Raises:
        TypeError: if ``x`` is not a floating-point array.
        ValueError: if ``x``, the weights, ``outputs`` or ``sigma`` cannot be used, or the features have no
            spatial axes.

    Reference:
        Konate et al., SMOCAM: smooth conditional attention mask for 3D-regression models, ISBI 2021,
        https://doi.org/10.1109/ISBI48211.2021.9433790

    Example:
        >>> head, tail = jnp.sqrt, lambda f: f.sum((1, 2))
        >>> x = jnp.ones((1, 8, 8, 1)).at[0, 2:4, 2:4].set(100.0)
        >>> result = smocam(Split(head, tail), x, sigma=10.0, max_steps=20, percentile=90)
        >>> result.mask.shape, result.saliency.shape
        ((1, 1, 8, 8), (1, 1, 8, 8))
    """
    check_input(x)
    check_model(split.head)
    check_model(split.tail)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile got {percentile}, a number from 0 to 100 is needed.")
    if not (np.isfinite(lam) and np.isfinite(gamma) and lam >= 0 and gamma >= 0):
        raise ValueError(f"lam and gamma got {lam} and {gamma}, finite weights of at least 0 are needed.")
    head, tail = as_pytree(split.head), as_pytree(split.tail)
    if geometry is None:
        geometry = _geometry(head, x)
    features, prediction, null = _forward(head, tail, x)
    if features.ndim < 3:
        raise ValueError(
            f"The features have shape {features.shape} and no spatial axes: split at a layer before the flatten; "
            "print(layers(model, x)) shows which ones can be split."
        )
    if prediction.ndim != 2:
        raise ValueError(f"The network returns {prediction.shape}, [batch, outputs] is needed: reduce its other axes.")
    indices = output_indices(outputs, prediction.shape[1])
    sigma = _sigmas(sigma, prediction.shape[1])[list(indices)]
    solver = optim.armijo_once() if solver is None else solver
    limit = optim.max_steps(max_steps)
    stop = optim.any_of(optim.stagnation() if stop is None else stop, limit)

    chosen = jnp.asarray(indices)
    per_output = jnp.asarray(sigma, features.dtype)
    problems = _Problem(features[:, None], prediction[:, chosen], per_output, chosen)
    weights = (jnp.asarray(lam, features.dtype), jnp.asarray(gamma, features.dtype))
    lanes = _start(solver, stop, tail, problems, weights)
    until = 0
    with reporting(progress, "SMOCAM") as meter:
        while (running := int((np.asarray(lanes.status) == optim.Status.RUNNING).sum())) > 0:
            done = np.where(np.asarray(lanes.status) == optim.Status.RUNNING, np.asarray(lanes.steps), max_steps)
            meter(float(done.mean()), max_steps, f"{running} of {lanes.status.size} masks running")
            until += _CHUNK
            lanes = _advance(solver, stop, tail, problems, weights, lanes, jnp.int32(until))
        meter(max_steps, max_steps, "done")

    lanes = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), lanes)  # [b, k] -> [k, b]
    parts, masked = lanes.aux
    y, null = prediction.T[chosen], jnp.broadcast_to(null[chosen, None], masked.shape)
    recovered = (masked - null) / (y - null)
    spatial = tuple(range(2, lanes.params.ndim))
    energy = (jnp.minimum(lanes.params, 0) ** 2).sum(spatial) / (lanes.params**2).sum(spatial)
    warn_of_flips(energy)
    return MaskResult(
        mask=lanes.params,
        saliency=_saliency(lanes.params, geometry, x.shape[1:-1], jnp.asarray(percentile, jnp.float32)),
        value=lanes.value,
        terms=parts,
        steps=lanes.steps,
        evaluations=lanes.evaluations,
        status=judge(lanes.status, y, null, recovered, per_output[:, None]),
        prediction=y,
        masked_prediction=masked,
        null_prediction=null,
        recovered=recovered,
        negative_energy=energy,
        config=SmocamConfig(indices, tuple(map(float, sigma)), float(lam), float(gamma), float(percentile), geometry),
    )


def smocam_objective(
    tail: Model,
    features: jax.Array,
    index: jax.Array,
    prediction: jax.Array,
    sigma: jax.Array,
    lam: Any,
    gamma: Any,
):
    """SMOCAM's objective for one output of one image.

    Args:
        tail: ``features[1, *t, c] -> y[1, k]``.
        features: ``[1, *t, c]``.
        index: of the output.
        prediction: its value without a mask.
        sigma: its standard deviation.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.

    Returns:
        ``mask[*t] -> (value, (Terms, masked prediction))``.
    """
    under = masked(tail, features)

    def objective(mask: jax.Array):
        found = under(mask)[0, index]
        parts = Terms(terms.l1_distance(found, prediction, sigma), terms.unit_norm(mask), terms.total_variation(mask))
        return parts.distance + lam * parts.norm + gamma * parts.smoothness, (parts, found)

    return objective


def uniform_mask(shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """The paper's start: ``1.1 / ||1||_2`` everywhere, a norm just above the budget."""
    return jnp.full(shape, 1.1 / np.sqrt(np.prod(shape)), dtype)


@jax.jit
def _forward(head: Model, tail: Model, x: jax.Array):
    features = lower(head)(x)
    nothing = lower(tail)(jnp.zeros_like(features[:1]))
    return features, lower(tail)(features), nothing[0]


def _objective(tail: Model, problem: _Problem, weights: tuple[jax.Array, jax.Array]):
    features, prediction, sigma, index = problem
    return smocam_objective(tail, features, index, prediction, sigma, *weights)


# lanes are nested: outputs within images, so that the features of an image are shared and never copied
_OVER_OUTPUTS = _Problem(None, 0, 0, 0)  # type: ignore[arg-type]
_OVER_IMAGES = _Problem(0, 0, None, None)  # type: ignore[arg-type]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _start(solver: Any, stop: Any, tail: Model, problems: _Problem, weights: Any) -> optim.Lane:
    def one(problem: _Problem) -> optim.Lane:
        mask = uniform_mask(problem.features.shape[1:-1], problem.features.dtype)
        return optim.start(_objective(tail, problem, weights), mask, solver, stop)

    return jax.vmap(jax.vmap(one, (_OVER_OUTPUTS,)), (_OVER_IMAGES,))(problems)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def _advance(
    solver: Any, stop: Any, tail: Model, problems: _Problem, weights: Any, lanes: optim.Lane, until: jax.Array
) -> optim.Lane:
    def one(problem: _Problem, lane: optim.Lane) -> optim.Lane:
        return optim.advance(_objective(tail, problem, weights), lane, solver, stop, until)

    return jax.vmap(jax.vmap(one, (_OVER_OUTPUTS, 0)), (_OVER_IMAGES, 0))(problems, lanes)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _saliency(masks: jax.Array, geometry: Geometry, shape: tuple[int, ...], percentile: jax.Array) -> jax.Array:
    flat = masks.reshape(-1, *masks.shape[2:])
    # one map at a time: at full size a single one is tens of megabytes
    maps = jax.lax.map(lambda mask: keep_top(upsample(mask, geometry, shape), percentile, len(shape)), flat)
    return maps.reshape(*masks.shape[:2], *shape)


_geometry = geometry


def _sigmas(sigma: Any, count: int) -> np.ndarray:
    values = np.asarray(sigma, dtype=np.float64)
    if values.shape not in ((), (1,), (count,)):
        raise ValueError(
            f"sigma has shape {values.shape}: give one number, or one per output of the network ({count})."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("sigma must be positive and finite: it is the standard deviation of each output.")
    return np.broadcast_to(values, (count,))
