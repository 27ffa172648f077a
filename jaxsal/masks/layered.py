"""SMOCAM with a mask on each of several layers, optimised together."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from jaxsal import optim
from jaxsal.chaining import Chain
from jaxsal.engine.geometry import Geometry, geometry
from jaxsal.engine.lower import lower
from jaxsal.engine.masked import masked
from jaxsal.engine.upsampling import upsample
from jaxsal.masks import terms
from jaxsal.masks.result import Terms, described, judge, status_words, voxels, warn_of_flips
from jaxsal.masks.smocam import (
    Job,
    Prepared,
    Running,
    check_weights,
    jobs_of,
    negative_share,
    optimise,
    prepare,
    saliency_of,
    uniform_mask,
)
from jaxsal.masks.upsample import keep_top
from jaxsal.model import Model, as_pytree, check_model
from jaxsal.splitting import Split


class LayersConfig(NamedTuple):
    """What masks on several layers were optimised with.

    Attributes:
        outputs: index of the output of every lane.
        sigma: standard deviation of each of these outputs.
        lam: weight of the norm terms.
        gamma: weight of the smoothness terms.
        percentile: below which the saliencies are zero.
        geometries: of the grid of every layer's mask in the image.
    """

    outputs: tuple[int, ...]
    sigma: tuple[float, ...]
    lam: float
    gamma: float
    percentile: float
    geometries: tuple[Geometry, ...]


@dataclass(frozen=True, repr=False)
class LayersResult:
    """A mask on every one of ``n`` layers, for ``k`` outputs of ``b`` images.

    Attributes:
        masks: of every layer, ``[k, b, *t]`` on the grid of its features.
        saliencies: of every layer, ``[k, b, *space]``, upsampled to the image and thresholded.
        saliency: of all layers together, ``[k, b, *space]``: the product of the upsampled masks, thresholded after
            that. It is what is left of a voxel that is dimmed by every mask in turn; what one mask takes away, no other
            brings back.
        value: of the objective, ``[k, b]`` like all that follow unless another shape is given.
        terms: its parts; ``norm`` and ``smoothness`` are ``[k, b, n]``.
        steps: updates made.
        evaluations: of the objective with its gradient.
        status: see :class:`jaxsal.optim.Status` and :func:`jaxsal.masks.result.judge`.
        prediction: of the whole network.
        masked_prediction: of the network with every layer masked.
        null_prediction: with all masks zero, which is the last stage on features that are all zero.
        recovered: ``(masked - null) / (prediction - null)``.
        negative_energy: share of ``||M||^2`` on negative values, ``[k, b, n]``.
        config: what the masks were optimised with.
        usage: of the lanes.
    """

    masks: tuple[jax.Array, ...]
    saliencies: tuple[jax.Array, ...]
    saliency: jax.Array
    value: jax.Array
    terms: Terms
    steps: jax.Array
    evaluations: jax.Array
    status: np.ndarray
    prediction: jax.Array
    masked_prediction: jax.Array
    null_prediction: jax.Array
    recovered: jax.Array
    negative_energy: jax.Array
    config: LayersConfig
    usage: optim.Usage

    @property
    def status_names(self) -> list[list[str]]:
        """The status of every lane in words, ``[k][b]``."""
        return status_words(self.status)

    def __repr__(self) -> str:
        grids = ", ".join(voxels(mask.shape[2:]) for mask in self.masks)
        return described(self, f"masks of {grids}", self.negative_energy.max(-1), self.steps)


def smocam_layers(
    chain: Chain,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    sigma: Any = 1.0,
    lam: float = 1.0,
    gamma: float = 30.0,
    percentile: float = 95,
    geometry: Sequence[Geometry] | None = None,
    **running: Unpack[Running],
) -> LayersResult:
    r"""SMOCAM with one mask on each of several layers, all of them optimised together.

    For every output ``k`` and image, minimises over masks ``M_1 ... M_n`` of the features of ``n`` layers

    ``|y_k(M) - y_k| / sigma_k + sum_i (lam * |1 - ||M_i||_2| + gamma * TV(M_i))``

    with ``y(M)`` the network whose layers are masked one after the other, ``h_1 = stage_0(x)``,
    ``h_{i+1} = stage_i(h_i * M_i)``, ``y(M) = h_{n+1}``. Every mask starts uniform; all else is as in :func:`smocam`,
    which this is for one layer. Masks dim one after the other: with ``n`` of them of norm 1 less of a prediction is
    kept than with one, and a smaller ``lam`` is needed.

    The parameters of the solver are the tuple of masks. ``optim.nonnegative`` and ``optim.in_box`` hold for every value
    of every mask; step sizes, line searches and norms are those of all masks together. So is the budget of
    ``optim.on_sphere``, ``sum_i ||M_i||_2^2 = 1``: the layers share it, as the objective sees fit, while the norm terms
    ask for ``||M_i||_2 = 1`` each; take ``lam=0`` with it.

    Args:
        chain: the network cut after every layer that gets a mask, see :func:`jaxsal.chain`.
        x: images ``[b, *space, c]``.
        outputs: to explain.
        sigma: standard deviation of the outputs, see :func:`smocam`, as all that is not described here.
        lam: weight of the norm terms.
        gamma: weight of the smoothness terms.
        percentile: 0 to 100.
        geometry: of every layer's features; None reads them off the operations.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        Masks and maps per layer, and one map of them all.

    Raises:
        TypeError: as :func:`smocam`.
        ValueError: as :func:`smocam`, and if there is no cut, or the features of a layer have no spatial axes.

    Example:
        >>> from jaxsal.chaining import Chain
        >>> stages = jnp.sqrt, lambda f: f[:, ::2, ::2], lambda f: f.sum((1, 2))
        >>> x = jnp.ones((1, 8, 8, 1)).at[0, 2:4, 2:4].set(100.0)
        >>> result = smocam_layers(Chain(stages), x, sigma=10.0, max_steps=20, percentile=90)
        >>> [mask.shape for mask in result.masks], result.saliency.shape
        ([(1, 1, 8, 8), (1, 1, 4, 4)], (1, 1, 8, 8))
    """
    check_weights(lam, gamma)
    stages = tuple(map(as_pytree, chain.stages))
    cuts = len(stages) - 1
    if cuts < 1:
        raise ValueError("The chain has no cut, hence no place for a mask: see jaxsal.chain(model, x, at=[...]).")
    if geometry is not None and len(geometry) != cuts:
        raise ValueError(f"geometry has {len(geometry)} entries, one for each of the {cuts} layers is needed.")
    for stage in stages:
        check_model(stage)
    parts = Split(stages[0], Partial(_in_turn, stages[1:]))
    prepared = prepare(parts, x, outputs, sigma, geometry[0] if geometry else None, percentile)
    last = _check_features(stages, x)
    prepared = prepared._replace(null=_nothing(stages[-1], last)[jnp.asarray(prepared.indices)])
    found = optimise(
        _objective, prepared.features[:, None], jobs_of(prepared, [(lam, gamma)]), _start, stages[1:], **running
    )
    where = _geometries(stages, x) if geometry is None else tuple(geometry)
    config = LayersConfig(prepared.indices, prepared.sigma, float(lam), float(gamma), float(percentile), where)
    result = _collect(prepared, found, config)
    warn_of_flips(result.negative_energy)
    return result


def _in_turn(stages: tuple[Model, ...], x: jax.Array) -> jax.Array:
    for stage in stages:
        x = stage(x)
    return x


def _check_features(stages: tuple[Model, ...], x: jax.Array) -> Any:
    """Refuse layers without spatial axes; shape and dtype of the last layer's features."""
    features = jax.eval_shape(lambda x: x, x)
    for position, stage in enumerate(stages[:-1]):
        features = jax.eval_shape(functools.partial(_in_turn, (stage,)), features)
        if features.ndim < 3:
            raise ValueError(
                f"The features behind stage {position} have shape {features.shape} and no spatial axes: cut at layers "
                "before the flatten; print(layers(model, x)) shows which ones can be split."
            )
    return features


