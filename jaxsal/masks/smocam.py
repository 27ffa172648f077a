"""SMOCAM: smooth conditional attention masks on the features of a split network."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsal import optim
from jaxsal.engine.geometry import Geometry, geometry
from jaxsal.engine.lower import lower
from jaxsal.engine.masked import masked
from jaxsal.engine.upsampling import one_by_one, upsample
from jaxsal.masks import terms
from jaxsal.masks.optimising import optimise as optimise_masks
from jaxsal.masks.result import MaskResult, SmocamConfig, Terms, judge, warn_of_flips
from jaxsal.masks.upsample import keep_top
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.progress import Meter
from jaxsal.splitting import Split
from jaxsal.target import output_indices, standard_deviations


class Job(NamedTuple):
    """What tells the masks of one image apart.

    Attributes:
        prediction: of the network, without a mask.
        sigma: standard deviation of the output.
        index: of the output, int32.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
    """

    prediction: jax.Array
    sigma: jax.Array
    index: jax.Array
    lam: jax.Array
    gamma: jax.Array


class Prepared(NamedTuple):
    """A network and images, checked and run once.

    Attributes:
        tail: a pytree of its weights, ``features[1, *t, c] -> y[1, k]``.
        features: ``[b, *t, c]``.
        prediction: of the chosen outputs, ``[b, k]``.
        null: prediction from features that are all zero, ``[k]``.
        indices: of the chosen outputs.
        sigma: of the chosen outputs.
        geometry: of the features in the image.
        space: shape of the image.
    """

    tail: Model
    features: jax.Array
    prediction: jax.Array
    null: jax.Array
    indices: tuple[int, ...]
    sigma: tuple[float, ...]
    geometry: Geometry
    space: tuple[int, ...]


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
    lanes: int | None = None,
    mesh: Mesh | None = None,
    progress: Meter | None = None,
) -> MaskResult:
    r"""Masks on a network's features that keep each output where it is, within a budget, smoothly.

    For every output ``k`` and image, minimises over masks ``M[*t]`` of the features ``F = head(x)``

    ``|tail(F * M)_k - y_k| / sigma_k + lam * |1 - ||M||_2| + gamma * TV(M)``

    from the uniform mask ``1.1 / ||1||_2``, with the mean total variation over voxels and axes. All outputs
    of all images are jobs for the lanes of one compiled program (:func:`jaxsal.optim.minimise_groups`); every step
    evaluates the tail once. The mask is then brought to the image's grid between receptive-field centres, and values
    at or below a percentile are set to zero.

    Args:
        split: head and tail, see :func:`jaxsal.split`; :func:`jaxsal.at_input` puts the masks on the images.
        x: images ``[b, *space, c]``, float32.
        outputs: ``"all"`` or positions of the outputs to explain.
        sigma: standard deviation of the outputs over a population, in their units: a number for all, or one
            per output of the network.
        lam: weight of the norm term. Where the tail makes nothing of features that are zero, a mask of norm 1 over many
            voxels keeps little of a prediction; a smaller weight lets the mask grow, and at 0 a mask that is 1
            everywhere keeps everything and says nothing. ``terms.norm`` tells how far it grew.
        gamma: weight of the smoothness term.
        solver: an optax transform; None is ``optim.nonnegative(optim.prox_linear())``, the one recommended by
            measurement (docs/solvers.md); the paper's is :func:`jaxsal.optim.armijo_once`.
        stop: a stopping rule; None is the paper's stagnation over 50 steps at 1e-5.
        max_steps: most updates per lane, whatever the rule.
        percentile: 0 to 100; how much of the saliency is set to zero.
        geometry: where the features lie in the image; None reads it off the head's operations.
        lanes: masks of one image that are optimised side by side; None takes as many as are useful.
        mesh: of devices over which the images are spread; None is the default device.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks, saliency and diagnostics; arrays lead with ``[k, b]``.

    Raises:
        TypeError: if ``x`` is not a floating-point array.
        ValueError: if ``x``, the weights, ``outputs`` or ``sigma`` cannot be used, or the features have no
            spatial axes.
        Interrupted: on Ctrl-C; the finished lanes are in the exception, see :class:`jaxsal.optim.Interrupted`.

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
    check_weights(lam, gamma)
    prepared = prepare(split, x, outputs, sigma, geometry, percentile)
    found = optimise(
        image_objective,
        prepared.features[:, None],
        jobs_of(prepared, [(lam, gamma)]),
        uniform_start,
        prepared.tail,
        solver=solver,
        stop=stop,
        max_steps=max_steps,
        lanes=lanes,
        mesh=mesh,
        progress=progress,
    )
    result = collect(prepared, found, lam, gamma, percentile)
    warn_of_flips(result.negative_energy)
    return result


