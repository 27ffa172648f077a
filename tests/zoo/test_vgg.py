import jax
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from tests.zoo.topology import check_network, count, drawn, shapes, torch_state


def test_it_has_the_published_number_of_parameters():
    def at(shape, **config):
        return lambda: zoo.RegressionVGG16(1000, shape=shape, channels=3, **config, rngs=nnx.Rngs(0))

    assert count(at((224, 224))) == 138_357_544  # torchvision
    assert count(at((224, 224), pooled=None)) == 138_357_544  # Keras
    assert count(at((128, 128))) == 138_357_544  # the averages make the dense layers fit


def test_its_grids_are_the_published_ones():
    table = shapes(lambda: zoo.RegressionVGG16(rngs=nnx.Rngs(0)), (128, 128, 1))
    assert [table[f"pool{i}"] for i in range(1, 6)] == [
        (1, 64, 64, 64), (1, 32, 32, 128), (1, 16, 16, 256), (1, 8, 8, 512), (1, 4, 4, 512),
    ]  # fmt: skip
    assert table["avgpool"] == (1, 7, 7, 512)
    assert table["fc3"] == (1, 1)
    keras = shapes(lambda: zoo.RegressionVGG16(pooled=None, rngs=nnx.Rngs(0)), (128, 128, 1))
    assert keras["flatten"] == (1, 8192)


def test_it_splits_is_saved_and_explained(tmp_path):
    config = {"blocks": [[4], [6, 6]], "dense": [8], "pooled": 3}
    record = zoo.ModelRecord(
        name="small", architecture="RegressionVGG16", config=config, input=zoo.InputSpec(shape=(17, 12), channels=3),
        outputs=(zoo.Output(name="a"), zoo.Output(name="b")), layer="relu2_2",
    )  # fmt: skip
    model = drawn(lambda: zoo.RegressionVGG16(2, shape=(17, 12), channels=3, **config, rngs=nnx.Rngs(0)))
    check_network(model, record, tmp_path)


def test_three_dimensions_are_the_same_code():
    def small():
        return zoo.RegressionVGG16(2, shape=(9, 8, 10), blocks=[[4], [6, 6]], dense=[8], pooled=3, rngs=nnx.Rngs(0))

    table = shapes(small, (9, 8, 10, 1))
    assert table["pool2"] == (1, 2, 2, 2, 6)
    assert table["avgpool"] == (1, 3, 3, 3, 6)
    assert table["fc2"] == (1, 2)


@pytest.mark.parametrize("size", [(224, 224), (96, 128)])
def test_it_equals_the_textbook_network_of_torch(size):
    torch = pytest.importorskip("torch")
    from tests.zoo.torch_networks import vgg16

    blocks = tuple(tuple(width // 16 for width in block) for block in zoo.VGG16_BLOCKS)
    model = drawn(
        lambda: zoo.RegressionVGG16(3, shape=size, channels=3, blocks=blocks, dense=(64, 64), rngs=nnx.Rngs(0))
    )
    peer = vgg16(3, share=16, dense=64)
    peer.load_state_dict(torch_state(model, zoo.torchvision_names(model), (7, 7)))
    x = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = peer(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    found = np.asarray(jax.jit(lambda model, x: model(x))(model, x))
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_dense_kernels_of_other_orders_are_put_right():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    channels_first = np.moveaxis(features, -1, 1).reshape(2, -1) @ kernel
    found = features.reshape(2, -1) @ zoo.channels_last(jax.numpy.asarray(kernel), (3, 4))
    np.testing.assert_allclose(found, channels_first, rtol=1e-4, atol=1e-5)


def test_the_record_builds_the_network():
    record = zoo.head_circumference_record("RegressionVGG16", sigma=60.0)
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, 1, record.input))
    assert record.layer in built.names
    with pytest.raises(ValueError, match="RegressionResNet50 or RegressionVGG16"):
        zoo.head_circumference_record("UNet", sigma=1.0)
