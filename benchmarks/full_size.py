"""SMOCAM on the network of the paper's Table 1: 164 x 172 x 202 voxels, 165 outputs, masks of 14 x 14 x 17.

``python -m benchmarks.full_size``: random weights, a random scan; seconds per step of all masks together and the
largest memory of the process, which must stay below 24 GiB.
"""

import platform
import resource
import time

import jax
import typer
from flax import nnx

import jaxsal
from jaxsal import zoo
from jaxsal.progress import bar

LIMIT = 24.0  # GiB


def main(steps: int = 5, outputs: int = 165) -> None:
    """Run it and print what it took."""
    model = zoo.MorphometryVGG(outputs, rngs=nnx.Rngs(0))
    model.eval()
    x = jax.random.uniform(jax.random.key(0), (1, 164, 172, 202, 1))
    split = jaxsal.split(model, x, at="relu2")
    seconds = []
    for count in (1, 1 + steps):  # the first run compiles
        start = time.perf_counter()
        with bar(f"{outputs} masks, {count} steps") as meter:
            result = jaxsal.smocam(split, x, max_steps=count, progress=meter)
        result.saliency.block_until_ready()
        seconds.append(time.perf_counter() - start)
        typer.echo(f"{count} steps with prediction and maps: {seconds[-1]:.1f} s", err=True)
    if result.mask.shape != (outputs, 1, 14, 14, 17) or result.saliency.shape != (outputs, 1, 164, 172, 202):
        raise SystemExit(f"masks {result.mask.shape}, saliency {result.saliency.shape}: not the sizes of Table 1")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    device = jax.devices()[0].device_kind
    typer.echo(
        f"| {device} ({platform.machine()}), jax {jax.__version__} | {steps + 1} | {seconds[-1]:.0f} | {peak:.1f} |"
    )
    if peak > LIMIT:
        raise SystemExit(f"{peak:.1f} GiB were needed, {LIMIT:.0f} GiB is the limit")


if __name__ == "__main__":
    typer.run(main)
