import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

import jaxsal
from jaxsal import cli, models, zoo

from .conftest import LEFT, NOTHING, RIGHT, scan_array, write_scan


def call(*arguments: object) -> "Answer":
    return Answer(CliRunner().invoke(cli.app, [str(argument) for argument in arguments]))


class Answer:
    """What a command said; its lines joined as people read them."""

    def __init__(self, result):
        self.code, self.out, self.err = result.exit_code, result.stdout, " ".join(result.stderr.split())
        assert "Traceback" not in result.output


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(*arguments: object, model: object) -> "Answer":
    return call("explain", *arguments, "--model", model, "--max-steps", 3)


def test_explain_writes_the_files_and_shows_a_table(here, model_file):
    write_scan(here / "data" / "a.nii.gz")
    answer = explain("data/a.nii.gz", "-o", "out", model=model_file)
    assert answer.code == 0, answer.err
    for text in (
        LEFT.output,
        RIGHT.output,
        "mm^3",
        "max_steps",
        "uninformative",
        "a_report.html",
        "nothing to explain",
    ):
        assert text in answer.out
    listed = {line.strip() for line in answer.out.split("Written:")[1].splitlines() if line.strip()}
    assert listed == {path.relative_to(here).as_posix() for path in (here / "out").rglob("*") if path.is_file()}
    assert [path.name for path in (here / "data").iterdir()] == ["a.nii.gz"]


def test_the_same_as_from_python(here, model_file):
    scan = write_scan(here / "a.nii.gz")
    assert call(
        "explain", scan, "-m", model_file, "--outputs", f"{LEFT.output}", "--layer", "relu1", "--solver", "nonnegative",
        "--lam", "0.5", "--gamma", "3", "--percentile", "90",
        "--max-steps", 12, "-o", "out",
    ).code == 0  # fmt: skip
    expected = jaxsal.explain(
        scan,
        model_file,
        outputs=LEFT.output,
        layer="relu1",
        solver="nonnegative",
        max_steps=12,
        lam=0.5,
        gamma=3,
        percentile=90,
    )
    image = nibabel.load(here / "out" / "a" / "a_desc-LeftStructure_smocam.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected.map(LEFT.output).array)
    assert len(list((here / "out").rglob("*.nii.gz"))) == 1


def test_the_command_line_is_recorded_without_folders_and_works_again(here, model_file):
    import shlex

    write_scan(here / "Jane Doe" / "a b.nii.gz")
    explain("Jane Doe/a b.nii.gz", "-o", "out", "--one-file", model=model_file)
    (file,) = (here / "out").rglob("*_run.json")
    text = file.read_text()
    assert "Jane" not in text
    command = shlex.split(json.loads(text)["command"])
    assert command[:4] == ["jaxsal", "explain", "a b.nii.gz", "--model"]
    (here / "a b.nii.gz").write_bytes((here / "Jane Doe" / "a b.nii.gz").read_bytes())
    (here / model_file.name).write_bytes(model_file.read_bytes())
    assert call(*command[1:], "-o", "again").code == 0
    first, second = (nibabel.load(here / folder / "a-b" / "a-b_smocam.nii.gz") for folder in ("out", "again"))
    np.testing.assert_array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj))


def test_the_record_of_one_person_does_not_name_another(here, model_file):
    write_scan(here / "jane.nii.gz")
    write_scan(here / "john.nii.gz")
    assert explain("jane.nii.gz", "john.nii.gz", "-o", "out", model=model_file).code == 0
    for own, other in (("jane", "john"), ("john", "jane")):
        run = json.loads((here / "out" / own / f"{own}_run.json").read_text())
        assert run["command"].startswith(f"jaxsal explain {own}.nii.gz --model ")
        for path in (here / "out" / own).iterdir():
            assert path.suffix in (".gz", ".png") or other not in path.read_text(encoding="utf-8"), path


def test_another_persons_results_are_not_replaced_unless_asked_and_before_the_work(here, model_file, monkeypatch):
    from jaxsal import explanation

    write_scan(here / "s1" / "mri" / "brain.nii.gz")
    write_scan(here / "s2" / "mri" / "brain.nii.gz", array=scan_array() + 1)
    assert explain("s1/mri/brain.nii.gz", model=model_file).code == 0
    assert explain("s1/mri/brain.nii.gz", model=model_file).code == 0
    record = here / "jaxsal-results" / "brain" / "brain_run.json"
    first = record.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(explanation, "run", lambda *a, **k: pytest.fail("worked before it looked"))
        answer = explain("s2/mri/brain.nii.gz", model=model_file)
    assert answer.code == 1
    for text in ("brain_run.json is of another run", "its scan is brain.nii.gz", "-o DIR", "--overwrite"):
        assert text in answer.err
    assert record.read_bytes() == first
    assert explain("s2/mri/brain.nii.gz", "--overwrite", model=model_file).code == 0
    assert json.loads(record.read_text())["image"]["sha256"] != json.loads(first)["image"]["sha256"]


