"""Results of two persons, networks or settings never mix under one name."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxsal
from jaxsal.explanation import place

from .conftest import LEFT, RIGHT, planted_network, scan_array, write_scan


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def explained(folder: Path, model, brightness: float = 1.0, **options) -> jaxsal.Explanation:
    scan = write_scan(folder / "mri" / "brain.nii.gz", array=scan_array() * np.float32(brightness))
    return jaxsal.explain(scan, model, **{"outputs": [LEFT.output, RIGHT.output], "max_steps": 3} | options)


@pytest.fixture
def first(tmp_path, planted) -> jaxsal.Explanation:
    found = explained(tmp_path / "s1", planted)
    found.save(tmp_path / "out")
    return found


def refused(found: jaxsal.Explanation, folder: Path, message: str, **options) -> None:
    before = contents(folder)
    with pytest.raises(FileExistsError, match=message):
        found.save(folder, **options)
    assert contents(folder) == before


def test_the_record_lists_the_files_written(tmp_path, first):
    run = json.loads((tmp_path / "out" / "brain" / "brain_run.json").read_text())
    assert len(run["files"]) == len(set(run["files"])) == 8
    assert {*run["files"], "dataset_description.json"} == set(contents(tmp_path / "out"))
    written = {path.relative_to(tmp_path / "four").as_posix() for path in first.save(tmp_path / "four", one_file=True)}
    run = json.loads((tmp_path / "four" / "brain" / "brain_run.json").read_text())
    assert {*run["files"], "dataset_description.json"} == written == set(contents(tmp_path / "four"))


def test_another_persons_scan_of_the_same_name_is_refused(tmp_path, first, planted):
    second = explained(tmp_path / "s2", planted, brightness=1.1)
    refused(
        second,
        tmp_path / "out",
        r"brain_run\.json is of another run.*its scan is brain\.nii\.gz \(SHA-256 [0-9a-f]{12}\.\.\.\), "
        r"this one is brain.*-o DIR.*--overwrite",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "relu1"}, "its layer is relu2, this one's is relu1"),
        ({"solver": "nonnegative"}, "its solver is recommended, this one's is nonnegative"),
        ({"outputs": LEFT.output}, f"its outputs is {LEFT.output},Right .* this one's is {LEFT.output}"),
    ],
)
def test_another_setting_is_refused(tmp_path, first, planted, options, message):
    refused(explained(tmp_path / "s1", planted, **options), tmp_path / "out", message)


def test_another_network_is_refused_also_when_it_was_made_in_memory(tmp_path, first, model_file):
    model, record = planted_network()
    model.output.bias.set_value(model.output.bias.get_value() + 1)
    refused(
        explained(tmp_path / "s1", jaxsal.zoo.LoadedModel(model, record)), tmp_path / "out", "its network is planted"
    )
    refused(explained(tmp_path / "s1", model_file), tmp_path / "out", "this one is planted.safetensors")


def test_another_layout_is_refused(tmp_path, first):
    refused(first, tmp_path / "out", r"holds 2 files that this one would not write.*smocam\.nii\.gz", one_file=True)


def test_the_very_same_run_may_be_repeated(tmp_path, first, planted):
    again = explained(tmp_path / "s1", planted)
    before = contents(tmp_path / "out")
    again.save(tmp_path / "out")
    assert contents(tmp_path / "out").keys() == before.keys()


def test_overwriting_removes_what_the_record_lists_and_nothing_else(tmp_path, first, planted):
    out = tmp_path / "out"
    kept = {"brain/brain_notes.txt", "brain/brain_desc-LeftStructure_mask.nii.gz", "other/other_report.html"}
    for name in kept:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    second = explained(tmp_path / "s2", planted, brightness=1.1, outputs=LEFT.output)
    second.save(out, overwrite=True)
    run = json.loads((out / "brain" / "brain_run.json").read_text())
    assert run["parameters"]["outputs"] == [LEFT.output]
    assert set(contents(out)) == {*run["files"], *kept, "dataset_description.json"}


def test_a_list_in_a_file_cannot_name_files_elsewhere(tmp_path, first, planted):
    out = tmp_path / "out"
    (tmp_path / "precious").write_text("mine")
    (out / "brain" / "notes.txt").write_text("mine")
    record = out / "brain" / "brain_run.json"
    run = json.loads(record.read_text())
    run["files"] += ["../precious", str(tmp_path / "precious"), "brain/../../precious", "brain/notes.txt", 3]
    record.write_text(json.dumps(run))
    explained(tmp_path / "s2", planted, brightness=1.1).save(out, overwrite=True)
    assert (tmp_path / "precious").read_text() == (out / "brain" / "notes.txt").read_text() == "mine"


def test_a_file_that_no_run_lists_is_never_replaced(tmp_path, first):
    stranger = tmp_path / "new" / "brain" / "brain_report.html"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    for overwrite in (False, True):
        refused(first, tmp_path / "new", r"brain_report\.html exists and no .* lists it", overwrite=overwrite)


def test_a_record_that_cannot_be_read_is_refused(tmp_path, first):
    (tmp_path / "out" / "brain" / "brain_run.json").write_text("{half")
    refused(first, tmp_path / "out", "cannot be read as the record of a run")


def test_an_interrupted_run_can_be_repeated_and_not_be_mistaken(tmp_path, first, planted, monkeypatch):
    from jaxsal.explanation import writing

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "cuts_png", stop)
        with pytest.raises(KeyboardInterrupt):
            first.save(tmp_path / "new")
    refused(explained(tmp_path / "s2", planted, brightness=1.1), tmp_path / "new", "is of another run")
    first.save(tmp_path / "new", where=place("brain"))
    assert contents(tmp_path / "new").keys() == contents(tmp_path / "out").keys()
