"""Whole networks of PyTorch through the generic path: equal, split, explained, saved without PyTorch."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks of PyTorch are converted where PyTorch is")
from torch import nn

import jaxsal
from jaxsal import composites, zoo
from jaxsal.converters import from_torch
from jaxsal.converters.checking import _forward
from jaxsal.engine.rewire import sites
from tests.converters import networks
from tests.converters.networks import settled

NETWORKS = {
    "unet": (lambda: networks.UNet(), (8, 8, 8, 1)),
    "densenet": (lambda: networks.DenseNet(), (12, 12, 3)),
    "resnet": (lambda: networks.ResNet50(width=4, outputs=3, blocks=(2, 1)), (32, 32, 3)),
    "gated": (lambda: networks.SqueezeExcite(), (9, 8, 2)),
}


@pytest.fixture(scope="module")
def converted():
    """Each network with its conversion, and an image that it has not seen."""
    found = {}
    for name, (make, shape) in NETWORKS.items():
        module = settled(make())
        x = np.random.default_rng(5).standard_normal((3, *shape)).astype(np.float32)
        found[name] = module, from_torch(module, x[:1], name=name), x
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_to_its_source(converted, name):
    module, found, x = converted[name]
    with torch.no_grad():
        y = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    np.testing.assert_allclose(jax.jit(found.model)(x), y, atol=1e-4, rtol=1e-4)
    assert 0 <= found.max_difference < 1e-4
    assert "max |difference|" in repr(found)


@pytest.mark.parametrize("name", NETWORKS)
def test_head_and_tail_are_the_network_wherever_it_splits(converted, name):
    _, found, x = converted[name]
    x = x[:1]
    rows = jaxsal.layers(found.model, x)
    y = found.model(x)
    offered = [row.name for row in rows if row.splits]
    assert offered
    assert found.record.layer in offered
    for at in offered:
        head, tail = jaxsal.split(found.model, x, at)
        np.testing.assert_allclose(tail(head(x)), y, atol=1e-5, rtol=1e-5, err_msg=at)
    for row in rows:
        if len(row.shape) > 2 and not row.splits:
            with pytest.raises(ValueError, match="Cannot split at"):
                jaxsal.split(found.model, x, row.name)


def test_features_are_those_of_the_layer(converted):
    module, found, x = converted["resnet"]
    seen = []
    module.layer1.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        module(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    head, _ = jaxsal.split(found.model, x, "layer1")
    np.testing.assert_allclose(head(x), np.moveaxis(seen[0].numpy(), 1, -1), atol=1e-5, rtol=1e-5)


def test_names_of_layers(converted):
    _, found, x = converted["resnet"]
    names = [row.name for row in jaxsal.layers(found.model, x)]
    assert names[:5] == ["conv1", "bn1", "relu", "maxpool", "layer1.0.conv1"]
    assert {"layer1.0", "layer1", "layer2.0.downsample.1", "avgpool", "fc"} < set(names)
    # a module that is called again has its number
    assert {"layer1.0.relu", "layer1.0.relu@1", "layer1.0.relu@2"} < set(names)
    weighted = [site.name for site, _ in sites(found.model, x, composites.epsilon_plus()) if site.kind == "convolution"]
    assert weighted[:3] == ["conv1", "layer1.0.conv1", "layer1.0.conv2"]


def test_convolutions_stay_channel_last(converted):
    """As the engine writes them for CPU: no transposition between one and the next."""
    from jaxsal.engine.lower import is_plain_convolution

    for name in ("unet", "resnet"):
        _, found, x = converted[name]
        jaxpr = jax.make_jaxpr(found.model)(x)
        convolutions = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "conv_general_dilated"]
        plain = [eqn for eqn in convolutions if set(eqn.params["lhs_dilation"]) == {1}]
        assert plain
        assert all(map(is_plain_convolution, plain))
        moved = [eqn.params["permutation"] for eqn in jaxpr.eqns if eqn.primitive.name == "transpose"]
        # interpolation puts one spatial axis back in its place
        assert len(moved) == (3 if name == "unet" else 0)


def test_the_engine_works_on_it(converted):
    _, found, x = converted["resnet"]
    model, x = found.model, jnp.asarray(x[:1])
    guided = jaxsal.attribution.guided_backprop(model, x, 0)
    assert guided.shape == x.shape
    # without what shifts, the image's relevance is the output
    bare = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "bias" in str(path) or "running_mean" in str(path) else leaf, model
    )
    relevance = jaxsal.attribution.lrp(bare, x, 0, composite=composites.epsilon(1e-9))
    np.testing.assert_allclose(relevance.sum(), bare(x)[0, 0], rtol=1e-3)
    parts = jaxsal.split(model, x, "layer1")
    result = jaxsal.smocam(parts, x, outputs=[0, 2], max_steps=3)
    assert result.mask.shape == (2, 1, 8, 8)
    assert np.isfinite(result.saliency).all()


def test_transformations(converted):
    module, found, x = converted["unet"]
    model = found.model
    forward = jax.jit(lambda model, x: model(x))
    together = jax.jit(jax.vmap(lambda x: model(x[None])[0]))(jnp.asarray(x))
    np.testing.assert_allclose(together, forward(model, x), atol=1e-5, rtol=1e-5)
    image = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).requires_grad_()
    module(image)[:, 1].sum().backward()
    slopes = jax.jit(jax.grad(lambda x: model(x)[:, 1].sum()))(jnp.asarray(x))
    np.testing.assert_allclose(slopes, np.moveaxis(image.grad.numpy(), 1, -1), atol=1e-5, rtol=1e-4)


def test_saved_and_loaded_without_torch(converted, tmp_path):
    _, found, x = converted["unet"]
    path = zoo.save(tmp_path / "unet.safetensors", found.model, found.record)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.asarray(jax.jit(found.model)(x)))
    script = (
        "import sys, jax, numpy as np\n"
        "sys.modules['torch'] = None\n"  # to import it is an error
        "from jaxsal import zoo\n"
        "model, record = zoo.load(sys.argv[1])\n"
        "x, y = (np.load(name) for name in sys.argv[2:])\n"
        "found = jax.jit(model)(x)\n"
        "assert np.array_equal(found, y), abs(np.asarray(found) - y).max()\n"
        "print(record.architecture, record.layer)\n"
    )
    files = [path, tmp_path / "x.npy", tmp_path / "y.npy"]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["Graph", found.record.layer]


def test_a_loaded_network_is_the_same_compiled_program(converted, tmp_path):
    _, found, x = converted["gated"]
    folder = zoo.save(tmp_path / "gated", found.model, found.record)
    loaded = zoo.load(folder).model
    forward = jax.jit(lambda model, x: model(x))
    np.testing.assert_array_equal(forward(loaded, x), forward(found.model, x))
    assert forward._cache_size() == 1


def test_a_record_with_a_strange_graph_is_refused(converted, tmp_path):
    _, found, _ = converted["gated"]
    graph = found.record.config["graph"]
    nodes = [{**graph["nodes"][0], "op": "system.default", "args": [{"weight": "no.such"}]}, *graph["nodes"][1:]]
    record = found.record.model_copy(update={"config": {**found.record.config, "graph": {**graph, "nodes": nodes}}})
    path = zoo.save(tmp_path / "strange.safetensors", found.model, record)
    with pytest.raises(
        ValueError, match=r"operation 'system.default' is unknown; weight 'no.such' is missing.*upgrade"
    ):
        zoo.load(path)


def test_another_grid_is_refused(converted):
    _, found, _ = converted["gated"]
    with pytest.raises(ValueError, match=r"shape \(1, 9, 9, 2\).*converted for \[b, 9, 8, 2\].*resample"):
        found.model(jnp.zeros((1, 9, 9, 2)))


def test_outputs_have_names(converted):
    module, _, x = converted["resnet"]
    found = from_torch(module, torch.from_numpy(np.moveaxis(x, -1, 1).copy()), outputs=["a", "b", "c"])
    assert found.record.output_names == ("a", "b", "c")
    assert found.record.input.shape == (32, 32)
    with pytest.raises(ValueError, match="2 output names were given, ResNet50 has 3 outputs"):
        from_torch(module, x, outputs=["a", "b"])


class Unknown(nn.Module):
    def forward(self, x):
        x = torch.fft.rfft2(x).real
        return torch.cumsum(x, 1).mean((2, 3))


def test_operations_without_a_rule_are_all_named_with_their_lines():
    with pytest.raises(NotImplementedError) as caught:
        from_torch(Unknown().eval(), np.zeros((1, 6, 6, 2), np.float32))
    message = str(caught.value)
    line = Unknown.forward.__code__.co_firstlineno
    assert f"cumsum.default at {__file__}:{line + 2}" in message
    assert f"_fft_r2c.default at {__file__}:{line + 1}" in message
    assert "Write these lines with other operations" in message


class Random(nn.Module):
    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True).mean((2, 3))


def test_a_network_that_draws_numbers_is_refused():
    with pytest.raises(NotImplementedError, match=rf"native_dropout.default at {__file__}:\d+, which draws numbers"):
        from_torch(Random().eval(), np.zeros((1, 6, 6, 2), np.float32))


class Tied(nn.Module):
    """An autoencoder whose decoder has the encoder's kernels, and a dense layer that is used both ways."""

    def __init__(self, groups):
        super().__init__()
        self.encode, self.dense = nn.Conv2d(4, 4, 3, groups=groups), nn.Linear(4, 4)

    def forward(self, x):
        x = nn.functional.conv_transpose2d(
            torch.relu(self.encode(x)), self.encode.weight, self.encode.bias, groups=self.encode.groups
        )
        x = self.encode(x).mean((2, 3))
        return self.dense(x) @ self.dense.weight + self.dense.weight.sum(0)


