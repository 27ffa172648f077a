"""A network that is a graph of operations with its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsal.graph.program import read, run


class Graph(nnx.Module):
    """A network that was traced elsewhere and runs in JAX, its operations as data.

    Converters build it (see :mod:`jaxsal.converters`); :func:`jaxsal.zoo.save` and :func:`jaxsal.zoo.load` keep it
    like any other network, the operations in the record, and neither needs the framework that it comes from. Layers
    that the network can be split at are marked by their names there, such as ``"features.3"``.

    Args:
        outputs: number of them.
        shape: spatial grid of the input, in voxels: the one that the network was traced with.
        channels: of the input.
        graph: the operations, as :func:`jaxsal.graph.program.write` gives them.
        weights: of each path shape, dtype and whether it is a ``"parameter"`` or a ``"buffer"``.
        rngs: not used: fresh weights are zeros.

    Raises:
        ValueError: if the graph names operations, values or weights that do not exist.
    """

    def __init__(
        self,
        outputs: int,
        *,
        shape: Sequence[int],
        channels: int,
        graph: Mapping[str, Any],
        weights: Mapping[str, Mapping[str, Any]],
        rngs: nnx.Rngs | None = None,
    ):
        # named with an underscore: every other name may be a layer's
        self._program = read(graph, tuple(weights))
        self._input_shape, self._outputs = (*shape, channels), outputs
        self._paths = tuple(weights)
        for path, about in weights.items():
            kind = nnx.Param if about["kind"] == "parameter" else nnx.BatchStat
            dtype = jax.dtypes.canonicalize_dtype(about["dtype"])
            self._put(path, kind(jnp.zeros(tuple(about["shape"]), dtype)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Predict.

        Args:
            x: images ``[b, *shape, channels]``.

        Returns:
            ``[b, outputs]``, or one value for each voxel ``[b, *space, outputs]``.

        Raises:
            ValueError: if the images are of another grid.
        """
        if tuple(x.shape[1:]) != self._input_shape:
            raise ValueError(
                f"The image has shape {tuple(x.shape)}, this network was converted for "
                f"[b, {', '.join(map(str, self._input_shape))}] ([b, *space, channels]): resample the image, or "
                "convert the network again with an example of this shape."
            )
        return run(self._program, {path: self._variable(path).get_value() for path in self._paths}, x)

    def fill(self, weights: Mapping[str, Any]) -> None:
        """Set the weights, by path; each must be there and of its shape."""
        for path in self._paths:
            variable = self._variable(path)
            variable.set_value(jnp.asarray(weights[path], variable.get_value().dtype))

    def _put(self, path: str, variable: nnx.Variable) -> None:
        layer, name = _place(path)
        if not layer:
            setattr(self, name, variable)
        elif hasattr(self, layer):
            getattr(self, layer)[name] = variable
        else:
            # flat, under its whole name: that is what sites and weight files then call it
            setattr(self, layer, nnx.Dict({name: variable}))

    def _variable(self, path: str) -> Any:
        layer, name = _place(path)
        return getattr(self, layer)[name] if layer else getattr(self, name)


def _place(path: str) -> tuple[str, str]:
    """Attribute and key under which a weight is kept; names that every NNX module has are not for the taking.

    Example:
        >>> _place("features.0.weight"), _place("train.bias"), _place("token")
        (('features.0', 'weight'), ('train_', 'bias'), ('', 'token'))
    """
    layer, _, name = path.rpartition(".")
    return (f"{layer}_" if hasattr(nnx.Module, layer) else layer), name
