"""What the networks are made of: a composition of named layers, pools, branches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsal.model import Layer

Call = Callable[[jax.Array], jax.Array]


class Composition(nnx.Module):
    """A network that applies its layers one after the other, each under a name that it can be split at.

    A network calls :meth:`compose` once, at the end of its ``__init__``; a layer with weights becomes the attribute
    of its name, so the weights of ``conv1`` are saved as ``conv1.kernel`` and ``conv1.bias``.

    Example:
        >>> class Small(Composition):
        ...     def __init__(self, rngs):
        ...         self.compose({"conv": nnx.Conv(1, 2, (3, 3), rngs=rngs), "relu": jax.nn.relu, "flatten": flatten})
        >>> small = Small(nnx.Rngs(0))
        >>> [layer.name for layer in small.named_layers()], small(jnp.zeros((1, 4, 4, 1))).shape
        (['conv', 'relu', 'flatten'], (1, 32))
    """

    names: tuple[str, ...]

    def compose(self, layers: Mapping[str, Call]) -> None:
        """Take the layers, in their order; those without weights must be hashable, as functions are."""
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.names = tuple(layers)

    def named_layers(self) -> tuple[Layer, ...]:
        """The layers in order; their composition is the network."""
        return tuple(Layer(name, getattr(self, name)) for name in self.names)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Predict.

        Args:
            x: images ``[b, *space, channels]``.
            rngs: stream ``dropout``, needed in training mode only.

        Returns:
            What the last layer gives, ``[b, outputs]`` unless the network says otherwise.
        """
        for _, layer in self.named_layers():
            x = apply(layer, x, rngs)
        return x


class Branches(nnx.Module):
    """Modules that see the same features; their outputs are joined along the last axis.

    Args:
        branches: by name; each ``features -> [b, k]``.
    """

    def __init__(self, branches: Mapping[str, nnx.Module]):
        for name, branch in branches.items():
            setattr(self, name, branch)
        self.names = tuple(branches)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """All outputs ``[b, sum of k]``."""
        outputs = [apply(getattr(self, name), x, rngs) for name in self.names]
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)


def apply(layer: Call, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
    """Call a layer, with the random streams where it may draw from them."""
    if isinstance(layer, nnx.Dropout | Composition | Branches):
        return layer(x, rngs=rngs)
    return layer(x)


@dataclass(frozen=True)
class MaxPool:
    """Max-pooling over windows of ``window ** rank`` voxels, of an image in a frame of ``padding`` empty voxels.

    Attributes:
        window: edge of the window, in voxels.
        stride: between windows, in voxels.
        padding: on each side, in voxels; never the maximum.
    """

    window: int
    stride: int
    padding: int = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool ``x[b, *space, c]``."""
        rank = x.ndim - 2
        padding = ((self.padding, self.padding),) * rank if self.padding else "VALID"
        return nnx.max_pool(x, (self.window,) * rank, (self.stride,) * rank, padding)  # type: ignore[arg-type]


@dataclass(frozen=True)
class AdaptiveMeanPool:
    """Means over ``size ** rank`` windows that cover the grid, as PyTorch's ``AdaptiveAvgPool``.

    Window ``i`` of ``k`` over ``n`` voxels is ``floor(i n / k) .. ceil((i + 1) n / k)``: windows overlap where ``n`` is
    not a multiple of ``k``, and repeat voxels where ``n < k``.

    Attributes:
        size: number of windows along each axis.

    Example:
        >>> AdaptiveMeanPool(2)(jnp.arange(3.0).reshape(1, 3, 1)).ravel()
        Array([0.5, 1.5], dtype=float32)
    """

    size: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool ``x[b, *space, c]``."""
        for axis in range(1, x.ndim - 1):
            weights = _window_means(x.shape[axis], self.size)
            if not np.array_equal(weights, np.eye(self.size)):
                x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ jnp.asarray(weights, x.dtype), -1, axis)
        return x


def _window_means(length: int, size: int) -> np.ndarray:
    weights = np.zeros((length, size))
    for i in range(size):
        window = slice(i * length // size, -(-(i + 1) * length // size))
        weights[window, i] = 1 / (window.stop - window.start)
    return weights


def flatten(x: jax.Array) -> jax.Array:
    """Join the axes after the first: ``[b, ...] -> [b, n]``."""
    return x.reshape(x.shape[0], -1)


def global_mean(x: jax.Array) -> jax.Array:
    """Mean over space: ``[b, *space, c] -> [b, c]``."""
    return x.mean(tuple(range(1, x.ndim - 1)))


def windows(shape: Sequence[int], window: int, stride: int, padding: int = 0) -> tuple[int, ...]:
    """Number of windows of a convolution or pool that fit along each axis of a grid.

    Args:
        shape: grid, in voxels.
        window: edge, in voxels.
        stride: between windows, in voxels.
        padding: on each side, in voxels.
    """
    return tuple((n + 2 * padding - window) // stride + 1 for n in shape)


def check_grid(grid: Sequence[int], shape: Sequence[int], index: int, count: int) -> None:
    """Refuse an input grid of which nothing is left.

    Args:
        grid: behind the block.
        shape: of the network's input, in voxels.
        index: of the block, from 1.
        count: of blocks.

    Raises:
        ValueError: if an axis is used up.
    """
    if min(grid) < 1:
        raise ValueError(
            f"The input grid {tuple(shape)} is used up at block {index} of {count}: "
            "give a larger grid, or fewer blocks, smaller strides or pools."
        )


def convolution(
    rank: int,
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | str = 0,
    rngs: nnx.Rngs,
    **given: Any,
) -> nnx.Conv:
    """A convolution with a cubic (square in 2-D) kernel and the same padding on all sides.

    Args:
        rank: number of spatial axes.
        before: channels that it reads.
        after: channels that it gives.
        kernel: edge, in voxels.
        stride: in voxels.
        padding: voxels on each side, or ``"SAME"``.
        rngs: stream ``params``.
        given: further arguments of ``nnx.Conv``.
    """
    pads = padding if isinstance(padding, str) else ((padding, padding),) * rank
    return nnx.Conv(
        before, after, kernel_size=(kernel,) * rank, strides=(stride,) * rank, padding=pads, rngs=rngs, **given
    )