@pytest.mark.parametrize("groups", [1, 2])
def test_weights_that_several_operations_take(groups):
    module = settled(Tied(groups))
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 4)).astype(np.float32)
    found = from_torch(module, x)
    with torch.no_grad():
        y = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    assert np.abs(y).max() > 0.1
    np.testing.assert_allclose(jax.jit(found.model)(x), y, atol=1e-5)
    # a kernel once as it is and once mirrored, a matrix once as it is and once for the dense layer
    assert {"encode.weight", "encode.weight@1", "dense.weight", "dense.weight@1"} < set(zoo.weights(found.model))
    assert found.unused == ()


class Named(nn.Module):
    """Layers and buffers of names that the converted network uses itself."""

    def __init__(self):
        super().__init__()
        self.fill, self._put, self._program = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.fill_, self._paths, self.dict = nn.Linear(3, 3), nn.Linear(3, 2), nn.Module()
        self.register_buffer("_variable", torch.tensor([1.0, 2.0]))
        self.register_buffer("sow", torch.tensor([3.0, 4.0]))
        self.dict.items, self.dict.keys = nn.Parameter(torch.tensor([5.0, 6.0])), nn.Parameter(torch.ones(2))

    def forward(self, x):
        x = self._program(self._put(self.fill(x))).mean((2, 3))
        return self._paths(self.fill_(x)) * self._variable * self.sow * self.dict.items + self.dict.keys


