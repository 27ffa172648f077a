"""Keras files that are damaged, odd or made to harm: what each is told to be; all of them are written by hand."""

import copy
import io
import json
import struct
import tracemalloc
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="Keras files are read with h5py: pip install 'jaxsal[keras]'")

from jaxsal.converters import from_keras
from jaxsal.converters.keras_errors import KerasError
from jaxsal.converters.keras_files import opened, read_keras
from jaxsal.converters.keras_layers import network
from tests.converters.keras_by_hand import BIAS, CONV, KERNEL, archive, keras_3, sequential, tfjs, written

CONV_H5 = {"conv/kernel": KERNEL, "conv/bias": BIAS}
CONV_3 = {"layers/conv2d/vars/0": KERNEL, "layers/conv2d/vars/1": BIAS}


def changed(path, change):
    """A good file of Keras 2, with something done to it."""
    written(path, [CONV], CONV_H5)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def place(file, **settings):
    """The kernel of :func:`changed` once more, otherwise."""
    del file["model_weights/conv/conv/kernel:0"]
    file["model_weights/conv/conv"].create_dataset("kernel:0", **settings)


# what is stored and what is needed


def test_weights_missing_unknown_and_of_another_shape_are_all_named(tmp_path):
    path = written(
        tmp_path / "a.h5",
        [CONV, ("d", "Dense", {"units": 3})],
        {"conv/kernel": np.ones((3, 2, 1, 2)), "spare/kernel": [1]},
    )
    with pytest.raises(ValueError, match="do not fit") as caught:
        from_keras(path)
    message = str(caught.value)
    assert "missing conv/bias; missing d/bias; missing d/kernel; unknown spare/kernel" in message
    assert "conv/kernel has shape (3, 2, 1, 2), 3 x 3 x any x 2 is needed" in message


def test_weights_of_keras_3_missing_unknown_and_of_another_shape_are_all_named(tmp_path):
    arrays = {
        "layers/conv2d/vars/0": np.ones((3, 2, 1, 2)),
        "layers/dense/vars/0": np.ones((32, 3)),
        "layers/dense/vars/1": np.ones(3),
        "layers/dense/vars/2": np.ones(3),
        "layers/conv2d_1/vars/0": KERNEL,
        "vars/0": [1],
        "spare": [1],
        # these say nothing about predictions
        "optimizer/vars/0": [1],
        "layers/dropout/seed_generator/vars/0": [1, 2],
    }
    layers = [CONV, ("drop", "Dropout", {"rate": 0.5}), ("flat", "Flatten", {}), ("d", "Dense", {"units": 3})]
    with pytest.raises(ValueError, match="do not fit") as caught:
        from_keras(archive(tmp_path / "a.keras", layers, arrays))
    message = str(caught.value)
    assert (
        "missing conv/bias; unknown /spare; unknown layers/conv2d_1/vars/0; unknown layers/dense/vars/2; "
        "unknown vars/0; conv/kernel has shape (3, 2, 1, 2), 3 x 3 x any x 2 is needed. " in message
    )


def test_weights_that_the_list_of_names_passes_over_are_named(tmp_path):
    path = changed(tmp_path / "a.h5", lambda file: file.create_dataset("model_weights/conv/more", data=[1.0]))
    with pytest.raises(ValueError, match=r"do not fit the network: unknown model_weights/conv/more\."):
        from_keras(path)


def test_two_layers_of_one_name(tmp_path):
    layers = [CONV, ("conv", "Conv2D", {**CONV[2], "activation": "linear"})]
    arrays = CONV_3 | {"layers/conv2d_1/vars/0": np.ones((3, 3, 2, 2)), "layers/conv2d_1/vars/1": BIAS}
    for path in (archive(tmp_path / "a.keras", layers, arrays), written(tmp_path / "a.h5", layers, CONV_H5)):
        with pytest.raises(ValueError, match=r"two layers of the name 'conv', in different parts .*rename one"):
            from_keras(path)


