"""MeshNet, which labels every voxel, and the volumes of its classes as a regression."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from jaxsal.zoo.layers import Call, Composition, convolution

MESHNET_DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)


class MeshNet(Composition):
    """Segmentation by convolutions of growing, then shrinking dilation (Fedorov et al. 2017).

    ``conv 3^3 -> ELU`` for each dilation, padding 'same', then a convolution of 1 voxel to the classes' logits. The
    layout is that of the brainchop models, with 21 channels (96,408 parameters) or 30 (196,038).

    Layers are ``conv1``, ``elu1``, ..., ``elu9``, ``classify``; each keeps the grid.

    Args:
        outputs: number of classes.
        shape: spatial grid of the input; its length is the rank. Any grid goes with the same weights.
        channels: of the input.
        width: channels of the features.
        dilations: of the convolutions, in voxels.
        rngs: stream ``params``.

    Reference:
        Fedorov et al., End-to-end learning of brain tissue segmentation from imperfect labeling, IJCNN 2017,
        https://doi.org/10.1109/IJCNN.2017.7966333; models: Masoud et al., Brainchop: In-browser MRI volumetric
        segmentation and rendering, Journal of Open Source Software 2023, https://doi.org/10.21105/joss.05098

    Example:
        >>> from flax import nnx
        >>> model = MeshNet(3, shape=(6, 6, 6), width=4, dilations=(1, 2, 1), rngs=nnx.Rngs(0))
        >>> model(jax.numpy.zeros((1, 6, 6, 6, 1))).shape
        (1, 6, 6, 6, 3)
    """

    def __init__(
        self,
        outputs: int = 18,
        *,
        shape: Sequence[int] = (256, 256, 256),
        channels: int = 1,
        width: int = 21,
        dilations: Sequence[int] = MESHNET_DILATIONS,
        rngs: nnx.Rngs,
    ):
        self.compose(_labelling(outputs, len(shape), channels, width, dilations, rngs))


@dataclass(frozen=True)
class ClassVolumes:
    """The volume that each of some classes fills: ``v_c = voxel * sum over voxels of softmax(logits)_c``.

    Attributes:
        classes: positions of the classes.
        voxel: volume of a voxel, in mm^3.

    Example:
        >>> logits = jax.numpy.zeros((1, 2, 2, 2, 4))
        >>> ClassVolumes((1, 3), voxel=8.0)(logits)
        Array([[16., 16.]], dtype=float32)
    """

    classes: tuple[int, ...]
    voxel: float = 1.0

    def __call__(self, logits: jax.Array) -> jax.Array:
        """``[b, *space, k]`` logits to ``[b, len(classes)]`` mm^3."""
        shares = jax.nn.softmax(logits, axis=-1).sum(tuple(range(1, logits.ndim - 1)))
        return shares[:, list(self.classes)] * self.voxel


class MeshNetVolumes(Composition):
    """The volumes of structures that :class:`MeshNet` labels: a regression whose relevant voxels are known.

    Its weights are those of MeshNet, by the same names; the layer ``volumes`` behind ``classify`` is a
    :class:`ClassVolumes`.

    Args:
        outputs: number of volumes.
        shape: spatial grid of the input; its length is the rank. Any grid goes with the same weights.
        channels: of the input.
        width: channels of the features.
        dilations: of the convolutions, in voxels.
        segments: number of classes of MeshNet.
        classes: whose volumes are wanted, positions among the segments.
        voxel_size: edges of a voxel, in mm, one per axis.
        rngs: stream ``params``.

    Raises:
        ValueError: if number of outputs and classes differ, or there is no such class.

    Reference:
        See :class:`MeshNet`.

    Example:
        >>> from flax import nnx
        >>> model = MeshNetVolumes(
        ...     1, shape=(6, 6, 6), width=4, dilations=(1, 2, 1), segments=3, classes=(2,), rngs=nnx.Rngs(0))
        >>> model(jax.numpy.zeros((1, 6, 6, 6, 1))).shape
        (1, 1)
    """

    def __init__(
        self,
        outputs: int = 17,
        *,
        shape: Sequence[int] = (256, 256, 256),
        channels: int = 1,
        width: int = 21,
        dilations: Sequence[int] = MESHNET_DILATIONS,
        segments: int = 18,
        classes: Sequence[int] = tuple(range(1, 18)),
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        rngs: nnx.Rngs,
    ):
        if len(classes) != outputs or not set(classes) <= set(range(segments)):
            raise ValueError(
                f"The volumes of the classes {tuple(classes)} are asked for as {outputs} outputs of a network of "
                f"{segments} classes: give as many classes as outputs, each from 0 to {segments - 1}."
            )
        layers = _labelling(segments, len(shape), channels, width, dilations, rngs)
        self.compose({**layers, "volumes": ClassVolumes(tuple(classes), float(np.prod(voxel_size)))})


def _labelling(
    classes: int, rank: int, channels: int, width: int, dilations: Sequence[int], rngs: nnx.Rngs
) -> dict[str, Call]:
    layers: dict[str, Call] = {}
    before = channels
    for index, dilation in enumerate(dilations, start=1):
        layers[f"conv{index}"] = convolution(
            rank, before, width, 3, padding="SAME", kernel_dilation=(dilation,) * rank, rngs=rngs
        )
        layers[f"elu{index}"] = jax.nn.elu
        before = width
    return {**layers, "classify": convolution(rank, before, classes, 1, rngs=rngs)}
