"""What an optimised mask is, and how far it can be believed."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsal.engine.geometry import Geometry
from jaxsal.optim import Status, Usage


class Terms(NamedTuple):
    """The parts of SMOCAM's objective, before their weights.

    Attributes:
        distance: ``|masked prediction - prediction| / sigma``.
        norm: ``|1 - ||M||_2|``.
        smoothness: mean total variation.
    """

    distance: jax.Array
    norm: jax.Array
    smoothness: jax.Array


class SmocamConfig(NamedTuple):
    """What a mask was optimised with.

    Attributes:
        outputs: index of the output of every lane.
        sigma: standard deviation of each of these outputs.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: below which the saliency is zero.
        geometry: of the mask's grid in the image.
    """

    outputs: tuple[int, ...]
    sigma: tuple[float, ...]
    lam: float
    gamma: float
    percentile: float
    geometry: Geometry


@dataclass(frozen=True, repr=False)
class MaskResult:
    """Masks for ``k`` outputs of ``b`` images and what tells a true explanation from an empty one.

    Attributes:
        mask: ``[k, b, *t]``, on the grid of the features.
        saliency: ``[k, b, *space]``, upsampled to the image and thresholded.
        value: of the objective, ``[k, b]`` like all that follow.
        terms: its parts.
        steps: updates made.
        evaluations: of the tail with its gradient.
        status: see :class:`jaxsal.optim.Status`; ``UNEXPLAINED`` where ``|recovered - 1| > 0.5``, see :func:`judge`.
        prediction: of the whole network.
        masked_prediction: of the tail on the masked features.
        null_prediction: of the tail on features that are all zero.
        recovered: ``(masked - null) / (prediction - null)``, 1 for a mask that keeps all that matters, below for one
            that misses some of it, above for one that overshoots.
        negative_energy: share of ``||M||^2`` on negative values; large ones mean flipped features.
        config: what the masks were optimised with.
        usage: of the lanes; masks that were optimised in one run have it in common.
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
    usage: Usage

    @property
    def status_names(self) -> list[list[str]]:
        """The status of every lane in words, ``[k][b]``."""
        return status_words(self.status)

    def __repr__(self) -> str:
        return described(self, f"masks of {voxels(self.mask.shape[2:])}", self.negative_energy, self.steps)


def status_words(status: np.ndarray) -> list[list[str]]:
    """Status codes ``[k, b]`` in words, ``[k][b]``."""
    return [[Status(code).name.lower() for code in row] for row in status.tolist()]


def voxels(shape: Sequence[int]) -> str:
    """A grid in words."""
    return f"{' x '.join(map(str, shape))} voxels"


def described(result: Any, title: str, negative: Any, steps: Any) -> str:
    """A result as text: what it is, what it cost, a line per output and image.

    Args:
        result: with ``prediction``, ``masked_prediction``, ``recovered`` and ``status`` of shape ``[k, b]``, ``config``
            and ``usage``.
        title: what the masks are.
        negative: energy of a mask on negative values, ``[k, b]``.
        steps: of a mask, ``[k, b]``.
    """
    columns = ("output", "image", "prediction", "masked", "recovered", "negative", "steps", "status")
    lines = ["".join(f"{name:>13}" for name in columns)]
    numbers = [np.asarray(a) for a in (result.prediction, result.masked_prediction, result.recovered, negative)]
    words = status_words(result.status)
    for place in np.ndindex(*result.status.shape):
        cells = [result.config.outputs[place[0]], place[1], *(f"{float(a[place]):.4g}" for a in numbers)]
        cells += [int(steps[place]), words[place[0]][place[1]]]
        lines.append("".join(f"{cell!s:>13}" for cell in cells))
    return "\n".join([f"{type(result).__name__}: {title}", _used(result.usage), *lines])


def _used(usage: Usage) -> str:
    return f"{usage.lanes} lanes side by side, {usage.utilisation:.0%} of their steps of use"


def judge(
    status: Any, prediction: Any, null: Any, recovered: Any, sigma: Any, off: float = 0.5, least: float = 0.1
) -> np.ndarray:
    """Status of ended lanes, once it is known what their masks recover.

    Args:
        status: how the optimisation ended, int array.
        prediction: of the network.
        null: prediction without features.
        recovered: share of the difference that the mask recovers.
        sigma: standard deviation of the output; all arrays broadcast.
        off: when the share is further from 1, below or above, a mask is ``UNEXPLAINED``: one that makes three times
            the prediction explains it no better than one that makes nothing of it.
        least: below this difference, in sigma, an output is ``UNINFORMATIVE``.

    Returns:
        Status codes; a lane that was not finite stays so.
    """
    status = np.asarray(status)
    judged = np.where(np.abs(np.asarray(recovered) - 1) > off, Status.UNEXPLAINED, status)
    judged = np.where(np.abs(np.asarray(prediction - null)) < least * np.asarray(sigma), Status.UNINFORMATIVE, judged)
    return np.where(status == Status.NOT_FINITE, status, judged).astype(np.int32)


def warn_of_flips(negative_energy: Any, limit: float = 0.1, stacklevel: int = 3) -> None:
    """Warn of masks that work by flipping the sign of features."""
    flipped = np.argwhere(np.asarray(negative_energy) > limit)
    if len(flipped):
        warnings.warn(
            f"{len(flipped)} of {np.size(negative_energy)} masks have more than {limit:.0%} of their energy on "
            "negative values: they reproduce the prediction with flipped features, which explains little. "
            "Use solver=optim.nonnegative(optim.armijo_once()).",
            stacklevel=stacklevel,
        )
