"""Extremal perturbations: of all smooth masks of a given area, the one that matters most."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxsal import optim
from jaxsal.engine.lower import lower
from jaxsal.masks import fills, scores
from jaxsal.masks.fills import Fill, named_fill
from jaxsal.masks.optimising import between_0_and_1, each_job, optimise, side_by_side
from jaxsal.masks.perturbed import ExtremalParts, Found, Measured, PerturbationResult, collect
from jaxsal.masks.scores import Score, check_choice
from jaxsal.masks.smooth_max import parameter_grid, smooth_max
from jaxsal.masks.targets import Target, checked_key, find_targets, per_target, predictions, values_of
from jaxsal.masks.terms import step_distance
from jaxsal.model import Model, as_pytree, check_input, check_model
from jaxsal.optim.applied import Applied
from jaxsal.optim.budget import at_least_one
from jaxsal.progress import Meter


class _Plan(NamedTuple):
    """What is compiled into the objective."""

    perturb: Callable[..., jax.Array]
    expand: Callable[[Any], Any]
    measure: Callable[..., jax.Array]
    closeness: bool
    relative: bool
    game: str
    flips: tuple[int, ...]
    growth: float
    step: int
    sigma: float
    space: tuple[int, ...]


class _Shared(NamedTuple):
    model: Model
    lam: jax.Array
    scale: jax.Array


class _Image(NamedTuple):
    state: Any
    key: jax.Array
    null: jax.Array  # outputs [k] with everything deleted


class _Job(NamedTuple):
    index: jax.Array
    goal: jax.Array
    unit: jax.Array
    outside: jax.Array  # voxels beyond the area, int32


def extremal_perturbation(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    outputs: str | Sequence[int] | None = None,
    area: Any = 0.1,
    game: Literal["preservation", "deletion", "dual"] = "preservation",
    score: Score = "output",
    sigma: Any = 1.0,
    fill: str | Fill | None = None,
    step: int = 7,
    smoothness: float = 21.0,
    flip_axes: Sequence[int] = (),
    scale: float | None = None,
    lam: float = 300.0,
    growth: float = 1.0035,
    solver: optax.GradientTransformation | None = None,
    stop: optim.StoppingRule | None = None,
    max_steps: int = 800,
    key: jax.Array | None = None,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    progress: Meter | None = None,
) -> PerturbationResult:
    r"""The region of a given area that keeps an output highest, or without which it is lowest.

    Minimises over masks ``m`` in [0, 1], soft maxima of kernels (:func:`jaxsal.masks.smooth_max.smooth_max`),

    ``-scale * f(Phi(x; m)) + lam * growth^i * mean (sort(m) - [0 ... 0 1 ... 1])^2``

    at step ``i``, where the ones are the share ``area`` of the image's voxels. Here a mask is the region that counts:
    in the preservation game only it is shown, in the deletion game it alone is not, and the dual game looks for the
    largest difference of the two. Images, outputs and areas are jobs for the lanes of one compiled program
    (:func:`jaxsal.optim.minimise_groups`).

    Args:
        model: ``x[b, *space, c] -> y[b, k]``.
        x: images, floating point.
        target: output that is explained: one for all images, one for each, a function ``y[n, k] -> [n]``, or None
            where there is only one.
        outputs: instead, ``"all"`` or positions of several outputs, which lead the result.
        area: share of the voxels, in (0, 1): a number, or several, which add an axis.
        game: ``"preservation"``, ``"deletion"`` or ``"dual"``.
        score: ``f``: ``"output"`` as it is (for classes: before the softmax), ``"probability"``, or for a regression
            ``"closeness"`` to the output of the whole image, in ``sigma``.
        sigma: standard deviation of the outputs over a population, a number or one per output.
        fill: what is shown elsewhere; None is the paper's blur, ``fills.pyramid(20.0, 8)``.
        step: voxels from one parameter of the mask to the next.
        smoothness: width of the kernels in voxels.
        flip_axes: spatial axes, from 0, along which the image is flipped on every second step; the paper flips
            photographs. None by default: it would take the left side of a brain for the right one.
        scale: factor on the score. None counts it in percent of what deleting everything changes it by, so that
            neither weights nor steps depend on units; the paper has 1, for logits of photographs. ``terms`` has the
            score without it.
        lam: weight of the area.
        growth: factor on it from step to step.
        solver: an optax transform, see :func:`meaningful_perturbation`; None is the paper's
            :func:`jaxsal.optim.damped_momentum`, :func:`jaxsal.optim.clipped`.
        stop: a stopping rule beside ``max_steps``.
        max_steps: most updates of a mask.
        key: of a random fill.
        batch_size: lanes, that is areas and outputs of images, at once (on each device), which bounds memory; None
            takes as many as are useful and fit.
        mesh: of devices over which the images are spread; None is the default device.
        progress: a meter from :mod:`jaxsal.progress`; None shows a bar when it takes more than two seconds.

    Returns:
        Masks' parameters in ``mask``, the masks themselves in ``saliency``; they lead with
        ``[output, area, image]`` as far as several outputs and areas were asked for.

    Raises:
        TypeError: if ``x`` is not a floating-point array, or ``target`` or ``key`` is none.
        ValueError: if ``x``, the weights or an option cannot be used.
        Interrupted: on Ctrl-C, with the lanes ``[image, output * area]``, see :class:`jaxsal.optim.Interrupted`.

    Reference:
        Fong, Patrick and Vedaldi, Understanding deep networks via extremal perturbations and smooth masks, ICCV 2019,
        https://doi.org/10.1109/ICCV.2019.00304

    Example:
        >>> x = jnp.zeros((1, 24, 24, 1)).at[0, 4:12, 4:12].set(1.0)
        >>> model = lambda x: 100 * x[:, 4:12, 4:12].mean((1, 2))
        >>> result = extremal_perturbation(
        ...     model, x, area=0.15, fill="constant", step=4, smoothness=4.0, max_steps=300)
        >>> result.saliency.shape, bool(result.saliency[0, 8, 8] > 0.9), bool(result.saliency[0, 20, 20] < 0.1)
        ((1, 24, 24), True, True)
    """
    check_input(x)
    check_model(model)
    check_choice("game", game, ("preservation", "deletion", "dual"))
    check_choice("score", score, ("probability", "output", "closeness"))
    chosen = fills.pyramid() if fill is None else named_fill(fill)
    areas = _areas(area)
    space = x.shape[1:-1]
    flips = _flips(flip_axes, len(space))
    if not isinstance(step, int | np.integer) or step < 1:
        raise ValueError(f"step got {step!r}, a whole number of voxels, at least 1, is needed.")
    factor = 100.0 if scale is None else scale
    for name, number in (("smoothness", smoothness), ("scale", factor), ("lam", lam), ("growth", growth)):
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name} got {number}, a finite number above 0 is needed.")
    key = checked_key(key, chosen.random)
    batch_size = batch_size if batch_size is None else at_least_one("batch_size", batch_size)

    model = as_pytree(model)
    y = predictions(model, x, batch_size or len(x))
    targets = find_targets(target, outputs, score, len(x), y.shape[1])
    unit = per_target("sigma", 1.0 if score == "probability" else sigma, targets.index, y.shape[1], x.dtype)
    if not (unit > 0).all():
        raise ValueError("sigma must be positive: it is the standard deviation of each output.")
    count = targets.index.shape[1]
    lanes, rows = side_by_side(batch_size, count * len(areas))
    index = jnp.asarray(targets.index)
    goal = values_of(targets.measure, y, index)
    index, goal, unit = (a.repeat(len(areas), 1) for a in (index, goal, unit))
    outside = jnp.asarray([int(np.prod(space) * (1 - a)) for a in areas] * count, jnp.int32)
    jobs = _Job(index, goal, unit, jnp.broadcast_to(outside, index.shape))
    plan = _Plan(
        chosen.apply,
        chosen.expand,
        targets.measure,
        score == "closeness",
        scale is None,
        game,
        flips,
        float(growth),
        int(step),
        float(smoothness),
        space,
    )
    shared = _Shared(model, jnp.asarray(lam, x.dtype), jnp.asarray(factor, x.dtype))
    images = _images(plan, chosen, model, x, key)
    ended = optimise(
        Applied(_job_objective, (plan,)),
        images,
        jobs,
        Applied(_start, (plan,)),
        shared,
        title="Extremal perturbation",
        solver=optim.clipped(optim.damped_momentum()) if solver is None else between_0_and_1(solver),
        stop=stop,
        max_steps=max_steps,
        lanes=lanes,
        rows=rows,
        mesh=mesh,
        progress=progress,
    )
    several = targets.several, np.ndim(area) > 0
    shape = tuple(n for n, axis in zip((count, len(areas)), several, strict=True) if axis)
    return collect(
        ended,
        each_job(Applied(_measure, (plan,)), shared, images, (jobs, ended.params)),
        Applied(_arranged, (shape,)),
        lanes=(*(name for name, axis in zip(("output", "area"), several, strict=True) if axis), "image"),
        game=game,
        score=score,
        sigma=jobs.unit,
    )


def _arranged(shape: tuple[int, ...], a: jax.Array) -> jax.Array:
    """``[image, jobs, ...]`` as ``[*shape, image, ...]``."""
    return jnp.moveaxis(a, 0, 1).reshape(*shape, len(a), *a.shape[2:])


def _job_objective(plan: _Plan, job: _Job, image: _Image, shared: _Shared) -> optim.Scheduled:
    return optim.Scheduled(Applied(_objective, (plan, shared, _expanded(plan, image), job)))


def _start(plan: _Plan, job: _Job, image: _Image, shared: _Shared) -> jax.Array:
    return jnp.ones(parameter_grid(plan.space, plan.step), shared.lam.dtype)


def _expanded(plan: _Plan, image: _Image) -> _Image:
    return image._replace(state=plan.expand(image.state))


def _objective(plan: _Plan, shared: _Shared, image: _Image, job: _Job, params: jax.Array, step: jax.Array):
    mask = smooth_max(params, plan.space, plan.step, plan.sigma)
    key = jax.random.fold_in(image.key, step)
    seen = jnp.stack([plan.perturb(image.state, m, key) for m in _shown(plan, mask)])
    if plan.flips:
        axes = [axis + 1 for axis in plan.flips]
        seen = jnp.where(step % 2 == 0, jnp.flip(seen, axes), seen)
    parts = _parts(plan, job, mask, lower(shared.model)(seen))
    grown = plan.growth ** step.astype(params.dtype)
    return -_scale(plan, shared, image, job) * parts.score + shared.lam * grown * parts.area, parts


def _measure(plan: _Plan, shared: _Shared, image: _Image) -> Callable[[tuple[_Job, jax.Array]], Found]:
    return Applied(_measured, (plan, shared, _expanded(plan, image)))


def _measured(plan: _Plan, shared: _Shared, image: _Image, found: tuple[_Job, jax.Array]) -> Found:
    """Value with the first step's weight, parts, predictions, and the mask."""
    job, params = found
    mask = smooth_max(params, plan.space, plan.step, plan.sigma)
    shown = _shown(plan, mask)
    masks = [*shown, jnp.ones_like(mask), jnp.zeros_like(mask)]
    y = lower(shared.model)(jnp.stack([plan.perturb(image.state, m, image.key) for m in masks]))
    parts = _parts(plan, job, mask, y[: len(shown)])
    explained = plan.measure(y, job.index)
    value = -_scale(plan, shared, image, job) * parts.score + shared.lam * parts.area
    return Found(value, parts, Measured(explained[-2], explained[0], explained[-1]), mask)


