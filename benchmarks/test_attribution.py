"""Gradients, paths, guided backprop and relevance against captum and zennit, on networks of real size.

``python -m pytest benchmarks/test_attribution.py --benchmark-only -s``: a row for jaxsal and one for the peer, in one
run, and the ratio of their medians; compilation stands beside. ``-k resnet`` (``adnet``, ``outputs``) takes one.
Maps are compared too; of integrated gradients it is told how far their sums are from the change of the score. The
AD-spectrum network needs the real data beside the repository.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

import jaxsal
from jaxsal import zoo
from jaxsal.model import Model
from tests.attribution import real_networks as networks

torch = pytest.importorskip("torch", reason="the peers need torch==2.13.0")
captum = pytest.importorskip("captum.attr", reason="the peer is captum==0.9.0")

from benchmarks.peers import shared_folder, torch_tail  # noqa: E402

STEPS = 50
# one round of fifty gradients is enough
ROUNDS = {"integrated gradients": 1}
OUTPUTS = 29


def ad_network() -> networks.Twins:
    """182 x 218 x 182 voxels of a real scan."""
    shared = shared_folder()
    if not shared.is_dir():
        pytest.skip(f"real data not found: {shared} (set JAXSAL_SHARED to its folder)")
    peer = networks.torch_ad_network(shared, 0)
    return networks.twins(networks.whole_ad_network(shared, 0), networks.ad_scan(shared), peer)


def resnet() -> networks.Twins:
    """ResNet-50, eight images of 128 x 128."""
    model = networks.resnet50()
    x = networks.smooth_noise(0, 8, 128)
    add = functools.partial(networks.zennit().layer.Sum, dim=-1) if networks.zennit() else None
    return networks.twins(model, x, networks.torch_resnet50(model, add))


NETWORKS = {"adnet": ad_network, "resnet": resnet}


@pytest.fixture(scope="module", params=NETWORKS)
def both(request: pytest.FixtureRequest):
    found = NETWORKS[request.param]()
    yield request.param, found
    maps.clear()
    jax.clear_caches()


def ours(method: str, at: networks.Twins) -> Callable[[], jax.Array]:
    target = np.arange(len(at.x))
    return {
        "saliency": lambda: jaxsal.saliency(at.model, at.x, target),
        "integrated gradients": lambda: jaxsal.integrated_gradients(at.model, at.x, target, steps=STEPS),
        "guided backprop": lambda: jaxsal.guided_backprop(at.model, at.x, target),
        "epsilon-plus": lambda: jaxsal.lrp(at.model, at.x, target),
    }[method]


def theirs(method: str, at: networks.Twins) -> Callable[[], np.ndarray]:
    target = torch.arange(len(at.x))

    def leaf() -> Any:
        return at.image.clone().requires_grad_()

    def integrated() -> Any:
        # one step of all images at a time, as jaxsal does
        return captum.IntegratedGradients(at.peer).attribute(
            leaf(), target=target, n_steps=STEPS, internal_batch_size=len(at.x)
        )

    def guided() -> Any:
        return captum.GuidedBackprop(at.peer).attribute(leaf(), target=target)

    run = {
        "saliency": lambda: captum.Saliency(at.peer).attribute(leaf(), target=target, abs=False),
        "integrated gradients": integrated,
        "guided backprop": guided,
        "epsilon-plus": lambda: None,
    }[method]
    if method == "epsilon-plus":
        if networks.zennit() is None:
            pytest.skip("the peer is zennit==0.5.1")
        return lambda: networks.zennit_epsilon_plus(at.peer, at.image, target)
    return lambda: networks.from_torch(run())


@pytest.mark.parametrize("way", ["peer", "jaxsal"])
@pytest.mark.parametrize("method", ["saliency", "guided backprop", "epsilon-plus", "integrated gradients"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU", "ignore:Full backward hook is firing")
def test_maps(benchmark, both, method: str, way: str):
    name, at = both
    benchmark.group = f"{name}, {method}"
    found = timed(benchmark, way, (ours if way == "jaxsal" else theirs)(method, at), rounds=ROUNDS.get(method, 5))
    if method == "integrated gradients":
        report = jaxsal.completeness(at.model, at.x, jax.numpy.asarray(found), np.arange(len(at.x)))
        residual = np.abs(np.asarray(report.error / report.difference))
        benchmark.extra_info["residual"] = residual.tolist()
        print(f"\n{benchmark.group}: {way}, sums off by {np.round(100 * residual, 2).tolist()} % of the change")


class Network(NamedTuple):
    """A network of many outputs and an image in both frameworks.

    Attributes:
        model: in JAX.
        x: ``[1, *space, 1]``.
        split: of the model, at :data:`LAYER`.
        peer: in PyTorch, its modules by the model's names of layers.
        image: ``[1, 1, *space]``.
    """

    model: Model
    x: jax.Array
    split: jaxsal.Split
    peer: Any
    image: Any

    def features(self) -> jax.Array:
        """What the layer gives."""
        return run(self.split.head, self.x)

    @property
    def layer(self) -> Any:
        """The peer's."""
        return self.peer.get_submodule(LAYER)


class Method(NamedTuple):
    """The same of both.

    Attributes:
        ours: maps of all outputs.
        theirs: ``(image, output) -> map``, of one.
        shared: maps of all outputs as one writes it with PyTorch alone, with one forward pass; None where that is
            no matter of a few lines.
    """

    ours: Callable[[Network], jax.Array]
    theirs: Callable[[Network], Callable[[Any, int], np.ndarray]]
    shared: Callable[[Network], np.ndarray] | None = None


def as_it_is(x: jax.Array) -> jax.Array:
    return x


