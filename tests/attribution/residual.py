"""A small residual network of any rank, in JAX and in PyTorch with the same weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial

# what is small need not be compiled well
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

CHANNELS, OUTPUTS = 4, 3


def network(rank: int, *, bias: bool = True, seed: int = 0, channels: int = 1, average: bool = False) -> Any:
    """Convolution, BatchNorm, ReLU, max-pool; ``h + conv(relu(conv(h)))``, ReLU, mean, dense: ``x -> y[b, 3]``.

    Without bias nothing is added anywhere, BatchNorm included. With ``average`` the pool is one by average.
    """
    rng = np.random.default_rng((rank, seed))
    window = (3,) * rank

    def weights(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))

    def shift(size: int) -> jax.Array:
        return jnp.asarray(0.3 * rng.normal(size=size)) * float(bias)

    return Partial(_averaging if average else _network, {
        "stem": weights(*window, channels, CHANNELS),
        "norm": {"mean": shift(CHANNELS), "variance": jnp.asarray(rng.uniform(0.5, 2, CHANNELS)),
                 "scale": jnp.asarray(rng.normal(size=CHANNELS)), "shift": shift(CHANNELS)},
        "inner": [(weights(*window, CHANNELS, CHANNELS), shift(CHANNELS)) for _ in range(2)],
        "head": (weights(CHANNELS, OUTPUTS), shift(OUTPUTS)),
    })  # fmt: skip


def image(rank: int, batch: int = 2, channels: int = 1, seed: int = 1) -> jax.Array:
    """Of both signs, ``[b, 6, ..., c]``."""
    return jnp.asarray(np.random.default_rng((rank, seed)).normal(size=(batch, *(6,) * rank, channels)))


def conv(x: jax.Array, kernel: jax.Array, **how: Any) -> jax.Array:
    """Channel-last convolution, SAME, stride 1."""
    letters = "DHW"[5 - x.ndim :]
    how = {"window_strides": (1,) * len(letters), "padding": "SAME"} | how
    return lax.conv_general_dilated(
        x, kernel, dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"), **how
    )


def add(x: jax.Array, bias: jax.Array) -> jax.Array:
    """A value for each channel."""
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def max_pool(x: jax.Array) -> jax.Array:
    """Windows of 2, one beside the other."""
    window = (1, *(2,) * (x.ndim - 2), 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def _average_pool(x: jax.Array) -> jax.Array:
    window = (1, *(2,) * (x.ndim - 2), 1)
    return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, window, window, "VALID") / float(np.prod(window))


def _averaging(w: dict[str, Any], x: jax.Array) -> jax.Array:
    return _network(w, x, _average_pool)


def _network(w: dict[str, Any], x: jax.Array, pool: Callable[[jax.Array], jax.Array] = max_pool) -> jax.Array:
    norm = w["norm"]
    h = add(conv(x, w["stem"]), -norm["mean"])
    per_channel = (lax.rsqrt(norm["variance"] + 1e-5) * norm["scale"]).reshape((1,) * (x.ndim - 1) + (-1,))
    h = pool(jax.nn.relu(add(h * per_channel, norm["shift"])))
    (first, b1), (second, b2) = w["inner"]
    h = jax.nn.relu(h + add(conv(jax.nn.relu(add(conv(h, first), b1)), second), b2))
    kernel, bias = w["head"]
    return h.mean(tuple(range(1, h.ndim - 1))) @ kernel + bias.reshape(1, -1)


def in_torch(model: Any, sum_module: Any) -> Any:
    """The same in PyTorch, ``[b, c, *space] -> y``; residual sums by a module of a stack along the last axis."""
    import torch
    from torch import nn

    w = model.args[0]
    rank = w["stem"].ndim - 2
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]

    def tensor(a: Any) -> Any:
        return torch.from_numpy(np.array(a))

    def conv_module(kernel: Any, bias: Any = None) -> Any:
        made = convolution(kernel.shape[-2], kernel.shape[-1], 3, padding=1, bias=bias is not None)
        made.weight = nn.Parameter(tensor(jnp.moveaxis(kernel, (-1, -2), (0, 1))))
        if bias is not None:
            made.bias = nn.Parameter(tensor(bias))
        return made

    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank](CHANNELS, eps=0)
    norm.weight, norm.bias = (nn.Parameter(tensor(w["norm"][key])) for key in ("scale", "shift"))
    # peers that merge it leave its eps behind
    norm.running_mean, norm.running_var = tensor(w["norm"]["mean"]), tensor(w["norm"]["variance"]) + 1e-5
    head = nn.Linear(CHANNELS, OUTPUTS)
    head.weight, head.bias = nn.Parameter(tensor(w["head"][0].T)), nn.Parameter(tensor(w["head"][1]))
    average = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[rank](3)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.relu1 = conv_module(w["stem"]), norm, nn.ReLU()
            averages = model.func is _averaging
            self.pool = {2: (nn.MaxPool2d, nn.AvgPool2d), 3: (nn.MaxPool3d, nn.AvgPool3d)}[rank][averages](2)
            self.conv1, self.relu2, self.conv2 = conv_module(*w["inner"][0]), nn.ReLU(), conv_module(*w["inner"][1])
            self.sum, self.relu3, self.average, self.flatten, self.head = (
                sum_module, nn.ReLU(), average, nn.Flatten(), head,
            )  # fmt: skip

        def forward(self, x: Any) -> Any:
            h = self.pool(self.relu1(self.norm(self.stem(x))))
            residual = self.conv2(self.relu2(self.conv1(h)))
            h = self.relu3(self.sum(torch.stack([h, residual], -1)))
            return self.head(self.flatten(self.average(h)))

    return Network().double().eval()


def channels_first(x: Any) -> Any:
    """As PyTorch has it."""
    import torch

    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


def channels_last(x: Any) -> np.ndarray:
    """As it is here."""
    return np.moveaxis(x.detach().numpy(), 1, -1)
