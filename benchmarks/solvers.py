"""The objective against evaluations and against seconds, for every solver, on a real network and brain.

``python -m benchmarks.solvers -o docs/figures/solvers.png``: the 14 masks of the shipped network on the MNI152 brain,
non-negative and unconstrained; a table on standard output and the figure. Lines are medians over the 14 outputs of the
best value so far, over the least that any solver found for that output.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer

import jaxsal
from jaxsal import optim
from jaxsal.data.prepare import prepare as prepare_image
from jaxsal.data.template import default_image
from jaxsal.masks.smocam import Prepared, image_objective, jobs_of, prepare, uniform_start
from jaxsal.progress import bar

_CHUNK = 50
STOP = optim.max_steps(10**9)


class Curve(NamedTuple):
    """What a solver did for every output.

    Attributes:
        best: value so far, ``[k, steps]``.
        evaluations: so far, ``[k, steps]``.
        seconds: so far, ``[steps]``, of all outputs together.
        masks: at the best value, ``[k, *t]``.
    """

    best: np.ndarray
    evaluations: np.ndarray
    seconds: np.ndarray
    masks: np.ndarray


def solvers() -> Mapping[str, optax.GradientTransformation]:
    """Every solver for whole objectives, as it is by default; Adam with two rates."""
    return {
        "prox_linear (recommended)": optim.prox_linear(),
        "armijo_once (published)": optim.armijo_once(),
        "armijo_once_sufficient": optim.armijo_once_sufficient(),
        "armijo_once_rejecting": optim.armijo_once_rejecting(),
        "backtracking": optim.backtracking(),
        "barzilai_borwein": optim.barzilai_borwein(),
        "conjugate_gradient": optim.conjugate_gradient(),
        "hager_zhang": optim.hager_zhang(),
        "lbfgs": optim.lbfgs(),
        "adam(0.01)": optim.best_so_far(optim.adam(0.01)),
        "adam(0.03)": optim.best_so_far(optim.adam(0.03)),
    }


def trace(prepared: Prepared, lam: float, gamma: float, solver: Any, evaluations: int) -> Curve:
    """Every step of a solver, for all outputs side by side."""
    jobs = jax.tree.map(lambda a: a[0], jobs_of(prepared, [(lam, gamma)]))
    features, tail = prepared.features[:1], prepared.tail

    @jax.jit
    def begin(jobs: Any, features: jax.Array, tail: Any) -> Any:
        def one(job: Any) -> optim.Lane:
            return optim.start(image_objective(job, features, tail), uniform_start(job, features, tail), solver, STOP)

        return jax.vmap(one)(jobs)

    @jax.jit
    def go_on(lanes: Any, jobs: Any, features: jax.Array, tail: Any) -> Any:
        def one(job: Any, lane: optim.Lane):
            objective = image_objective(job, features, tail)

            def step(lane: optim.Lane, _: None):
                lane = optim.step(objective, lane, solver, STOP)
                held = optim.incumbent(lane.solver)
                return lane, (lane.value if held is None else held.value, lane.evaluations)

            return jax.lax.scan(step, lane, None, length=_CHUNK)

        return jax.vmap(one)(jobs, lanes)

    lanes = begin(jobs, features, tail)
    jax.block_until_ready(go_on(lanes, jobs, features, tail))  # compiles
    values, counts, seconds, start = [], [], [], time.perf_counter()
    while not counts or counts[-1][:, -1].min() < evaluations:
        before = 0.0 if not seconds else seconds[-1][-1]
        lanes, (value, count) = go_on(lanes, jobs, features, tail)
        values.append(np.asarray(value))
        counts.append(np.asarray(count))
        seconds.append(np.linspace(before, time.perf_counter() - start, _CHUNK + 1)[1:])
        if (np.asarray(lanes.status) != optim.Status.RUNNING).all():
            break
    held = optim.incumbent(lanes.solver)
    masks = np.asarray(lanes.params if held is None else held.params)
    best = np.fmin.accumulate(np.concatenate(values, 1), 1)
    return Curve(best, np.concatenate(counts, 1), np.concatenate(seconds), masks)


def main(
    output: Annotated[Path, typer.Option("-o", help="Where the figure goes.")] = Path("docs/figures/solvers.png"),
    evaluations: int = 1000,
) -> None:
    """Run every solver on both sets."""
    loaded = jaxsal.load_model("morphometry-2mm")
    spec = loaded.record.input
    scaling = spec.scaling
    x = prepare_image(default_image(), spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip)
    split = jaxsal.split(loaded.model, jnp.asarray(x), at=loaded.record.layer)
    sigma = np.array([output.sigma for output in loaded.record.outputs])
    prepared = prepare(split, jnp.asarray(x), "all", sigma, None, 95)
    panels = {}
    sets = (("non-negative, lam 0.1", 0.1, optim.nonnegative), ("unconstrained, lam 1", 1.0, lambda solver: solver))
    with bar("solvers") as meter:
        for place, (title, lam, within) in enumerate(sets):
            curves = {}
            for count, (name, solver) in enumerate(solvers().items()):
                meter(place * len(solvers()) + count, 2 * len(solvers()), f"{title}: {name}")
                curves[name] = trace(prepared, lam, 30.0, within(solver), evaluations)
            panels[title] = curves
    for title, curves in panels.items():
        table(title, curves)
    draw(panels, output)


def relative(curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """Median over outputs of the best value so far, over the least of all solvers, by solver."""
    least = np.min([curve.best[:, -1] for curve in curves.values()], 0)
    return {name: np.median(curve.best / least[:, None], 0) for name, curve in curves.items()}


def table(title: str, curves: Mapping[str, Curve]) -> None:
    """A row per solver: its value after 30, 100, 1000 evaluations, seconds per evaluation, likeness of its masks."""
    typer.echo(f"\n{title}\n\n| solver | after 30 | 100 | 300 | end | ms per evaluation | like the published masks |")
    typer.echo("|---|---:|---:|---:|---:|---:|---:|")
    published = curves["armijo_once (published)"].masks
    for name, line in relative(curves).items():
        curve = curves[name]
        spent = np.median(curve.evaluations, 0)
        at = [line[max(np.searchsorted(spent, n, side="right") - 1, 0)] for n in (30, 100, 300)]
        like = np.median([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(curve.masks, published, strict=True)])
        cells = [
            *(f"{value:.3f}" for value in (*at, line[-1])),
            f"{1e3 * curve.seconds[-1] / spent[-1]:.1f}",
            f"{like:.2f}",
        ]
        typer.echo(f"| {name} | " + " | ".join(cells) + " |")


def draw(panels: Mapping[str, Mapping[str, Curve]], output: Path) -> None:
    """A row per set: against evaluations, against seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(panels), 2, figsize=(13, 4 * len(panels)), sharey="row", layout="constrained")
    for row, (title, curves) in zip(np.atleast_2d(axes), panels.items(), strict=True):
        for place, (name, line) in enumerate(relative(curves).items()):
            look = {"color": f"C{place % 10}", "lw": 2.5 if "(" in name and "adam" not in name else 1.2, "label": name}
            look["linestyle"] = "--" if place >= 10 else "-"
            row[0].plot(np.median(curves[name].evaluations, 0), line, **look)
            row[1].plot(curves[name].seconds, line, **look)
        for axis, label in zip(row, ("evaluations of a mask", "seconds for all 14 masks"), strict=True):
            axis.set(xscale="log", yscale="log", xlabel=label, title=title)
            axis.grid(alpha=0.3, which="both")
        row[0].set_ylabel("objective / least found")
        row[1].set_xlim(left=0.1)
    # curves start all over the panels: the legend stands beside them
    figure.legend(*np.atleast_2d(axes)[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)


if __name__ == "__main__":
    typer.run(main)
