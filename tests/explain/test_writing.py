import getpass
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest

import jaxsal
from jaxsal.data import Volume
from jaxsal.explanation.naming import labels, place, places

from .conftest import AFFINE, LEFT, NOTHING, RIGHT, scan_array, write_scan

PREFIX = "sub-01/anat/sub-01_mod-T1w"
LABELS = ("LeftStructure", "RightStructureCo", "Nothing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, explanation) -> Path:
    folder = tmp_path_factory.mktemp("results")
    explanation.save(folder)
    return folder


def test_every_file_is_there_and_no_other(folder):
    maps = {f"{PREFIX}_desc-{label}_smocam.{kind}" for label in LABELS for kind in ("nii.gz", "png")}
    rest = {f"{PREFIX}_{name}" for name in ("predictions.tsv", "predictions.json", "run.json", "report.html")}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"dataset_description.json", *maps, *rest}


def test_the_paths_returned_are_the_files_written(tmp_path, explanation):
    written = explanation.save(tmp_path / "new" / "folder")
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(written)
    assert written[-1].name.endswith("report.html")


def test_maps_lie_on_the_scans_grid_as_float32(folder, scan, explanation):
    original = nibabel.load(scan)
    for output, label in zip((LEFT.output, RIGHT.output, NOTHING), LABELS, strict=True):
        image = nibabel.load(folder / f"{PREFIX}_desc-{label}_smocam.nii.gz")
        assert image.get_data_dtype() == np.float32
        assert image.shape == original.shape
        np.testing.assert_array_equal(image.affine, original.affine)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_intent()[2] == output[:16]
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), explanation.map(output).array)
    assert np.abs(image.get_fdata()).max() == 0


def test_one_file_holds_all_maps_and_says_which_is_which(tmp_path, explanation):
    explanation.save(tmp_path, one_file=True)
    image = nibabel.load(tmp_path / f"{PREFIX}_smocam.nii.gz")
    listing = json.loads((tmp_path / f"{PREFIX}_smocam.json").read_text())
    assert image.shape == (24, 24, 24, 3)
    assert not list(tmp_path.rglob("*desc-*.nii.gz"))
    for frame, output in enumerate(listing["Outputs"]):
        np.testing.assert_array_equal(image.dataobj[..., frame], explanation.map(output).array)


def test_the_table_reads_back(folder, explanation):
    table = pandas.read_csv(folder / f"{PREFIX}_predictions.tsv", sep="\t", keep_default_na=False, na_values="n/a")
    pandas.testing.assert_frame_equal(table, explanation.table, rtol=1e-6, check_dtype=False)
    described = json.loads((folder / f"{PREFIX}_predictions.json").read_text())
    assert list(described) == list(table.columns)


def test_pictures_are_png(folder):
    from matplotlib.image import imread

    for label in LABELS:
        picture = imread(folder / f"{PREFIX}_desc-{label}_smocam.png")
        assert picture.shape == (429, 990, 4)
        assert picture[..., :3].std() > 0.05


def test_the_folder_is_a_bids_derivative(folder):
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0] == {
        "Name": "jaxsal",
        "Version": jaxsal.__version__,
        "CodeURL": "https://github.com/jaxsal/jaxsal",
    }


def test_the_run_record_repeats_the_run(folder, scan, model_file, explanation):
    run = json.loads((folder / f"{PREFIX}_run.json").read_text())
    again = jaxsal.explain(scan, model_file, **run["parameters"])
    for output in run["parameters"]["outputs"]:
        np.testing.assert_array_equal(again.map(output).array, explanation.map(output).array)


def test_the_run_record_identifies_scan_network_and_machine(folder, scan, model_file):
    import hashlib

    run = json.loads((folder / f"{PREFIX}_run.json").read_text())
    assert run["image"]["file"] == "sub-01_T1w.nii.gz"
    assert run["image"]["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert run["model"]["sha256"] == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert run["model"]["sigma"] == {LEFT.output: 100.0, RIGHT.output: 0.2, NOTHING: 1.0}
    np.testing.assert_array_equal(run["image"]["affine"], nibabel.load(scan).affine)
    assert run["versions"]["jaxsal"] == jaxsal.__version__
    assert {"python", "jax", "flax", "numpy", "nibabel"} <= set(run["versions"])
    assert run["machine"]["backend"] == "cpu"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", run["date_utc"])
    assert run["status"][NOTHING] == "uninformative"
    assert run["space_check"]["space"] == "native"


def test_no_file_tells_folders_or_users(folder, scan):
    words = {"Jane Doe", str(scan.parent), str(Path.home()), f"/{getpass.getuser()}/"} - {"/"}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".html", ".tsv"):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], path