def test_weights_in_the_group_of_another_layer(tmp_path):
    path = archive(tmp_path / "a.keras", [CONV], CONV_3)
    with zipfile.ZipFile(path) as file:
        content = io.BytesIO(file.read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        file["layers/conv2d/vars"].attrs["name"] = "conv_7"
    path = archive(path, [CONV], {}, model__weights__h5=content.getvalue())
    with pytest.raises(ValueError, match=r"weights of layer 'conv_7' in 'layers/conv2d', where those of 'conv' belong"):
        from_keras(path)


@pytest.mark.parametrize("cut", [False, True])
def test_names_with_slashes_and_lists_that_are_cut(tmp_path, cut):
    """Keras 2 writes lists of names above 64 KB in pieces, and allows names of several parts."""
    layers = [
        ("a/b", *CONV[1:]),
        ("b", "Conv2D", {**CONV[2], "use_bias": False}),
        ("a", "Conv2D", {**CONV[2], "filters": 1}),
    ]
    second, third = np.full((3, 3, 2, 2), 2.0), np.full((3, 3, 2, 1), 3.0)
    weights = {"a/b/kernel": KERNEL, "a/b/bias": BIAS, "b/kernel": second, "a/kernel": third, "a/bias": [4.0]}
    _, found, _ = read_keras(written(tmp_path / "a.h5", layers, weights, shape=(7, 7, 1), cut=cut))
    assert {layer: list(each) for layer, each in found.items()} == {
        "a/b": ["kernel", "bias"], "b": ["kernel"], "a": ["kernel", "bias"],
    }  # fmt: skip
    np.testing.assert_array_equal(found["a/b"]["kernel"], KERNEL)
    np.testing.assert_array_equal(found["b"]["kernel"], second)
    np.testing.assert_array_equal(found["a"]["bias"], [4.0])


def test_names_with_slashes_in_a_model_within_the_model(tmp_path):
    inner = sequential([("a/b", *CONV[1:]), ("b", "Conv2D", {**CONV[2], "use_bias": False})])
    inner = ("inner", "Sequential", {**inner["config"], "name": "inner"})
    path = written(tmp_path / "a.h5", [inner], {})
    weights = {"a/b/kernel:0": KERNEL, "inner/a/b/bias:0": BIAS, "inner/b/kernel:0": np.ones((3, 3, 2, 2))}
    with h5py.File(path, "r+") as file:
        group = file["model_weights/inner"]
        group.attrs["weight_names"] = [name.encode() for name in weights]
        for name, value in weights.items():
            group[name] = value
    _, found, _ = read_keras(path)
    assert {layer: list(each) for layer, each in found.items()} == {"a/b": ["kernel", "bias"], "b": ["kernel"]}


def test_a_weight_that_is_there_twice(tmp_path):
    path = written(tmp_path / "a.h5", [("inner", "Sequential", sequential([CONV])["config"] | {"name": "inner"})], {})
    with h5py.File(path, "r+") as file:
        group = file["model_weights/inner"]
        group.attrs["weight_names"] = [b"conv/kernel:0", b"old/conv/kernel:0"]
        for name in group.attrs["weight_names"]:
            group[name] = KERNEL
    with pytest.raises(KerasError, match=r"the weight 'kernel' of layer 'conv' twice"):
        from_keras(path)


def test_kernels_of_depthwise_convolutions_by_both_of_their_names(tmp_path):
    layer = ("conv", "DepthwiseConv2D", {"kernel_size": [3, 3], "padding": "valid", "use_bias": False})
    kernel = np.ones((3, 3, 1, 1))
    for key in ("depthwise_kernel", "kernel"):
        _, found, _ = read_keras(written(tmp_path / "a.h5", [layer], {f"conv/{key}": kernel}))
        np.testing.assert_array_equal(found["conv"]["kernel"], kernel)
    path = written(tmp_path / "a.h5", [layer], {"conv/depthwise_kernel": kernel, "conv/kernel": kernel})
    with pytest.raises(ValueError, match=r"do not fit the network: unknown conv/depthwise_kernel\."):
        read_keras(path)


def test_one_value_does_not_spread_over_all_channels(tmp_path):
    norm = ("norm", "BatchNormalization", {})
    values = {f"norm/{key}": [1.0] for key in ("gamma", "beta", "moving_mean", "moving_variance")}
    with pytest.raises(ValueError, match=r"do not fit together on a grid 6 x 6 .* has \(1,\) values for 2 channels"):
        from_keras(written(tmp_path / "a.h5", [CONV, norm], CONV_H5 | values))


# files that would fill the memory


def test_shapes_that_no_file_of_this_size_can_hold(tmp_path):
    huge = {"shape": (3, 3, 10**12, 2), "chunks": (3, 3, 1, 2), "dtype": "f4"}
    path = changed(tmp_path / "a.h5", lambda file: place(file, **huge))
    with pytest.raises(KerasError, match=r"its weights would fill 72000000000008 \(more than 1100 times as much\)"):
        from_keras(path)
    # of a shape that the configuration does not have, it is not even asked how large it is
    path = changed(tmp_path / "a.h5", lambda file: place(file, **huge | {"shape": (5, 3, 10**12, 2)}))
    with pytest.raises(ValueError, match=r"do not fit the network: conv/kernel has shape \(5, 3, 1000000000000, 2\)"):
        from_keras(path)


@pytest.mark.parametrize("how", [{}, {"chunks": (3, 3, 1, 1)}, {"chunks": (3, 3, 1, 1), "compression": "gzip"}])
def test_weights_that_were_never_written_are_not_zeros(tmp_path, how):
    path = changed(tmp_path / "a.h5", lambda file: place(file, shape=KERNEL.shape, dtype="f4", **how))
    with pytest.raises(KerasError, match=r"'/model_weights/conv/conv/kernel:0' with shape \(3, 3, 1, 2\) and does not"):
        from_keras(path)
    if how:  # half of it

        def half(file):
            file["model_weights/conv/conv/kernel:0"][..., 0] = 1

        with h5py.File(path, "r+") as file:
            half(file)
        with pytest.raises(KerasError, match="does not hold all of it"):
            from_keras(path)
    whole = changed(tmp_path / "b.h5", lambda file: place(file, data=KERNEL, **how))
    np.testing.assert_array_equal(read_keras(whole).weights["conv"]["kernel"], KERNEL)


def test_pieces_that_are_larger_than_the_weights(tmp_path):
    """HDF5 unpacks a whole piece, however little of it belongs to the array."""
    how = {"chunks": (3, 3, 1, 10**6), "maxshape": (3, 3, 1, None), "compression": "gzip"}
    path = changed(tmp_path / "a.h5", lambda file: place(file, data=np.zeros(KERNEL.shape), **how))
    assert path.stat().st_size < 200_000
    with pytest.raises(KerasError, match="would unpack to something else than its shape"):
        from_keras(path)


def piece(data, *filters, skipped=0):
    """The kernel of :func:`changed` as one piece with these bytes, of these filters."""

    def change(file):
        group = file["model_weights/conv/conv"]
        del group["kernel:0"]
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(KERNEL.shape)
        for add in filters:
            add(settings)
        space = h5py.h5s.create_simple(KERNEL.shape)
        made = h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space, settings)
        made.write_direct_chunk((0,) * KERNEL.ndim, data, skipped)

    return change