def test_names_that_the_network_uses_itself(tmp_path):
    module = settled(Named())
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 2)).astype(np.float32)
    found = from_torch(module, x)
    with torch.no_grad():
        y = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    assert np.ptp(y, 0).max() > 0.1
    model = zoo.load(zoo.save(tmp_path / "named.safetensors", found.model, found.record)).model
    np.testing.assert_allclose(model(x), y, atol=1e-5, rtol=1e-5)
    assert [row.name for row in jaxsal.layers(model, x)][:3] == ["fill", "_put", "_program"]


class Long(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x):
        x = nn.functional.interpolate(self.conv(x), size=(600, 3), mode="bilinear")
        return nn.functional.adaptive_avg_pool2d(x, (401, 2)) * self.scale[:, None, None]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_modules_of_another_precision(dtype):
    """They come in as float32, and are compared with themselves in float32: not with every value rounded to 8 bits."""
    module = settled(Long())
    x = np.random.default_rng(1).standard_normal((2, 150, 3, 2)).astype(np.float32)
    module = module.to(getattr(torch, dtype))
    found = from_torch(module, x)
    assert found.max_difference < 1e-5
    assert found.model(x).dtype == np.float32
    assert found.record.training.get("weights") == (None if dtype == "float64" else f"{dtype}, as float32")
    # the user's own is as it was
    assert module.conv.weight.dtype == getattr(torch, dtype)


