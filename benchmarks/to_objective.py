"""How long until every mask has the value at which the published algorithm ends.

``python -m benchmarks.to_objective``: the shipped network's 14 outputs on the MNI152 brain, and, with
``--networks``, one output of five folds of an AD-spectrum network on a real scan; the published algorithm in PyTorch
(one output after the other, and all in one batch) against ``smocam`` as it is by default, on the same feasible set:
masks clamped at 0 after every step of the peer against non-negative ones, and unconstrained against unconstrained.
jaxsal's time is that of whole runs to their own end, after one that compiles; all its values are then at most 1.005
times the peer's, or the row says so.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import torch
import typer

import jaxsal
from benchmarks.peers import PeerRun, run_peer, shared_folder, torch_tail
from jaxsal import optim, zoo
from jaxsal.data.prepare import prepare
from jaxsal.data.template import default_image
from jaxsal.engine.lower import lower
from jaxsal.masks import smocam_networks
from jaxsal.splitting import Split
from tests.peers import ad_network, to_torch

GOAL = 1.005


class Problem(NamedTuple):
    """Networks, and a scan.

    Attributes:
        name: in the table.
        splits: of the networks, in JAX.
        tails: of the networks, in PyTorch.
        x: the scan.
        sigma: of every output.
        lam: weight of the norm term.
    """

    name: str
    splits: list[Split]
    tails: list[Callable[[Any], Any]]
    x: jax.Array
    sigma: np.ndarray
    lam: float


class Found(NamedTuple):
    """Masks and how good they are, one row per mask."""

    masks: np.ndarray
    values: np.ndarray
    recovered: np.ndarray
    negative: np.ndarray
    steps: np.ndarray


def shipped(lam: float) -> Problem:
    """The network that comes with jaxsal, on the MNI152 brain."""
    loaded = jaxsal.load_model("morphometry-2mm")
    spec = loaded.record.input
    x = prepare(default_image(), spec.shape, spec.affine, spec.channels, spec.scaling.divide_by, spec.scaling.clip)
    x = jnp.asarray(x)
    blocks = [zoo.ConvBlock(*block) for block in loaded.record.config["blocks"]]
    tail = torch_tail(loaded.model, blocks, 3, pooled=False)
    sigma = np.array([output.sigma for output in loaded.record.outputs])
    split = jaxsal.split(loaded.model, x, at=loaded.record.layer)
    return Problem("shipped network, 14 outputs", [split], [tail], x, sigma, lam)


def folds(lam: float) -> Problem:
    """Five networks of an AD spectrum's cross-validation, on a real scan."""
    shared = shared_folder()
    networks = [ad_network(shared, fold) for fold in range(5)]
    data = nib.load(shared / "data" / "oasis_1mm" / "1125_T1.nii.gz").get_fdata(dtype=np.float32)
    x = jnp.asarray(np.clip(data / data.mean(), 0, 8))[None, ..., None]
    return Problem(
        "AD spectrum, 5 folds", [n.split for n in networks], [n.tail for n in networks], x, np.array([0.3]), lam
    )


def ours(problem: Problem, nonnegative: bool, max_steps: int) -> Found:
    """``smocam`` by default, or without its constraint."""
    options = {"sigma": problem.sigma, "lam": problem.lam, "max_steps": max_steps}
    if not nonnegative:
        options["solver"] = optim.prox_linear()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*energy on negative values")
        results = (
            smocam_networks(problem.splits, problem.x, **options)
            if len(problem.splits) > 1
            else (jaxsal.smocam(problem.splits[0], problem.x, **options),)
        )
    masks, values, recovered, negative, steps = (
        np.concatenate([np.asarray(getattr(r, name))[:, 0] for r in results])
        for name in ("mask", "value", "recovered", "negative_energy", "steps")
    )
    return Found(masks, values, recovered, negative, steps)


def theirs(problem: Problem, way: str, nonnegative: bool, max_steps: int) -> Found:
    """The published algorithm."""
    found: list[Found] = []
    for split, tail in zip(problem.splits, problem.tails, strict=True):
        features = jax.jit(lower(split.head))(problem.x)
        with torch.no_grad():
            y = tail(to_torch(features))[0].numpy()
            null = tail(torch.zeros_like(to_torch(features)))[0].numpy()
        sigma, every = np.broadcast_to(problem.sigma, y.shape), np.arange(len(y))
        run = run_peer(
            way, tail, features, every, y, sigma, lam=problem.lam, max_iter=max_steps, nonnegative=nonnegative
        )
        found.append(_judged(run, tail, features, y, null, every))
    return Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _judged(run: PeerRun, tail: Any, features: jax.Array, y: np.ndarray, null: np.ndarray, every: np.ndarray) -> Found:
    masks = torch.from_numpy(run.masks)
    with torch.no_grad():
        masked = np.stack([tail(to_torch(features) * masks[k][None, None])[0, k].numpy() for k in every])
    squares = (run.masks**2).reshape(len(every), -1).sum(1)
    negative = (np.minimum(run.masks, 0) ** 2).reshape(len(every), -1).sum(1) / squares
    return Found(run.masks, run.values, (masked - null) / (y - null), negative, run.steps)


def timed(run: Callable[[], Found]) -> tuple[Found, float]:
    """What it found and how many seconds it took."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def report(problem: Problem, nonnegative: bool, steps: int) -> None:
    """Run all three and print a row."""
    one, sequential = timed(lambda: theirs(problem, "sequential", nonnegative, steps))
    batched = np.nan
    if len(problem.splits) == 1:
        _, batched = timed(lambda: theirs(problem, "smocam", nonnegative, steps))
    _, compiling = timed(lambda: ours(problem, nonnegative, steps))
    found, seconds = timed(lambda: ours(problem, nonnegative, steps))
    ratio = found.values / one.values
    same = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found.masks, one.masks, strict=True)]
    cells = [
        problem.name,
        f"lam {problem.lam:g}, {'non-negative' if nonnegative else 'unconstrained'}",
        f"{sequential:.0f}",
        f"{batched:.0f}" if np.isfinite(batched) else "-",
        f"{seconds:.1f} ({compiling:.1f})",
        f"{sequential / seconds:.0f}x" + (f", {batched / seconds:.0f}x" if np.isfinite(batched) else ""),
        f"{one.steps.mean():.0f}, {found.steps.mean():.0f}",
        f"{np.median(ratio):.3f}, {ratio.max():.3f}",
        f"{(ratio <= GOAL).sum()} of {len(ratio)}",
        f"{np.median(same):.2f}",
        f"{np.median(one.recovered):.2f}, {np.median(found.recovered):.2f}",
        f"{np.median(one.negative):.2f}, {np.median(found.negative):.2f}",
    ]
    typer.echo("| " + " | ".join(cells) + " |")


def main(networks: bool = False, max_steps: int = 2000) -> None:
    """Print the table."""
    typer.echo(
        "| problem | set | peer, one by one, s | peer, batched, s | jaxsal, s (with compilation) | ratios "
        "| steps: peer, jaxsal | value to the peer's: median, most | there | correlation of maps "
        "| recovered: peer, jaxsal | negative energy: peer, jaxsal |"
    )
    typer.echo("|---" * 12 + "|")
    rows = ((folds(1.0), True), (folds(1.0), False)) if networks else ((shipped(0.1), True), (shipped(1.0), False))
    for problem, nonnegative in rows:
        report(problem, nonnegative, max_steps)


if __name__ == "__main__":
    typer.run(main)