def deflate(settings):
    settings.set_deflate(9)


ONE = KERNEL.astype("<f4").tobytes()
UNLIKE = {
    "packed twice": (zlib.compress(zlib.compress(bytes(2**22))), deflate, deflate),
    "packed twice, which says nothing": (zlib.compress(zlib.compress(ONE)), deflate, deflate),
    "longer": (zlib.compress(bytes(2**22)), deflate),
    "longer by a little": (zlib.compress(ONE + bytes(5)), deflate),
    "shorter": (zlib.compress(ONE[:-1]), deflate),
    "of another filter": (ONE, lambda settings: settings.set_scaleoffset(h5py.h5z.SO_INT, 0)),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_pieces_that_unpack_to_something_else_than_the_shape(tmp_path, kind):
    """HDF5 unpacks a piece to its end, whatever its size should be, and by one filter after another."""
    path = changed(tmp_path / "a.h5", piece(*UNLIKE[kind]))
    with pytest.raises(KerasError, match=r"'/model_weights/conv/conv/kernel:0' so that it would unpack to something"):
        from_keras(path)


def test_pieces_that_hold_what_the_shape_says(tmp_path):
    for change in (piece(zlib.compress(ONE), deflate), piece(ONE, deflate, skipped=1), piece(ONE)):
        found = read_keras(changed(tmp_path / "a.h5", change)).weights
        np.testing.assert_array_equal(found["conv"]["kernel"], KERNEL)
    for before in (True, False):  # the checksum lies inside of what is packed, or behind it

        def both(file, before=before):
            # h5py itself has the checksum last
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_chunk((2, 3, 1, 2))
            for add in (settings.set_fletcher32, lambda: deflate(settings))[:: 1 if before else -1]:
                add()
            group = file["model_weights/conv/conv"]
            del group["kernel:0"]
            space = h5py.h5s.create_simple(KERNEL.shape)
            made = h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space, settings)
            h5py.Dataset(made)[...] = KERNEL

        found = read_keras(changed(tmp_path / "a.h5", both)).weights
        np.testing.assert_array_equal(found["conv"]["kernel"], KERNEL)


