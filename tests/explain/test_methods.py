"""Methods by name: every one of them on a network of which it is known where it looks, and what is said of them."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas
import pytest
from matplotlib.image import imread

import jaxsal
from jaxsal import citations, methods
from jaxsal.data import Volume
from jaxsal.explanation import plan
from jaxsal.explanation.notes import notes
from jaxsal.methods.listing import markdown_table, option_texts
from jaxsal.methods.record import FAMILIES

from .conftest import AFFINE, LEFT, NOTHING, RIGHT, SHAPE, scan_array, write_scan
from .test_cli import Answer, call

DOCS = Path(__file__).parents[2] / "docs"
QUICK = {
    "smocam": {"max_steps": 100},
    "meaningful-perturbation": {"max_steps": 40, "fill": "constant"},
    "extremal-perturbation": {"max_steps": 200, "fill": "constant", "step": 4, "smoothness": 4.0, "area": 0.02},
    "smooth-grad": {"samples": 3},
    "smooth-grad-squared": {"samples": 3},
    "var-grad": {"samples": 3},
    "integrated-gradients": {"steps": 3},
    "interior-gradients": {"steps": 3},
    "blur-integrated-gradients": {"steps": 20, "sigma": 3.0},
    "guided-integrated-gradients": {"steps": 20, "max_dist": 0.0, "baseline": 0.3},
    "expected-gradients": {"samples": 30},
}
# channels weighed as a whole, by their mean gradient or singular values: they cannot tell where in a channel
EVERYWHERE = {"grad-cam", "grad-cam-plus-plus", "xgrad-cam", "score-cam", "eigen-cam", "attentive-response"}
# the same map whatever the output
NO_OUTPUT = {"eigen-cam", "attentive-response"}
COMPLETE = {
    "deep-lift",
    "reveal-cancel",
    "integrated-gradients",
    "guided-integrated-gradients",
    "blur-integrated-gradients",
    "expected-gradients",
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explained(planted, name: str, outputs=(LEFT.output, NOTHING), **options) -> jaxsal.Explanation:
    scan = Volume(scan_array(), AFFINE)
    if "references" in methods.find_method(name).needs:
        options = {"references": [Volume(scan_array()[::-1] * np.float32(0.5), AFFINE)], **options}
    return jaxsal.explain(scan, planted, name, list(outputs), **{**QUICK.get(name, {}), **options})


@pytest.mark.parametrize("name", methods.method_names())
def test_every_method_explains_the_planted_network(planted, name):
    found = explained(planted, name)
    method, table = methods.find_method(name), found.table.set_index("output")
    maps = np.asarray(found.found.maps)
    assert maps.shape == (2, 1, *SHAPE)
    assert np.isfinite(maps).all()
    assert table["prediction"][NOTHING] == 5
    assert table["prediction"][LEFT.output] == pytest.approx(
        float(planted.model(scan_array()[None, ..., None])[0, 0]), rel=1e-5
    )
    assert {column.name for column in method.columns} <= set(table.columns)
    if name not in EVERYWHERE:
        # the structure is 4 voxels of 4 mm wide; a smooth mask may be centred a voxel off
        assert np.abs(np.array(found.peak(LEFT.output)) - LEFT.centre).max() <= 10
    if not method.signed:
        assert maps.min() >= 0
    if name in COMPLETE:
        assert table["completeness_error"][LEFT.output] < 0.05
        assert table["sum"][LEFT.output] == pytest.approx(maps[0].sum(dtype=float), rel=1e-4)
    texts = [note.text for note in notes(found) if note.output == NOTHING]
    assert bool(texts) == (name not in NO_OUTPUT)
    assert found.table["seconds"].sum() == pytest.approx(found.timing.masks)
    assert method.title in repr(found)


def test_integrated_gradients_tell_what_they_miss(planted):
    found = explained(planted, "integrated-gradients", [LEFT.output], steps=2, rule="left", baseline=1.0)
    row = found.table.iloc[0]
    from_nothing = float(planted.model(np.full((1, *SHAPE, 1), 1.0, np.float32))[0, 0])
    assert row["total"] == pytest.approx(row["prediction"] - from_nothing, rel=1e-4)
    assert row["completeness_error"] == pytest.approx(abs(row["sum"] - row["total"]) / abs(row["total"]))


def test_a_map_that_does_not_add_up_is_told():
    from jaxsal.methods.summed import Maps, tell

    maps = np.ones((1, 1, 2, 3), np.float32)
    assert tell(Maps(maps, np.ones((1, 1)), np.full((1, 1), 6.1))).remarks == [[[]]]
    (((text,),),) = tell(Maps(maps, np.ones((1, 1)), np.full((1, 1), 8.0))).remarks
    assert text == "The map adds up to 6, and 8 was to be explained: take more steps or samples."
    maps[0, 0, 0, 0] = np.nan
    (((text,),),) = tell(Maps(maps, np.ones((1, 1)))).remarks
    assert text.startswith("1 of the map's 6 values are NaN or infinite")


def test_random_methods_repeat_by_their_seed(planted):
    first, same, other = (
        np.asarray(explained(planted, "expected-gradients", seed=seed).found.maps) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("word", "recovered", "game", "text"),
    [
        ("unexplained", 0.8, "deletion", "Without what the mask deletes, more than half of the prediction is left"),
        ("unexplained", 0.2, "preservation", "What the mask shows gives less than half of the prediction"),
        ("unexplained", 2.0, "dual", "What the mask shows gives more than one and a half times the prediction"),
        ("uninformative", 1.0, "deletion", "hardly differs from that with everything deleted"),
        ("not_finite", 1.0, "deletion", "NaN or infinite"),
        ("max_steps", -2.0, "deletion", "the output moves 3.0 times as far as without everything"),
        ("stagnated", 0.0, "deletion", None),
        ("max_steps", -2.0, "preservation", None),
    ],
)
def test_masks_on_the_image_that_must_not_be_believed_are_told(word, recovered, game, text):
    from jaxsal.methods.perturbation import _remarks

    found = _remarks(word, recovered, game)
    assert [text in remark and "interpret" in remark for remark in found] == ([True] if text else [])


def difference_network(planted):
    """The planted network with an output that falls where it used to rise."""
    from jaxsal import zoo

    from .conftest import planted_network

    model, record = planted_network()
    model.output.kernel.set_value(np.array([[1000, 0, 0], [-800, 2, 0]], np.float32))
    return zoo.LoadedModel(model, record)


@pytest.fixture(scope="module")
def signed_folder(tmp_path_factory, planted) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    scan = write_scan(folder / "sub-01_T1w.nii.gz", "LPS")
    found = jaxsal.explain(scan, difference_network(planted), "input-x-gradient", [LEFT.output, NOTHING])
    found.save(folder / "out")
    return folder / "out" / "sub-01" / "anat"


def test_a_signed_method_writes_the_same_files_under_its_own_name(signed_folder):
    names = {path.name.removeprefix("sub-01_mod-T1w_") for path in signed_folder.iterdir()}
    maps = {
        f"desc-{label}_inputxgradient.{kind}" for label in ("LeftStructure", "Nothing") for kind in ("nii.gz", "png")
    }
    assert names == {*maps, "run.json", "predictions.tsv", "predictions.json", "report.html"}
    image = nibabel.load(signed_folder / "sub-01_mod-T1w_desc-LeftStructure_inputxgradient.nii.gz")
    values = image.get_fdata(dtype=np.float32)
    at = np.rint(np.linalg.inv(image.affine) @ [*LEFT.centre, 1])[:3].astype(int)
    other = np.rint(np.linalg.inv(image.affine) @ [*RIGHT.centre, 1])[:3].astype(int)
    box, away = (values[tuple(slice(i - 3, i + 4) for i in place)] for place in (at, other))
    assert box.max() > 1000
    assert away.min() < -800


def test_its_table_and_its_record_have_its_own_columns(signed_folder):
    table = pandas.read_csv(signed_folder / "sub-01_mod-T1w_predictions.tsv", sep="\t", na_values="n/a")
    described = json.loads((signed_folder / "sub-01_mod-T1w_predictions.json").read_text())
    columns = ["sum", "positive", "seconds", "peak_x", "peak_y", "peak_z"]
    assert list(table.columns) == list(described) == ["output", "unit", "prediction", "sigma", *columns]
    assert "maps" in described["seconds"]["Description"]
    assert table["sum"][0] == pytest.approx(table["prediction"][0], rel=1e-5)  # a network without biases
    run = json.loads((signed_folder / "sub-01_mod-T1w_run.json").read_text())
    assert run["parameters"] == {
        "method": "input-x-gradient",
        "outputs": [LEFT.output, NOTHING],
        "batch_size": None,
        "start": "one",
    }
    assert not {"mask", "status"} & set(run)
    assert set(run["seconds"]) == {"prepare", "maps"}


def test_its_report_tells_of_no_masks(signed_folder):
    text = (signed_folder / "sub-01_mod-T1w_report.html").read_text(encoding="utf-8")
    for absent in ("Recovered", "recovered", "mask", "Status", "SMOCAM"):
        assert absent not in text
    for present in ("Input x gradient of sub-01_T1w.nii.gz", "Sum of the map", "1605.01713", "red where the voxel"):
        assert present in text


def test_its_pictures_have_colours_for_both_signs(signed_folder):
    picture = imread(signed_folder / "sub-01_mod-T1w_desc-LeftStructure_inputxgradient.png")[..., :3]
    red, _, blue = np.moveaxis(picture, -1, 0)
    scan = np.arange(picture.shape[1]) < 0.88 * picture.shape[1]  # without the colour bar
    assert ((red - blue > 0.3) & scan).sum() > 50
    bar = picture[60:400, int(0.93 * picture.shape[1]) :].reshape(-1, 3)
    assert (bar[:, 0] - bar[:, 2] > 0.3).any()
    assert (bar[:, 2] - bar[:, 0] > 0.3).any()


def test_methods_without_a_layer_refuse_one_and_say_which_have_one(planted):
    with pytest.raises(
        ValueError, match=r"Saliency explains the image itself.*'relu1': leave it out, or.*: smocam, grad"
    ):
        plan(planted, "saliency", layer="relu1")
    assert plan(planted, "saliency").split is None
    assert plan(planted, "grad-cam").layer == "relu2"
    assert plan(planted, "grad-cam", layer="relu1").parameters["layer"] == "relu1"
    with pytest.raises(ValueError, match="'dense1' has no spatial axes"):
        plan(planted, "grad-cam", layer="dense1")


def test_references_are_needed_or_refused(tmp_path, planted):
    other = write_scan(tmp_path / "other.nii.gz")
    with pytest.raises(ValueError, match=r"Expected gradients compares the scan with others.*--reference FILE"):
        plan(planted, "expected-gradients")
    with pytest.raises(ValueError, match="SMOCAM compares the scan with no others: leave the references out"):
        plan(planted, references=[other])
    with pytest.raises(FileNotFoundError, match=r"none\.nii\.gz"):
        plan(planted, "expected-gradients", references=tmp_path / "none.nii.gz")
    (reference,) = plan(planted, "expected-gradients", references=other).references
    np.testing.assert_array_equal(reference.x[..., 0], scan_array())
    assert reference.source["file"] == "other.nii.gz"


def test_options_of_a_record_suit_methods_without_a_layer_too(planted):
    record = planted.record.model_copy(update={"options": {"saliency": {"batch_size": 2}, "grad-cam": {"positive": 1}}})
    model = planted._replace(record=record)
    assert plan(model, "saliency").parameters["batch_size"] == 2
    assert plan(model, "grad-cam").parameters["positive"] is True
    assert plan(model, "grad-cam", layer="relu1").parameters["positive"] is False


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "My Method"}, "small letters, digits and single hyphens"),
        ({"name": "grad-cam"}, r"there is 'grad-cam' \(Grad-CAM\) already"),
        ({"name": "gradcam"}, r"there is 'grad-cam' \(Grad-CAM\) already"),
        ({"family": "magic"}, "its family is 'magic'; there is: mask, gradient"),
        ({"needs": ("luck",)}, "it needs luck; a need is one of layer"),
        ({"citations": ()}, "it has no citation"),
        ({"columns": (methods.Column("sigma", ""),)}, "the columns sigma are there already"),
        ({"headline": ("status",)}, "its headline has status, which is no column"),
        ({"brightest": 0.0}, "brightest is 0.0"),
        ({"needs": ("key",)}, "its options have no seed"),
    ],
)
def test_records_that_contradict_themselves_are_refused(changes, problem):
    import dataclasses

    record = dataclasses.replace(methods.find_method("saliency"), **{"name": "mine", **changes})
    with pytest.raises(ValueError, match=problem):
        methods.register(record)
    assert "mine" not in methods.method_names()


def test_options_must_be_frozen_and_have_defaults():
    import dataclasses

    from pydantic import BaseModel

    class Loose(BaseModel):
        steps: int = 3

    class Demanding(methods.Options):
        steps: int

    mine = dataclasses.replace(methods.find_method("saliency"), name="mine")
    with pytest.raises(ValueError, match=r"its options can be changed: derive them from jaxsal\.methods\.Options"):
        methods.register(dataclasses.replace(mine, options=Loose))
    with pytest.raises(ValueError, match="the options steps have no default"):
        methods.register(dataclasses.replace(mine, options=Demanding))


def test_maps_of_a_wrong_shape_are_refused(planted):
    from jaxsal.methods.record import Task
    from jaxsal.progress import silent

    x = np.ones((1, 4, 5, 1), np.float32)
    task = Task(lambda x: x.sum((1, 2)), x, (0,), np.ones(1), methods.Options(), None, None, silent)
    with pytest.raises(ValueError, match=r"maps of shape \(4, 5\) for 1 outputs of images \(1, 4, 5, 1\)"):
        methods.maps_by(lambda task: x[0, ..., 0])(task)
    np.testing.assert_array_equal(methods.maps_by(lambda task: x[None])(task).maps, x[None, ..., 0])
    assert methods.maps_by(lambda task: x[None, ..., 0])(task).prediction.tolist() == [[20.0]]


def test_columns_that_a_record_does_not_describe_are_refused(planted):
    import dataclasses

    mine = dataclasses.replace(methods.find_method("saliency"), name="mine", columns=())
    found = explained(planted, "saliency")
    found = dataclasses.replace(found, plan=dataclasses.replace(found.plan, method=mine))
    with pytest.raises(ValueError, match="'mine' tells sum, positive, its record describes nothing"):
        _ = found.table


@pytest.mark.parametrize("method", methods.all_methods(), ids=lambda method: method.name)
def test_every_record_is_complete(method):
    texts = option_texts(method)
    assert set(texts) == set(method.options.model_fields)
    assert all(texts.values())
    assert method.family in FAMILIES
    assert all(len(paragraph) > 60 for paragraph in method.reading)
    assert all(column.description for column in method.columns)
    for citation in method.citations:
        assert citation.doi or citation.arxiv
        assert citation.text.endswith(citation.link)


def test_every_paper_is_told_in_both_forms():
    papers = [value for value in vars(citations).values() if isinstance(value, citations.Citation)]
    assert len({paper.key for paper in papers}) == len(papers) >= 18
    for paper in papers:
        entry = paper.bibtex
        assert entry.count("{") == entry.count("}")
        assert str(paper.year) in paper.text
        assert paper.authors[0][0] in paper.text
        assert re.fullmatch(r"(10\.\d{4,}/\S+)?", paper.doi)
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", paper.arxiv)


def test_jaxsal_is_cited_by_its_citation_file():
    facts = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8").partition("references:")
    own = citations.of_jaxsal(jaxsal.__version__)
    for line in (f'title: "{own.title}"', f"version: {own.version}", f"date-released: {own.year}-", own.authors[0][0]):
        assert line in facts[0]
    for family, given in citations.KONATE_2021.authors:
        assert f"{{family-names: {family}, given-names: {given}}}" in facts[2]


def test_the_page_of_methods_is_up_to_date():
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert markdown_table() in text, "put the output of `jaxsal methods --markdown` into docs/methods.md"


def test_methods_lists_them_and_tells_of_one():
    answer = call("methods")
    assert answer.code == 0
    for method in methods.all_methods():
        assert method.name in answer.out
    told = " ".join(call("methods", "meaningful-perturbation", "grad-cam").out.split())
    for text in ("--preset (jaxsal|fong|fong-torch|jacobgil|kan, default jaxsal)", "10.1109/ICCV.2017.371", "Grad-CAM"):
        assert text in told
    answer = call("methods", "magic")
    assert (answer.code, "Unknown method 'magic'. There is: smocam, " in answer.err) == (1, True)


def test_cite_prints_bibtex_of_methods_and_of_jaxsal():
    answer = call("cite", "smocam", "integrated-gradients", "smocam")
    assert answer.code == 0
    assert re.findall(r"^@\w+\{(\w+),$", answer.out, re.MULTILINE) == [
        "konate2021smocam",
        "sundararajan2017axiomatic",
        "jaxsal",
    ]
    assert f"version = {{{jaxsal.__version__}}}" in answer.out


def test_cite_reads_what_results_used_down_to_the_options(here):
    run = {"parameters": {"method": "meaningful-perturbation", "outputs": ["a"], "preset": "kan", "fill": None}}
    (here / "out" / "sub-01").mkdir(parents=True)
    (here / "out" / "sub-01" / "sub-01_run.json").write_text(json.dumps(run))
    for given in ("out", "out/sub-01/sub-01_run.json"):
        answer = call("cite", given)
        keys = re.findall(r"^@\w+\{(\w+),$", answer.out, re.MULTILINE)
        assert keys == ["fong2017meaningful", "kan2020interpretation", "jaxsal"]


def test_cite_says_what_is_wrong(here):
    (here / "empty").mkdir()
    (here / "half.json").write_text("{half")
    (here / "other.json").write_text('{"parameters": {"method": "mine"}}')
    for given, message in {
        "magic": "'magic' is neither a method nor a file or folder of results. Methods: smocam, ",
        "empty": "empty holds no run.json",
        "half.json": "half.json cannot be read as the record of a run",
        "other.json": "other.json: Unknown method 'mine'",
    }.items():
        answer = call("cite", given)
        assert (answer.code, message in answer.err) == (1, True), answer.err


def test_the_command_line_takes_options_of_the_method(here, model_file):
    write_scan(here / "a.nii.gz")
    options = ("--fill", "constant", "--max-steps", 3, "--lam1=5", "--game", "preservation")
    arguments = ("a.nii.gz", "-m", model_file, "--outputs", LEFT.output)
    answer: Answer = call("explain", *arguments, "--method", "meaningful-perturbation", *options, "-o", "out")
    assert answer.code == 0, answer.err
    assert "recovered" in answer.out
    assert (here / "out" / "a" / "a_desc-LeftStructure_meaningfulperturbation.nii.gz").is_file()
    run = json.loads((here / "out" / "a" / "a_run.json").read_text())
    assert {key: run["parameters"][key] for key in ("preset", "fill", "max_steps", "lam1", "game")} == {
        "preset": "jaxsal",
        "fill": "constant",
        "max_steps": 3,
        "lam1": 5.0,
        "game": "preservation",
    }
    assert "--layer" not in run["command"]
    assert "--lam1 5.0" in run["command"]
    assert "--noise" not in run["command"]
    report = (here / "out" / "a" / "a_report.html").read_text(encoding="utf-8")
    assert "What the network predicts, and what is left of it under the mask" in report
    answer = call("explain", *arguments, "--method", "saliency", "-o", "out")
    assert "its method is meaningful-perturbation, this one's is saliency;" not in answer.err
    assert "its method is meaningful-perturbation, this one's is saliency" in answer.err


def test_references_are_recorded_and_never_overwritten(here, model_file):
    scan, other = write_scan(here / "a.nii.gz"), write_scan(here / "b.nii.gz", array=scan_array() + 1)
    arguments = (scan, "-m", model_file, "--method", "expected-gradients", "--samples", 2, "--outputs", LEFT.output)
    assert call("explain", *arguments, "--reference", other, "-o", "out").code == 0
    run = json.loads((here / "out" / "a" / "a_run.json").read_text())
    assert [reference["file"] for reference in run["references"]] == ["b.nii.gz"]
    assert "--reference b.nii.gz" in run["command"]
    assert "b.nii.gz, SHA-256" in (here / "out" / "a" / "a_report.html").read_text(encoding="utf-8")
    answer = call("explain", *arguments, "--reference", scan, "-o", "out")
    assert (answer.code, "its reference scans are others" in answer.err) == (1, True)


def test_relevance_takes_the_options_of_its_composite_and_cites_its_papers():
    lrp = methods.find_method("lrp")

    def papers(composite: str) -> list[str]:
        return [citation.key.partition("20")[0] for citation in lrp.cited(lrp.options(composite=composite))]

    for composite in ("epsilon-plus", "epsilon-plus-flat", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box"):
        assert papers(composite) == ["bach", "kohlbrenner"]
    for composite in ("z", "flat", "gamma", "alpha-beta", "epsilon", "preset-a"):
        assert papers(composite) == ["bach"]
    assert papers("w-square") == ["bach", "montavon"]
    for composite, options in {
        "z": {"epsilon": 0.1}, "epsilon": {"gamma": 0.5}, "gamma": {"low": 0.0}, "epsilon-plus": {"alpha": 3.0},
        "preset-b": {"high": 1.0},
    }.items():  # fmt: skip
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"{name} got {value}; the composite {composite} has no {name}"):
            methods.check_options(lrp, {"composite": composite, **options})
        with pytest.raises(ValueError, match=f"the composite {composite} has no {name}"):
            methods.check_options(lrp, {**options, "composite": composite})  # in any order
    complete = methods.check_options(lrp, {"composite": "z"}).model_dump()
    assert methods.check_options(lrp, complete).model_dump() == complete  # as a record of a run has them
    with pytest.raises(ValueError, match=r"alpha got 0\.5"):
        methods.check_options(lrp, {"composite": "alpha-beta", "alpha": 0.5})


def test_alpha_weighs_what_excites(planted):
    usual, same, other = (
        np.asarray(explained(planted, "lrp", [LEFT.output], composite="alpha-beta", **options).found.maps)
        for options in ({}, {"alpha": 2.0}, {"alpha": 1.0})
    )
    np.testing.assert_array_equal(usual, same)
    assert (usual != other).any()


def test_deep_taylor_promises_no_sign_where_residual_sums_break_it():
    (reading,) = methods.find_method("deep-taylor").reading
    assert "but where the network adds values of both signs" in reading


def test_wrong_options_are_answered_with_what_there_is_before_anything_is_loaded(here):
    answer = call("explain", "a.nii.gz", "-m", "none", "--method", "saliency", "--lamda", "3")
    assert answer.code == 2
    assert "There is no option --lamda. Those of saliency are: --batch-size, --start" in answer.err
    for arguments, message in {
        ("--method", "saliency", "--lam", "3"): "there is no option 'lam', there are: batch_size, start",
        ("--method", "grad-cam", "--positive", "maybe"): "positive got 'maybe'; input should be a valid boolean",
        ("--method", "extremal-perturbation", "--area", "2"): "area got '2'; input should be less than 1",
        ("--method", "magic"): "Unknown method 'magic'. There is: smocam, meaningful-perturbation",
    }.items():
        answer = call("explain", "a.nii.gz", "-m", "none", *arguments)
        assert (answer.code, message in answer.err) == (1, True), answer.err


def test_listing_and_citing_load_nothing_heavy():
    import os
    import subprocess
    import sys

    heavy = ("jax", "flax", "nilearn", "nibabel", "matplotlib", "pandas", "numpy", "scipy")
    code = (
        "import sys, jaxsal.cli; from typer.testing import CliRunner\n"
        "for words in (['--help'], ['methods'], ['methods', 'grad-cam'], ['cite', 'saliency']):\n"
        "    assert CliRunner().invoke(jaxsal.cli.app, words).exit_code == 0\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(jaxsal.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
