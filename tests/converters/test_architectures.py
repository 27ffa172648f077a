"""Published weights as networks of the zoo."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import jaxsal
from jaxsal import zoo
from jaxsal.cli import app
from jaxsal.converters import architectures, convert, from_keras
from jaxsal.converters.checking import _forward, pictures
from tests.attribution.real_networks import ad_scan


@pytest.fixture(scope="module")
def folds(shared):
    """The five networks, the first one with both heads and compared on a real scan too."""
    pytest.importorskip("torch", reason="the published weights are PyTorch files")
    folders = sorted((shared / "weights" / "ncomms2022").glob("CNN*"))
    first = convert(folders[0], "ncomms2022-add", images=[ad_scan(shared)])
    return [first, *(convert(folder, "ncomms2022") for folder in folders[1:])]


def test_folds_of_the_ad_network(folds):
    assert len(folds) == 5
    for i, found in enumerate(folds):
        assert found.max_difference < 1e-4
        count = sum(leaf.size for leaf in jax.tree.leaves(found.model))
        # the published counts, and the statistics of the BatchNorms
        assert count == 490_660 + 576_201 + (0 if i else 172_892) + 2 * (20 + 40 + 80 + 160)
    assert folds[0].record.output_names[0] == "COG"
    assert folds[1].record.name == "CNN_baseline_new_cross1"


def test_five_folds_on_the_template(folds):
    """Five-fold mean of the score on the MNI152 brain, as it stands with the data: 0.39."""
    from nilearn import datasets, image

    grid = folds[0].record.input
    template = datasets.load_mni152_template(resolution=1)
    resampled = image.resample_img(
        template, np.asarray(grid.affine), grid.shape, interpolation="linear", copy_header=True, force_resample=True
    )
    scan = np.asarray(resampled.dataobj, np.float32)
    x = jnp.asarray(np.clip(scan / scan.mean(), 0, 8))[None, ..., None]
    scores = [_forward(found.model, x)[0, 0].item() for found in folds]
    assert np.mean(scores) == pytest.approx(0.39, abs=0.05)


@pytest.mark.parametrize("name", ["model18cls", "model30chan18cls"])
def test_meshnets(shared, name):
    pytest.importorskip("h5py", reason="Keras files are read with h5py")
    path = shared / "weights" / "meshnet" / name / "model.json"
    found = convert(path, "meshnet")
    assert found.max_difference < 1e-4
    assert found.record.config["width"] == (30 if "30" in name else 21)
    assert sum(leaf.size for leaf in jax.tree.leaves(found.model)) == (196_038 if "30" in name else 96_408)
    # an image that is smaller than the part of it that is compared, and one that is larger along one axis
    volumes = convert(path, "meshnet-volumes", images=[np.random.default_rng(1).uniform(size=(1, 20, 26, 9, 1))])
    assert volumes.max_difference < 1e-4
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(1, 24, 20, 18, 1)).astype(np.float32))
    y = _forward(found.model, x)
    np.testing.assert_allclose(_forward(volumes.model, x), jax.nn.softmax(y).sum((1, 2, 3))[:, 1:], rtol=1e-4)
    np.testing.assert_allclose(_forward(from_keras(path, shape=x.shape[1:-1]).model, x), y, atol=1e-4)


@pytest.mark.parametrize("arch", ["resnet50", "vgg16"])
def test_weights_of_torchvisions_shape(tmp_path, arch):
    torch = pytest.importorskip("torch", reason="the network that the weights come from is PyTorch's")
    from tests.converters import networks

    module = networks.settled({"resnet50": networks.ResNet50, "vgg16": networks.VGG16}[arch](outputs=5, channels=2))
    # of any precision: it is compared in that which it is turned into
    precise = module.double().state_dict() if arch == "vgg16" else module.state_dict()
    torch.save({f"module.{key}": value for key, value in precise.items()}, tmp_path / "w.pth")
    module = module.float()
    x = np.random.default_rng(0).standard_normal((1, 40, 36, 2)).astype(np.float32)
    found = convert(tmp_path / "w.pth", arch, shape=(40, 36), images=[x])
    assert found.max_difference < 1e-4 * max(1, found.scale)
    with torch.no_grad():
        y = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    np.testing.assert_allclose(_forward(found.model, x), y, atol=1e-4, rtol=1e-4)
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    last = "fc" if arch == "resnet50" else "classifier.6"
    del state[f"{last}.bias"]
    state["extra"] = np.ones(1, np.float32)
    first = "conv1" if arch == "resnet50" else "features.0"
    state[f"{first}.weight"] = state[f"{first}.weight"][:, :, :2]
    save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not fit") as caught:
        convert(tmp_path / "w.safetensors", arch)
    for part in (f"missing {last}.bias", "unknown extra", f"{first}.weight has shape"):
        assert part in str(caught.value)
    # what tells the numbers of channels and of outputs, of another rank
    odd = {f"{first}.weight": np.ones(64, np.float32), f"{last}.weight": np.ones((), np.float32)}
    save_file(odd, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not fit") as caught:
        convert(tmp_path / "w.safetensors", arch)
    ours = {"conv1": "conv1.kernel of shape (7, 7, 3, 64)", "features.0": "conv1_1.kernel of shape (3, 3, 3, 64)"}
    assert f"{first}.weight has shape (64,), for {ours[first]}" in str(caught.value)
    assert f"{last}.weight has shape" in str(caught.value)


def test_images_of_a_check_are_of_the_network():
    record = zoo.meshnet_record()
    (image,) = pictures(lambda known: [np.zeros((2, 5, 6, 7, known.input.channels))], record)
    assert image.dtype == np.float32
    for shape in ((5, 6, 7, 1), (1, 5, 6, 7, 2)):
        with pytest.raises(ValueError, match=r"\[b, \*space, c\] with 3 axes of space and 1 channels"):
            pictures([np.zeros(shape)], record)


def test_architectures_are_listed():
    with pytest.raises(ValueError, match=r"no architecture 'alexnet': keras, meshnet, .*from_torch"):
        convert("a.pth", "alexnet")
    assert all(each.about for each in architectures().values())
    with pytest.raises(FileNotFoundError, match=r"Nothing lies at none.pth: resnet50 is torchvision's"):
        convert("none.pth", "resnet50")


@pytest.fixture
def tiny(tmp_path):
    """A model of TensorFlow.js: the sum over windows."""
    spec = {"name": "conv/kernel", "shape": [3, 3, 1, 1], "dtype": "float32"}
    conv = {"name": "conv", "filters": 1, "kernel_size": [3, 3], "padding": "same", "use_bias": False}
    first = {"class_name": "InputLayer", "config": {"name": "image", "batch_input_shape": [None, None, None, 1]}}
    layers = [
        first,
        {"class_name": "Conv2D", "config": conv},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "mean"}},
    ]
    model = {"class_name": "Sequential", "config": {"layers": layers}}
    manifest = [{"paths": ["model.bin"], "weights": [spec]}]
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.json").write_text(
        json.dumps({"modelTopology": {"model_config": model}, "weightsManifest": manifest})
    )
    (folder / "model.bin").write_bytes(np.ones(9, "<f4").tobytes())
    return folder / "model.json"


def test_the_command(tiny, tmp_path):
    words = [
        "convert",
        str(tiny),
        "--arch",
        "keras",
        "-o",
        str(tmp_path / "out"),
        "--shape",
        "6,5",
        "--outputs",
        "mean",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "tiny: Graph, 9 weights, 1 outputs, 6 x 5 voxels, 1 channels." in done.output
    assert "Not compared with its source: Keras does not read files of TensorFlow.js." in done.output
    model, record = zoo.load(tmp_path / "out" / "tiny.safetensors")
    assert record.output_names == ("mean",)
    assert record.layer == "conv"
    inner = jnp.ones((1, 6, 5, 1))
    head, tail = jaxsal.split(model, inner, "conv")
    np.testing.assert_allclose(tail(head(inner)), model(inner))
    assert head(inner)[0, 2, 2, 0] == 9


def test_the_command_on_real_images(shared, tmp_path):
    pytest.importorskip("h5py", reason="Keras files are read with h5py")
    from nilearn import datasets, image

    path = shared / "weights" / "meshnet" / "model18cls" / "model.json"
    folder = tmp_path / "scans"
    folder.mkdir()
    brain = datasets.load_mni152_template(resolution=4)
    # where it lies, rather than the grid of zeros around it, is what this is about
    image.new_img_like(brain, np.asarray(brain.dataobj, np.float32)).to_filename(folder / "brain.nii.gz")
    (folder / "notes.txt").write_text("no image")
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).uniform(size=(1, 12, 12, 12, 1)).astype(np.float32))
    words = ["convert", str(path), "--arch", "meshnet", "-o", str(tmp_path), "--images", str(folder), "--images"]
    done = CliRunner().invoke(app, [*words, str(tmp_path / "noise.npy")])
    assert done.exit_code == 0, done.output
    assert "max |difference| from its source on noise and 2 images: " in done.output
    done = CliRunner().invoke(app, [*words, str(tmp_path / "none.nii")])
    assert done.exit_code == 1
    assert "Error: No image at" in done.output
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(app, [*words, str(tmp_path / "empty")])
    assert "Error: No image in" in done.output
    np.save(tmp_path / "code.npy", np.array([{"a": 1}]), allow_pickle=True)
    done = CliRunner().invoke(app, [*words, str(tmp_path / "code.npy")])
    assert "is not an array of numbers that numpy.save wrote" in done.output


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras: .h5 is a legacy format
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_the_command_compares_with_keras(tmp_path, suffix):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="the oracle of its own layers")
    pytest.importorskip("h5py", reason="Keras files are read with h5py")
    layers = [keras.Input((6, 5, 2)), keras.layers.Conv2D(3, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    keras.Sequential(layers).save(tmp_path / f"small{suffix}")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((3, 6, 5, 2)))
    words = ["convert", str(tmp_path / f"small{suffix}"), "--arch", "keras", "-o", str(tmp_path)]
    done = CliRunner().invoke(app, [*words, "--images", str(tmp_path / "x.npy")])
    assert done.exit_code == 0, done.output
    assert "max |difference| from its source on noise and 1 images: " in done.output


def test_keras_is_not_asked_to_run_what_a_file_names(tmp_path):
    pytest.importorskip("h5py", reason="Keras files are read with h5py")
    from tests.converters.test_keras import written

    initial = {"module": "os", "class_name": "system", "config": {"command": "true"}, "registered_name": None}
    dense = {"name": "dense", "units": 1, "use_bias": False, "kernel_initializer": initial}
    layers = [("flat", "Flatten", {}), ("dense", "Dense", dense)]
    written(tmp_path / "m.h5", layers, {"dense/kernel": np.ones((4, 1))}, shape=(2, 2, 1))
    found = convert(tmp_path / "m.h5", "keras")
    assert found.max_difference is None
    assert found.not_compared == "the file names os.system, which Keras would look for and run"


def test_architectures_are_listed_by_a_command():
    done = CliRunner().invoke(app, ["architectures"])
    assert done.exit_code == 0
    for name, architecture in architectures().items():
        assert f"{name} " in done.output
        assert architecture.about in done.output


def test_errors_of_the_command(tiny):
    run = CliRunner()
    done = run.invoke(app, ["convert", str(tiny), "--arch", "nothing"])
    assert done.exit_code == 1
    assert "Error: There is no architecture 'nothing'" in done.output
    done = run.invoke(app, ["convert", str(tiny), "--arch", "meshnet", "--shape", "6,6"])
    assert "Error: meshnet takes no shape" in done.output
    done = run.invoke(app, ["convert", str(tiny), "--arch", "keras", "--shape", "six"])
    assert "Error: --shape is 'six'" in done.output
    done = run.invoke(app, ["convert", str(tiny), "--arch", "meshnet"])
    assert "it is of another architecture" in done.output