def test_constant_weights_are_no_harm_however_well_they_pack(tmp_path):
    dense = ("dense", "Dense", {"units": 1024, "use_bias": False})
    kernel = np.full((1024, 1024), 0.5, np.float32)
    path = written(tmp_path / "a.h5", [dense], {})
    with h5py.File(path, "r+") as file:
        group = file["model_weights/dense"]
        group.attrs["weight_names"] = [b"dense/kernel:0"]
        group.create_dataset("dense/kernel:0", data=kernel, compression="gzip", compression_opts=9)
    assert 100 * path.stat().st_size < kernel.nbytes
    np.testing.assert_array_equal(read_keras(path).weights["dense"]["kernel"], kernel)
    path = archive(tmp_path / "a.keras", [dense], {"layers/dense/vars/0": kernel})
    assert 100 * path.stat().st_size < kernel.nbytes
    np.testing.assert_array_equal(read_keras(path).weights["dense"]["kernel"], kernel)


def stating(path, name, size):
    """An archive whose directory says that a member has another size."""
    with zipfile.ZipFile(path) as file:
        index = file.namelist().index(name)
    data = bytearray(path.read_bytes())
    entry = -1
    for _ in range(index + 1):
        entry = data.index(b"PK\x01\x02", entry + 1)
    data[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(data)
    return path


def test_archives_that_unpack_to_far_more_than_they_are(tmp_path):
    path = stating(archive(tmp_path / "a.keras", [CONV], CONV_3), "model.weights.h5", 2**30)
    with pytest.raises(
        KerasError, match=r"'model\.weights\.h5' in it, which would unpack to 1073741824 bytes; \d+ are"
    ):
        from_keras(path)
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, config__json="[" + " " * 2**22 + "]")
    with pytest.raises(KerasError, match=r"'config\.json' in it, which would unpack to 4194306 bytes"):
        from_keras(path)


def test_archives_that_unpack_to_more_than_they_say(tmp_path):
    """No more than that is unpacked, so that what there is has not the checksum of the whole."""
    big = 2**26
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, metadata__json=" " * big)
    stating(path, "metadata.json", 100)
    tracemalloc.start()
    with pytest.raises(KerasError, match=r"BadZipFile: Bad CRC-32 for file 'metadata\.json'"):
        from_keras(path)
    assert tracemalloc.get_traced_memory()[1] < big // 4
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_are_packed_otherwise(tmp_path, kind):
    """Python unpacks these as a whole, whatever their size should be."""
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, metadata__json=None)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3"}), kind)
    with pytest.raises(KerasError, match=rf"has 'metadata\.json' packed in a way that Keras does not \({kind}\)"):
        from_keras(path)


def nested(depth, inner):
    """A model that calls one twice, which calls one twice, ..."""

    def call(name, number):
        return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, number, 0]}}

    image = {"class_name": "InputLayer", "config": {"name": "image", "batch_shape": [None, 4, 4, 1]}}
    for i in range(depth):
        name = inner["config"]["name"]
        calls = [{"args": [call(*source)], "kwargs": {}} for source in (("image", 0), (name, 0))]
        config = {"name": f"m{i}", "layers": [{**image, "inbound_nodes": []}, {**inner, "inbound_nodes": calls}]}
        config |= {"input_layers": [["image", 0, 0]], "output_layers": [[name, 1, 0]]}
        inner = {"class_name": "Functional", "config": config}
    return inner


EMPTY = sequential([], (4, 4, 1))


