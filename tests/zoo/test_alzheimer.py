import jax
import numpy as np
import pytest
from flax import nnx

from jaxsal import zoo
from tests.zoo.topology import check_network, count, drawn, shapes

BLOCKS = [[4, 5, 2, 3, 2], [6, 2, 1, 2, 2]]
HEADS = {"COG": [5, 1], "ADD": [3, 2]}


def weights_of(shared, part, fold=0):
    torch = pytest.importorskip("torch", reason="the published weights are PyTorch files; torch==2.13.0 reads them")
    (path,) = (shared / "weights" / "ncomms2022" / f"CNN_baseline_new_cross{fold}").glob(f"{part}_*.pth")
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): value.numpy() for name, value in loaded.items()}


def by_our_names(backbone, heads):
    """The published weights under the names, and in the layout, of the zoo's network."""
    found = {}
    for name, value in backbone.items():
        block, kind, leaf = name.split(".")
        if kind == "conv":
            found[f"conv{block[-1]}.kernel"] = np.moveaxis(value, (0, 1), (-1, -2))
        elif leaf != "num_batches_tracked":
            ours = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}[leaf]
            found[f"bn{block[-1]}.{ours}"] = value
    for head, state in heads.items():
        for name, value in state.items():
            layer, _, leaf = name.split(".")
            if leaf == "weight":
                kernel = value.T
                found[f"heads.{head}.{layer}.kernel"] = (
                    np.asarray(zoo.channels_last(jax.numpy.asarray(kernel), (3, 4, 3))) if layer == "dense1" else kernel
                )
            else:
                found[f"heads.{head}.{layer}.bias"] = value
    return found


def test_the_layout_is_that_of_the_published_weights(shared):
    def both():
        return zoo.ADSpectrumNet(3, heads=zoo.COG_AND_ADD_HEADS, rngs=nnx.Rngs(0))

    backbone, *heads = (weights_of(shared, part) for part in ("backbone", "COG", "ADD"))
    ours = by_our_names(backbone, dict(zip(("COG", "ADD"), heads, strict=True)))
    needed = {name: value.shape for name, value in zoo.weights(nnx.eval_shape(both)).items()}
    assert {name: value.shape for name, value in ours.items()} == needed
    learned = [
        sum(v.size for n, v in part.items() if "running" not in n and "num" not in n) for part in (backbone, *heads)
    ]
    assert learned == [490_660, 576_201, 172_892]
    assert count(both) == sum(learned)


def test_its_grids_are_the_published_ones():
    table = shapes(lambda: zoo.ADSpectrumNet(rngs=nnx.Rngs(0)), (182, 218, 182, 1))
    assert [table[f"leaky{i}"] for i in (1, 2, 3, 4)] == [
        (1, 43, 52, 43, 20), (1, 20, 24, 20, 40), (1, 9, 11, 9, 80), (1, 3, 4, 3, 160),
    ]  # fmt: skip
    assert table["flatten"] == (1, 5760)
    assert table["heads"] == (1, 1)


def test_published_weights_give_what_torch_gives_from_the_third_block_on(shared):
    from tests.peers import ad_network

    model = nnx.eval_shape(lambda: zoo.ADSpectrumNet(rngs=nnx.Rngs(0)))
    flat = by_our_names(weights_of(shared, "backbone"), {"COG": weights_of(shared, "COG")})
    _, state, _ = nnx.split(model, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    for path, leaf in nnx.to_flat_state(state):
        leaf.set_value(jax.numpy.asarray(flat[".".join(map(str, path))]))
    nnx.update(model, state)
    model.eval()
    features = np.random.default_rng(0).normal(size=(2, 20, 24, 20, 40)).astype(np.float32)
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = ad_network(shared, 0).tail(torch.from_numpy(np.moveaxis(features, -1, 1).copy())).numpy()
    found = features
    for _, layer in model.named_layers()[8:]:
        found = layer(found)
    assert np.abs(np.asarray(found) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_spectrum_network_splits_is_saved_and_explained(tmp_path):
    record = zoo.ad_spectrum_with_add_record().model_copy(
        update={"config": {"blocks": BLOCKS, "heads": HEADS}, "input": zoo.InputSpec(shape=(18, 17, 19))}
    )
    model = drawn(lambda: zoo.ADSpectrumNet(3, shape=(18, 17, 19), blocks=BLOCKS, heads=HEADS, rngs=nnx.Rngs(0)))
    check_network(model, record, tmp_path)


def test_heads_are_what_they_are_alone_and_drop_in_training_only():
    model = drawn(lambda: zoo.ADSpectrumNet(3, shape=(18, 17), blocks=BLOCKS, heads=HEADS, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (2, 18, 17, 1))
    features = x
    for _, layer in model.named_layers()[:-1]:
        features = layer(features)
    alone = [getattr(model.heads, name)(features) for name in ("COG", "ADD")]
    assert (model(x) == jax.numpy.concatenate(alone, axis=-1)).all()
    model.heads.train()
    first, second = (model(x, rngs=nnx.Rngs(dropout=seed)) for seed in (0, 1))
    assert (first != second).any()


def test_heads_that_do_not_add_up_are_answered():
    with pytest.raises(ValueError, match="The heads have COG 1, ADD 2 outputs, 2 are asked for"):
        zoo.ADSpectrumNet(2, heads=zoo.COG_AND_ADD_HEADS, rngs=nnx.Rngs(0))


def test_the_classifier_takes_grey_matter_maps():
    table = shapes(lambda: zoo.ADClassifier(rngs=nnx.Rngs(0)), (121, 145, 121, 1))
    assert table["pool5"] == (1, 3, 4, 3, 128)
    assert table["output"] == (1, 2)
    convolutions = sum(27 * a * b + 3 * b for a, b in zip((1, 8, 16, 32, 64), (8, 16, 32, 64, 128), strict=True))
    dense = 36 * 128 * 1300 + 1300 + 1300 * 50 + 50 + 50 * 2 + 2
    assert count(lambda: zoo.ADClassifier(rngs=nnx.Rngs(0))) == convolutions + dense
    model = nnx.eval_shape(lambda: zoo.ADClassifier(rngs=nnx.Rngs(0)))
    assert model.dropout.rate == 0.79


def test_the_classifier_splits_is_saved_and_explained(tmp_path):
    config = {"widths": [3, 4], "dense": [6]}
    record = zoo.ad_classifier_record().model_copy(update={"config": config, "input": zoo.InputSpec(shape=(9, 8))})
    check_network(drawn(lambda: zoo.ADClassifier(2, shape=(9, 8), **config, rngs=nnx.Rngs(0))), record, tmp_path)


@pytest.mark.parametrize(
    "record",
    [zoo.ad_classifier_record(), zoo.ad_spectrum_record(), zoo.ad_spectrum_with_add_record()],
    ids=lambda r: r.name,
)
def test_records_build_their_networks(record):
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, len(record.outputs), record.input))
    assert record.layer in built.names


def test_only_the_layout_that_is_not_published_is_assumed():
    assert "Wen et al. 2020" in zoo.ad_classifier_record().assumed[0]
    assert not zoo.ad_spectrum_record().assumed
