import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from tests.zoo.topology import check_network, count, drawn, shapes


def test_the_classifier_has_the_grids_of_the_paper():
    table = shapes(lambda: zoo.KanCNN3D(rngs=nnx.Rngs(0)), (58, 70, 58, 1))
    assert [table[f"pool{i}"] for i in (1, 2, 3)] == [
        (1, 28, 34, 28, 32), (1, 13, 16, 13, 64), (1, 5, 7, 5, 128),
    ]  # fmt: skip
    assert table["output"] == (1, 2)
    convolutions = sum(27 * a * b + 3 * b for a, b in ((1, 32), (32, 64), (64, 128)))
    assert count(lambda: zoo.KanCNN3D(rngs=nnx.Rngs(0))) == convolutions + 128 * 5 * 7 * 5 * 2 + 2
    assert nnx.eval_shape(lambda: zoo.KanCNN3D(rngs=nnx.Rngs(0))).dropout.rate == 0.5


def test_the_autoencoder_gives_back_the_grid():
    table = shapes(lambda: zoo.KanAutoencoder(rngs=nnx.Rngs(0)), (58, 70, 58, 1))
    assert table["pool3"] == (1, 5, 7, 5, 128)
    assert [table[f"deconv{i}"] for i in (3, 2, 1)] == [
        (1, 13, 16, 13, 64), (1, 28, 34, 28, 32), (1, 58, 70, 58, 1),
    ]  # fmt: skip


def test_both_split_are_saved_and_explained(tmp_path):
    spec = zoo.InputSpec(shape=(11, 12))
    config = {"widths": [3, 4]}
    record = zoo.kan_record().model_copy(update={"config": config, "input": spec})
    check_network(drawn(lambda: zoo.KanCNN3D(2, shape=(11, 12), **config, rngs=nnx.Rngs(0))), record, tmp_path)
    record = zoo.kan_autoencoder_record().model_copy(update={"config": config, "input": spec})
    check_network(drawn(lambda: zoo.KanAutoencoder(1, shape=(11, 12), **config, rngs=nnx.Rngs(0))), record, tmp_path)


def test_a_copied_encoder_gives_the_autoencoders_features():
    def features(model, x):
        for name, layer in model.named_layers():
            x = layer(x)
            if name == "pool2":
                return x
        raise AssertionError

    autoencoder = drawn(lambda: zoo.KanAutoencoder(shape=(11, 12), widths=(3, 4), rngs=nnx.Rngs(0)), seed=0)
    classifier = drawn(lambda: zoo.KanCNN3D(shape=(11, 12), widths=(3, 4), rngs=nnx.Rngs(0)), seed=1)
    before = {name: np.asarray(value) for name, value in zoo.weights(classifier).items()}
    started = zoo.copy_encoder(autoencoder, classifier)
    x = jax.random.normal(jax.random.key(0), (2, 11, 12, 1))
    assert (features(started, x) == features(autoencoder, x)).all()
    assert (features(started, x) != features(classifier, x)).any()
    assert (zoo.weights(started)["output.kernel"] == before["output.kernel"]).all()
    for name, value in zoo.weights(classifier).items():
        assert (value == before[name]).all()
    # its own copy: training the one leaves the other alone
    started.conv1.kernel.set_value(jnp.zeros_like(started.conv1.kernel.get_value()))
    assert (zoo.weights(autoencoder)["conv1.kernel"] != 0).any()


def test_an_encoder_of_other_widths_is_refused_by_the_names_of_all_weights():
    autoencoder = nnx.eval_shape(lambda: zoo.KanAutoencoder(shape=(26, 26), widths=(3, 5), rngs=nnx.Rngs(0)))
    classifier = drawn(lambda: zoo.KanCNN3D(shape=(26, 26), widths=(3, 4, 2), rngs=nnx.Rngs(0)))
    with pytest.raises(
        ValueError, match=r"does not fit: .*conv2\.kernel is \(3, 3, 3, 4\), the autoencoder's"
    ) as error:
        zoo.copy_encoder(autoencoder, classifier)
    assert "conv3.bias is (2,), the autoencoder has none" in str(error.value)
    assert "conv1" not in str(error.value)


def test_the_output_layer_takes_the_flattened_features_of_any_rank():
    for shape in ((11, 12), (10, 10, 11)):
        model = drawn(lambda shape=shape: zoo.KanCNN3D(3, shape=shape, widths=(2, 3), rngs=nnx.Rngs(0)))
        assert model(jnp.ones((2, *shape, 1))).shape == (2, 3)


@pytest.mark.parametrize("record", [zoo.kan_record(), zoo.kan_autoencoder_record()], ids=lambda record: record.name)
def test_records_build_their_networks(record):
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, len(record.outputs), record.input))
    assert record.layer in built.names