@pytest.mark.parametrize("inner", [{"class_name": "ReLU", "config": {"name": "relu"}}, EMPTY])
def test_models_that_are_called_without_end(inner):
    assert len(network(nested(3, inner), lambda _: {}).graph["nodes"]) == (0 if inner is EMPTY else 8)
    with pytest.raises(KerasError, match="has more than 100000 operations, with the models in it written out"):
        network(nested(40, inner), lambda _: {})


def test_numbers_of_other_kinds(tmp_path):
    path = changed(tmp_path / "a.h5", lambda file: place(file, data=KERNEL.astype("c8")))
    with pytest.raises(KerasError, match="'/model_weights/conv/conv/kernel:0' as complex64, numbers are needed"):
        from_keras(path)


# files that point elsewhere


def links(folder):
    """Each way in which HDF5 can point at another place, with what is said of it."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["kernel"] = KERNEL
    (folder / "other.bin").write_bytes(KERNEL.astype("<f4").tobytes())
    name = "model_weights/conv/conv/kernel:0"
    source = h5py.VirtualSource(folder / "other.h5", "kernel", shape=KERNEL.shape)
    layout = h5py.VirtualLayout(KERNEL.shape, "f8")
    layout[...] = source

    def link(target):
        def change(file):
            del file[name]
            file[name] = target

        return change

    def virtual(file):
        del file[name]
        file.create_virtual_dataset(name, layout)

    def again(file):
        file["model_weights/conv/conv/more"] = file["model_weights"]

    elsewhere = r"has a link to another place for 'model_weights/conv/conv/kernel:0' "
    raw = {"shape": KERNEL.shape, "dtype": "<f4", "external": [(str(folder / "other.bin"), 0, 72)]}
    return {
        "external link": (link(h5py.ExternalLink("other.h5", "kernel")), elsewhere + r"\(ExternalLink\)"),
        "soft link": (link(h5py.SoftLink("/model_weights/conv/conv/bias:0")), elsewhere + r"\(SoftLink\)"),
        "virtual": (virtual, "keeps 'model_weights/conv/conv/kernel:0' in another file"),
        "raw": (lambda file: place(file, **raw), "keeps 'model_weights/conv/conv/kernel:0' in another file"),
        "circle": (again, "has 'model_weights/conv/conv/more' under two names"),
    }


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "raw", "circle"])
def test_files_that_point_elsewhere(tmp_path, kind):
    change, message = links(tmp_path)[kind]
    with pytest.raises(KerasError, match=message):
        from_keras(changed(tmp_path / "a.h5", change))


# files that are no models


def members(**parts):
    return lambda folder: archive(folder / "a.keras", [CONV], CONV_3, **parts)


def attribute(name, value):
    def make(folder):
        return changed(folder / "a.h5", lambda file: file.attrs.__setitem__(name, value))

    return make


def content(name, data):
    def make(folder):
        (folder / name).write_bytes(data)
        return folder / name

    return make


def without(name):
    def make(folder):
        return changed(folder / "a.h5", lambda file: file.__delitem__(name))

    return make


def unlisted(group, name):
    def make(folder):
        return changed(folder / "a.h5", lambda file: file[group].attrs.__delitem__(name))

    return make


def shortened(make):
    def shorter(folder):
        path = make(folder)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return shorter


def weights_alone(folder):
    with h5py.File(folder / "w.h5", "w") as file:
        file.create_group("conv")
    return folder / "w.h5"


def manifest(**changes):
    def make(folder):
        path = tfjs(folder, bytes(36))
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return path

    return make


no_model = attribute("model_config", json.dumps({"class_name": "Sequential", "config": {"name": "m"}}))
ONE_LAYER = {"class_name": "Conv2D", "config": {}}

DAMAGED = {
    "no HDF5": (content("a.h5", b"no"), r"a\.h5 is neither HDF5 nor a \.keras archive"),
    "no archive": (content("a.keras", b"no"), r"a\.keras is neither HDF5 nor a \.keras archive"),
    "empty": (content("a.keras", b""), r"a\.keras is neither HDF5 nor a \.keras archive"),
    "HDF5 cut off": (shortened(attribute("more", 1)), r"a\.h5 cannot be read .*OSError: .*truncated"),
    "archive cut off": (shortened(members()), r"a\.keras is neither HDF5 nor a \.keras archive, or is cut off"),
    "no config": (members(config__json=None), r"has no 'config\.json' in it"),
    "no metadata": (members(metadata__json=None), r"has no 'metadata\.json' in it"),
    "no weights": (members(model__weights__h5=None), r"has no 'model\.weights\.h5' in it"),
    "weights that are no HDF5": (members(model__weights__h5=b"no"), r"cannot be read .*OSError: .*signature not found"),
    "config that is not JSON": (members(config__json="{"), r"cannot be read .*JSONDecodeError"),
    "config that is not text": (members(config__json=b"\xff\xfe\x00"), r"cannot be read .*UnicodeDecodeError"),
    "config of brackets": (members(config__json="[" * 9999 + "1, 2, 3"), r"cannot be read .*RecursionError"),
    "config that is a list": (members(config__json="[]"), r"has 'class_name' nowhere"),
    "config without class": (members(config__json="{}"), r"has 'class_name' nowhere"),
    "class that is a number": (members(config__json='{"class_name": 3}'), r"has 'class_name' as int"),
    "metadata that are a list": (members(metadata__json="[]"), r"has 'keras_version' nowhere"),
    "a layer alone": (attribute("model_config", json.dumps(ONE_LAYER)), r"The Keras model is a Conv2D; what such"),
    "weights alone": (weights_alone, r"w\.h5 holds weights but no model"),
    "model that is not JSON": (attribute("model_config", "no"), r"cannot be read .*JSONDecodeError"),
    "model that is a number": (attribute("model_config", 5), r"has 'class_name' nowhere"),
    "no layers": (no_model, r"cannot be read .*KeyError: 'layers'"),
    "no group of weights": (without("model_weights"), r"has no group 'model_weights'"),
    "no group of the layer": (without("model_weights/conv"), r"has no group 'model_weights/conv'"),
    "no list of layers": (unlisted("model_weights", "layer_names"), r"no list 'layer_names' in '/model_weights'"),
    "no list": (unlisted("model_weights/conv", "weight_names"), r"no list 'weight_names' in '/model_weights/conv'"),
    "an empty model.json": (content("model.json", b""), r"model\.json cannot be read .*JSONDecodeError"),
    "JSON of something else": (content("model.json", b"{}"), r"has 'modelTopology' nowhere"),
    "JSON that is a list": (content("model.json", b"[1]"), r"has 'modelTopology' nowhere"),
    "a graph model": (manifest(modelTopology={"node": []}), r"has 'model_config' nowhere"),
    "no manifest": (manifest(weightsManifest=None), r"has 'weightsManifest' as NoneType"),
    "no paths": (manifest(weightsManifest=[{"weights": []}]), r"has 'paths' nowhere"),
    "no weights listed": (manifest(weightsManifest=[{"paths": ["model.bin"]}]), r"has 'weights' nowhere"),
    "groups that are numbers": (manifest(weightsManifest=[3]), r"has 'paths' nowhere"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_files_that_are_no_models(tmp_path, kind):
    make, message = DAMAGED[kind]
    with pytest.raises(KerasError, match=message) as caught:
        from_keras(make(tmp_path))
    assert any(words in str(caught.value) for words in ("model.save", "Build a Sequential", "tensorflowjs_converter"))


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"No Keras model at {path}"):
            from_keras(path)


def graph():
    """A functional model, as Keras 3 writes it."""
    layers = sequential([CONV, ("again", "Conv2D", {**CONV[2], "padding": "same"}), ("sum", "Add", {})])

    def read(*names):
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in names]
        return [{"args": tensors if len(names) == 1 else [tensors], "kwargs": {}}]

    found = keras_3(layers)
    for entry, sources in zip(found["config"]["layers"], ((), ("image",), ("conv",), ("conv", "again")), strict=True):
        entry["inbound_nodes"] = read(*sources) if sources else []
    found["class_name"] = "Functional"
    found["config"] |= {"input_layers": [["image", 0, 0]], "output_layers": [["sum", 0, 0]]}
    return found


def places(value, here=()):
    """Every place in a piece of JSON."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*here, key))


