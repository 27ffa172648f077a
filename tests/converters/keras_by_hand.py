"""Keras models written by hand, as Keras 2, Keras 3 and TensorFlow.js write them, so that anything can be wrong."""

import io
import json
import zipfile

import numpy as np

CONV = ("conv", "Conv2D", {"filters": 2, "kernel_size": [3, 3], "padding": "valid", "activation": "relu"})
KERNEL, BIAS = np.arange(18.0).reshape(3, 3, 1, 2), np.array([1.0, 2.0])


def sequential(layers, shape=(6, 6, 1), kind="Sequential"):
    """Configuration, as Keras 2 writes it."""
    first = {"class_name": "InputLayer", "config": {"name": "image", "batch_input_shape": [None, *shape]}}
    entries = [first, *({"class_name": c, "config": {"name": n, **config}} for n, c, config in layers)]
    return {"class_name": kind, "config": {"name": "m", "layers": entries}}


def keras_3(config):
    """The same as Keras 3 writes it: modules beside classes."""
    entries = [{"module": "keras.layers", "registered_name": None, **each} for each in config["config"]["layers"]]
    return {"module": "keras", "registered_name": None, **config, "config": {**config["config"], "layers": entries}}


def texts(group, name, values, cut=False):
    """A list of texts, cut in two as where it is long."""
    values = [value.encode() for value in values]
    if cut:
        half = len(values) // 2
        group.attrs[f"{name}0"], group.attrs[f"{name}1"] = values[:half], values[half:]
    else:
        group.attrs[name] = values


def written(path, layers, weights, shape=(6, 6, 1), kind="Sequential", cut=False):
    """A file of Keras 2: weights ``layer/key`` in the layer's group."""
    import h5py

    tops = dict.fromkeys([*(name for name, _, _ in layers), *(name.rpartition("/")[0] for name in weights)])
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.4.0"
        file.attrs["model_config"] = json.dumps(sequential(layers, shape, kind))
        texts(file.create_group("model_weights"), "layer_names", tops, cut)
        for top in tops:
            own = {name: value for name, value in weights.items() if name.rpartition("/")[0] == top}
            group = file.require_group(f"model_weights/{top}")
            texts(group, "weight_names", [f"{name}:0" for name in own], cut)
            for name, value in own.items():
                group[f"{name}:0"] = np.asarray(value, np.float32)
    return path


def archive(path, layers, arrays, config=None, **members):
    """A file of Keras 3: arrays by their place, ``layers/conv2d/vars/0``; members to replace, None to leave out."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for place, value in arrays.items():
            file[place] = np.asarray(value, np.float32)
    parts = {
        "config.json": json.dumps(config or keras_3(sequential(layers))),
        "metadata.json": json.dumps({"keras_version": "3.15.1"}),
        "model.weights.h5": content.getvalue(),
    }
    parts |= {name.replace("__", "."): value for name, value in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in parts.items():
            if value is not None:
                file.writestr(name, value)
    return path


def tfjs(folder, data, paths=("model.bin",), **spec):
    """TensorFlow.js: one convolution with a kernel of nine numbers."""
    weight = {"name": "conv/kernel", "shape": [3, 3, 1, 1], "dtype": "float32", **spec}
    layer = ("conv", "Conv2D", {**CONV[2], "filters": 1, "use_bias": False})
    content = {
        "modelTopology": {"keras_version": "2.7", "model_config": sequential([layer], (None, None, 1))},
        "weightsManifest": [{"paths": list(paths), "weights": [weight]}],
    }
    (folder / "model.json").write_text(json.dumps(content))
    (folder / "model.bin").write_bytes(data)
    return folder / "model.json"
