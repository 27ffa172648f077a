"""The VGG-like regression network that predicts brain morphometry from a T1 scan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxsal.zoo.layers import Call, Composition, MaxPool, check_grid, convolution, flatten, windows


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


class MorphometryVGG(Composition):
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
        layers, width = conv_blocks(shape, channels, blocks, rngs)
        layers["flatten"] = flatten
        for index, size in enumerate(dense, start=1):
            if index <= 2:
                layers[f"dropout{index}"] = nnx.Dropout(dropout)
            layers[f"dense{index}"] = nnx.Linear(width, size, rngs=rngs)
            if index < len(dense):
                layers[f"relu{len(blocks) + index}"] = jax.nn.relu
            width = size
        self.compose({**layers, "output": nnx.Linear(width, outputs, rngs=rngs)})


def conv_blocks(
    shape: Sequence[int], channels: int, blocks: Sequence[ConvBlock | Sequence], rngs: nnx.Rngs
) -> tuple[dict[str, Call], int]:
    """The layers ``conv1``, ``relu1``, ``pool1`` (where there is one), ``conv2``, ... and the features behind them.

    Args:
        shape: spatial grid of the input, in voxels; its length is the rank.
        channels: of the input.
        blocks: the convolutional blocks.
        rngs: stream ``params``.

    Returns:
        The layers by name, and the number of features of an image behind them: voxels times channels.

    Raises:
        ValueError: if the grid is too small for the blocks.
    """
    layers: dict[str, Call] = {}
    grid, before = tuple(shape), channels
    for index, values in enumerate(blocks, start=1):
        block = ConvBlock(*values)  # type: ignore[arg-type]
        layers[f"conv{index}"] = convolution(
            len(shape), before, block.width, block.kernel,
            stride=block.stride, padding="SAME", use_bias=block.bias, rngs=rngs,
        )  # fmt: skip
        layers[f"relu{index}"] = jax.nn.relu
        before, grid = block.width, tuple(-(-n // block.stride) for n in grid)
        if block.pool > 1:
            layers[f"pool{index}"] = MaxPool(block.pool, block.pool_stride)
            grid = windows(grid, block.pool, block.pool_stride)
        check_grid(grid, shape, index, len(blocks))
    return layers, before * int(np.prod(grid))
