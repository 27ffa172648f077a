"""What a conversion costs, and whether the converted network is as fast as one written by hand.

``python -m benchmarks.conversion`` (needs monai==1.6.1): MONAI's 3-D DenseNet121 through the generic path, in JAX
written by hand with the same weights, and in PyTorch: forward pass and gradient of the input. Then seconds to convert,
save and load, the size of the file and the largest memory of the process.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax import lax

from jaxsal import converters, zoo
from jaxsal.engine.lower import lower
from jaxsal.model import as_pytree

BLOCKS = (6, 12, 24, 16)
EPSILON = 1e-5


def by_hand(weights: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """DenseNet121 of any rank, ``x[b, *space, c] -> y[b, k]``, with MONAI's names of weights and kernels as JAX's."""

    def conv(x: jax.Array, name: str, stride: int = 1, padding: int = 0) -> jax.Array:
        letters = "DHW"[5 - x.ndim :]
        return lax.conv_general_dilated(
            x,
            weights[f"{name}.weight"],
            (stride,) * len(letters),
            [(padding, padding)] * len(letters),
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        )

    def norm_relu(x: jax.Array, name: str) -> jax.Array:
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return jax.nn.relu((x - mean) * (scale * lax.rsqrt(variance + EPSILON)) + shift)

    def windows(x: jax.Array, operation: Any, start: float, size: int, stride: int, padding: int) -> jax.Array:
        rank = x.ndim - 2
        pads = [(0, 0), *[(padding, padding)] * rank, (0, 0)]
        return lax.reduce_window(x, start, operation, (1, *(size,) * rank, 1), (1, *(stride,) * rank, 1), pads)

    x = windows(norm_relu(conv(x, "features.conv0", 2, 3), "features.norm0"), lax.max, -jnp.inf, 3, 2, 1)
    for block, count in enumerate(BLOCKS, start=1):
        for layer in range(1, count + 1):
            name = f"features.denseblock{block}.denselayer{layer}.layers"
            h = conv(norm_relu(x, f"{name}.norm1"), f"{name}.conv1")
            x = jnp.concatenate([x, conv(norm_relu(h, f"{name}.norm2"), f"{name}.conv2", padding=1)], axis=-1)
        if block < len(BLOCKS):
            name = f"features.transition{block}"
            x = windows(conv(norm_relu(x, f"{name}.norm"), f"{name}.conv"), lax.add, 0.0, 2, 2, 0)
            x = x / 2 ** (x.ndim - 2)
    x = norm_relu(x, "features.norm5").mean(tuple(range(1, x.ndim - 1)))
    return x @ weights["class_layers.out.weight"] + weights["class_layers.out.bias"]


def channels_last(state: Mapping[str, Any]) -> dict[str, jax.Array]:
    """PyTorch's weights as :func:`by_hand` takes them."""

    def moved(array: np.ndarray) -> np.ndarray:
        return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array

    return {name: jnp.asarray(moved(value.numpy())) for name, value in state.items() if value.is_floating_point()}


def median(run: Callable[[], Any], rounds: int = 5) -> float:
    """Seconds, after a first call that compiles."""
    run()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def main(size: Annotated[int, typer.Option(help="Edge of the scan, in voxels.")] = 64) -> None:
    """Print both tables."""
    import torch
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    module = DenseNet121(spatial_dims=3, in_channels=1, out_channels=2).eval()
    image = np.random.default_rng(0).standard_normal((1, size, size, size, 1)).astype(np.float32)
    began = time.perf_counter()
    found = converters.from_torch(module, image)
    converting = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = zoo.save(Path(folder) / "densenet.safetensors", found.model, found.record)
        saving, began = time.perf_counter() - began, time.perf_counter()
        zoo.load(path)
        loading, megabytes = time.perf_counter() - began, path.stat().st_size / 2**20

    x, weights, tensor = jnp.asarray(image), channels_last(module.state_dict()), torch.from_numpy(image).movedim(-1, 1)
    ways = {"converted": (lambda m, x: m(x), as_pytree(found.model)), "by hand": (by_hand, weights)}
    values: dict[str, tuple[Any, float, float]] = {}
    for name, (fn, parts) in ways.items():
        forward = jax.jit(lambda parts, x, fn=fn: lower(fn)(parts, x))
        slope = jax.jit(jax.grad(lambda x, parts, fn=fn: lower(fn)(parts, x)[:, 0].sum()))
        values[name] = (
            np.asarray(forward(parts, x)),
            median(lambda forward=forward, parts=parts: jax.block_until_ready(forward(parts, x))),
            median(lambda slope=slope, parts=parts: jax.block_until_ready(slope(x, parts))),
        )

    def torch_gradient() -> Any:
        leaf = tensor.clone().requires_grad_()
        return torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)[0]

    with torch.no_grad():
        expected = module(tensor).numpy()
        forward_time = median(lambda: module(tensor))
    values["PyTorch"] = expected, forward_time, median(torch_gradient)

    typer.echo(f"DenseNet121, {size} x {size} x {size}")
    typer.echo("| | forward, s | gradient of the input, s | max difference to PyTorch |")
    typer.echo("|---|---:|---:|---:|")
    for name, (y, forward_time, gradient_time) in values.items():
        typer.echo(f"| {name} | {forward_time:.3f} | {gradient_time:.3f} | {np.abs(y - expected).max():.1e} |")
    ratios = [values["converted"][i] / values["by hand"][i] for i in (1, 2)]
    typer.echo(f"converted to by hand: {ratios[0]:.2f} forward, {ratios[1]:.2f} gradient")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    typer.echo(
        f"converted (exported, translated, compared) in {converting:.1f} s, saved in {saving:.1f} s "
        f"({megabytes:.0f} MiB), loaded in {loading:.1f} s; largest memory {memory:.1f} GiB"
    )


if __name__ == "__main__":
    typer.run(main)
