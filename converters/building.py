"""Graph networks put together from a configuration and arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxsal.graph.network import Graph
from jaxsal.splitting import layers


def build(
    outputs: int, shape: Sequence[int], channels: int, config: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> Graph:
    """A graph network with its weights, in evaluation mode."""
    model = Graph(outputs, shape=tuple(shape), channels=channels, **config)
    model.fill(weights)
    model.eval()
    return model


def default_layer(model: Any, shape: Sequence[int], channels: int) -> str:
    """The last layer at which the network splits and that is larger than one voxel; empty where there is none."""
    rows = layers(model, jax.ShapeDtypeStruct((1, *shape, channels), np.float32))
    fine = [row.name for row in rows if row.splits and max(row.shape[1:-1]) > 1]
    return fine[-1] if fine else ""