class Links(HTMLParser):
    """Everything in a page that names something to load, and its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[dict] = []
        self.ids: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [attributes[key] for key in ("src", "href", "srcset", "data") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            self.pictures.append(attributes)


def test_the_report_stands_alone(folder):
    text = (folder / f"{PREFIX}_report.html").read_text(encoding="utf-8")
    page = Links()
    page.feed(text)
    assert all(link.startswith(("data:image/png;base64,", "#map-")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert len(page.pictures) == 3
    assert all(len(picture["alt"]) > 40 for picture in page.pictures)
    assert '<html lang="en">' in text


def test_the_report_escapes_what_others_wrote_and_says_what_matters(folder):
    text = (folder / f"{PREFIX}_report.html").read_text(encoding="utf-8")
    assert "Right &lt;Structure&gt; &amp; &quot;co&quot;" in text
    assert "<Structure>" not in text
    assert "Made by hand &amp; &lt;b&gt;not&lt;/b&gt; trained." in text
    assert "nobody@example.org" in text
    assert "10.1109/ISBI48211.2021.9433790" in text
    assert "there is nothing to explain" in text
    assert "mm³" in text


def test_the_report_of_a_scan_in_template_space_explains_its_volumes(explanation):
    import dataclasses

    from jaxsal.explanation.paging import page
    from jaxsal.explanation.provenance import run_record

    run, pictures = run_record(explanation), [b"", b"", b""]
    assert not [text for text in page(explanation, run, pictures).reading if "mm³" in text]
    spec = explanation.record.input.model_copy(update={"space": "MNI152"})
    record = explanation.record.model_copy(update={"input": spec})
    model = explanation.plan.model._replace(record=record)
    moved = dataclasses.replace(explanation, plan=dataclasses.replace(explanation.plan, model=model))
    assert [text for text in page(moved, run, pictures).reading if "as it lies in MNI152 space" in text]


def test_an_earlier_run_is_replaced(tmp_path, explanation):
    first = explanation.save(tmp_path)
    first[-1].write_text("old")
    explanation.save(tmp_path)
    assert first[-1].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_input_is_never_overwritten(tmp_path, planted):
    target = "brain/brain_desc-LeftStructure_smocam.nii.gz"
    path = write_scan(tmp_path / target)
    before = path.read_bytes()
    found = jaxsal.explain(path, planted, outputs=LEFT.output, max_steps=3)
    with pytest.raises(ValueError, match=r"would overwrite the input image .*: give another output folder"):
        found.save(tmp_path, where=place("brain"))
    assert path.read_bytes() == before


def test_another_data_set_is_left_alone(tmp_path, explanation):
    (tmp_path / "dataset_description.json").write_text('{"Name": "My study", "BIDSVersion": "1.9.0"}')
    with pytest.raises(FileExistsError, match=r"folder of another data set .*derivatives/jaxsal"):
        explanation.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_description.json"]


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path, explanation):
    (tmp_path / "results").write_text("")
    with pytest.raises(NotADirectoryError, match=r"results is a file, a folder is needed"):
        explanation.save(tmp_path / "results")


def test_a_volume_from_memory_is_identified_by_its_voxels(tmp_path, planted):
    import hashlib

    array = scan_array()
    found = jaxsal.explain(Volume(array, AFFINE), planted, outputs=LEFT.output, max_steps=3)
    found.save(tmp_path)
    run = json.loads((tmp_path / "image" / "image_run.json").read_text())
    assert run["image"]["file"] is None
    assert run["image"]["sha256"] == hashlib.sha256(array.tobytes()).hexdigest()
    assert run["model"]["file"] is None


@pytest.mark.parametrize(
    ("stem", "path"),
    [
        ("sub-01_T1w", "sub-01/anat/sub-01_mod-T1w_desc-X_smocam.png"),
        ("sub-01_ses-b_run-2_T1w", "sub-01/ses-b/anat/sub-01_ses-b_run-2_mod-T1w_desc-X_smocam.png"),
        ("sub-01_space-MNI_desc-brain_T1w", "sub-01/anat/sub-01_space-MNI_mod-T1w_desc-brainX_smocam.png"),
        ("IXI002-Guys", "IXI002-Guys/IXI002-Guys_desc-X_smocam.png"),
        ("sub-01", "sub-01/sub-01_desc-X_smocam.png"),
    ],
)
def test_names_follow_bids(stem, path):
    assert place(stem).file("smocam.png", "X").as_posix() == path


@pytest.mark.parametrize(
    "paths",
    [
        ["sub-01_T1w.nii", "sub-01_mod-a_T1w.nii"],
        ["sub-01_mod-b_T1w.nii", "sub-01_mod-a_T1w.nii", "sub-01_T1w.nii"],
        ["sub-01_desc-ab_T1w.nii", "sub-01_desc-a_desc-b_T1w.nii"],
        ["sub-01_T1w.nii", "SUB-01_t1w.mgz", "x/sub-01_T1w.nii"],
        ["a/T1.nii", "b/T1.nii"],
        ["same.nii", "same.nii"],
        ["張三.nii", "李四.nii"],
    ],
)
def test_scans_of_one_run_never_share_a_place(paths):
    found = places(paths)
    assert len({where.file("run.json").as_posix().casefold() for where in found}) == len(paths)


def test_a_place_alone_follows_bids():
    assert places(["x/sub-01_mod-a_T1w.nii"]) == (place("sub-01_mod-a_T1w"),)


def test_labels_are_letters_and_digits_and_differ():
    found = labels(["a-b", "AB", "A B", "(?)", "Höhe", ""])
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in found)
    assert len({label.casefold() for label in found}) == 6