class Indices(nn.Module):
    def forward(self, x):
        y, where = nn.functional.max_pool2d(x, 2, return_indices=True)
        return nn.functional.max_unpool2d(y, where, 2).mean((2, 3))


def test_places_of_maxima_are_not_computed():
    with pytest.raises(NotImplementedError, match="result 1 of max_pool2d_with_indices"):
        from_torch(Indices().eval(), np.zeros((1, 6, 6, 2), np.float32))


class Branching(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.sum((2, 3))


class Two(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)), x.sum((2, 3))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x.mean((2, 3)) * self.calls


def test_what_cannot_be_converted_says_why():
    x = np.zeros((1, 6, 6, 2), np.float32)
    with pytest.raises(ValueError, match=r"training mode \(the module\).*module.eval"):
        from_torch(nn.Conv2d(2, 1, 3), x)
    with pytest.raises(ValueError, match=r"cannot export Branching as one graph(.|\n)*not branch on its values"):
        from_torch(Branching().eval(), x)
    with pytest.raises(ValueError, match="Two returns 2 values, one tensor"):
        from_torch(Two().eval(), x)
    with pytest.raises(ValueError, match="Counting changes 1 of its buffers"):
        from_torch(Counting().eval(), x)
    with pytest.raises(ValueError, match=r"shape \(6, 6\), an image is needed"):
        from_torch(nn.ReLU().eval(), np.zeros((6, 6), np.float32))


def test_a_wrong_conversion_is_not_handed_out(monkeypatch):
    """The check at the end is there to fail."""
    from jaxsal.graph.aten import normalising

    monkeypatch.setattr(normalising.lax, "rsqrt", lambda x: 1.01 / jnp.sqrt(x))
    module = settled(nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2)))
    with pytest.raises(ValueError, match=r"converted Sequential differs from its source by up to .*tolerance"):
        from_torch(module, np.zeros((1, 6, 6, 2), np.float32))


def test_weights_that_are_not_read_are_told():
    module = nn.Sequential(nn.Conv2d(2, 1, 3), nn.BatchNorm2d(1))
    module.spare = nn.Identity()
    module.spare.weight = nn.Parameter(torch.ones(3))
    module.forward = lambda x: module[1](module[0](x)).mean((2, 3))
    found = from_torch(module.eval(), np.zeros((1, 6, 6, 2), np.float32))
    assert found.unused == ("1.num_batches_tracked", "spare.weight")


def test_resnet50_of_real_size():
    module = settled(networks.ResNet50())
    # two images, as the noise of the check has: one program
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    found = from_torch(module, x)
    assert found.max_difference < 1e-4 * max(1.0, found.scale)
    assert sum(leaf.size for leaf in jax.tree.leaves(found.model)) == 25_557_032 + 2 * 26_560


def test_monai_densenet121_in_3d():
    nets = pytest.importorskip("monai.networks.nets", reason="pip install monai 'torch==2.13.0'")
    torch.manual_seed(0)
    module = settled(nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=2))
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 32, 1)).astype(np.float32)
    found = from_torch(module, x)
    assert found.max_difference < 1e-4 * max(1.0, found.scale)
    rows = jaxsal.layers(found.model, x)
    blocks = {row.name: row.shape for row in rows if row.splits}
    assert blocks["features.denseblock1"] == (2, 8, 8, 8, 256)
    head, tail = jaxsal.split(found.model, x, "features.transition1")
    np.testing.assert_allclose(jax.jit(tail)(jax.jit(head)(x)), _forward(found.model, x), atol=1e-4, rtol=1e-4)
