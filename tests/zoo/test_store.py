import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pydantic import ValidationError

from jaxsal import zoo

CONFIG = {"blocks": [[4, 3, 1, True, 2, 2], [5, 3, 1, False, 2, 2]], "dense": [6, 4]}
SPEC = zoo.InputSpec(shape=(12, 13))


@pytest.fixture(scope="module")
def model():
    blocks = [zoo.ConvBlock(*block) for block in CONFIG["blocks"]]
    model = zoo.MorphometryVGG(2, shape=(12, 13), blocks=blocks, dense=(6, 4), rngs=nnx.Rngs(3))
    model.eval()
    return model


@pytest.fixture(scope="module")
def record():
    outputs = (zoo.Output(name="left", unit="mm", sigma=2.0), zoo.Output(name="right", unit="mm", sigma=3.0))
    return zoo.ModelRecord(
        name="test", architecture="MorphometryVGG", config=CONFIG, input=SPEC, outputs=outputs, layer="relu2"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "model"])
def test_a_saved_network_comes_back_with_its_record(name, model, record, tmp_path):
    path = zoo.save(tmp_path / name, model, record)
    loaded = zoo.load(path)
    assert loaded.record == record
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 13, 1)), jnp.float32)
    assert (loaded.model(x) == model(x)).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_others_may_read_a_saved_network_as_any_other_file(model, record, tmp_path):
    (tmp_path / "any").write_bytes(b"")
    path = zoo.save(tmp_path / "model.safetensors", model, record)
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize("name", ["model.safetensors", "model"])
def test_saving_again_replaces_the_whole(name, model, record, tmp_path):
    zoo.save(tmp_path / name, model, record)
    zoo.save(tmp_path / name, model, record.model_copy(update={"name": "second"}))
    assert zoo.load(tmp_path / name).record.name == "second"


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("also", [[], ["record.json"], ["record.json", "weights"]], ids=len)
def test_a_folder_of_other_things_is_left_alone(also, model, record, tmp_path):
    study = tmp_path / "study"
    for name in ("sub-01/scan.nii.gz", *also):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text("precious")
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=r"study is a folder that holds sub-01.*not a network.*a new folder"):
        zoo.save(study, model, record)
    assert tree(tmp_path) == before


def test_folders_and_files_are_not_taken_for_each_other(model, record, tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(FileExistsError, match=r"a\.safetensors is a folder, a file is to be written"):
        zoo.save(tmp_path / "a.safetensors", model, record)
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError, match=r"notes is a file, a folder is to be written.*\.safetensors"):
        zoo.save(tmp_path / "notes", model, record)
    assert tree(tmp_path) == {"notes": b"mine"}


def test_an_empty_folder_is_filled(model, record, tmp_path):
    (tmp_path / "model").mkdir()
    assert zoo.load(zoo.save(tmp_path / "model", model, record)).record == record


def test_the_earlier_network_stays_when_the_new_one_cannot_be_put_in_place(model, record, tmp_path, monkeypatch):
    from pathlib import Path

    path = zoo.save(tmp_path / "model", model, record)
    before, replace = tree(tmp_path), Path.replace

    def fails(self, target):
        if self.name == "model" and self.parent != tmp_path and "previous" not in self.parent.name:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        zoo.save(path, model, record.model_copy(update={"name": "second"}))
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("value", "message"),
    [(7e4, r"conv2\.kernel reaches 7e\+04, which float16 cannot hold \(1 of"), (np.nan, r"conv2\.kernel holds 1 NaN")],
)
def test_weights_that_would_not_be_finite_are_refused_by_name(value, message, record, tmp_path):
    blocks = [zoo.ConvBlock(*block) for block in CONFIG["blocks"]]
    model = zoo.MorphometryVGG(2, shape=(12, 13), blocks=blocks, dense=(6, 4), rngs=nnx.Rngs(3))
    model.conv2.kernel.set_value(model.conv2.kernel.get_value().at[0, 0, 0, 0].set(value))
    with pytest.raises(ValueError, match=message):
        zoo.save(tmp_path / "model.safetensors", model, record, dtype="float16")
    assert not list(tmp_path.iterdir())


def test_half_precision_storage_is_computed_in_single(model, record, tmp_path):
    full = zoo.save(tmp_path / "full.safetensors", model, record)
    half = zoo.save(tmp_path / "half.safetensors", model, record, dtype="float16")
    assert half.stat().st_size < full.stat().st_size
    for name, value in zoo.weights(zoo.load(half).model).items():
        assert value.dtype == jnp.float32
        chex.assert_trees_all_close(value, zoo.weights(model)[name], rtol=1e-3, atol=1e-3)


def test_every_misfit_is_named_at_once(model, record, tmp_path):
    config = {"blocks": [[4, 3, 1, True, 2, 2], [5, 3, 1, True, 2, 2]], "dense": [7, 4]}
    path = zoo.save(tmp_path / "model.safetensors", model, record.model_copy(update={"config": config}))
    with pytest.raises(ValueError, match=r"dense1.bias has shape \(6,\), \(7,\) is needed.*missing conv2.bias"):
        zoo.load(path)


def test_an_unknown_weight_is_named(model, record, tmp_path):
    from safetensors.numpy import save_file

    flat = {name: np.asarray(value) for name, value in zoo.weights(model).items()} | {"extra": np.zeros(1)}
    save_file(flat, tmp_path / "m.safetensors", metadata={"record": record.model_dump_json()})
    with pytest.raises(ValueError, match="unknown extra"):
        zoo.load(tmp_path / "m.safetensors")


def test_files_that_are_no_networks_are_answered(model, record, tmp_path):
    with pytest.raises(FileNotFoundError, match="No network at"):
        zoo.load(tmp_path / "none.safetensors")
    (tmp_path / "pickle.pth").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ValueError, match=r"not a readable safetensors file.*converted first: `jaxsal convert`"):
        zoo.load(tmp_path / "pickle.pth")
    whole = zoo.save(tmp_path / "whole.safetensors", model, record).read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        zoo.load(tmp_path / "half.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"without record\.json"):
        zoo.load(tmp_path / "folder")


def test_weights_without_a_record_and_wrong_records_are_answered(model, record, tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="no jaxsal record"):
        zoo.load(tmp_path / "bare.safetensors")
    save_file({"a": np.zeros(1)}, tmp_path / "wrong.safetensors", metadata={"record": "{}"})
    with pytest.raises(ValueError, match=r"record in .* is not valid"):
        zoo.load(tmp_path / "wrong.safetensors")
    other = record.model_copy(update={"architecture": "Other"})
    zoo.save(tmp_path / "other.safetensors", model, other)
    with pytest.raises(ValueError, match=r"Unknown architecture 'Other'; known: .*MorphometryVGG"):
        zoo.load(tmp_path / "other.safetensors")


def test_a_damaged_checkpoint_directory_is_answered(model, record, tmp_path):
    path = zoo.save(tmp_path / "model", model, record)
    for file in (path / "weights").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(ValueError, match="incomplete or damaged"):
        zoo.load(path)


def test_records_refuse_nonsense(record):
    assert record.output_index("right") == 1
    with pytest.raises(KeyError, match=r"no output 'middle'. It has: left, right"):
        record.output_index("middle")
    with pytest.raises(ValidationError, match="repeated: left"):
        zoo.ModelRecord(**record.model_dump() | {"outputs": [{"name": "left"}, {"name": "left"}]})
    with pytest.raises(ValidationError, match="greater than 0"):
        zoo.Output(name="x", sigma=0.0)
