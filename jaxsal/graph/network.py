"""A network that is a graph of operations with its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsal.graph.program import DTYPES, check, read, run


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
        shapes = {path: _shape(path, about) for path, about in weights.items()}
        check(self._program, shapes, self._input_shape)
        for path, about in weights.items():
            kind = nnx.Param if about["kind"] == "parameter" else nnx.BatchStat
            self._put(path, kind(jnp.zeros(shapes[path].shape, shapes[path].dtype)))

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
        around = getattr(self, layer, None) if layer else self
        if around is None:
            # flat, under its whole name: that is what sites and weight files then call it
            setattr(self, layer, nnx.Dict({name: variable}))
        elif isinstance(around, nnx.Variable) or hasattr(around, name):
            raise ValueError(f"The weight {path!r} lies where another one does: the network graph is damaged.")
        else:
            setattr(around, name, variable)

    def _variable(self, path: str) -> Any:
        layer, name = _place(path)
        return getattr(self, layer)[name] if layer else getattr(self, name)


def _place(path: str) -> tuple[str, str]:
    """Attribute and key under which a weight is kept.

    Example:
        >>> _place("features.0.weight"), _place("train.bias"), _place("token")
        (('features.0', 'weight'), ('train_', 'bias'), ('', 'token'))
    """
    layer, _, name = path.rpartition(".")
    return (_free(layer, Graph), _free(name, nnx.Dict)) if layer else ("", _free(name, Graph))


def _free(name: str, owner: type) -> str:
    """A name that its owner has no use for itself, another one for each name.

    Example:
        >>> [_free(name, Graph) for name in ("conv", "fill", "fill_", "_program")]
        ['conv', 'fill_', 'fill__', '_program_']
    """
    taken = name.startswith("_") or hasattr(owner, name.rstrip("_"))
    return f"{name}_" if taken else name


def _shape(path: str, about: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a weight."""
    match about:
        case {"kind": "parameter" | "buffer", "shape": [*sizes], "dtype": str(dtype)} if (
            len(about) == 3 and dtype in DTYPES and all(isinstance(n, int) and n >= 0 for n in sizes)
        ):
            return jax.ShapeDtypeStruct(tuple(sizes), jax.dtypes.canonicalize_dtype(dtype))
    raise ValueError(
        f"The weight {path!r} is described by {about!r:.200}, needed are kind (parameter or buffer), shape and dtype "
        f"({', '.join(sorted(DTYPES))}): the network graph is damaged."
    )