def replaced(value, where, other):
    if not where:
        return other
    value = copy.copy(value)
    value[where[0]] = replaced(value[where[0]], where[1:], other)
    return value


def test_nothing_in_a_description_fails_otherwise(tmp_path):
    """Whatever stands anywhere in it, the model is read or the error is told."""
    arrays = {"conv/kernel": KERNEL, "conv/bias": BIAS, "again/kernel": np.ones((3, 3, 2, 2)), "again/bias": BIAS}
    data = b"".join(np.asarray(value, "<f4").tobytes() for value in arrays.values())
    path = tfjs(tmp_path, data)
    specs = [{"name": name, "shape": list(np.shape(a)), "dtype": "float32"} for name, a in arrays.items()]
    good = {
        "modelTopology": {"keras_version": "3", "model_config": graph()},
        "weightsManifest": [{"paths": ["model.bin"], "weights": specs}],
    }

    def read():
        with opened(path) as file:
            for each in file.weights.values():
                for weight in each.values():
                    weight.read()
            return network(file.model, lambda layer: {key: f"{layer}.{key}" for key in file.weights.get(layer, {})})

    path.write_text(json.dumps(good))
    assert [node["name"] for node in read().graph["nodes"]] == ["conv", "again", "sum"]
    refused = 0
    for where in places(good):
        for other in (None, -1, "x", [], {}, [[3]]):
            path.write_text(json.dumps(replaced(good, where, other)))
            try:
                read()
            except (KerasError, NotImplementedError):
                refused += 1
            except ValueError as error:
                assert "do not fit the network" in str(error), (where, other)  # noqa: PT017
                refused += 1
    assert refused > 300


