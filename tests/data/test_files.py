import os
from pathlib import Path

import numpy as np
import pytest

from jaxsal.data import Volume, bids_stem, unique_stems, write_atomic, write_text_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_text_atomic(tmp_path / "run.json", "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of it")
        assert temporary.parent == tmp_path
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.json"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "a.txt", lambda temporary: None)
    assert names(tmp_path) == []


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "table.tsv"
    write_text_atomic(path, "long text\n" * 100)
    write_text_atomic(path, "µm³\n")
    assert path.read_bytes() == "µm³\n".encode()
    assert names(path.parent) == ["table.tsv"]


@pytest.mark.parametrize("name", ["map.nii.gz", "map.nii", "report.html", "noending", "x" * 200 + ".nii.gz"])
def test_temporary_names_keep_the_ending(tmp_path, name):
    seen = []
    write_atomic(tmp_path / name, lambda temporary: (seen.append(temporary.name), temporary.write_text("a")))
    assert seen[0].endswith("".join(Path(name).suffixes))
    assert seen[0].startswith(".")
    assert names(tmp_path) == [name]


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    import nibabel

    def full(self, path, *args, **kwargs):
        Path(path).write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel.Nifti1Image, "to_filename", full)
    with pytest.raises(OSError, match="No space"):
        Volume(np.ones((3, 4, 5)), np.eye(4)).save(tmp_path / "map.nii.gz")
    assert names(tmp_path) == []


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_output_folder_that_is_a_file(tmp_path, below):
    file = tmp_path / "results"
    file.write_text("")
    with pytest.raises(NotADirectoryError, match=r"results is a file, a folder is needed.*another output folder"):
        write_text_atomic(file / below / "a.txt", "")


def test_a_folder_in_the_place_of_the_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="give a file name"):
        write_text_atomic(tmp_path, "")


@pytest.mark.parametrize("link", ["same", "symbolic", "hard", "dotted"])
def test_an_input_is_never_overwritten(write, tmp_path, ramp, link):
    path = write(ramp)
    before = path.read_bytes()
    target = {"same": path, "dotted": tmp_path / "sub" / ".." / path.name}.get(link, tmp_path / "other.nii.gz")
    (tmp_path / "sub").mkdir()
    if link == "symbolic":
        target.symlink_to(path)
    if link == "hard":
        os.link(path, target)
    scan = Volume.load(path)
    for volume in (scan, scan.like(ramp * 0), scan.canonical(), Volume(ramp, scan.affine).on_grid_of(scan)):
        with pytest.raises(ValueError, match="would overwrite the input image"):
            volume.save(target)
    with pytest.raises(ValueError, match="would overwrite"):
        write_text_atomic(target, "", inputs=[path])
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["map.mgz", "map.png", "map"])
def test_maps_are_nifti(tmp_path, name):
    with pytest.raises(ValueError, match=r"name it \.nii or \.nii\.gz"):
        Volume(np.ones((3, 4, 5)), np.eye(4)).save(tmp_path / name)


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("sub-01_T1w.nii.gz", "sub-01_T1w"),
        ("/a/b/orig.mgz", "orig"),
        ("brain.v2.NII", "brain-v2"),
        ("Größe 3.nii.gz", "Gr-e-3"),
        ("../x/.nii.gz", "image"),
        ("a;rm -rf b.nii", "a-rm-rf-b"),
        ("脳.nii", "image-5537e773"),
        ("---.nii", "image-aa210a3b"),
    ],
)
def test_stems_are_safe(path, stem):
    assert bids_stem(path) == stem


@pytest.mark.parametrize(
    "paths",
    [
        ["a/T1.nii.gz", "b/T1.nii.gz"],
        ["T1.nii", "T1.nii.gz", "T1.mgz"],
        ["a/T1.nii", "A/t1.nii"],
        ["x/a/T1.nii", "y/a/T1.nii", "y/b/T1.nii", "other.nii"],
        ["same.nii", "same.nii"],
        ["a b.nii", "a-b.nii", "a-b-1.nii"],
        ["b/c.nii", "b_c.nii", "d/c.nii"],
        ["s 1/T1.nii", "s-1/T1.nii", "s-1_T1.nii"],
    ],
)
def test_results_of_two_images_never_share_a_name(paths):
    stems = unique_stems(paths)
    assert len({stem.casefold() for stem in stems}) == len(paths)
    assert all(bids_stem(stem) == stem for stem in stems)


def test_names_without_letters_are_told_apart_across_runs():
    found = {bids_stem(f"{name}.nii.gz") for name in ("張三", "李四", "Ωμέγα", "___")}
    assert len(found) == 4
    assert all(stem.startswith("image-") for stem in found)


def test_unique_stems_stay_plain():
    assert unique_stems(["a/one.nii", "b/two.nii.gz"]) == ("one", "two")
    assert unique_stems(["x/a/T1.nii", "y/a/T1.nii", "other.nii"]) == ("x_a_T1", "y_a_T1", "other")
    assert unique_stems([]) == ()
