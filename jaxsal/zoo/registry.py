"""Networks by name, so that a record can be built again."""

from collections.abc import Callable
from typing import Any

from flax import nnx

from jaxsal.graph import Graph
from jaxsal.zoo.alzheimer import ADClassifier, ADSpectrumNet
from jaxsal.zoo.kan import KanAutoencoder, KanCNN3D
from jaxsal.zoo.meshnet import MeshNet, MeshNetVolumes
from jaxsal.zoo.morphometry import MorphometryVGG
from jaxsal.zoo.record import InputSpec
from jaxsal.zoo.resnet import RegressionResNet50
from jaxsal.zoo.vgg import RegressionVGG16
from jaxsal.zoo.xray import XRayCNN

ARCHITECTURES: dict[str, Callable[..., nnx.Module]] = {
    network.__name__: network
    for network in (
        ADClassifier,
        ADSpectrumNet,
        Graph,
        KanAutoencoder,
        KanCNN3D,
        MeshNet,
        MeshNetVolumes,
        MorphometryVGG,
        RegressionResNet50,
        RegressionVGG16,
        XRayCNN,
    )
}


def register(network: type[nnx.Module]) -> type[nnx.Module]:
    """Make a network class known to :func:`jaxsal.zoo.load`; usable as a decorator.

    The class is called as ``network(outputs, shape=..., channels=..., **config, rngs=...)``.

    Example:
        >>> @register
        ... class Mine(nnx.Module):
        ...     pass
        >>> "Mine" in ARCHITECTURES
        True
    """
    ARCHITECTURES[network.__name__] = network
    return network


def build(architecture: str, config: dict[str, Any], outputs: int, spec: InputSpec) -> nnx.Module:
    """A network of a recorded architecture with fresh weights.

    Raises:
        ValueError: if the architecture is unknown; the message lists those that are known.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture {architecture!r}; known: {', '.join(sorted(ARCHITECTURES))}. "
            "Add your own with jaxsal.zoo.register before loading."
        )
    return ARCHITECTURES[architecture](outputs, shape=spec.shape, channels=spec.channels, **config, rngs=nnx.Rngs(0))
