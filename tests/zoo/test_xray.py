import pytest
from flax import nnx

from jaxsal import zoo
from tests.zoo.topology import check_network, count, drawn, shapes

NAMES = [layout.name for layout in zoo.XRAY_NETWORKS]


@pytest.mark.parametrize("layout", zoo.XRAY_NETWORKS, ids=NAMES)
def test_they_take_radiographs_and_tell_24_classes(layout):
    record = zoo.xray_record(layout.name)
    table = shapes(lambda: zoo.build("XRayCNN", record.config, 24, record.input), (224, 224, 1))
    assert table["output"] == (1, 24)
    height, width, units = table[record.layer][1:]
    assert units >= 25  # the paper's maps show the 25 most active ones
    assert min(height, width) >= 6  # a map that shows a place
    assert any("layers" in sentence for sentence in record.assumed)


def test_the_deeper_ones_are_deeper_and_larger():
    def parameters(name):
        record = zoo.xray_record(name)
        return count(lambda: zoo.build("XRayCNN", record.config, 24, record.input))

    assert NAMES == ["shallow", "deeper", "deeper-augmented"]
    assert [len(layout.blocks) for layout in zoo.XRAY_NETWORKS] == [2, 5, 7]
    shallow, deeper, augmented = map(parameters, NAMES)
    assert shallow < deeper < augmented


def test_it_splits_is_saved_and_explained(tmp_path):
    config = {"blocks": [[3, 3, 2, True, 2, 2], [4, 3, 1, True, 1, 1]], "dense": [6, 5]}
    record = zoo.xray_record("shallow", classes=["foot", "hand"])
    record = record.model_copy(update={"config": config, "input": zoo.InputSpec(shape=(13, 12))})
    check_network(drawn(lambda: zoo.XRayCNN(2, shape=(13, 12), **config, rngs=nnx.Rngs(0))), record, tmp_path)


def test_three_dimensions_are_the_same_code():
    blocks = [[3, 3, 2, True, 2, 2], [4, 3, 1, True, 1, 1]]
    table = shapes(lambda: zoo.XRayCNN(2, shape=(9, 8, 10), blocks=blocks, rngs=nnx.Rngs(0)), (9, 8, 10, 1))
    assert table["relu2"] == (1, 2, 2, 2, 4)


def test_classes_have_names_where_they_are_given():
    assert zoo.xray_record("deeper", classes=["foot", "hand"]).output_names == ("foot", "hand")
    with pytest.raises(ValueError, match="no X-ray network 'deepest'; there are: shallow, deeper, deeper-augmented"):
        zoo.xray_record("deepest")