def _parts(plan: _Plan, job: _Job, mask: jax.Array, y: jax.Array) -> ExtremalParts:
    return ExtremalParts(_reward(plan, job, y), step_distance(mask, job.outside))


def _scale(plan: _Plan, shared: _Shared, image: _Image, job: _Job) -> jax.Array:
    if not plan.relative:
        return shared.scale
    change = jnp.abs(plan.measure(image.null[None], job.index)[0] - job.goal)
    change = change / job.unit if plan.closeness else change
    # where deleting changes nothing there is nothing to find
    return jnp.where(change > 0, shared.scale / jnp.where(change > 0, change, 1), 0)


def _shown(plan: _Plan, mask: jax.Array) -> list[jax.Array]:
    """Masks as the fills take them: 1 is shown."""
    return {"preservation": [mask], "deletion": [1 - mask], "dual": [mask, 1 - mask]}[plan.game]


def _reward(plan: _Plan, job: _Job, y: jax.Array) -> jax.Array:
    left = plan.measure(y, job.index)
    if plan.closeness:
        left = scores.closeness(left, job.goal, job.unit)
    if plan.game == "dual":
        return left[0] - left[1]
    return -left[0] if plan.game == "deletion" else left[0]


def _images(plan: _Plan, fill: Fill, model: Model, x: jax.Array, key: jax.Array) -> _Image:
    state, keys = fill.prepare(x), jax.random.split(key, len(x))
    return _Image(state, keys, _nulls(plan, model, state, keys, jnp.zeros(plan.space, x.dtype)))


@functools.partial(jax.jit, static_argnums=0)
def _nulls(plan: _Plan, model: Model, states: Any, keys: jax.Array, nothing: jax.Array) -> jax.Array:
    def of_image(given: tuple[Any, jax.Array]) -> jax.Array:
        state, key = given
        return lower(model)(plan.perturb(plan.expand(state), nothing, key)[None])[0]

    return jax.lax.map(of_image, (states, keys))


def _areas(area: Any) -> list[float]:
    found = np.asarray(area, np.float64)
    if found.ndim > 1 or not found.size or not ((found > 0) & (found < 1)).all():
        raise ValueError(f"area got {area!r}: give a share of the voxels between 0 and 1, or a sequence of them.")
    return np.atleast_1d(found).tolist()


def _flips(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    found = tuple(int(axis) for axis in axes)
    if any(not 0 <= axis < rank for axis in found) or len(set(found)) < len(found):
        raise ValueError(f"flip_axes got {list(axes)}: give different spatial axes from 0 to {rank - 1}.")
    return found
