"""Networks that tell Alzheimer's disease, or how far cognition has declined, from a brain scan."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxsal.zoo.layers import Branches, Call, Composition, MaxPool, check_grid, convolution, flatten, windows


class ADClassifier(Composition):
    """Alzheimer's disease or not, from a grey-matter map (Thibeau-Sutre et al. 2019).

    Blocks of ``conv -> BatchNorm -> LeakyReLU -> max-pool``, then ``flatten -> dropout -> dense -> output``. The paper
    tells these kinds of layers, the dropout of 0.79, and that the layout was found by a random search, but not the
    layout. *Assumed* is that of the group's classifier of whole scans (Wen et al.): five blocks of 8 to 128 channels,
    kernels of 3 voxels, pools of 2, hidden dense layers of 1300 and 50.

    Layers are ``conv1``, ``bn1``, ``leaky1``, ``pool1``, ..., ``flatten``, ``dropout``, ``dense1``, ``leaky6``, ...,
    ``output``.

    Args:
        outputs: number of classes; the network gives their logits.
        shape: spatial grid of the input, in voxels; its length is the rank.
        channels: of the input.
        widths: channels of each block.
        dense: widths of the hidden dense layers.
        dropout: rate in front of the dense layers.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        Thibeau-Sutre et al., Visualization approach to assess the robustness of neural networks for medical image
        classification, SPIE Medical Imaging 2020, https://doi.org/10.1117/12.2548952; layout: Wen et al.,
        Convolutional neural networks for classification of Alzheimer's disease, Medical Image Analysis 2020,
        https://doi.org/10.1016/j.media.2020.101694

    Example:
        >>> from flax import nnx
        >>> model = ADClassifier(2, shape=(12, 14, 12), widths=(2, 4), dense=(6,), rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout, BatchNorms use their running statistics
        >>> model(jax.numpy.zeros((1, 12, 14, 12, 1))).shape
        (1, 2)
    """

    def __init__(
        self,
        outputs: int = 2,
        *,
        shape: Sequence[int] = (121, 145, 121),
        channels: int = 1,
        widths: Sequence[int] = (8, 16, 32, 64, 128),
        dense: Sequence[int] = (1300, 50),
        dropout: float = 0.79,
        rngs: nnx.Rngs,
    ):
        grid, before = tuple(shape), channels
        layers: dict[str, Call] = {}
        for index, width in enumerate(widths, start=1):
            layers[f"conv{index}"] = convolution(len(shape), before, width, 3, padding=1, rngs=rngs)
            layers[f"bn{index}"] = nnx.BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
            layers[f"leaky{index}"] = jax.nn.leaky_relu
            layers[f"pool{index}"] = MaxPool(2, 2)
            before, grid = width, windows(grid, 2, 2)
            check_grid(grid, shape, index, len(widths))
        layers |= {"flatten": flatten, "dropout": nnx.Dropout(dropout)}
        before *= int(np.prod(grid))
        for index, width in enumerate(dense, start=1):
            layers[f"dense{index}"] = nnx.Linear(before, width, rngs=rngs)
            layers[f"leaky{len(widths) + index}"] = jax.nn.leaky_relu
            before = width
        self.compose({**layers, "output": nnx.Linear(before, outputs, rngs=rngs)})


class PooledBlock(NamedTuple):
    """A convolution without bias or padding, a max-pool without padding, a BatchNorm and a LeakyReLU.

    Attributes:
        width: number of feature maps.
        kernel: edge of the convolution, in voxels.
        stride: of the convolution, in voxels.
        pool: window of the max-pool, in voxels.
        pool_stride: of the max-pool, in voxels.
    """

    width: int
    kernel: int
    stride: int = 1
    pool: int = 2
    pool_stride: int = 2


class Head(NamedTuple):
    """A hidden dense layer and what is predicted from it.

    Attributes:
        hidden: width of the hidden layer.
        outputs: number of them.
    """

    hidden: int
    outputs: int


QIU_BLOCKS = (PooledBlock(20, 7, 2, 3), PooledBlock(40, 4), PooledBlock(80, 3), PooledBlock(160, 3))
COG_HEAD = {"COG": Head(100, 1)}
COG_AND_ADD_HEADS = {"COG": Head(100, 1), "ADD": Head(30, 2)}


class ADSpectrumNet(Composition):
    """Cognition from a T1 scan, on one scale from normal over mild impairment to dementia (Qiu et al. 2022).

    A backbone of ``conv -> max-pool -> BatchNorm -> LeakyReLU`` and, for each task, a head of ``dropout -> dense ->
    LeakyReLU -> dropout -> dense``. The head ``COG`` gives a score (0 normal, 1 mild cognitive impairment, 2 dementia),
    ``ADD`` two logits (dementia not due to Alzheimer's disease, due to it) that mean something only for people with
    dementia: it does not tell Alzheimer's disease from health. The layout and the order of operations are those of the
    published weights: 490,660 parameters in the backbone, 576,201 in ``COG``, 172,892 in ``ADD``.

    Layers are ``conv1``, ``pool1``, ``bn1``, ``leaky1``, ..., ``leaky4``, ``flatten`` and ``heads``, which gives all
    outputs.

    Args:
        outputs: number of them, of all heads together.
        shape: spatial grid of the input, in voxels; its length is the rank.
        channels: of the input.
        blocks: of the backbone.
        heads: by name, in the order of the outputs.
        dropout: rate in the heads.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks, or the heads have another number of outputs.

    Reference:
        Qiu et al., Multimodal deep learning for Alzheimer's disease dementia assessment, Nature Communications 2022,
        https://doi.org/10.1038/s41467-022-31037-5

    Example:
        >>> from flax import nnx
        >>> heads = {"COG": (5, 1), "ADD": (3, 2)}
        >>> model = ADSpectrumNet(3, shape=(12, 12, 12), blocks=[PooledBlock(4, 3)], heads=heads, rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout, BatchNorms use their running statistics
        >>> model(jax.numpy.zeros((1, 12, 12, 12, 1))).shape
        (1, 3)
    """

    def __init__(
        self,
        outputs: int = 1,
        *,
        shape: Sequence[int] = (182, 218, 182),
        channels: int = 1,
        blocks: Sequence[PooledBlock | Sequence[int]] = QIU_BLOCKS,
        heads: Mapping[str, Head | Sequence[int]] = COG_HEAD,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
    ):
        found = {name: Head(*values) for name, values in heads.items()}
        if sum(head.outputs for head in found.values()) != outputs:
            given = ", ".join(f"{name} {head.outputs}" for name, head in found.items())
            raise ValueError(
                f"The heads have {given} outputs, {outputs} are asked for: give heads that add up to them."
            )
        grid, before = tuple(shape), channels
        layers: dict[str, Call] = {}
        for index, values in enumerate(blocks, start=1):
            block = PooledBlock(*values)
            layers[f"conv{index}"] = convolution(
                len(shape), before, block.width, block.kernel, stride=block.stride, use_bias=False, rngs=rngs
            )
            layers[f"pool{index}"] = MaxPool(block.pool, block.pool_stride)
            layers[f"bn{index}"] = nnx.BatchNorm(block.width, momentum=0.9, epsilon=1e-5, rngs=rngs)
            layers[f"leaky{index}"] = jax.nn.leaky_relu
            before = block.width
            grid = windows(windows(grid, block.kernel, block.stride), block.pool, block.pool_stride)
            check_grid(grid, shape, index, len(blocks))
        before *= int(np.prod(grid))
        branches = {name: _DenseHead(before, head, dropout, rngs) for name, head in found.items()}
        self.compose({**layers, "flatten": flatten, "heads": Branches(branches)})


class _DenseHead(Composition):
    def __init__(self, before: int, head: Head, dropout: float, rngs: nnx.Rngs):
        self.compose(
            {
                "dropout1": nnx.Dropout(dropout),
                "dense1": nnx.Linear(before, head.hidden, rngs=rngs),
                "leaky": jax.nn.leaky_relu,
                "dropout2": nnx.Dropout(dropout),
                "dense2": nnx.Linear(head.hidden, head.outputs, rngs=rngs),
            }
        )