@jax.jit
def run(model: Model, x: jax.Array) -> jax.Array:
    return jaxsal.lower(model)(x)


def captums(method: Callable[[Network], Any], **options: Any) -> Callable[[Network], Callable[[Any, int], np.ndarray]]:
    """A method of captum for one output after the other."""

    def one_of(at: Network) -> Callable[[Any, int], np.ndarray]:
        attribute = method(at).attribute
        return lambda image, k: networks.from_torch(attribute(image.clone().requires_grad_(), target=k, **options))

    return one_of


def zennits(at: Network) -> Callable[[Any, int], np.ndarray]:
    """Relevance of one output after the other."""
    if networks.zennit() is None:
        pytest.skip("the peer is zennit==0.5.1")
    return lambda image, k: networks.zennit_epsilon_plus(at.peer, image, [k])


def gradients(fn: Any, x: Any) -> np.ndarray:
    """Of every output, from one forward pass."""
    x = x.clone().requires_grad_()
    y = fn(x)
    return np.stack([
        networks.from_torch(torch.autograd.grad(y[0, k], x, retain_graph=True)[0]) for k in range(OUTPUTS)
    ])  # fmt: skip


def gradients_times_features(at: Network) -> np.ndarray:
    """Of the layer, which is run once."""
    behind = [name for name, _ in at.peer.named_children()].index(LAYER) + 1
    with torch.no_grad():
        features = at.peer[:behind](at.image)
    return gradients(at.peer[behind:], features) * networks.from_torch(features)


# in the middle of the shipped network
LAYER = "relu3"
ALL_OUTPUTS = {
    "saliency": Method(
        lambda at: jaxsal.saliency(at.model, at.x, outputs="all"),
        captums(lambda at: captum.Saliency(at.peer), abs=False),
        lambda at: gradients(at.peer, at.image),
    ),
    "guided backprop": Method(
        lambda at: jaxsal.guided_backprop(at.model, at.x, outputs="all"),
        captums(lambda at: captum.GuidedBackprop(at.peer)),
    ),
    "epsilon-plus": Method(lambda at: jaxsal.lrp(at.model, at.x, outputs="all"), zennits),
    "DeepLIFT": Method(
        lambda at: jaxsal.deep_lift(at.model, at.x, outputs="all"),
        captums(lambda at: captum.DeepLift(at.peer)),
    ),
    # on the layer's grid, as captum's: features are images of the tail
    "Grad-CAM": Method(
        lambda at: jaxsal.grad_cam(jaxsal.Split(as_it_is, at.split.tail), at.features(), outputs="all"),
        captums(lambda at: captum.LayerGradCam(at.peer, at.layer)),
    ),
    "gradient x activation": Method(
        lambda at: jaxsal.input_x_gradient(at.split.tail, at.features(), outputs="all"),
        captums(lambda at: captum.LayerGradientXActivation(at.peer, at.layer)),
        gradients_times_features,
    ),
}


@pytest.fixture(scope="module")
def morphometry():
    """The shipped network's layers with 29 outputs."""
    loaded = jaxsal.load_model("morphometry-2mm")
    record = loaded.record
    blocks = [zoo.ConvBlock(*block) for block in record.config["blocks"]]
    model = zoo.MorphometryVGG(OUTPUTS, shape=record.input.shape, **record.config, rngs=nnx.Rngs(0))
    model.eval()
    x = jax.random.uniform(jax.random.key(0), (1, *record.input.shape, 1))
    peer = torch_tail(model, blocks, 0, pooled=False)
    yield Network(model, x, jaxsal.split(model, x, LAYER), peer, networks.to_torch(x))
    maps.clear()


@pytest.mark.parametrize("way", ["peer", "jaxsal", "PyTorch, one forward pass"])
@pytest.mark.parametrize("method", ALL_OUTPUTS)
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU", "ignore:Full backward hook is firing")
@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_all_outputs(benchmark, morphometry, method: str, way: str):
    benchmark.group = f"{method} of {OUTPUTS} outputs"
    ours, one_of, shared = ALL_OUTPUTS[method]

    def one_by_one(at: Network) -> np.ndarray:
        each = one_of(at)
        return np.stack([each(at.image, k) for k in range(OUTPUTS)])

    all_of = {"peer": one_by_one, "jaxsal": ours}.get(way, shared)
    if all_of is None:
        pytest.skip("not a matter of a few lines")
    timed(benchmark, way, lambda: all_of(morphometry), rounds=5)


def timed(benchmark: Any, way: str, run: Callable[[], Any], rounds: int) -> np.ndarray:
    """Time a call, note its first one's surplus as compilation, and compare its maps with those of the peer.

    Returns:
        What it gave.
    """
    began = time.perf_counter()
    first = np.asarray(run())
    first_call = time.perf_counter() - began
    benchmark.pedantic(lambda: np.asarray(run()), rounds=rounds)
    median = benchmark.stats.stats.median
    if way == "peer":
        maps[benchmark.group] = first, median
        return first
    benchmark.extra_info["compilation"] = max(first_call - median, 0)
    if benchmark.group in maps:
        expected, peer = maps[benchmark.group]
        benchmark.extra_info["ratio"] = median / peer
        same = np.corrcoef(first.ravel(), expected.ravel())[0, 1]
        print(
            f"\n{benchmark.group}: {way} {median:.3g} s ({first_call - median:.3g} s more for compilation), peer "
            f"{peer:.3g} s, ratio {median / peer:.2f}; correlation of maps {same:.5f}"
        )
        # where two values of a pool or a ReLU's argument and 0 differ by rounding, either may win
        assert same > 0.99
    return first


maps: dict[str, tuple[np.ndarray, float]] = {}
