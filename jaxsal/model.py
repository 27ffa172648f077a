"""What is explained: any callable pytree ``x[b, *space, c] -> y[b, k]``."""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.core
import numpy as np
from jax.tree_util import Partial

Model = Callable[[jax.Array], jax.Array]
F = TypeVar("F", bound=Callable[..., Any])


class Layer(NamedTuple):
    """One step of a network that is a plain composition of steps.

    Attributes:
        name: unique in its network.
        call: ``features -> features``.
    """

    name: str
    call: Callable[[jax.Array], jax.Array]


def named_layers(model: Model) -> tuple[Layer, ...]:
    """The layers of a network that is a composition of them, else an empty tuple.

    A network tells its layers by a method ``named_layers()`` (the zoo); those of a ``flax.nnx.Sequential`` are
    named by their position. An attribute ``layers`` of any other network says nothing about how it uses them.

    Example:
        >>> from flax import nnx
        >>> [layer.name for layer in named_layers(nnx.Sequential(jax.nn.relu, jax.numpy.tanh))]
        ['0', '1']
    """
    if hasattr(model, "named_layers"):
        return tuple(model.named_layers())  # type: ignore[attr-defined]
    if _is_sequential(model):
        return tuple(Layer(str(i), call) for i, call in enumerate(model.layers))  # type: ignore[attr-defined]
    return ()


def _is_sequential(model: Model) -> bool:
    # looked up, not imported: where Flax is not loaded, nothing is made of it
    sequential = getattr(sys.modules.get("flax.nnx"), "Sequential", None)
    # a subclass with its own __call__ may do anything with its layers
    return sequential is not None and isinstance(model, sequential) and type(model).__call__ is sequential.__call__


def as_pytree(model: F) -> F:
    """The model as a pytree of its weights: a plain function has none and is wrapped."""
    leaves = jax.tree.leaves(model)
    return Partial(model) if len(leaves) == 1 and leaves[0] is model else model  # type: ignore[return-value]


def check_input(x: Any, what: str = "x") -> None:
    """Refuse an image batch that no network can explain.

    Args:
        x: expected ``[b, *space, c]``, floating point and finite.
        what: its name in the message.

    Raises:
        TypeError: if it is not a floating-point array.
        ValueError: if its rank is below 3, an axis is empty, or values are NaN or infinite.
    """
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{what} is a {type(x).__name__}, an array [batch, *space, channels] is needed.")
    if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
        raise TypeError(f"{what} has dtype {x.dtype}, floating point is needed: use {what}.astype('float32').")
    if x.ndim < 3 or 0 in x.shape:
        raise ValueError(
            f"{what} has shape {tuple(x.shape)}, [batch, *space, channels] is needed: "
            f"add the axes with {what}[None, ..., None]."
        )
    if isinstance(x, jax.core.Tracer):
        return
    finite = np.isfinite(np.asarray(x, dtype=np.float32))
    if not finite.all():
        raise ValueError(
            f"{what} holds {int((~finite).sum())} NaN or infinite values of {finite.size}: "
            "mask them or repair the image first."
        )


def check_model(model: Model) -> None:
    """Refuse a network that cannot be explained as it is.

    Raises:
        TypeError: if it cannot be called.
        ValueError: if a weight is NaN or infinite, or a layer is in training mode.
    """
    if not callable(model):
        raise TypeError(f"The model is a {type(model).__name__}, a callable x[b, *space, c] -> y[b, k] is needed.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct) or not _is_float(leaf):
            continue
        weight = np.asarray(leaf, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            # one pass; of finite numbers the sum is almost always finite, too
            bad = 0 if np.isfinite(weight.sum()) else int((~np.isfinite(weight)).sum())
        if bad:
            raise ValueError(
                f"The weight {jax.tree_util.keystr(path)} holds {bad} NaN or infinite values: "
                "the network was not trained or saved well; load another checkpoint."
            )
    for name in _in_training_mode(model):
        raise ValueError(
            f"The model is in training mode ({name}): explanations need the network as it predicts. "
            "Call model.eval(), or use nnx.view(model, deterministic=True, use_running_average=True)."
        )


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)


def _in_training_mode(node: Any, path: str = "model", depth: int = 0) -> Iterator[str]:
    """Dotted names of dropout that drops and of normalisation that uses the batch's statistics."""
    if depth > 8:
        return
    if isinstance(node, list | tuple):
        children = [(f"{path}[{i}]", child) for i, child in enumerate(node)]
    elif isinstance(node, dict):
        children = [(f"{path}[{key!r}]", child) for key, child in node.items()]
    elif isinstance(node, functools.partial):  # and jax.tree_util.Partial
        children = [(f"{path}.{key}", getattr(node, key)) for key in ("func", "args", "keywords")]
    elif hasattr(node, "__dict__") and not isinstance(node, type):
        for flag in ("deterministic", "use_running_average"):
            if vars(node).get(flag) is False:
                yield f"{path}.{flag} is False"
        children = [(f"{path}.{key}", child) for key, child in vars(node).items() if not key.startswith("_")]
    else:
        return
    for name, child in children:
        yield from _in_training_mode(child, name, depth + 1)
