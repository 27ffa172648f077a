"""What masks on the input are, and how far they can be believed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsal.masks.result import judge
from jaxsal.masks.scores import Game, Score
from jaxsal.optim import Lanes, Status, Usage


class Parts(NamedTuple):
    """The parts of a perturbation objective, before their weights.

    Attributes:
        score: what the mask keeps or destroys; see :func:`jaxsal.masks.meaningful_perturbation`.
        sparsity: penalty on what is deleted or kept, or on an area that was missed.
        smoothness: penalty on roughness.
    """

    score: jax.Array
    sparsity: jax.Array
    smoothness: jax.Array


class ExtremalParts(NamedTuple):
    """The parts of an extremal perturbation's objective, before their weights.

    Attributes:
        score: what the mask is to raise.
        area: ``mean (sorted mask - step at the area)^2``, 0 for a mask of 0 and 1 of just that area.
    """

    score: jax.Array
    area: jax.Array


class Measured(NamedTuple):
    """Values that are explained: a probability or an output, of one lane or of all.

    Attributes:
        whole: of the image.
        masked: of the image under its mask.
        null: of the image with everything deleted.
    """

    whole: jax.Array
    masked: jax.Array
    null: jax.Array


class Found(NamedTuple):
    """What is known of a mask that was found, of one lane or of all.

    Attributes:
        value: of the objective.
        terms: its parts.
        values: that are explained.
        saliency: ``[..., *space]``, see :class:`PerturbationResult`.
    """

    value: jax.Array
    terms: Parts | ExtremalParts
    values: Measured
    saliency: jax.Array


@dataclass(frozen=True, repr=False)
class PerturbationResult:
    """Masks on the input and what tells a true explanation from an empty one.

    Masks lie within [0, 1]; 1 keeps the image. Without jitter and noise, ``value``, ``terms`` and the predictions are
    those of the returned masks.

    Attributes:
        mask: ``[..., *t]``, on the mask's own grid; the leading axes are the lanes'.
        saliency: ``[..., *space]``, on the image's grid: ``1 - m``, what a mask deletes, or in the preservation game
            ``m``, what it keeps.
        value: of the objective, ``[...]`` like all that follow.
        terms: its parts.
        steps: updates made.
        evaluations: of the network with its gradient.
        status: see :class:`jaxsal.optim.Status`; ``UNEXPLAINED`` where the mask does less than half of what deleting
            everything does (in the preservation game: keeps less than half of it, or of an output also more than one
            and a half).
        prediction: the value that is explained: a probability or an output.
        masked_prediction: under the mask.
        null_prediction: with everything deleted.
        recovered: ``(masked - null) / (prediction - null)``: about 1 for a mask that preserves, 0 for one that
            deletes. Of an output that is moved to a goal, the goal takes the place of ``null``.
        lanes: what the leading axes are, e.g. ``("image",)`` or ``("area", "image")``.
        game: what was played.
        usage: what the optimisation cost.
        subjects: of a group mask: whether a subject counts, ``[fold, n]``; else None.
    """

    mask: jax.Array
    saliency: jax.Array
    value: jax.Array
    terms: Parts | ExtremalParts
    steps: jax.Array
    evaluations: jax.Array
    status: np.ndarray
    prediction: jax.Array
    masked_prediction: jax.Array
    null_prediction: jax.Array
    recovered: jax.Array
    lanes: tuple[str, ...]
    game: str
    usage: Usage
    subjects: np.ndarray | None = None

    @property
    def status_names(self) -> Any:
        """The status of every lane in words, nested lists like ``status``."""
        return np.vectorize(lambda code: Status(code).name.lower(), otypes=[object])(self.status).tolist()

    def __repr__(self) -> str:
        lines = ["".join(f"{name:>13}" for name in (*self.lanes, *_COLUMNS))]
        for at, code in np.ndenumerate(self.status):
            numbers = (self.prediction, self.masked_prediction, self.null_prediction, self.recovered)
            cells = [*at, *(f"{float(n[at]):.4g}" for n in numbers), int(self.steps[at]), Status(code).name.lower()]
            lines.append("".join(f"{cell!s:>13}" for cell in cells))
        shape = " x ".join(map(str, self.mask.shape[len(self.lanes) :]))
        return "\n".join([f"PerturbationResult: {self.game} masks of {shape} voxels", *lines])


_COLUMNS = ("prediction", "masked", "null", "recovered", "steps", "status")


def collect(
    ended: Lanes,
    found: Found,
    arranged: Callable[[jax.Array], jax.Array],
    *,
    lanes: tuple[str, ...],
    game: str,
    score: Score,
    sigma: jax.Array | float,
    goal: jax.Array | None = None,
    subjects: np.ndarray | None = None,
) -> PerturbationResult:
    """The result of ended lanes, judged.

    Args:
        ended: ``[groups, jobs of a group]``.
        found: of each of them.
        arranged: brings these axes to the result's.
        lanes: what the result's leading axes are.
        game: what was played.
        score: what was explained.
        sigma: standard deviation of the values, ``[groups, jobs of a group]`` or a number; probabilities have 1.
        goal: to which the values were moved, like ``sigma``, if they were.
        subjects: of a group mask.
    """
    masks, steps, evaluations, status, found = jax.tree.map(
        arranged, (ended.params, ended.steps, ended.evaluations, ended.status, found)
    )
    # moved towards a goal, an output has arrived there and not where everything is deleted
    ends = found.values if goal is None else found.values._replace(null=arranged(goal))
    unit = arranged(sigma) if isinstance(sigma, jax.Array) else sigma
    share, codes = judged(status, ends, "deletion" if game == "deletion" else "preservation", score, unit)
    return PerturbationResult(
        mask=masks,
        saliency=found.saliency,
        value=found.value,
        terms=found.terms,
        steps=steps,
        evaluations=evaluations,
        status=codes,
        prediction=found.values.whole,
        masked_prediction=found.values.masked,
        null_prediction=found.values.null,
        recovered=share,
        lanes=lanes,
        game=game,
        usage=ended.usage,
        subjects=subjects,
    )


def judged(status: Any, values: Measured, game: Game, score: Score, sigma: Any) -> tuple[jax.Array, np.ndarray]:
    """Share of the prediction that masks leave, and the status of their lanes.

    Args:
        status: how the optimisation ended.
        values: measured.
        game: what was played.
        score: what was explained.
        sigma: standard deviation of the values; probabilities have 1.

    Returns:
        ``recovered`` and status codes.
    """
    difference = values.whole - values.null
    recovered = (values.masked - values.null) / jax.numpy.where(difference == 0, np.nan, difference)
    if game == "preservation" and score == "closeness":
        done = recovered
    else:
        # to destroy more than deleting everything does, or to make a class even more likely, is no failure
        done = jax.numpy.minimum(recovered if game == "preservation" else 1 - recovered, 1)
    return recovered, judge(status, values.whole, values.null, done, sigma)
