import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from tests.zoo.topology import check_network, count, drawn, shapes

FOLDERS = {21: "model18cls", 30: "model30chan18cls"}


def published(folder):
    """The weights of a tfjs model by the names of the zoo's network: its kernels have our layout."""
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"]
    values = np.fromfile(folder / "model.bin", np.float32)
    found, at = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        layer, leaf = entry["name"].split("/")
        ours = "classify" if layer == "output" else f"conv{int(layer.removeprefix('conv3d_')) // 2 + 1}"
        size = int(np.prod(entry["shape"]))
        found[f"{ours}.{leaf}"] = values[at : at + size].reshape(entry["shape"])
        at += size
    assert at == values.size
    return found


def filled(model, flat):
    _, state, _ = nnx.split(model, nnx.Param, ...)
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jnp.asarray(flat[".".join(map(str, path))]))
    nnx.update(model, state)
    return model


@pytest.mark.parametrize(("width", "parameters"), [(21, 96_408), (30, 196_038)])
def test_the_layout_is_that_of_the_published_weights(width, parameters, shared):
    def network():
        return zoo.MeshNet(width=width, rngs=nnx.Rngs(0))

    flat = published(shared / "weights" / "meshnet" / FOLDERS[width])
    needed = {name: value.shape for name, value in zoo.weights(nnx.eval_shape(network)).items()}
    assert {name: value.shape for name, value in flat.items()} == needed
    assert count(network) == sum(value.size for value in flat.values()) == parameters
    names = json.loads((shared / "weights" / "meshnet" / FOLDERS[width] / "colormap.json").read_text())["labels"]
    assert tuple(names) == zoo.BRAINCHOP_CLASSES


def test_published_weights_give_what_torch_gives(shared):
    torch = pytest.importorskip("torch")
    from torch.nn import functional as F

    flat = published(shared / "weights" / "meshnet" / FOLDERS[21])
    model = filled(nnx.eval_shape(lambda: zoo.MeshNet(rngs=nnx.Rngs(0))), flat)
    x = np.random.default_rng(0).uniform(size=(1, 34, 18, 20, 1)).astype(np.float32)

    def kernel(name):
        return torch.from_numpy(np.moveaxis(flat[f"{name}.kernel"], (-1, -2), (0, 1)).copy())

    with torch.no_grad():
        h = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
        for index, dilation in enumerate((1, 2, 4, 8, 16, 8, 4, 2, 1), start=1):
            bias = torch.from_numpy(flat[f"conv{index}.bias"])
            h = F.elu(F.conv3d(h, kernel(f"conv{index}"), bias, padding=dilation, dilation=dilation))
        expected = F.conv3d(h, kernel("classify"), torch.from_numpy(flat["classify.bias"])).numpy()
    found = np.moveaxis(np.asarray(jax.jit(lambda model, x: model(x))(model, x)), -1, 1)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_it_keeps_the_grid():
    table = shapes(lambda: zoo.MeshNet(rngs=nnx.Rngs(0)), (256, 256, 256, 1))
    assert table["elu9"] == (1, 256, 256, 256, 21)
    assert table["classify"] == (1, 256, 256, 256, 18)


def test_volumes_are_sums_of_the_probabilities_of_the_network():
    config = dict(shape=(7, 6, 5), width=3, dilations=(1, 2, 1))
    labels = drawn(lambda: zoo.MeshNet(4, **config, rngs=nnx.Rngs(0)))
    volumes = drawn(
        lambda: zoo.MeshNetVolumes(2, **config, segments=4, classes=(3, 1), voxel_size=(1, 2, 1.5), rngs=nnx.Rngs(0))
    )
    assert zoo.weights(labels).keys() == zoo.weights(volumes).keys()
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 5, 1))
    logits = np.asarray(labels(x), np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = 3 * shares.sum((1, 2, 3))[:, [3, 1]]
    np.testing.assert_allclose(volumes(x), expected, rtol=1e-5)


def test_both_split_are_saved_and_explained(tmp_path):
    config = {"width": 3, "dilations": [1, 2, 1]}
    spec = zoo.InputSpec(shape=(7, 6))
    outputs = tuple(zoo.Output(name=name) for name in "abcd")
    record = zoo.ModelRecord(
        name="small", architecture="MeshNet", config=config, input=spec, outputs=outputs, layer="elu2"
    )  # fmt: skip
    check_network(drawn(lambda: zoo.MeshNet(4, shape=(7, 6), **config, rngs=nnx.Rngs(0))), record, tmp_path)
    config |= {"segments": 4, "classes": [2, 0]}
    record = record.model_copy(
        update={"architecture": "MeshNetVolumes", "config": config, "outputs": record.outputs[:2]}
    )  # fmt: skip
    check_network(drawn(lambda: zoo.MeshNetVolumes(2, shape=(7, 6), **config, rngs=nnx.Rngs(0))), record, tmp_path)


def test_classes_that_do_not_exist_are_answered():
    with pytest.raises(ValueError, match=r"classes \(1, 9\) are asked for as 2 outputs of a network of 4 classes"):
        zoo.MeshNetVolumes(2, shape=(4, 4), segments=4, classes=(1, 9), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="does not label Left-Hippocampus; it labels Unknown"):
        zoo.meshnet_volumes_record(["Left-Hippocampus"])


@pytest.mark.parametrize("record", [zoo.meshnet_record(width=30), zoo.meshnet_volumes_record()], ids=lambda r: r.name)
def test_records_build_their_networks(record):
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, len(record.outputs), record.input))
    assert record.layer in built.names
    assert record.outputs[-1].name == "VentralDC"
