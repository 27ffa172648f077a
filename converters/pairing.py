"""Names and layouts of weights of networks that the zoo has too."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .matching import Pair

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_pairs(
    shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str], flattened: Mapping[str, Sequence[int]]
) -> dict[str, Pair]:
    """Weights of PyTorch for a network of the zoo.

    Args:
        shapes: of the network's weights.
        names: PyTorch's by the network's.
        flattened: of each dense layer that reads flattened features, their grid in voxels: PyTorch flattens channels
            first, the network channels last.

    Example:
        >>> pair = torch_pairs({"fc.kernel": (4, 1)}, {"fc.kernel": "fc.weight"}, {"fc": (2,)})["fc.kernel"]
        >>> pair.laid(np.array([[0.0, 1.0, 10.0, 11.0]])).ravel().tolist()  # c * 10 + voxel
        [0.0, 10.0, 1.0, 11.0]
    """
    found = {}
    for ours, shape in shapes.items():
        layer, _, leaf = ours.rpartition(".")
        laid: Callable[[np.ndarray], np.ndarray] = np.asarray
        if leaf == "kernel":
            grid = flattened.get(layer)
            laid = (
                functools.partial(_channels_last, tuple(grid)) if grid else _kernel if len(shape) > 2 else np.transpose
            )
        found[ours] = Pair(names[ours], laid)
    return found


def ad_spectrum_names(ours: Sequence[str]) -> dict[str, str]:
    """Names of the published weights of :class:`jaxsal.zoo.ADSpectrumNet`, each file's behind the file's own.

    Example:
        >>> ad_spectrum_names(["conv1.kernel", "bn2.var", "heads.COG.dense2.bias"])
        {'conv1.kernel': 'backbone.block1.conv.weight', 'bn2.var': 'backbone.block2.BN.running_var',
        'heads.COG.dense2.bias': 'COG.dense2.2.bias'}
    """
    found = {}
    for name in ours:
        layer, _, leaf = name.rpartition(".")
        block = re.fullmatch(r"(conv|bn)(\d+)", layer)
        head = re.fullmatch(r"heads\.(\w+)\.dense(\d)", layer)
        if block:
            kind = {"conv": "conv", "bn": "BN"}[block[1]]
            found[name] = f"backbone.block{block[2]}.{kind}.{_LEAVES[leaf]}"
        elif head:
            # in a Sequential, behind a dropout, and the second also behind an activation
            found[name] = f"{head[1]}.dense{head[2]}.{head[2]}.{_LEAVES[leaf]}"
        else:
            raise ValueError(f"The weight {name} has no counterpart in the published files.")
    return found


def in_turn(ours: Sequence[str], layers: Sequence[str]) -> dict[str, str]:
    """Layers of another framework for those of a network, both in order of computation.

    Args:
        ours: names of the network's weights, in order.
        layers: the other's that have weights.

    Raises:
        ValueError: if there are more or fewer.

    Example:
        >>> in_turn(["conv1.kernel", "conv1.bias", "classify.kernel"], ["conv3d_0", "conv3d_2"])
        {'conv1.kernel': 'conv3d_0.kernel', 'conv1.bias': 'conv3d_0.bias', 'classify.kernel': 'conv3d_2.kernel'}
    """
    own = list(dict.fromkeys(name.rpartition(".")[0] for name in ours))
    if len(own) != len(layers):
        raise ValueError(
            f"The file has {len(layers)} layers with weights ({', '.join(layers)}), the network {len(own)} "
            f"({', '.join(own)}): it is of another architecture."
        )
    theirs = dict(zip(own, layers, strict=True))
    return {name: f"{theirs[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in ours}


def _kernel(kernel: np.ndarray) -> np.ndarray:
    """``[c', c, *window]`` to ``[*window, c, c']``."""
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _channels_last(grid: tuple[int, ...], weight: np.ndarray) -> np.ndarray:
    """``[k, c * voxels]`` to ``[voxels * c, k]``."""
    outputs, columns = weight.shape
    shaped = weight.reshape(outputs, columns // int(np.prod(grid)), *grid)
    return np.moveaxis(shaped, (0, 1), (-1, -2)).reshape(columns, outputs)
