"""Response maps against products of dense matrices: transposed convolutions and un-pooling, one map at a time."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsal import Split, attentive_response, clear, rules
from tests.attribution.residual import add, conv, image, max_pool

FEATURES = 5


def _first(w, x: jax.Array) -> jax.Array:
    return add(conv(x, w["k1"]), w["b1"])


def _second(w, x: jax.Array) -> jax.Array:
    return add(conv(x, w["k2"]), w["b2"])


def _head(w, x: jax.Array) -> jax.Array:
    return jax.nn.relu(_second(w, max_pool(jax.nn.relu(_first(w, x)))))


def _tail(w, features: jax.Array) -> jax.Array:
    return features.mean(tuple(range(1, features.ndim - 1))) @ w["k3"]


def _whole(w, x: jax.Array) -> jax.Array:
    return _tail(w, _head(w, x))


class Textbook(NamedTuple):
    """The network's parts as dense matrices, and what it computes for one image, flat.

    Attributes:
        conv1: ``[n1, n0]``, the first convolution.
        conv2: ``[n2, p]``, the second one.
        h1: ``[n1]`` before the first ReLU.
        z: ``[*t, FEATURES]`` behind the second.
        switch: ``[n1, p]``, un-pooling by switches.
        repeat: ``[n1, p]``, un-pooling by repetition.
    """

    conv1: np.ndarray
    conv2: np.ndarray
    h1: np.ndarray
    z: np.ndarray
    switch: np.ndarray
    repeat: np.ndarray


@functools.lru_cache
def _weights(rank: int):
    rng = np.random.default_rng(rank)
    shapes = {"k1": (3,) * rank + (1, 3), "b1": (3,), "k2": (3,) * rank + (3, FEATURES), "b2": (FEATURES,)}
    shapes["k3"] = (FEATURES, 3)
    return {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def _x(rank: int) -> jax.Array:
    return image(rank, 2)[(slice(None), *(slice(4),) * rank)]


@functools.lru_cache
def _textbook(rank: int) -> list[Textbook]:
    w, x = _weights(rank), _x(rank)
    grid, small = (4,) * rank, (2,) * rank

    @jax.jit
    def matrices(w, x):
        no_bias = w | {"b1": 0 * w["b1"], "b2": 0 * w["b2"]}
        basis = (jnp.eye(4**rank).reshape(-1, *grid, 1), jnp.eye(2**rank * 3).reshape(-1, *small, 3))
        return _first(no_bias, basis[0]), _second(no_bias, basis[1]), _first(w, x), _head(w, x)

    conv1, conv2, h1, z = map(np.asarray, matrices(w, x))
    found = []
    for image_h1, image_z in zip(h1, z, strict=True):
        active = np.maximum(image_h1, 0)
        place = np.arange(active.size).reshape(active.shape)
        switch, repeat = np.zeros((active.size, 2**rank * 3)), np.zeros((active.size, 2**rank * 3))
        for column, (*at, channel) in enumerate(np.ndindex(*small, 3)):
            window = (*(slice(2 * i, 2 * i + 2) for i in at), channel)
            inside = place[window].ravel()
            repeat[inside, column] = 1
            switch[inside[active[window].argmax()], column] = 1
        found.append(Textbook(conv1.reshape(4**rank, -1).T, conv2.reshape(2**rank * 3, -1).T,
                              image_h1.ravel(), image_z, switch, repeat))  # fmt: skip
    return found


def _project(book: Textbook, features: np.ndarray, unpool: str = "switch", gate: str = "none") -> np.ndarray:
    """``C1^T G U C2^T z`` with the gate ``G`` of the ReLU in between."""
    signal = getattr(book, unpool) @ (book.conv2.T @ features.ravel())
    if gate != "none":
        signal = np.maximum(signal, 0)
    if gate == "guided":
        signal = np.where(book.h1 > 0, signal, 0)
    return book.conv1.T @ signal


GATES = {"none": rules.handed_on, "deconv": rules.rectified, "guided": rules.guided}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("rank", "unpool", "gate", "rank_by", "peak", "n", "batch_size"), [
    (2, "switch", "none", "maximum", False, 25, None),
    (2, "repeat", "guided", "sum", True, 3, 2),
    (3, "switch", "deconv", "sum", False, 3, None),
])  # fmt: skip
def test_feature_maps_are_projected_as_in_the_paper(rank, unpool, gate, rank_by, peak, n, batch_size):
    w, x = _weights(rank), _x(rank)
    split = Split(jax.tree_util.Partial(_head, w), jax.tree_util.Partial(_tail, w))
    found = attentive_response(
        split, x, n=n, rank=rank_by, peak=peak, gate=GATES[gate], batch_size=batch_size,
        unpool={"switch": rules.winner, "repeat": rules.repeated}[unpool],
    )  # fmt: skip
    count = min(n, FEATURES)
    assert found.maps.shape == (count, *x.shape)
    assert found.units.dtype == found.unit.dtype == jnp.int32
    for i, book in enumerate(_textbook(rank)):
        flat = book.z.reshape(-1, FEATURES)
        order = np.argsort(-(flat.max(0) if rank_by == "maximum" else flat.sum(0)), kind="stable")[:count]
        np.testing.assert_array_equal(found.units[:, i], order)
        maps = []
        for unit in order:
            chosen = np.zeros_like(flat)
            if peak:
                chosen[flat[:, unit].argmax(), unit] = flat[:, unit].max()
            else:
                chosen[:, unit] = flat[:, unit]
            maps.append(_project(book, chosen, unpool, gate).reshape(x.shape[1:]))
        np.testing.assert_allclose(found.maps[:, i], maps, atol=1e-10)
        response = np.stack(maps)[..., 0]
        np.testing.assert_allclose(found.dominant[i], response.max(0), atol=1e-10)
        np.testing.assert_array_equal(found.unit[i], order[response.argmax(0)])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rank", [2, 3])
def test_classes_are_projected_and_the_dominant_one_found(rank: int):
    w, x = _weights(rank), _x(rank)
    found = clear(jax.tree_util.Partial(_whole, w), x, outputs=[2, 0])
    assert found.outputs.tolist() == [2, 0]
    for i, book in enumerate(_textbook(rank)):
        mean = np.broadcast_to(np.asarray(w["k3"]), (2**rank, FEATURES, 3)) / 2**rank
        scores = book.z.reshape(-1, FEATURES).mean(0) @ np.asarray(w["k3"])
        maps = np.stack([_project(book, mean[..., k] * scores[k]).reshape(x.shape[1:]) for k in (2, 0)])
        np.testing.assert_allclose(found.maps[:, i], maps, atol=1e-10)
        np.testing.assert_array_equal(found.output[i], np.array([2, 0])[maps[..., 0].argmax(0)])
        np.testing.assert_allclose(found.dominant[i], maps[..., 0].max(0), atol=1e-10)


def test_bad_input():
    split = Split(lambda x: x, lambda f: f.mean((1, 2)))
    x = jnp.ones((1, 4, 4, 2))
    with pytest.raises(ValueError, match="at least one feature map"):
        attentive_response(split, x, n=0)
    with pytest.raises(ValueError, match='"maximum" or "sum"'):
        attentive_response(split, x, rank="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="split behind a convolution"):
        attentive_response(Split(lambda x: x.mean((1, 2)), lambda f: f), x)
    with pytest.raises(ValueError, match="batch_size"):
        attentive_response(split, x, batch_size=0)
