"""Keras models in JAX, without TensorFlow; Keras itself is the oracle where it is installed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="Keras files are read with h5py: pip install 'jaxsal[keras]'")

import jaxsal
from jaxsal import composites, zoo
from jaxsal.converters import convert, from_keras
from jaxsal.converters.checking import compare
from jaxsal.converters.keras_files import read_keras
from jaxsal.engine.rewire import sites
from tests.converters.keras_by_hand import CONV, written


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras", reason="the oracle of its own layers")


def called(model):
    """The model as Keras computes it, which JAX's strictness is not asked of."""

    def source(x):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return np.asarray(model(x, training=False))

    return source


def plane(keras):
    """Most layers in 2-D, with branches, strides and 'same' where it is uneven."""
    layers = keras.layers
    image = keras.Input((13, 12, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(x)
    x = layers.ReLU(6.0)(x)
    a = layers.SeparableConv2D(8, 3, padding="same", activation="swish")(x)
    b = layers.Conv2D(8, (2, 3), dilation_rate=2, padding="same", groups=2, use_bias=False)(x)
    x = layers.Add()([a, layers.LeakyReLU()(b)])
    x = layers.Concatenate()([x, layers.Multiply()([a, b]), layers.Maximum()([a, b]), layers.Average()([a, b, b])])
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(x)
    x = layers.Conv2DTranspose(5, 2, strides=3)(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.AveragePooling2D(3, strides=2, padding="same")(x)
    x = layers.Cropping2D(((1, 0), (0, 1)))(x)
    x = layers.UpSampling2D((2, 2), interpolation="bilinear")(x)
    x = layers.LayerNormalization()(x)
    x = layers.Activation("elu")(x)
    x = layers.SpatialDropout2D(0.3)(x)
    shared = layers.Conv2D(5, 1, name="shared")
    x = layers.Subtract()([shared(shared(x)), x])
    y = layers.GlobalMaxPooling2D(keepdims=True)(x)
    x = layers.Flatten()(layers.Add()([x, y]))
    x = layers.Dropout(0.5)(layers.Dense(7, activation="gelu")(x))
    return keras.Model(image, layers.Dense(4, activation="softmax", name="classes")(x))


def volume(keras):
    """A Sequential in 3-D with a model in it."""
    layers = keras.layers
    inner = keras.Sequential(
        [layers.Input((8, 8, 8, 2)), layers.Conv3D(4, 3, padding="same"), layers.BatchNormalization(epsilon=0.01),
         layers.Activation("tanh"), layers.MaxPooling3D(2), layers.Conv3D(3, 2, name="deep")]
    )  # fmt: skip
    return keras.Sequential(
        [layers.Input((8, 8, 8, 2)), inner, layers.ELU(), layers.AveragePooling3D(2), layers.GlobalAveragePooling3D(),
         layers.Reshape((3, 1)), layers.Permute((2, 1)), layers.Flatten(), layers.Dense(2, use_bias=False)]
    )  # fmt: skip


def shaken(keras, model):
    """Statistics and shifts other than those of a new model."""
    rng = np.random.default_rng(3)
    keras.utils.set_random_seed(0)
    model.set_weights(
        [np.abs(w + 0.2 * rng.standard_normal(w.shape)) if w.ndim == 1 else w for w in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module")
def models(keras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    found = {}
    for make in (plane, volume):
        keras.utils.set_random_seed(1)
        model = shaken(keras, make(keras))
        for suffix in (".h5", ".keras"):
            model.save(folder / f"{make.__name__}{suffix}")
        found[make.__name__] = model, folder / make.__name__
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras: .h5 is a legacy format
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", ["plane", "volume"])
def test_the_same_as_in_keras(models, name, suffix):
    model, path = models[name]
    x = np.random.default_rng(4).standard_normal((2, *model.input_shape[1:])).astype(np.float32)
    found = from_keras(path.with_suffix(suffix), source=called(model), images=[100 * x])
    np.testing.assert_allclose(jax.jit(found.model)(x), called(model)(x), atol=1e-5, rtol=1e-4)
    assert found.max_difference < 1e-4
    for row in jaxsal.layers(found.model, x):
        if row.splits:
            head, tail = jaxsal.split(found.model, x, row.name)
            np.testing.assert_allclose(tail(head(x)), found.model(x), atol=1e-5, rtol=1e-5, err_msg=row.name)


def convolutions(keras, **options):
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((6, 5, 2)), layers.Conv2D(3, 3, activation="relu", **options),
         layers.BatchNormalization(**options), layers.Flatten(), layers.Dense(2, **options)]
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras: .h5 is a legacy format
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_mixed_precision_is_compared_in_float32(keras, tmp_path, suffix):
    convolutions(keras, dtype="mixed_bfloat16").save(tmp_path / f"m{suffix}")
    found = convert(tmp_path / f"m{suffix}", "keras")
    assert found.max_difference < 1e-6 * found.scale
    convolutions(keras, dtype="float16").save(tmp_path / f"h{suffix}")
    found = convert(tmp_path / f"h{suffix}", "keras")
    assert found.max_difference is None
    assert found.not_compared == "Keras keeps its numbers in float16, jaxsal in float32"


def test_a_loss_of_ones_own_is_not_loaded(keras, tmp_path):
    """It is not even registered, and would be an error if Keras looked for it."""

    @keras.saving.register_keras_serializable("lab")
    def dice(y, found):
        raise AssertionError("the loss was called")

    model = convolutions(keras)
    model.compile(optimizer="adam", loss=dice, metrics=[dice])
    model.save(tmp_path / "m.keras")
    keras.saving.get_custom_objects().clear()
    with pytest.raises((TypeError, ValueError), match="dice"):
        keras.saving.load_model(tmp_path / "m.keras")
    found = convert(tmp_path / "m.keras", "keras")
    assert found.not_compared == ""
    assert found.max_difference < 1e-4 * found.scale


def test_what_rounding_explains_is_no_defect():
    """Outputs of 0 that come out as 1e-9 are equal; small ones that differ are not."""
    images = [np.ones((1, 2, 2, 1), np.float32)]

    def check(source, found):
        return compare(
            jax.tree_util.Partial(lambda x: x[:, 0, 0] * found), lambda x: x[:, 0, 0] * source, images, 1e-4, "n"
        )

    assert check(0, 1e-9).max_difference == pytest.approx(1e-9)
    with pytest.raises(ValueError, match="differs from its source"):
        check(1e-5, 1.01e-5)
    with pytest.raises(ValueError, match="differs from its source"):
        check(0, 1e-6)


def test_an_unknown_layer_is_named_with_what_to_do(tmp_path):
    layers = [CONV, ("crf", "CRF", {}), ("odd", "Activation", {"activation": "snake"})]
    path = written(tmp_path / "a.h5", layers, {})
    with pytest.raises(NotImplementedError) as caught:
        from_keras(path)
    message = str(caught.value)
    assert "layer 'crf' is a CRF" in message
    assert "layer 'odd' (Activation) has the activation 'snake'" in message
    assert "Take them out or write them with other layers" in message


def test_layers_that_do_not_fit_the_grid(tmp_path):
    layers = [CONV, ("flat", "Flatten", {}), ("d", "Dense", {"units": 1, "use_bias": False})]
    weights = {"conv/kernel": np.ones((3, 3, 1, 2)), "conv/bias": [0, 0], "d/kernel": np.ones((32, 1))}
    path = written(tmp_path / "a.h5", layers, weights)
    assert from_keras(path).model(jnp.ones((1, 6, 6, 1))).item() == 9 * 32
    with pytest.raises(ValueError, match=r"do not fit together on a grid 8 x 8 with 1 channels"):
        from_keras(path, shape=(8, 8))
    with pytest.raises(ValueError, match=r"The grid \(8, 8, 8\) has 3 axes, the images of .*a\.h5 have 2"):
        from_keras(path, shape=(8, 8, 8))


def test_settings_that_change_what_a_layer_does_are_refused(tmp_path):
    odd = ("conv", "Conv2D", {**CONV[2], "data_format": "channels_first", "padding": "causal"})
    with pytest.raises(NotImplementedError, match=r"has data_format 'channels_first'; .* has padding 'causal'"):
        from_keras(written(tmp_path / "a.h5", [odd], {}))


# the last one shows both, and the ankle comes second
LABELS = {
    "chest_sample.jpeg": "Chest",
    "pydicomdata_RG1_chest.png": "Chest",
    "pydicomdata_RG3_ankle_tibia.png": "Lower Leg",
}


def radiograph(path):
    from PIL import Image

    image = np.asarray(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    return (image / 127.5 - 1)[None]


@pytest.fixture(scope="module")
def body_parts(shared):
    labels = [
        line.split(maxsplit=1)[1] for line in (shared / "weights/xray_bodypart/labels.txt").read_text().splitlines()
    ]
    return from_keras(shared / "weights/xray_bodypart/keras_model.h5", outputs=labels, name="xray-body-part")


def test_radiographs_are_recognised(body_parts, shared, tmp_path):
    x = np.concatenate([radiograph(shared / "weights/xray_bodypart" / name) for name in LABELS])
    y = np.asarray(jax.jit(body_parts.model)(x))
    assert [body_parts.record.output_names[i] for i in y.argmax(1)] == list(LABELS.values())
    assert body_parts.record.output_names[np.argsort(y[2])[-2]] == "Ankle"
    path = zoo.save(tmp_path / "body.safetensors", body_parts.model, body_parts.record)
    np.testing.assert_array_equal(jax.jit(zoo.load(path).model)(x), y)


def test_radiographs_as_keras_sees_them(body_parts, shared, keras):
    """Keras 3 cannot read this file of Keras 2, but has the same backbone and takes its weights."""
    path = shared / "weights/xray_bodypart/keras_model.h5"
    _, weights, _ = read_keras(path)
    layers = keras.layers
    backbone = keras.applications.MobileNetV2((224, 224, 3), alpha=0.35, include_top=False, weights=None)
    head = [
        layers.Dense(100, "relu", name="dense_Dense1"),
        layers.Dense(22, "softmax", use_bias=False, name="dense_Dense2"),
    ]
    peer = keras.Sequential([backbone, layers.GlobalAveragePooling2D(), *head])
    for layer in (*backbone.layers, *head):
        if layer.weights:
            given = weights[layer.name]
            layer.set_weights([given[weight.name] for weight in layer.weights])
    x = np.concatenate([radiograph(path.parent / name) for name in LABELS])
    found = from_keras(path, source=called(peer), images=[x])
    assert found.max_difference < 1e-4


def test_the_engine_works_on_the_radiographs(body_parts, shared):
    x = jnp.asarray(radiograph(shared / "weights/xray_bodypart/chest_sample.jpeg"))
    model = body_parts.model
    found = sites(model, jax.ShapeDtypeStruct(x.shape, x.dtype), composites.epsilon_plus())
    names = [site.name for site, _ in found if site.kind == "convolution"]
    assert names[:3] == ["Conv1", "expanded_conv_depthwise", "expanded_conv_project"]
    rows = {row.name: row for row in jaxsal.layers(model, x)}
    assert rows["block_2_add"].splits
    assert not rows["block_2_expand"].splits  # the skip passes it by
    head, tail = jaxsal.split(model, x, "block_5_add")
    np.testing.assert_allclose(tail(head(x)), model(x), atol=1e-5)
