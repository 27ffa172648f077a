"""The stages of the shipped network's training: where structures are, their sums, a correction by the dense layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsal.data.synthetic.anatomy import GRID
from jaxsal.engine.geometry import geometry
from jaxsal.engine.lower import lower
from jaxsal.training import crops, dense, metrics
from jaxsal.training.fit import fit
from jaxsal.training.log import logger
from jaxsal.training.morphometry import CONFIG, Targets, export, network, standardise
from jaxsal.training.pool import PAINTED, QUANTUM, Pool, open_pool, unpack
from jaxsal.training.warm_start import scale_convolutions, sum_cells

_DENSE_RATE, _TUNING_RATE = 2.0e-3, 3.0e-4
_WEIGHT_DECAY = 1e-2
_BATCH, _TUNING_BATCH = 8, 64
_EXTRACTED_AT_ONCE = 4
_SCALED_ON = 16  # crops that scale the convolutions
_AVERAGED = 1000  # anatomies whose shares are averaged


class Plan(NamedTuple):
    """How long each stage is and what it sees.

    Attributes:
        seed: of the initial weights, the order of the members and the augmentation.
        members: how many of the cohort are learnt from; the rest of it is held out.
        dense: updates of the first stage.
        tuning: updates of the last stage.
    """

    seed: int = 0
    members: int = 4000
    dense: int = 6000
    tuning: int = 400


def augment(images: jax.Array, key: jax.Array) -> jax.Array:
    """The contrast curve x + a x (1 - x) and a factor, on top of the cohort's own contrasts.

    Args:
        images: float32[b, *space, 1], about 1 in white matter.
        key: a JAX random key.
    """
    k_bend, k_scale = jax.random.split(key)
    one = (images.shape[0], 1, 1, 1, 1)
    # At most .2, so that the curve rises everywhere up to 2.5, the brightest stored intensity.
    bend = jax.random.uniform(k_bend, one, minval=-0.2, maxval=0.2)
    return (images + bend * images * (1.0 - images)) * jnp.exp(0.05 * jax.random.normal(k_scale, one))


def mirrored(values: Any) -> Any:
    """Left and right exchanged along the last axis, [..., 14]."""
    return values.reshape(*values.shape[:-1], -1, 2)[..., ::-1].reshape(values.shape)


def train(cohort: Path, out: Path, plan: Plan) -> Path:
    """All stages, each resumed from its own checkpoints in ``out``.

    Args:
        cohort: folder of the cohort.
        out: folder of checkpoints, logs and of ``model.safetensors``.
        plan: lengths and seed.

    Returns:
        The saved network.
    """
    pool = open_pool(cohort)
    made = int(pool.done[0])
    if made <= plan.members:
        raise ValueError(
            f"the cohort in {cohort} has {made} members, more than {plan.members} are needed: go on making it with"
            " the command `cohort`, or ask for fewer"
        )
    targets = standardise(pool, plan.members)
    model = locate(pool, out / "dense", targets, plan)
    quality = tune(model, pool, out / "tuning", targets, plan)
    procedure = plan._asdict() | {"batch": _BATCH, "r2_held_out": [round(float(q), 3) for q in quality]}
    return export(out / "model.safetensors", model, targets, procedure=procedure)


def locate(pool: Pool, out: Path, targets: Targets, plan: Plan) -> nnx.Module:
    """First stage: the convolutions learn every structure's share of every cell; the dense layers sum the shares."""
    model = network(plan.seed)
    everyone = np.arange(0, plan.members, PAINTED)
    scale_convolutions(model, _intensities(jnp.asarray(crops.take(pool, everyone[:_SCALED_ON]).images)))
    mean = dense.average(crops.take(pool, everyone[:_AVERAGED]).shares)
    graph = nnx.split(model)[0]
    loss = dense.dense_loss(model, mean, jnp.asarray(targets.sigma))

    def batch_loss(params: Any, batch: crops.Crops, key: jax.Array) -> jax.Array:
        images, shares = batch
        return loss(params, (augment(_intensities(images), key), shares.astype(jnp.float32) / 255.0))

    def batch_at(step: int) -> crops.Crops:
        return crops.take(pool, np.random.default_rng((plan.seed, 0, step)).integers(0, plan.members, _BATCH))

    widths = tuple(block.width for block in CONFIG["blocks"][2:])
    optimiser = _adam(_DENSE_RATE, 100, plan.dense, 0.0)
    start = dense.initial(model, widths, mean)
    found = _run(batch_loss, start, batch_at, optimiser, out, plan.dense, plan.seed).average
    model = nnx.merge(graph, found.network)
    scale = dense.POOLED_VOLUME / targets.sigma
    kernel = np.asarray(found.pooled * mean.pooled_sigma.reshape(1, 1, 1, 1, -1)) * scale
    shares = np.asarray(mean.pooled + found.offset * mean.pooled_sigma.reshape(1, 1, 1, -1))
    sum_cells(model, on_grid(model, kernel), shares.sum((0, 1, 2)) * scale)
    return model


