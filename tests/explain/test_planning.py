import numpy as np
import pytest
from flax import nnx

import jaxsal
from jaxsal import methods, models, zoo
from jaxsal.explanation import plan
from jaxsal.explanation.planning import output_positions

from .conftest import LEFT, NOTHING, RIGHT


def test_outputs_by_name_position_or_all(planted):
    record = planted.record
    assert output_positions(record, "all") == (0, 1, 2)
    assert output_positions(record, RIGHT.output) == (1,)
    assert output_positions(record, [NOTHING, 0, -1]) == (2, 0)


def test_outputs_that_do_not_exist_are_refused_with_those_that_do(planted):
    with pytest.raises(KeyError, match=r"no output .*Foot.*It has: Left-Structure, "):
        output_positions(planted.record, ["Foot"])
    with pytest.raises(KeyError, match="3 outputs, there is none at position 3"):
        output_positions(planted.record, [3])
    with pytest.raises(ValueError, match="No output is asked for"):
        output_positions(planted.record, [])


def test_layers_that_cannot_be_split_are_refused_with_those_that_can(planted):
    with pytest.raises(ValueError, match=r"no layer 'relu9'; this network has: conv1, "):
        plan(planted, layer="relu9")
    with pytest.raises(ValueError, match=r"'dense1' has no spatial axes.*: conv1, relu1, pool1, conv2, relu2, pool2\."):
        plan(planted, layer="dense1")


def test_methods_and_options_that_do_not_exist_are_refused_with_those_that_do(planted):
    with pytest.raises(ValueError, match=r"Unknown method 'magic'\. There is: smocam, "):
        plan(planted, "magic")
    with pytest.raises(ValueError, match=r"no option 'steps', there are: solver, max_steps, lam, gamma, percentile"):
        plan(planted, steps=3)
    with pytest.raises(ValueError, match=r"solver got 'fast'; input should be 'recommended', 'paper' or 'nonnegative'"):
        plan(planted, solver="fast")
    with pytest.raises(ValueError, match=r"max_steps got 0; .*greater than or equal to 1.*; lam got nan"):
        plan(planted, max_steps=0, lam=float("nan"))


def test_a_network_without_a_record_is_refused():
    with pytest.raises(TypeError, match=r"a jaxsal.zoo.LoadedModel\(model, record\) is needed"):
        plan(nnx.relu)  # type: ignore[arg-type]


def test_solvers_by_name_are_the_ones_meant(planted):
    from jaxsal import optim

    assert methods.SOLVERS["paper"]() == optim.armijo_once()
    assert methods.SOLVERS["recommended"]() == optim.nonnegative(optim.prox_linear())
    assert methods.SOLVERS["nonnegative"]() == optim.nonnegative(optim.armijo_once())
    assert set(methods.SOLVERS) == {"recommended", "paper", "nonnegative"}
    assert methods.method_names()[0] == "smocam"


def test_shipped_networks_are_found_by_name(tmp_path, monkeypatch, model_file):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tiny.safetensors").write_bytes(model_file.read_bytes())
    monkeypatch.setattr(models, "files", lambda package: tmp_path)
    assert models.default_model() == "tiny"
    assert models.load_model("tiny").record.name == "planted"
    with pytest.raises(FileNotFoundError, match=r"Unknown model 'huge'.*Those are: tiny\."):
        jaxsal.load_model("huge")


def test_an_installation_without_networks_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "files", lambda package: tmp_path)
    assert models.shipped() == {}
    with pytest.raises(FileNotFoundError, match="install it again"):
        models.default_model()


def test_fingerprints_tell_networks_apart(tmp_path, planted, model_file):
    import hashlib

    file = models.fingerprint(model_file)
    assert file == ("planted.safetensors", hashlib.sha256(model_file.read_bytes()).hexdigest())
    folder = zoo.save(tmp_path / "folder", *planted)
    first = models.fingerprint(folder)
    assert first.name == "folder"
    assert models.fingerprint(folder) == first
    record = folder / "record.json"
    record.write_text(record.read_text() + " ")
    assert models.fingerprint(folder).sha256 != first.sha256


def test_sigma_is_that_of_every_output_also_when_one_is_explained(planted):
    np.testing.assert_array_equal(plan(planted, outputs=[RIGHT.output]).sigma, [100, 0.2, 1])
    assert plan(planted, outputs=LEFT.output).parameters == {
        "method": "smocam",
        "outputs": [LEFT.output],
        "layer": "relu2",
        "solver": "recommended",
        "max_steps": 2000,
        "lam": 1.0,
        "gamma": 30.0,
        "percentile": 95.0,
    }


def test_options_are_the_users_then_the_networks_then_the_methods(planted):
    suited = planted.record.model_copy(update={"options": {"smocam": {"solver": "nonnegative", "lam": 0.1}}})
    chosen = plan(planted._replace(record=suited), lam=0.5).parameters
    assert (chosen["solver"], chosen["lam"], chosen["gamma"]) == ("nonnegative", 0.5, 30.0)
    elsewhere = plan(planted._replace(record=suited), layer="relu1").parameters
    assert (elsewhere["solver"], elsewhere["lam"]) == ("recommended", 1.0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"smocam": {"lambda": 0.1}}, "no option 'lambda'"),
        ({"smocam": {"lam": -1}}, "lam got -1"),
        ({"smocma": {}}, "Unknown method 'smocma'"),
    ],
)
def test_options_of_a_record_that_cannot_be_used_are_laid_to_it(planted, options, problem):
    record = planted.record.model_copy(update={"options": options})
    with pytest.raises(ValueError, match=f"The record of the network 'planted' names options .*{problem}.*Mend"):
        plan(planted._replace(record=record), lam=1.0)