def _geometries(stages: tuple[Model, ...], x: jax.Array) -> tuple[Geometry, ...]:
    return tuple(geometry(Partial(_in_turn, stages[: i + 1]), x) for i in range(len(stages) - 1))


def _nothing(tail: Model, features: Any) -> jax.Array:
    return _on_zeros(tail, (1, *features.shape[1:]), features.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _on_zeros(tail: Model, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return lower(tail)(jnp.zeros(shape, dtype))[0]


def _objective(job: Job, features: jax.Array, stages: tuple[Model, ...]) -> optim.Objective:
    """SMOCAM's objective for a job of the image whose ``features[1, *t, c]`` of the first layer are given."""
    under = masked(stages[0], features)

    def distance(masks: tuple[jax.Array, ...]):
        values = under(masks[0])
        for stage, mask in zip(stages[1:], masks[1:], strict=True):
            values = lower(stage)(values * mask[None, ..., None])
        found = values[0, job.index]
        norms, variations = (
            jnp.stack([term(mask) for mask in masks]) for term in (terms.unit_norm, terms.total_variation)
        )
        parts = Terms(terms.l1_distance(found, job.prediction, job.sigma), norms, variations)
        return parts.distance, (parts, found)

    return optim.Composite(distance, optim.MaskPenalty(job.lam, job.gamma))


def _start(job: Job, features: jax.Array, stages: tuple[Model, ...]) -> tuple[jax.Array, ...]:
    shapes = [features.shape]
    for i in range(1, len(stages)):
        shapes.append(jax.eval_shape(functools.partial(_in_turn, stages[:i]), features).shape)
    return tuple(uniform_mask(shape[1:-1], features.dtype) for shape in shapes)


def _collect(prepared: Prepared, lanes: optim.Lanes, config: LayersConfig) -> LayersResult:
    masks, value, (parts, found), steps, evaluations, status = (
        jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), getattr(lanes, name))
        for name in ("params", "value", "aux", "steps", "evaluations", "status")
    )
    y, null = prepared.prediction.T, jnp.broadcast_to(prepared.null[:, None], found.shape)
    recovered = (found - null) / (y - null)
    threshold = jnp.asarray(config.percentile, jnp.float32)
    return LayersResult(
        masks=masks,
        saliencies=tuple(
            saliency_of(mask, where, prepared.space, threshold)
            for mask, where in zip(masks, config.geometries, strict=True)
        ),
        saliency=_product(masks, config.geometries, prepared.space, threshold),
        value=value,
        terms=parts,
        steps=steps,
        evaluations=evaluations,
        status=judge(status, y, null, recovered, jnp.asarray(prepared.sigma, y.dtype)[:, None]),
        prediction=y,
        masked_prediction=found,
        null_prediction=null,
        recovered=recovered,
        negative_energy=jnp.stack([negative_share(mask) for mask in masks], -1),
        config=config,
        usage=lanes.usage,
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _product(
    masks: tuple[jax.Array, ...], geometries: tuple[Geometry, ...], shape: tuple[int, ...], percentile: jax.Array
) -> jax.Array:
    lanes = masks[0].shape[:2]

    def together(own: tuple[jax.Array, ...]) -> jax.Array:
        first, *others = (upsample(mask, where, shape) for mask, where in zip(own, geometries, strict=True))
        for other in others:
            first = first * other
        return keep_top(first, percentile, len(shape))

    maps = jax.lax.map(together, tuple(mask.reshape(-1, *mask.shape[2:]) for mask in masks))
    return maps.reshape(*lanes, *shape)