def on_grid(model: Any, kernel: np.ndarray) -> np.ndarray:
    """Weights of the crop's pooled cells [i, j, k, channels, n] among those of the whole grid, zero elsewhere."""

    def last(x: jax.Array) -> jax.Array:
        return dense.maps(model, x)[dense.POOLED]

    image, crop = (jax.ShapeDtypeStruct((1, *shape, 1), jnp.float32) for shape in (GRID, crops.SHAPE))
    whole, part = geometry(last, image), geometry(last, crop)
    cells = jax.eval_shape(last, image).shape[1:-1]
    places = []
    for first, a, b, step, n in zip(crops.FIRST, whole.start, part.start, whole.step, kernel.shape, strict=False):
        skipped = (first + b - a) / step
        if skipped != round(skipped):
            raise ValueError(f"cells of the crop lie {skipped} cells from those of the grid: move crops.FIRST")
        places.append(slice(round(skipped), round(skipped) + n))
    full = np.zeros((*cells, *kernel.shape[-2:]))
    full[tuple(places)] = kernel
    return full


def tune(model: Any, pool: Pool, out: Path, targets: Targets, plan: Plan) -> np.ndarray:
    """Last stage: the dense layers on the features of whole brains, in place; returns the R^2 of unseen members."""
    features, z = extract(model, pool, out / "features.npy", targets)
    names = [name for name, _ in model.named_layers()]
    tail = names[names.index("flatten") + 1 :]

    def predict(params: dict[str, Any], x: jax.Array) -> jax.Array:
        for name in tail:
            if name in params:
                x = x @ params[name]["kernel"] + params[name]["bias"][None]
            elif name.startswith("relu"):
                x = jax.nn.relu(x)
        return x

    start = {
        name: {"kernel": getattr(model, name).kernel.get_value(), "bias": getattr(model, name).bias.get_value()}
        for name in tail
        if hasattr(model, name) and not name.startswith(("dropout", "relu"))
    }

    def loss(params: Any, batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        x, truth = batch
        return optax.losses.huber_loss(predict(params, x.astype(jnp.float32)), truth).mean()

    def batch_at(step: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.random.default_rng((plan.seed, 1, step)).integers(0, plan.members, _TUNING_BATCH)
        return np.asarray(features[chosen]), z[chosen]

    optimiser = _adam(_TUNING_RATE, 20, plan.tuning, _WEIGHT_DECAY)
    found = _run(loss, start, batch_at, optimiser, out, plan.tuning, plan.seed).average
    for name, values in found.items():
        getattr(model, name).kernel.set_value(values["kernel"])
        getattr(model, name).bias.set_value(values["bias"])
    unseen = np.asarray(jax.jit(predict)(found, jnp.asarray(features[plan.members :], jnp.float32)))
    return np.array([metrics.r2(z[plan.members :, i], unseen[:, i]) for i in range(z.shape[1])])


def extract(model: Any, pool: Pool, path: Path, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Features that enter the dense layers, of every other painting's mirror image, with volumes over sigma.

    Returns:
        float16[n, features], memory-mapped and written once, and float32[n, 14].
    """
    count = int(pool.done[0])
    flip = np.arange(count) % PAINTED == 1
    z = np.asarray(pool.volumes[:count]) / targets.sigma
    z = np.where(flip[:, None], mirrored(z), z).astype(np.float32)
    if path.exists():
        return np.load(path, mmap_mode="r"), z
    graph, params = nnx.split(model)
    fast = lower(lambda p, x: dense.maps(nnx.merge(graph, p), x)[dense.POOLED])

    @jax.jit
    def features(params: Any, images: jax.Array, flip: jax.Array) -> jax.Array:
        x = unpack(images)
        x = jnp.where(flip.reshape(-1, 1, 1, 1, 1), x[:, ::-1], x)
        return fast(params, x).reshape(len(x), -1).astype(jnp.float16)

    path.parent.mkdir(parents=True, exist_ok=True)
    staging, made = path.with_suffix(".part"), None
    with logger(path.parent / "features", count) as report:
        for i in range(0, count, _EXTRACTED_AT_ONCE):
            some = slice(i, i + _EXTRACTED_AT_ONCE)
            part = np.asarray(features(params, np.asarray(pool.images[some]), flip[some]))
            if made is None:
                made = np.lib.format.open_memmap(staging, "w+", np.float16, (count, part.shape[1]))
            made[some] = part
            report(min(i + _EXTRACTED_AT_ONCE, count), 0.0)
    staging.replace(path)
    return np.load(path, mmap_mode="r"), z


def _intensities(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32)[..., None] * QUANTUM


def _adam(rate: float, warmup: int, steps: int, decay: float) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warmup, max(steps, warmup + 1), rate / 200)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=decay))


def _run(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    batch_at: Callable[[int], Any],
    optimiser: optax.GradientTransformation,
    out: Path,
    steps: int,
    seed: int,
) -> Any:
    with logger(out, steps) as report:
        return fit(
            loss, params, batch_at, optimiser, steps=steps, key=jax.random.key(seed), decay=0.99,
            checkpoints=out / "checkpoints", every=500, report=report,
        )  # fmt: skip
