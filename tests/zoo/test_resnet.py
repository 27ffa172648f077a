import jax
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from jaxsal.model import check_model
from tests.zoo.topology import check_network, count, drawn, shapes, torch_state


def test_it_has_the_published_number_of_parameters():
    def torchvision():
        return zoo.RegressionResNet50(1000, shape=(224, 224), channels=3, rngs=nnx.Rngs(0))

    def keras():
        return zoo.RegressionResNet50(1000, shape=(224, 224), channels=3, **zoo.KERAS_RESNET50, rngs=nnx.Rngs(0))

    assert count(torchvision) == 25_557_032
    assert count(keras) + count(keras, nnx.BatchStat) == 25_636_712


def test_its_grids_are_the_published_ones():
    table = shapes(lambda: zoo.RegressionResNet50(channels=3, rngs=nnx.Rngs(0)), (128, 128, 3))
    assert table["conv1"] == (1, 64, 64, 64)
    assert table["maxpool"] == (1, 32, 32, 64)
    assert [table[f"layer{i}_0"] for i in (1, 2, 3, 4)] == [
        (1, 32, 32, 256), (1, 16, 16, 512), (1, 8, 8, 1024), (1, 4, 4, 2048),
    ]  # fmt: skip
    assert len([name for name in table if name.startswith("layer")]) == 16
    assert table["fc"] == (1, 1)


def test_it_splits_is_saved_and_explained(tmp_path):
    config = {"width": 4, "stages": [1, 2]}
    record = zoo.ModelRecord(
        name="small", architecture="RegressionResNet50", config=config,
        input=zoo.InputSpec(shape=(33, 40), channels=3),
        outputs=(zoo.Output(name="a"), zoo.Output(name="b")), layer="layer1_0",
    )  # fmt: skip
    model = drawn(lambda: zoo.RegressionResNet50(2, shape=(33, 40), channels=3, **config, rngs=nnx.Rngs(0)))
    check_network(model, record, tmp_path)
    model.train()
    with pytest.raises(ValueError, match=r"training mode \(model.bn1.use_running_average is False\)"):
        check_model(model)


def test_three_dimensions_are_the_same_code():
    def small():
        return zoo.RegressionResNet50(2, shape=(20, 17, 18), width=4, stages=(1, 2), rngs=nnx.Rngs(0))

    table = shapes(small, (20, 17, 18, 1))
    assert table["layer2_1"] == (1, 3, 3, 3, 32)
    assert table["fc"] == (1, 2)


@pytest.mark.parametrize(("strided", "stages"), [(2, (3, 4, 6, 3)), (1, (1, 2, 1))])
def test_it_equals_the_textbook_network_of_torch(strided, stages):
    torch = pytest.importorskip("torch")
    from tests.zoo.torch_networks import resnet

    model = drawn(
        lambda: zoo.RegressionResNet50(
            3, shape=(64, 72), channels=3, width=16, stages=stages, strided=strided, rngs=nnx.Rngs(0)
        )
    )
    peer = resnet(3, 16, stages, strided)
    missing, unknown = peer.load_state_dict(torch_state(model, zoo.torchvision_names(model)), strict=False)
    assert not unknown
    assert all(name.endswith("num_batches_tracked") for name in missing)
    x = np.random.default_rng(0).normal(size=(2, 64, 72, 3)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    found = np.asarray(jax.jit(lambda model, x: model(x))(model, x))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_grid_that_is_too_small_is_answered():
    with pytest.raises(ValueError, match="used up at block 1 of 4"):
        zoo.RegressionResNet50(1, shape=(0, 8), rngs=nnx.Rngs(0))


def test_the_record_builds_the_network():
    record = zoo.head_circumference_record("RegressionResNet50", sigma=60.0)
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, 1, record.input))
    assert record.layer in built.names
    assert record.outputs == (zoo.Output(name="head-circumference", unit="mm", sigma=60.0, structure="fetal head"),)
