"""One SMOCAM mask that keeps several outputs of a network together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import optim
from jaxsal.engine.geometry import Geometry
from jaxsal.masks import terms
from jaxsal.masks.result import SmocamConfig, Terms, described, judge, status_words, voxels, warn_of_flips
from jaxsal.masks.smocam import (
    Job,
    Prepared,
    Running,
    check_weights,
    negative_share,
    optimise,
    prepare,
    saliency_of,
    smocam_objective,
    uniform_start,
)
from jaxsal.model import Model
from jaxsal.splitting import Split


@dataclass(frozen=True, repr=False)
class JointResult:
    """One mask for each of ``b`` images, and what becomes of ``k`` outputs under it.

    Attributes:
        mask: ``[b, *t]``, on the grid of the features.
        saliency: ``[b, *space]``, upsampled to the image and thresholded.
        value: of the objective, ``[b]``.
        terms: its parts, ``[b]``; the distance is that over all outputs.
        steps: updates made, ``[b]``.
        evaluations: of the tail with its gradient, ``[b]``.
        status: ``[k, b]``, see :class:`jaxsal.optim.Status`: how the optimisation of the mask ended, or ``UNEXPLAINED``
            or ``UNINFORMATIVE`` for the outputs of which the mask recovers too little, see
            :func:`jaxsal.masks.result.judge`.
        prediction: of the whole network, ``[k, b]`` like all that follow, with two exceptions.
        masked_prediction: of the tail on the masked features.
        null_prediction: of the tail on features that are all zero.
        recovered: ``(masked - null) / (prediction - null)``.
        negative_energy: share of ``||M||^2`` on negative values, ``[b]``.
        config: what the masks were optimised with.
        usage: of the lanes.
    """

    mask: jax.Array
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
    config: SmocamConfig
    usage: optim.Usage

    @property
    def status_names(self) -> list[list[str]]:
        """The status of every output under its mask in words, ``[k][b]``."""
        return status_words(self.status)

    def __repr__(self) -> str:
        negative, steps = (
            np.broadcast_to(np.asarray(a), self.status.shape) for a in (self.negative_energy, self.steps)
        )
        return described(self, f"one mask of {voxels(self.mask.shape[1:])} for all outputs", negative, steps)


def smocam_joint(
    split: Split,
    x: jax.Array,
    outputs: str | Sequence[int] = "all",
    *,
    distance: terms.Distance = terms.l1_distance,
    sigma: Any = 1.0,
    lam: float = 1.0,
    gamma: float = 30.0,
    percentile: float = 95,
    geometry: Geometry | None = None,
    **running: Unpack[Running],
) -> JointResult:
    r"""One mask per image that keeps several outputs where they are: what they have in common, and what each needs.

    For every image, minimises over masks ``M[*t]`` of the features ``F = head(x)``

    ``d(tail(F * M), y; sigma) + lam * |1 - ||M||_2| + gamma * TV(M)``

    with ``d`` the mean over the ``k`` outputs of ``|tail(F * M)_k - y_k| / sigma_k``, and all else as in
    :func:`smocam`, which this is for a single output. A mean does not keep all outputs alike: ``recovered`` and
    ``status`` tell for each of them how well the mask explains it.

    Args:
        split: see :func:`smocam`, as all that is not described here.
        x: images ``[b, *space, c]``.
        outputs: to keep together.
        distance: ``(masked[k], prediction[k], sigma[k]) -> []``, a function of a module. With
            :func:`jaxsal.masks.terms.cosine_distance` a mask keeps the proportions of the outputs, in units of
            ``sigma``, and not their sizes; ``recovered`` may then be the same number for all, far from 1, and their
            status ``UNEXPLAINED``.
        sigma: standard deviation of the outputs: a number, or one per output of the network.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: 0 to 100.
        geometry: of the features.
        **running: ``solver``, ``stop``, ``max_steps``, ``lanes``, ``mesh``, ``progress``.

    Returns:
        A mask per image, and diagnostics per output and image.

    Raises:
        TypeError: as :func:`smocam`, and if ``distance`` is no function.
        ValueError: as :func:`smocam`.

    Example:
        >>> head, tail = jnp.sqrt, lambda f: jnp.stack([f[:, :4].sum((1, 2, 3)), f[:, 4:].sum((1, 2, 3))], -1)
        >>> x = jnp.ones((1, 8, 8, 1)).at[0, 2:6, 2:4].set(100.0)
        >>> result = smocam_joint(Split(head, tail), x, sigma=10.0, max_steps=20, percentile=90)
        >>> result.mask.shape, result.recovered.shape
        ((1, 8, 8), (2, 1))
    """
    check_weights(lam, gamma)
    if not callable(distance):
        raise TypeError(f"distance got {distance!r}, a function is needed, e.g. jaxsal.masks.terms.cosine_distance.")
    prepared = prepare(split, x, outputs, sigma, geometry, percentile)
    found = optimise(
        optim.Applied(_objective, (distance,)),
        prepared.features[:, None],
        _jobs(prepared, lam, gamma),
        uniform_start,
        prepared.tail,
        **running,
    )
    result = _collect(prepared, found, lam, gamma, percentile)
    warn_of_flips(result.negative_energy)
    return result


def _objective(distance: terms.Distance, job: Job, features: jax.Array, tail: Model) -> optim.Objective:
    return smocam_objective(tail, features, job.index, job.prediction, job.sigma, job.lam, job.gamma, distance)


def _jobs(prepared: Prepared, lam: float, gamma: float) -> Job:
    """One job per image: leaves ``[b, 1, k]``, those of the weights ``[b, 1]``."""
    dtype, (images, outputs) = prepared.features.dtype, prepared.prediction.shape
    each = (images, 1, outputs)
    return Job(
        prepared.prediction[:, None],
        jnp.broadcast_to(jnp.asarray(prepared.sigma, dtype)[None, None], each),
        jnp.broadcast_to(jnp.asarray(prepared.indices)[None, None], each),
        jnp.full((images, 1), lam, dtype),
        jnp.full((images, 1), gamma, dtype),
    )


def _collect(prepared: Prepared, lanes: optim.Lanes, lam: float, gamma: float, percentile: float) -> JointResult:
    mask, value, (parts, masked), steps, evaluations, status = (
        jax.tree.map(lambda a: a[:, 0], getattr(lanes, name))
        for name in ("params", "value", "aux", "steps", "evaluations", "status")
    )
    y, masked = prepared.prediction.T, masked.T
    null = jnp.broadcast_to(prepared.null[:, None], y.shape)
    recovered = (masked - null) / (y - null)
    threshold = jnp.asarray(percentile, jnp.float32)
    return JointResult(
        mask=mask,
        saliency=saliency_of(mask[None], prepared.geometry, prepared.space, threshold)[0],
        value=value,
        terms=parts,
        steps=steps,
        evaluations=evaluations,
        status=judge(
            np.broadcast_to(np.asarray(status), y.shape),
            y,
            null,
            recovered,
            jnp.asarray(prepared.sigma, y.dtype)[:, None],
        ),
        prediction=y,
        masked_prediction=masked,
        null_prediction=null,
        recovered=recovered,
        negative_energy=negative_share(mask[None])[0],
        config=SmocamConfig(
            prepared.indices, prepared.sigma, float(lam), float(gamma), float(percentile), prepared.geometry
        ),
        usage=lanes.usage,
    )