def test_several_images_and_one_that_fails(here, model_file):
    write_scan(here / "x" / "a.nii.gz")
    write_scan(here / "y" / "a.nii.gz", "LPS")
    (here / "b.nii.gz").write_bytes(b"not an image")
    answer = explain("x/a.nii.gz", "b.nii.gz", "y/a.nii.gz", "-o", "out", model=model_file)
    assert answer.code == 1
    assert "1 of 3 images failed" in answer.err
    assert "b.nii.gz is named .nii.gz but is no " in answer.err
    assert {path.name for path in (here / "out").rglob("*_report.html")} == {"x_a_report.html", "y_a_report.html"}


def test_an_interruption_keeps_what_is_finished(here, model_file, monkeypatch):
    from jaxsal import explanation

    original, count = explanation.run, []

    def run(*arguments, **options):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(explanation, "run", run)
    images = [write_scan(here / f"{name}.nii.gz") for name in "abc"]
    answer = explain(*images, "-o", "out", model=model_file)
    assert answer.code == 130
    assert "Interrupted: 1 of 3 images are finished, in out." in answer.err
    assert [path.name for path in (here / "out").rglob("*_report.html")] == ["a_report.html"]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def test_bad_images_are_refused_with_a_message(here, model_file):
    good = write_scan(here / "good.nii.gz")
    assert explain("none.nii.gz", model=model_file).err.startswith("Error: There is no file none.nii.gz, looked for in")
    (here / "a.png").write_bytes(b"\x89PNG")
    assert "file type .png, which is not read. Formats read: .nii" in explain("a.png", model=model_file).err
    (here / "cut.nii.gz").write_bytes(good.read_bytes()[:-2000])
    assert "truncated or damaged" in explain("cut.nii.gz", model=model_file).err
    hole = scan_array()
    hole[3, 4, 5] = np.nan
    write_scan(here / "nan.nii.gz", array=hole)
    answer = explain("nan.nii.gz", model=model_file)
    assert (answer.code, "nan.nii.gz holds 1 NaN or infinite voxels of 13824" in answer.err) == (1, True)
    write_scan(here / "four.nii.gz", array=np.stack([scan_array()] * 2, axis=-1))
    assert "has 2 frames" in explain("four.nii.gz", model=model_file).err
    write_scan(here / "far.nii.gz", affine=np.diag([4.0, 4, 4, 1]) + np.eye(4, k=3) * 900)
    assert "lies in the network's field of view" in explain("far.nii.gz", model=model_file).err
    write_scan(here / "flat.nii.gz", array=np.ones((24, 24, 24), np.float32))
    assert "is 1 in every voxel" in explain("flat.nii.gz", model=model_file).err
    assert not list(here.rglob("*report.html"))


def test_a_scan_outside_the_networks_space_is_refused(here, planted):
    spec = planted.record.input.model_copy(update={"space": "MNI152"})
    model = zoo.save(here / "mni.safetensors", planted.model, planted.record.model_copy(update={"input": spec}))
    write_scan(here / "a.nii.gz")
    answer = explain("a.nii.gz", model=model)
    assert answer.code == 1
    assert "MNI152" in answer.err
    assert "flirt" in answer.err


def test_bad_arguments_are_refused_with_what_there_is(here, model_file, monkeypatch):
    write_scan(here / "a.nii.gz")
    wrong = {
        ("--outputs", "Foot"): f"has no output 'Foot'. It has: {LEFT.output}, {RIGHT.output}, {NOTHING}.",
        ("--outputs", ","): "No output is asked for",
        ("--layer", "relu9"): "There is no layer 'relu9'; this network has: conv1, relu1, pool1, conv2, relu2,",
        ("--layer", "dense1"): "has no spatial axes, so no mask can lie on it. Layers that have them: conv1,",
        ("--method", "magic"): "Unknown method 'magic'. There is: smocam, ",
        ("--solver", "fast"): "solver got 'fast'; input should be 'recommended', 'paper' or 'nonnegative'",
        ("--max-steps", "0"): "max_steps got 0; input should be greater than or equal to 1",
    }
    for arguments, message in wrong.items():
        answer = call("explain", "a.nii.gz", "--model", model_file, *arguments)
        assert (answer.code, message in answer.err) == (1, True), answer.err
    monkeypatch.setattr(models, "shipped", lambda: {"tiny": model_file})
    answer = explain("a.nii.gz", model="huge")
    assert (answer.code, "Unknown model 'huge'" in answer.err, "Those are: tiny." in answer.err) == (1, True, True)
    assert not (here / "jaxsal-results").exists()


def test_usage_errors_have_their_own_code(here):
    assert call("explain", "a.nii.gz").code == 2
    assert call("explain").code == 2
    assert call("explain", "a", "--model", "m", "--max-steps", "many").code == 2
    assert call("explode").code == 2


