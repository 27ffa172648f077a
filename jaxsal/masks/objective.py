"""The objective of meaningful perturbation, for one value of one image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsal.engine.lower import lower
from jaxsal.masks import scores
from jaxsal.masks.perturbed import Found, Measured, Parts
from jaxsal.masks.presets import Recipe, Upsampling
from jaxsal.masks.separable import along_axes
from jaxsal.model import Model
from jaxsal.optim import Scheduled
from jaxsal.optim.applied import Applied


class Plan(NamedTuple):
    """What is compiled into the objective; equal by value.

    Attributes:
        perturb: a fill's ``apply``.
        expand: a fill's ``expand``.
        measure: ``(y[n, k], index) -> [n]``, the value that is explained.
        closeness: whether the score is how close this value is to a goal, or the value itself.
        sign: of the score in the objective: 1 lowers it, -1 raises it.
        deletes: whether the share is ``1 - m``, or ``m``.
        recipe: without its fill, solver and weights.
        space: the image's grid.
    """

    perturb: Callable[..., jax.Array]
    expand: Callable[[Any], Any]
    measure: Callable[[jax.Array, jax.Array], jax.Array]
    closeness: bool
    sign: int
    deletes: bool
    recipe: Recipe
    space: tuple[int, ...]


class Shared(NamedTuple):
    """What all lanes have in common.

    Attributes:
        model: the network.
        lam1: weight of the sparsity.
        lam2: weight of the smoothness.
    """

    model: Model
    lam1: jax.Array
    lam2: jax.Array


class Image(NamedTuple):
    """One image.

    Attributes:
        state: of the fill, for the image with ``jitter`` voxels more at its far ends; expanded where it is used.
        key: of jitter and noise.
    """

    state: Any
    key: jax.Array


class Wanted(NamedTuple):
    """One value to be explained.

    Attributes:
        index: of the output.
        goal: where closeness is measured from.
        sigma: in which unit.
    """

    index: jax.Array
    goal: jax.Array
    sigma: jax.Array


class Job(NamedTuple):
    """What one mask is optimised for.

    Attributes:
        wanted: the value.
        start: mask ``[*t]`` to begin with.
    """

    wanted: Wanted
    start: jax.Array


def job_objective(plan: Plan, job: Job, image: Image, shared: Shared) -> Scheduled:
    """The objective of a job, as lanes take it."""
    return Scheduled(Applied(objective, (plan, shared, expanded(plan, image), job.wanted)))


def job_start(job: Job, image: Image, shared: Shared) -> jax.Array:
    """Where a job begins."""
    return job.start


def expanded(plan: Plan, image: Image) -> Image:
    """An image with all that its fill makes of it."""
    return image._replace(state=plan.expand(image.state))


def objective(plan: Plan, shared: Shared, image: Image, wanted: Wanted, mask: jax.Array, step: jax.Array):
    """``sign * score + warm_up * (lam1 * sparsity + lam2 * smoothness)`` of a mask at a step, and its parts."""
    recipe = plan.recipe
    full = on_image(mask, recipe.upsampling, plan.space)
    key = jax.random.fold_in(image.key, step)
    copies = jax.vmap(lambda key: _disturbed(plan, image.state, full, key))(jax.random.split(key, recipe.samples))
    parts = _parts(plan, wanted, mask, full, lower(shared.model)(copies))
    penalties = shared.lam1 * parts.sparsity + shared.lam2 * parts.smoothness
    if recipe.warm_up:
        penalties = jnp.minimum(step.astype(mask.dtype) / recipe.warm_up, 1) * penalties
    return plan.sign * parts.score + penalties, parts


def measure(plan: Plan, shared: Shared, image: Image) -> Callable[[tuple[Wanted, jax.Array]], Found]:
    """What is known of a mask ``(wanted, mask) -> Found``, without jitter, added noise and warm-up."""
    return Applied(_measured, (plan, shared, expanded(plan, image)))


def _measured(plan: Plan, shared: Shared, image: Image, found: tuple[Wanted, jax.Array]) -> Found:
    wanted, mask = found
    full = on_image(mask, plan.recipe.upsampling, plan.space)
    images = jnp.stack([perturbed(plan, image, m) for m in (jnp.ones_like(full), full, jnp.zeros_like(full))])
    y = lower(shared.model)(images)
    parts = _parts(plan, wanted, mask, full, y[1:2])
    value = plan.sign * parts.score + shared.lam1 * parts.sparsity + shared.lam2 * parts.smoothness
    shown = on_image(mask, plan.recipe.shown, plan.space)
    return Found(value, parts, Measured(*plan.measure(y, wanted.index)), 1 - shown if plan.deletes else shown)


def perturbed(plan: Plan, image: Image, full: jax.Array) -> jax.Array:
    """The image ``[*space, c]`` under a mask on its grid, without jitter and added noise."""
    return _shifted(plan, image.state, full, jnp.zeros(len(plan.space), jnp.int32), image.key)


def on_image(mask: jax.Array, upsampling: Upsampling, space: tuple[int, ...]) -> jax.Array:
    """A mask ``[*t]`` on the image's grid."""
    return along_axes(mask, [upsampling(size, voxels) for size, voxels in zip(space, mask.shape, strict=True)])


def _parts(plan: Plan, wanted: Wanted, mask: jax.Array, full: jax.Array, y: jax.Array) -> Parts:
    recipe = plan.recipe
    left = plan.measure(y, wanted.index)
    if plan.closeness:
        left = scores.closeness(left, wanted.goal, wanted.sigma)
    if recipe.floor is not None:
        left = jax.nn.relu(left - recipe.floor)
    rough = full if recipe.smoothness_on == "image" else mask
    return Parts(left.mean(), recipe.sparsity(1 - mask if plan.deletes else mask), recipe.smoothness(rough))


def _disturbed(plan: Plan, state: Any, full: jax.Array, key: jax.Array) -> jax.Array:
    """One perturbed image, shifted and with noise."""
    recipe = plan.recipe
    offsets = jnp.zeros(len(plan.space), jnp.int32)
    if recipe.jitter:
        places = jax.random.uniform(jax.random.fold_in(key, 1), offsets.shape, full.dtype)
        offsets = (places * (recipe.jitter + 1)).astype(jnp.int32)
    image = _shifted(plan, state, full, offsets, jax.random.fold_in(key, 2))
    if recipe.noise:
        image = image + recipe.noise * jax.random.normal(jax.random.fold_in(key, 3), image.shape, image.dtype)
    return image


def _shifted(plan: Plan, state: Any, full: jax.Array, offsets: jax.Array, key: jax.Array) -> jax.Array:
    """The perturbed image from a place on; the mask does not move."""
    jitter = plan.recipe.jitter
    if jitter == 0:
        return plan.perturb(state, full, key)
    everywhere = jnp.ones([size + jitter for size in plan.space], full.dtype)
    image = plan.perturb(state, jax.lax.dynamic_update_slice(everywhere, full, offsets), key)
    return jax.lax.dynamic_slice(image, (*offsets, jnp.int32(0)), (*plan.space, image.shape[-1]))