def prepare(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int],
    sigma: Any,
    where: Geometry | None,
    percentile: float,
) -> Prepared:
    """Check a network and images, and run them once; arguments as of :func:`smocam`."""
    check_input(x)
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile got {percentile}, a number from 0 to 100 is needed.")
    check_model(split.head)
    check_model(split.tail)
    head, tail = as_pytree(split.head), as_pytree(split.tail)
    where = geometry(head, x) if where is None else where
    features, prediction, null = _forward(head, tail, x)
    if features.ndim < 3:
        raise ValueError(
            f"The features have shape {features.shape} and no spatial axes: split at a layer before the flatten; "
            "print(layers(model, x)) shows which ones can be split."
        )
    if prediction.ndim != 2:
        raise ValueError(f"The network returns {prediction.shape}, [batch, outputs] is needed: reduce its other axes.")
    indices = output_indices(outputs, prediction.shape[1])
    sigmas = standard_deviations(sigma, prediction.shape[1])[list(indices)]
    chosen = jnp.asarray(indices)
    return Prepared(
        tail, features, prediction[:, chosen], null[chosen], indices, tuple(map(float, sigmas)), where, x.shape[1:-1]
    )


def check_weights(lam: float, gamma: float) -> None:
    """Refuse weights of the objective that are negative or not finite."""
    if not (np.isfinite(lam) and np.isfinite(gamma) and lam >= 0 and gamma >= 0):
        raise ValueError(f"lam and gamma got {lam} and {gamma}, finite weights of at least 0 are needed.")


def jobs_of(prepared: Prepared, weights: Sequence[tuple[float, float]]) -> Job:
    """The jobs of every image: each pair ``(lam, gamma)`` for each output, leaves ``[b, pairs * k]``."""
    dtype, (images, outputs), pairs = prepared.features.dtype, prepared.prediction.shape, len(weights)
    lams, gammas = (jnp.asarray(column, dtype).repeat(outputs) for column in zip(*weights, strict=True))
    row = Job(
        jnp.tile(prepared.prediction, (1, pairs)),
        jnp.tile(jnp.asarray(prepared.sigma, dtype), pairs),
        jnp.tile(jnp.asarray(prepared.indices), pairs),
        lams,
        gammas,
    )
    return jax.tree.map(lambda a: jnp.broadcast_to(a if a.ndim == 2 else a[None], (images, pairs * outputs)), row)


class Running(TypedDict, total=False):
    """How masks are optimised; see :func:`smocam`."""

    solver: optax.GradientTransformation | None
    stop: optim.StoppingRule | None
    max_steps: int
    lanes: int | None
    mesh: Mesh | None
    progress: Meter | None


def optimise(
    objective: Callable[[Any, Any, Any], optim.Objective],
    groups: Any,
    jobs: Any,
    initial: Callable[[Any, Any, Any], Any],
    shared: Any,
    rows: int | None = None,
    **running: Unpack[Running],
) -> optim.Lanes:
    """:func:`jaxsal.masks.optimising.optimise` with what :func:`smocam` takes by default."""
    solver, stop = running.get("solver"), running.get("stop")
    return optimise_masks(
        objective,
        groups,
        jobs,
        initial,
        shared,
        title="SMOCAM",
        solver=optim.nonnegative(optim.prox_linear()) if solver is None else solver,
        stop=optim.stagnation() if stop is None else stop,
        max_steps=running.get("max_steps", 2000),
        lanes=running.get("lanes"),
        rows=rows,
        mesh=running.get("mesh"),
        progress=running.get("progress"),
    )


