"""What every network of the zoo is asked, and torchvision's topologies in PyTorch."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxsal
from jaxsal import composites, zoo

Build = Callable[[], Any]


def shapes(build: Build, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Output shapes of all layers for an input ``[1, *shape]``; nothing is computed or held."""
    found = {}

    def through(x: jax.Array) -> jax.Array:
        model = build()
        model.eval()
        for name, call in model.named_layers():
            x = call(x)
            found[name] = x.shape
        return x

    jax.eval_shape(through, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return found


def count(build: Build, kind: Any = nnx.Param) -> int:
    """Number of a network's parameters, without holding them."""
    state = nnx.state(nnx.eval_shape(build), kind)
    return sum(leaf.get_value().size for _, leaf in nnx.to_flat_state(state))


def drawn(build: Build, seed: int = 0) -> Any:
    """The network in evaluation mode, all of its weights and statistics drawn by NumPy: nothing is compiled."""
    rng = np.random.default_rng(seed)
    model = nnx.eval_shape(build)
    _, state, _ = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    for path, leaf in nnx.to_flat_state(state):
        shape, name = leaf.get_value().shape, path[-1]
        if name == "kernel":
            value = (2 / np.prod(shape[:-1])) ** 0.5 * rng.standard_normal(shape)
        elif name in ("scale", "var"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.2 * rng.standard_normal(shape)
        leaf.set_value(jnp.asarray(value, jnp.float32))
    nnx.update(model, state)
    model.eval()
    return model


def check_network(model: Any, record: zoo.ModelRecord, tmp_path: Any) -> None:
    """Splits at every layer that it offers, is saved and loaded, its operations are known, relevance goes through.

    Args:
        model: small, in evaluation mode.
        record: whose configuration is that of the model.
        tmp_path: an empty folder.
    """
    x = jax.random.uniform(jax.random.key(0), (2, *record.input.shape, record.input.channels))
    y = jax.jit(lambda model, x: model(x))(model, x)
    for row in jaxsal.layers(model, x):
        if row.splits:
            parts = jaxsal.split(model, x, row.name)
            features = parts.head(x)
            assert features.shape == row.shape
            np.testing.assert_allclose(parts.tail(features), y, rtol=1e-5, atol=1e-6)
    loaded = zoo.load(zoo.save(tmp_path / "network.safetensors", model, record))
    assert loaded.record == record
    np.testing.assert_allclose(loaded.model(x), y, rtol=1e-5, atol=1e-6)
    found = [site.name for site, _ in jaxsal.sites(model, x, composites.epsilon_plus())]
    kernels = {name.removesuffix(".kernel") for name in zoo.weights(model) if name.endswith(".kernel")}
    assert kernels <= {re.sub(r"\[(\d+)\]", r".\1", name) for name in found}
    if y.ndim == 2:
        relevance = jaxsal.lrp(model, x, outputs=[0])
        assert np.isfinite(relevance).all()
        assert (np.asarray(relevance) != 0).any()


def torch_state(model: Any, names: dict[str, str], flattened: tuple[int, ...] = ()) -> dict[str, Any]:
    """The network's weights as PyTorch has them; the first dense layer reads ``flattened`` features, channels first."""
    import torch

    state, first = {}, bool(flattened)
    for ours, value in sorted(zoo.weights(model).items()):
        array = np.asarray(value)
        if ours.endswith("kernel") and array.ndim == 2:
            if first:
                array = np.moveaxis(array.reshape(*flattened, -1, array.shape[-1]), -2, 0).reshape(array.shape)
                first = False
            array = array.T
        elif ours.endswith("kernel"):
            array = np.moveaxis(array, (-1, -2), (0, 1))
        state[names[ours]] = torch.from_numpy(np.array(array))
    return state