def test_bad_networks_are_refused_with_a_message(here, model_file, planted):
    write_scan(here / "a.nii.gz")
    cut = here / "cut.safetensors"
    cut.write_bytes(model_file.read_bytes()[:-100])
    answer = explain("a.nii.gz", model=cut)
    assert (answer.code, "is not a readable safetensors file" in answer.err) == (1, True)
    (here / "net.pth").write_bytes(b"\x80\x02}q\x00.")
    assert "is not a readable safetensors file" in explain("a.nii.gz", model="net.pth").err
    spec = planted.record.input.model_copy(update={"shape": (24, 24, 20)})
    other = zoo.save(here / "other.safetensors", planted.model, planted.record.model_copy(update={"input": spec}))
    assert "do not fit the recorded network: dense1.kernel has shape" in explain("a.nii.gz", model=other).err
    for command in ("layers", "explain"):
        answer = call(command, *(["a.nii.gz", "--model"] if command == "explain" else []), "none.safetensors")
        assert (answer.code, "neither a file or folder nor a network that comes with" in answer.err) == (1, True)


def test_folders_that_cannot_be_written_are_refused_before_the_work(here, model_file, monkeypatch):
    from jaxsal import explanation

    monkeypatch.setattr(explanation, "run", lambda *a, **k: pytest.fail("worked before it looked"))
    write_scan(here / "a.nii.gz")
    (here / "out").write_text("mine")
    answer = explain("a.nii.gz", "-o", "out", model=model_file)
    assert (answer.code, "out is a file, a folder is needed" in answer.err) == (1, True)
    assert (here / "out").read_text() == "mine"
    answer = explain("a.nii.gz", "-o", "/proc/results", model=model_file)
    assert (answer.code, "/proc/results cannot be read or written: No such file" in answer.err) == (1, True)
    (here / "bids").mkdir()
    (here / "bids" / "dataset_description.json").write_text("{}")
    answer = explain("a.nii.gz", "-o", "bids", model=model_file)
    assert (answer.code, "is the folder of another data set" in answer.err) == (1, True)


def test_file_names_with_markup_are_plain_text(here, model_file):
    write_scan(here / "[red]a.nii.gz")
    write_scan(here / "<b>&[bold]x.nii.gz")
    answer = explain("[red]a.nii.gz", "<b>&[bold]x.nii.gz", "-o", "out", model=model_file)
    assert answer.code == 0, answer.err
    assert "[red]a.nii.gz" in answer.out
    (report,) = (here / "out" / "b-bold-x").glob("*report.html")
    assert "&lt;b&gt;&amp;[bold]x.nii.gz" in report.read_text(encoding="utf-8")


def test_debug_shows_the_traceback(here, model_file):
    result = CliRunner().invoke(cli.app, ["explain", "none.nii.gz", "--model", str(model_file), "--debug"])
    assert isinstance(result.exception, FileNotFoundError)


def test_unexpected_errors_say_that_they_are(here, model_file, monkeypatch):
    from jaxsal import explanation

    def run(*arguments, **options):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(explanation, "run", run)
    write_scan(here / "a.nii.gz")
    answer = explain("a.nii.gz", model=model_file)
    assert (answer.code, answer.err) == (
        1, "Error: ZeroDivisionError: oh This was not expected. Run again with --debug and report what it shows."
    )  # fmt: skip


def test_layers_lists_where_masks_can_lie(model_file):
    answer = call("layers", model_file)
    assert answer.code == 0
    assert "relu2     relu     1 x 12 x 12 x 12 x 2  yes" in answer.out
    assert "Masks lie at 'relu2'" in answer.out


def test_models_lists_what_is_shipped(tmp_path, monkeypatch, model_file):
    network, record = zoo.load(model_file)
    suited = record.model_copy(update={"options": {"smocam": {"lam": 0.1}}})
    file = zoo.save(tmp_path / "tiny.safetensors", network, suited)
    monkeypatch.setattr(models, "shipped", lambda: {"tiny": file})
    answer = call("models")
    assert answer.code == 0
    for text in (
        "tiny",
        "24 x 24 x 24 voxels, native space",
        "smocam: lam 0.1",
        "Left-Structure (mm^3)",
        "Made by hand",
    ):
        assert text in answer.out
    monkeypatch.setattr(models, "shipped", dict)
    assert "None in this installation" in call("models").out


def test_demo_explains_the_default_image_with_the_default_network_both_replaced_here(here, monkeypatch, model_file):
    from jaxsal import data
    from jaxsal.data import Volume

    monkeypatch.setattr(models, "shipped", lambda: {"tiny": model_file})
    monkeypatch.setattr(data, "default_image", lambda: Volume.load(write_scan(here / "brain.nii.gz")))
    answer = call("demo")
    assert answer.code == 0, answer.err
    assert (here / "jaxsal-demo" / "MNI152_T1" / "MNI152_T1_report.html").is_file()
    assert (
        json.loads((here / "jaxsal-demo" / "MNI152_T1" / "MNI152_T1_run.json").read_text())["command"] == "jaxsal demo"
    )


def test_version():
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"jaxsal {jaxsal.__version__}\n")


def test_help_loads_nothing_heavy():
    heavy = ("jax", "flax", "nilearn", "nibabel", "matplotlib", "pandas", "numpy", "scipy")
    code = (
        "import sys, jaxsal.cli; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(jaxsal.cli.app, ['explain', '--help']); assert result.exit_code == 0; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(jaxsal.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
