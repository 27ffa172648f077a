"""The VGG-like regression network that predicts brain morphometry from a T1 scan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxsal.model import Layer


class ConvBlock(NamedTuple):
    """A convolution, a ReLU and, with a window above 1, a max-pool.

    Attributes:
        width: number of feature maps.
        kernel: edge of the cubic (square in 2-D) kernel, in voxels.
        stride: stride of the convolution, in voxels; padding is 'same'.
        bias: whether the convolution has one.
        pool: window of the max-pool, in voxels, without padding; 1 for none.
        pool_stride: stride of the max-pool, in voxels.
    """

    width: int
    kernel: int
    stride: int = 1
    bias: bool = True
    pool: int = 3
    pool_stride: int = 2


REBSAMEN_BLOCKS = (
    ConvBlock(144, kernel=11, stride=3),
    ConvBlock(192, kernel=5, stride=2, bias=False),
    ConvBlock(192, kernel=3, bias=False),
)


class MorphometryVGG(nnx.Module):
    """Regression of morphometric measurements from a scan (Rebsamen et al. 2020).

    Blocks of convolution, ReLU and (where asked for) max-pool, then ``flatten -> dropout -> dense + ReLU -> dropout ->
    dense -> output``. The defaults are the network that SMOCAM was published with: from a grid of
    164 x 172 x 202 voxels its feature maps have 55 x 58 x 68, 27 x 28 x 33, 14 x 14 x 17 and 6 x 6 x 8
    voxels. Every layer has a name and the network splits at each of them (see :func:`jaxsal.split`).

    Args:
        outputs: number of measurements.
        shape: spatial grid of the input, in voxels; its length is the rank (2-D and 3-D alike).
        channels: input channels.
        blocks: the convolutional blocks.
        dense: widths of the hidden dense layers; every one but the last is followed by a ReLU.
        dropout: rate before each hidden dense layer but those after the second.
        rngs: random streams for the initial weights.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        Rebsamen et al., Brain morphometry estimation: from hours to seconds using deep learning,
        Frontiers in Neurology 2020, https://doi.org/10.3389/fneur.2020.00244

    Example:
        >>> from flax import nnx
        >>> small = (ConvBlock(4, kernel=3, stride=2, pool=2), ConvBlock(8, kernel=3, pool=2))
        >>> model = MorphometryVGG(3, shape=(16, 16, 16), blocks=small, dense=(8, 4), rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout
        >>> model(jax.numpy.zeros((2, 16, 16, 16, 1))).shape
        (2, 3)
    """

    def __init__(
        self,
        outputs: int = 165,
        *,
        shape: Sequence[int] = (164, 172, 202),
        channels: int = 1,
        blocks: Sequence[ConvBlock | Sequence] = REBSAMEN_BLOCKS,
        dense: Sequence[int] = (384, 192),
        dropout: float = 0.4,
        rngs: nnx.Rngs,
    ):
        rank, grid, width = len(shape), np.asarray(shape), channels
        names: list[str] = []
        for index, values in enumerate(blocks, start=1):
            block = ConvBlock(*values)  # type: ignore[arg-type]
            setattr(
                self,
                f"conv{index}",
                nnx.Conv(
                    width,
                    block.width,
                    kernel_size=(block.kernel,) * rank,
                    strides=(block.stride,) * rank,
                    padding="SAME",
                    use_bias=block.bias,
                    rngs=rngs,
                ),
            )
            names += [f"conv{index}", f"relu{index}"]
            width, grid = block.width, -(-grid // block.stride)
            if block.pool > 1:
                setattr(self, f"pool{index}", MaxPool(block.pool, block.pool_stride))
                names.append(f"pool{index}")
                grid = (grid - block.pool) // block.pool_stride + 1
            if (grid < 1).any():
                raise ValueError(
                    f"The input grid {tuple(shape)} is used up at block {index} of {len(blocks)}: "
                    "give a larger grid, or fewer blocks, smaller strides or pools."
                )
        width *= int(np.prod(grid))
        names.append("flatten")
        for index, size in enumerate(dense, start=1):
            if index <= 2:
                setattr(self, f"dropout{index}", nnx.Dropout(dropout))
                names.append(f"dropout{index}")
            setattr(self, f"dense{index}", nnx.Linear(width, size, rngs=rngs))
            names.append(f"dense{index}")
            if index < len(dense):
                names.append(f"relu{len(blocks) + index}")
            width = size
        self.output = nnx.Linear(width, outputs, rngs=rngs)
        self.names = (*names, "output")

    def named_layers(self) -> tuple[Layer, ...]:
        """The layers in order; their composition is the network."""
        return tuple(Layer(name, getattr(self, name, None) or _stateless(name)) for name in self.names)

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Predict.

        Args:
            x: scans ``[b, *space, channels]``.
            rngs: stream ``dropout``, needed in training mode only.

        Returns:
            Measurements ``[b, outputs]``.
        """
        for name, layer in self.named_layers():
            x = layer(x, rngs=rngs) if name.startswith("dropout") else layer(x)  # type: ignore[call-arg]
        return x


class MaxPool(nnx.Module):
    """Max-pooling without padding over windows of ``window ** rank`` voxels."""

    def __init__(self, window: int, stride: int):
        self.window, self.stride = window, stride

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pool ``x[b, *space, c]``."""
        rank = x.ndim - 2
        return nnx.max_pool(x, (self.window,) * rank, (self.stride,) * rank)


def flatten(x: jax.Array) -> jax.Array:
    """Join the axes after the first: ``[b, ...] -> [b, n]``."""
    return x.reshape(x.shape[0], -1)


def _stateless(name: str):
    return flatten if name == "flatten" else jax.nn.relu