# TensorFlow.js


def test_tensorflow_js(tmp_path):
    kernel = np.arange(9, dtype="<f4")
    path = tfjs(tmp_path, kernel.tobytes())
    with pytest.raises(ValueError, match=r"images of any size .*say which grid"):
        from_keras(path)
    found = from_keras(path, shape=(3, 3))
    assert found.model(jnp.ones((1, 3, 3, 1))).item() == kernel.sum()
    tenths = {"quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0}}
    found = from_keras(tfjs(tmp_path, bytes(range(9)), **tenths), shape=(3, 3))
    assert found.model(jnp.ones((1, 3, 3, 1))).item() == 0.5 * 36 - 9


def test_binary_files_that_are_not_the_manifests(tmp_path):
    kernel = bytes(36)
    with pytest.raises(KerasError, match="end before weight 'conv/kernel'"):
        from_keras(tfjs(tmp_path, kernel[:-1]))
    with pytest.raises(KerasError, match=r"have 40 bytes, its manifest speaks of 36"):
        from_keras(tfjs(tmp_path, kernel + b"1234"))
    with pytest.raises(KerasError, match="end before weight 'conv/kernel'"):
        from_keras(tfjs(tmp_path, kernel, shape=[3, 3, 10**30, 1]))
    with pytest.raises(KerasError, match=r"weight 'conv/kernel' the shape \(3, 3, -1, -1\)"):
        from_keras(tfjs(tmp_path, kernel, shape=[3, 3, -1, -1]))
    with pytest.raises(KerasError, match=r"the type 'object', one of float32, .* is needed"):
        from_keras(tfjs(tmp_path, kernel, dtype="object"))
    with pytest.raises(KerasError, match="names a binary file twice"):
        from_keras(tfjs(tmp_path, kernel, ["model.bin", "model.bin"]))
    with pytest.raises(KerasError, match=r"names gone\.bin, which is not beside it"):
        from_keras(tfjs(tmp_path, kernel, ["model.bin", "gone.bin"]))
    (tmp_path / "folder").mkdir()
    with pytest.raises(KerasError, match="names folder, which is not beside it"):
        from_keras(tfjs(tmp_path, kernel, ["folder"]))


@pytest.mark.parametrize("name", ["../model.bin", "..", ".", "", "/etc/hostname", "a/model.bin", "..\\model.bin", 3])
def test_binary_files_elsewhere_are_not_read(tmp_path, name):
    with pytest.raises(KerasError, match=r"names .*; only files beside model\.json are read"):
        from_keras(tfjs(tmp_path, bytes(36), [name]))


# classes and settings


def renamed(layer, where=(), **fields):
    """Fields of a layer's entry, or of its configuration's, as they are not Keras's own."""
    config = keras_3(sequential([CONV]))
    entry = config["config"]["layers"][1]
    for key in where:
        entry = entry[key]
    entry |= fields
    return config


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"module": None, "registered_name": "evil>Conv2D"}, "evil>Conv2D"),
        ({"registered_name": "evil>Conv2D"}, "evil>Conv2D"),
        ({"module": None, "registered_name": "Conv2D"}, "__main__>Conv2D"),
        ({"module": "evil.layers"}, "evil.layers>Conv2D"),
        ({"module": "keras_of_mine.layers"}, "keras_of_mine.layers>Conv2D"),
        ({"class_name": "evil>Conv2D"}, "evil>Conv2D"),
    ],
)
def test_classes_of_somebodys_own_are_not_taken_for_keras(tmp_path, fields, kind):
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, renamed(CONV, **fields))
    with pytest.raises(NotImplementedError, match=f"layer 'conv' is a {kind} .*whose code is not in the file.*write"):
        from_keras(path)