def collect(prepared: Prepared, lanes: Any, lam: float, gamma: float, percentile: float) -> MaskResult:
    """What ended lanes ``[b, k]`` say about the network; the arguments are checked already."""
    mask, value, (parts, masked), steps, evaluations, status = (
        jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), getattr(lanes, name))
        for name in ("params", "value", "aux", "steps", "evaluations", "status")
    )
    y, null = prepared.prediction.T, jnp.broadcast_to(prepared.null[:, None], masked.shape)
    recovered = (masked - null) / (y - null)
    return MaskResult(
        mask=mask,
        saliency=saliency_of(mask, prepared.geometry, prepared.space, jnp.asarray(percentile, jnp.float32)),
        value=value,
        terms=parts,
        steps=steps,
        evaluations=evaluations,
        status=judge(status, y, null, recovered, jnp.asarray(prepared.sigma, y.dtype)[:, None]),
        prediction=y,
        masked_prediction=masked,
        null_prediction=null,
        recovered=recovered,
        negative_energy=negative_share(mask),
        config=SmocamConfig(
            prepared.indices, prepared.sigma, float(lam), float(gamma), float(percentile), prepared.geometry
        ),
        usage=lanes.usage,
    )


def negative_share(masks: jax.Array) -> jax.Array:
    """Share of ``||M||^2`` on negative values, of masks ``[k, b, *t]``."""
    spatial = tuple(range(2, masks.ndim))
    return (jnp.minimum(masks, 0) ** 2).sum(spatial) / (masks**2).sum(spatial)


def smocam_objective(
    tail: Model,
    features: jax.Array,
    index: jax.Array,
    prediction: jax.Array,
    sigma: jax.Array,
    lam: Any,
    gamma: Any,
    distance: terms.Distance = terms.l1_distance,
):
    """SMOCAM's objective for one output of one image, or for several outputs together.

    Args:
        tail: ``features[1, *t, c] -> y[1, k]``.
        features: ``[1, *t, c]``.
        index: of the output ``[]``, or of the outputs ``[n]``.
        prediction: its value without a mask, like ``index``.
        sigma: its standard deviation, like ``index``.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        distance: ``(masked prediction, prediction, sigma) -> []``, one of :mod:`jaxsal.masks.terms`.

    Returns:
        ``mask[*t] -> (value, (Terms, masked prediction))``.
    """
    under = masked(tail, features)

    def fit(mask: jax.Array):
        found = under(mask)[0, index]
        parts = Terms(distance(found, prediction, sigma), terms.unit_norm(mask), terms.total_variation(mask))
        return parts.distance, (parts, found)

    return optim.Composite(fit, optim.MaskPenalty(lam, gamma))


def uniform_mask(shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """The paper's start: ``1.1 / ||1||_2`` everywhere, a norm just above the budget."""
    return jnp.full(shape, 1.1 / np.sqrt(np.prod(shape)), dtype)


def image_objective(job: Job, features: jax.Array, tail: Model) -> optim.Objective:
    """SMOCAM's objective for a job of the image whose ``features[1, *t, c]`` are given."""
    return smocam_objective(tail, features, job.index, job.prediction, job.sigma, job.lam, job.gamma)


def uniform_start(job: Job, features: jax.Array, tail: Model) -> jax.Array:
    """Where every job starts, see :func:`uniform_mask`."""
    return uniform_mask(features.shape[1:-1], features.dtype)


@jax.jit
def _forward(head: Model, tail: Model, x: jax.Array):
    features = lower(head)(x)
    nothing = lower(tail)(jnp.zeros_like(features[:1]))
    return features, lower(tail)(features), nothing[0]


@functools.partial(jax.jit, static_argnums=(1, 2))
def saliency_of(masks: jax.Array, geometry: Geometry, shape: tuple[int, ...], percentile: jax.Array) -> jax.Array:
    """Masks ``[k, b, *t]`` on the image's grid, with values at or below a percentile set to zero."""
    return one_by_one(lambda mask: keep_top(upsample(mask, geometry, shape), percentile, len(shape)), masks, len(shape))
