"""What shorter products do to the masks of the shipped network: seconds, masks, values, shares recovered.

``python -m benchmarks.precision`` explains the MNI152 brain as ``jaxsal demo`` does, with the products of the
network's tail in full float32, as the platform does them by default (TF32 on NVIDIA GPUs from Ampere on; on a CPU that
is full float32, and is left out), and in bfloat16. Masks, objective and solver stay in float32 throughout. The
prediction that a mask keeps is also computed by the full-precision tail, whatever it was optimised with.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer

import jaxsal
from jaxsal import optim
from jaxsal.data import default_image, prepare
from jaxsal.explanation.explaining import run
from jaxsal.explanation.planning import Plan, plan
from jaxsal.models import default_model
from jaxsal.progress import bar
from jaxsal.splitting import Split


class Way(NamedTuple):
    """A way to compute the products of a tail.

    Attributes:
        narrowed: of the split.
        products: what ``jax.default_matmul_precision`` is set to, None for what is set already.
    """

    narrowed: Callable[[Split], Split]
    products: str | None


def _as_it_is(split: Split) -> Split:
    return split


FULL = "float32"
WAYS = {
    FULL: Way(_as_it_is, "highest"),
    "default": Way(_as_it_is, None),
    "bfloat16": Way(jaxsal.in_precision, None),
}


class Found(NamedTuple):
    """What one way gave: seconds of the second run, and the result of the masks."""

    seconds: float
    result: Any


def explained(plan: Plan, way: Way) -> Found:
    """Explain the template twice; the first run compiles."""
    context = jax.default_matmul_precision(way.products) if way.products else contextlib.nullcontext()
    own, seconds, result = dataclasses.replace(plan, split=way.narrowed(plan.split)), 0.0, None
    with context:
        for _ in range(2):
            with bar("masks") as meter:
                explanation = run(own, default_image(), progress=meter)
            jax.block_until_ready((explanation.result.mask, explanation.result.saliency))
            seconds, result = explanation.timing.masks, explanation.result
    return Found(seconds, result)


def kept_in_full(plan: Plan, masks: jax.Array) -> np.ndarray:
    """What the full-precision tail predicts under masks ``[k, 1, *t]``, each for its own output."""
    spec = plan.record.input
    scaling = spec.scaling
    x = prepare(default_image(), spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip)
    head, tail = (jax.jit(jaxsal.lower(part)) for part in plan.split)
    with jax.default_matmul_precision("highest"):
        features = head(jnp.asarray(x))
        return np.array(
            [
                float(tail(features * mask[0][None, ..., None])[0, output])
                for mask, output in zip(masks, plan.outputs, strict=True)
            ]
        )


def correlation(one: Any, other: Any) -> float:
    """Of all voxels; NaN where one is constant."""
    one, other = (np.asarray(a, np.float64).ravel() for a in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(one, other)[0, 1])


def table(plan: Plan, full: Found, other: Found) -> str:
    """A line per output: how the masks of another way differ from those in full precision."""
    a, b = full.result, other.result
    exact = kept_in_full(plan, b.mask)
    lines = [
        "| output | prediction, off by (sigma) | correlation of masks | of maps | value | difference | "
        "recovered | in full float32 | float32's own | status |",
        "|---|" + "---:|" * 8 + "---|",
    ]
    for lane, name in enumerate(plan.output_names):
        at = (lane, 0)
        y, null = float(a.prediction[at]), float(a.null_prediction[at])
        cells = [
            name,
            f"{(float(b.prediction[at]) - y) / a.config.sigma[lane]:.4f}",
            f"{correlation(a.mask[at], b.mask[at]):.5f}",
            f"{correlation(a.saliency[at], b.saliency[at]):.5f}",
            f"{float(b.value[at]):.4f}",
            f"{float(b.value[at]) - float(a.value[at]):+.4f}",
            f"{float(b.recovered[at]):.4f}",
            f"{(exact[lane] - null) / (y - null):.4f}",
            f"{float(a.recovered[at]):.4f}",
            optim.Status(int(b.status[at])).name.lower(),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(model: str = "", steps: int = 0) -> None:
    """Explain with every way and print how the masks compare.

    Args:
        model: a shipped network or a file; without it the one of ``jaxsal demo``.
        steps: most steps; 0 takes what the network's record says.
    """
    planned = plan(model or default_model(), **({"max_steps": steps} if steps else {}))
    on_cpu = jax.default_backend() == "cpu"
    found = {name: explained(planned, way) for name, way in WAYS.items() if not (on_cpu and name == "default")}
    typer.echo(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}, {planned.options}\n"
    )
    typer.echo("| products | seconds | updates, all masks | lanes | utilisation |\n|---|---:|---:|---:|---:|")
    for name, each in found.items():
        usage, steps = each.result.usage, int(each.result.steps.sum())
        typer.echo(f"| {name} | {each.seconds:.1f} | {steps} | {usage.lanes} | {usage.utilisation:.0%} |")
    for name, each in found.items():
        if name != FULL:
            typer.echo(f"\n{name} against {FULL}:\n\n{table(planned, found[FULL], each)}")


if __name__ == "__main__":
    typer.run(main)