def test_models_and_functions_of_somebodys_own(tmp_path):
    model = {**keras_3(sequential([CONV])), "registered_name": "evil>Sequential"}
    with pytest.raises(KerasError, match="The Keras model is a evil>Sequential"):
        from_keras(archive(tmp_path / "a.keras", [CONV], CONV_3, model))
    own = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "evil>relu"}
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, renamed(CONV, ("config",), activation=own))
    with pytest.raises(NotImplementedError, match=r"\(Conv2D\) has the activation 'evil>relu'"):
        from_keras(path)
    known = {**own, "config": "relu6", "registered_name": "function"}  # so Keras 2.13 writes tf.nn.relu6
    path = archive(tmp_path / "a.keras", [CONV], CONV_3, renamed(CONV, ("config",), activation=known))
    with opened(path) as file:
        assert network(file.model, lambda _: {}).graph["nodes"][0]["kwargs"]["activation"] == "relu6"


def operation(module, kind, args):
    """A functional model that ends with an operation of Keras 3 outside of layers."""
    config = graph()
    entry = config["config"]["layers"][-1]
    history = {"class_name": "__keras_tensor__", "config": {"keras_history": ["again", 0, 0]}}
    entry |= {"module": module, "class_name": kind, "registered_name": kind}
    entry["inbound_nodes"] = [{"args": [history, *args], "kwargs": {}}]
    return config


@pytest.mark.parametrize(
    ("module", "kind", "args", "message"),
    [
        ("keras.src.ops.numpy", "Add", [1], r"computes Add 'sum' with the numbers \[1\] outside a layer"),
        ("keras.src.ops.numpy", "Maximum", [], r"computes Maximum 'sum' outside a layer"),
        ("keras.layers", "Add", [2.5], r"computes Add 'sum' with the numbers \[2.5\] outside a layer"),
        ("keras.src.ops.nn", "Relu", [], r"layer 'sum' is a Relu"),
    ],
)
def test_operations_outside_layers(tmp_path, module, kind, args, message):
    arrays = CONV_3 | {"layers/conv2d_1/vars/0": np.ones((3, 3, 2, 2)), "layers/conv2d_1/vars/1": BIAS}
    path = archive(tmp_path / "a.keras", [], arrays, operation(module, kind, args))
    with pytest.raises(NotImplementedError, match=message):
        from_keras(path)


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization"])
@pytest.mark.parametrize("axis", [1, [1], -2])
def test_normalisation_along_another_axis(tmp_path, kind, axis):
    keys = ["gamma", "beta"] + ["moving_mean", "moving_variance"] * (kind[0] == "B")
    weights = CONV_H5 | {f"norm/{key}": np.ones(4) for key in keys}
    path = written(tmp_path / "a.h5", [CONV, ("norm", kind, {"axis": axis})], weights)
    number = axis[0] if isinstance(axis, list) else axis
    with pytest.raises(NotImplementedError, match=f"normalises along axis {number} of 4: only the last one"):
        from_keras(path)


def test_normalisation_over_several_axes_or_without_a_mean(tmp_path):
    layers = [("a", "LayerNormalization", {"axis": [1, 2]}), ("b", "LayerNormalization", {"rms_scaling": True})]
    with pytest.raises(NotImplementedError, match=r"over the axes \[1, 2\], .*\(LayerNormalization\) has rms_scaling"):
        from_keras(written(tmp_path / "a.h5", layers, {}))
