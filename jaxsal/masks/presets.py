"""Meaningful perturbation as its authors and users set it up, by name."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optax

from jaxsal import optim
from jaxsal.masks import fills, separable
from jaxsal.masks.fills import Fill
from jaxsal.masks.penalties import Penalty, share_mean, share_sum, variation_mean, variation_sum
from jaxsal.masks.scores import Score
from jaxsal.optim.applied import Applied

Upsampling = Callable[[int, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that tells one kind of meaningful perturbation from another; vary it with ``dataclasses.replace``.

    Attributes:
        fill: what is put where the mask deletes.
        score: what is explained, see :func:`jaxsal.masks.meaningful_perturbation`.
        solver: an optax transform for masks, see :func:`jaxsal.masks.meaningful_perturbation`.
        steps: how many it makes.
        lam1: weight of the sparsity.
        sparsity: penalty on the share of the mask's grid that is deleted (or kept, in the preservation game).
        lam2: weight of the smoothness.
        smoothness: penalty on the mask's roughness.
        smoothness_on: whether that is measured on the mask's own grid or on the image's.
        factor: image voxels per voxel of the mask, along every axis; as many whole ones as fit.
        upsampling: from the mask's grid to the image's, ``(size, voxels) -> matrix [size, voxels]`` per axis.
        shown: the same for the saliency that is returned.
        start: value of the mask at the start, or ``"ball"``: the smallest blurred ball in the middle that destroys
            99 % of what can be destroyed.
        jitter: the image lies up to so many voxels further along every axis, under a mask that stays.
        samples: copies of the image, each with its own jitter and noise, in every step.
        noise: standard deviation of noise that is added to the perturbed image, in its units.
        floor: scores below it are as good as it; None for no floor.
        warm_up: steps over which the penalties grow linearly from 0 to their weights.
        best_after: return the mask of the least value after so many evaluations; None for the last mask.
    """

    fill: Fill
    score: Score
    solver: optax.GradientTransformation
    steps: int
    lam1: float
    sparsity: Penalty
    lam2: float
    smoothness: Penalty
    factor: int
    smoothness_on: Literal["mask", "image"] = "mask"
    upsampling: Upsampling = separable.linear
    shown: Upsampling = separable.linear
    start: float | Literal["ball"] = 0.5
    jitter: int = 0
    samples: int = 1
    noise: float = 0.0
    floor: float | None = None
    warm_up: int = 0
    best_after: int | None = None


def preset(name: str | Recipe | None) -> Recipe:
    """The constants of a published programme.

    Args:
        name: ``"fong"``: Fong and Vedaldi's own code of 2017; ``"fong-torch"``: Fong's later one; ``"jacobgil"``: the
            widely used PyTorch version; ``"kan"``: 3-D, Kan et al. 2020; None: jaxsal's own, without randomness and for
            any output; or a recipe of one's own.

    Raises:
        ValueError: if there is none of that name.

    References:
        Fong and Vedaldi, Interpretable explanations of black boxes by meaningful perturbation, ICCV 2017,
        https://doi.org/10.1109/ICCV.2017.371; Kan et al., Interpretation of 3D CNNs for brain MRI data
        classification, 2020, https://arxiv.org/abs/2006.15969

    Example:
        >>> preset("kan").factor, preset("fong").steps
        (4, 300)
    """
    if isinstance(name, Recipe):
        return name
    if name not in _PRESETS:
        names = ", ".join(repr(known) for known in _PRESETS)
        raise ValueError(f"preset got {name!r}: give one of {names}, or a Recipe.")
    return _PRESETS[name]()


def _own() -> Recipe:
    return Recipe(
        fill=fills.blur(10.0),
        score="closeness",
        solver=optim.clipped(optim.adam(0.1)),
        steps=300,
        lam1=10.0,
        sparsity=share_mean(1),
        lam2=1.0,
        smoothness=variation_mean(2),
        factor=4,
    )


def _fong() -> Recipe:
    upsampling = Applied(separable.nearest_blurred, (5.0,))
    return Recipe(
        fill=fills.crossfade(10.0),
        score="probability",
        solver=optim.clipped(optim.adam(0.1)),
        steps=300,
        lam1=1e-4,
        sparsity=share_sum(1),
        lam2=1e-2,
        smoothness=variation_sum(3),
        factor=8,
        upsampling=upsampling,
        shown=upsampling,
        start="ball",
        jitter=3,
    )


def _fong_torch() -> Recipe:
    return Recipe(
        # an 11 x 11 window
        fill=fills.crossfade(10.0, radius=5),
        score="probability",
        solver=optim.clipped(optim.adam(0.1)),
        steps=300,
        lam1=1e-2,
        sparsity=share_mean(1),
        lam2=1e-4,
        smoothness=variation_sum(3),
        factor=8,
        start=0.5,
    )


def _jacobgil() -> Recipe:
    return Recipe(
        fill=fills.median(11),
        score="probability",
        solver=optim.clipped(optim.adam(0.1)),
        steps=500,
        lam1=1e-2,
        sparsity=share_mean(1),
        lam2=0.2,
        smoothness=variation_mean(3),
        factor=8,
        upsampling=separable.linear_between_corners,
        shown=separable.linear_between_corners,
        start=1.0,
        noise=0.2,
    )


def _kan() -> Recipe:
    return Recipe(
        # both filters are 5 voxels wide: with a sigma of 10 they are almost means
        fill=fills.crossfade(10.0, radius=2),
        score="probability",
        solver=optim.clipped(optim.amsgrad(0.3, second_momentum=0.99, fall=0.1, every=30)),
        steps=300,
        lam1=3.0,
        sparsity=share_mean(1),
        lam2=1.0,
        smoothness=variation_mean(7),
        smoothness_on="image",
        factor=4,
        upsampling=Applied(separable.linear_filtered, (10.0, 2)),
        start=1.0,
        jitter=4,
        samples=10,
        floor=0.05,
        warm_up=60,
        best_after=51,
    )


_PRESETS: dict[Any, Callable[[], Recipe]] = {
    "fong": _fong,
    "fong-torch": _fong_torch,
    "jacobgil": _jacobgil,
    "kan": _kan,
    None: _own,
}
