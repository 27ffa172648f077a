"""Networks that tell the part of the body in a radiograph: a shallow one and two deeper ones."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from flax import nnx

from jaxsal.zoo.layers import Composition, flatten
from jaxsal.zoo.morphometry import ConvBlock, conv_blocks


class XRayLayout(NamedTuple):
    """The layers of one of the paper's networks.

    Attributes:
        name: as the paper calls it.
        blocks: the convolutional blocks.
        dense: widths of the hidden dense layers.
    """

    name: str
    blocks: tuple[ConvBlock, ...]
    dense: tuple[int, ...]


XRAY_NETWORKS = (
    XRayLayout("shallow", (ConvBlock(32, kernel=5, stride=2), ConvBlock(64, kernel=3)), dense=(128,)),
    XRayLayout(
        "deeper",
        (
            ConvBlock(64, kernel=7, stride=2),
            ConvBlock(128, kernel=5),
            ConvBlock(256, kernel=3),
            ConvBlock(256, kernel=3, pool=1),
            ConvBlock(256, kernel=3),
        ),
        dense=(1024, 1024),
    ),
    XRayLayout(
        "deeper-augmented",
        (
            ConvBlock(64, kernel=7, stride=2),
            ConvBlock(128, kernel=5),
            ConvBlock(256, kernel=3, pool=1),
            ConvBlock(256, kernel=3),
            ConvBlock(512, kernel=3, pool=1),
            ConvBlock(512, kernel=3, pool=1),
            ConvBlock(512, kernel=3),
        ),
        dense=(1024, 1024),
    ),
)
"""The three networks of the paper, *assumed*: its figure of their layers is not in its text."""


class XRayCNN(Composition):
    """The part of the body in a radiograph (Kumar et al. 2017): ``conv -> ReLU -> (max-pool)`` blocks and dense layers.

    The paper compares a shallow network, a deeper one, and a deeper one trained with augmentation, on radiographs of
    224 x 224 pixels and 24 classes; their layers are in a figure only. *Assumed* are two, five and seven convolutions,
    see :data:`XRAY_NETWORKS`; the paper's maps need 25 units in the last convolution, which all have.

    Layers are ``conv1``, ``relu1``, ``pool1`` (where there is one), ..., ``flatten``, ``dense1``, ``relu_dense1``,
    ``dropout1``, ..., ``output``.

    Args:
        outputs: number of classes; the network gives their logits.
        shape: spatial grid of the input; its length is the rank.
        channels: of the input.
        blocks: the convolutional blocks.
        dense: widths of the hidden dense layers.
        dropout: rate behind each hidden dense layer.
        rngs: stream ``params``.

    Raises:
        ValueError: if the grid is too small for the blocks.

    Reference:
        Kumar et al., Understanding anatomy classification through attentive response maps, 2017,
        https://doi.org/10.48550/arXiv.1611.06284

    Example:
        >>> from flax import nnx
        >>> model = XRayCNN(24, shape=(16, 16), blocks=[ConvBlock(4, kernel=3, pool=2)], dense=(8,), rngs=nnx.Rngs(0))
        >>> model.eval()  # no dropout
        >>> model(jax.numpy.zeros((1, 16, 16, 1))).shape
        (1, 24)
    """

    def __init__(
        self,
        outputs: int = 24,
        *,
        shape: Sequence[int] = (224, 224),
        channels: int = 1,
        blocks: Sequence[ConvBlock | Sequence] = XRAY_NETWORKS[1].blocks,
        dense: Sequence[int] = XRAY_NETWORKS[1].dense,
        dropout: float = 0.5,
        rngs: nnx.Rngs,
    ):
        layers, before = conv_blocks(shape, channels, blocks, rngs)
        layers["flatten"] = flatten
        for index, width in enumerate(dense, start=1):
            layers[f"dense{index}"] = nnx.Linear(before, width, rngs=rngs)
            layers[f"relu_dense{index}"] = jax.nn.relu
            layers[f"dropout{index}"] = nnx.Dropout(dropout)
            before = width
        self.compose({**layers, "output": nnx.Linear(before, outputs, rngs=rngs)})
