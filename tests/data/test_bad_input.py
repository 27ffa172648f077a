"""Every message says what it got, what is needed, and how to mend it."""

import gzip
import logging
import shutil

import nibabel
import numpy as np
import pytest

from jaxsal.data import Volume, check_scan, check_space, prepare

SROWS = ("srow_x", "srow_y", "srow_z")
GOOD = np.random.default_rng(0).random((12, 13, 14)).astype(np.float32)


def rewrite_header(path, **fields):
    """A scan whose header another program has spoilt."""
    nibabel.Nifti1Image(GOOD, np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)


@pytest.mark.parametrize("number", [2.0, float("nan")])
def test_a_qform_that_is_no_rotation(tmp_path, number):
    rows = {row: np.eye(4)[i] for i, row in enumerate(SROWS)}
    rewrite_header(tmp_path / "a.nii", quatern_b=number, qform_code=1, sform_code=1, **rows)
    with pytest.raises(ValueError, match=r"a\.nii has a qform that is no rotation.*fslorient -copysform2qform"):
        Volume.load(tmp_path / "a.nii")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.nii\.gz, looked for in .*check the path"):
        Volume.load(tmp_path / "none.nii.gz")


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder, an image file is needed \(\.nii, .*\.mgz.*dcm2niix"):
        Volume.load(tmp_path)


@pytest.mark.parametrize("name", ["slice.dcm", "picture.png", "scan.img", "scan.nrrd", "scan", "scan.gz"])
def test_formats_that_are_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"is not read\. Formats read: \.nii, \.nii\.gz, \.mgz, \.mgh\. Convert"):
        Volume.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.mgh"])
def test_text_named_as_an_image(tmp_path, name):
    (tmp_path / name).write_text("<html>404 not found</html>" * 100)
    with pytest.raises(ValueError, match=r"is no such image: its content starts with .*error page"):
        Volume.load(tmp_path / name)


def test_text_in_a_compressed_file(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no image at all " * 100))
    with pytest.raises(
        ValueError, match=r"a\.nii\.gz is named \.nii\.gz but is no such image: its content starts with b'no i'"
    ):
        Volume.load(tmp_path / "a.nii.gz")


def test_empty_file(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(ValueError, match=r"is empty \(0 bytes\): copy or download it again"):
        Volume.load(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mgz", "a.mgh"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated_file(write, name, kept):
    path = write(GOOD, name=name)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"truncated or damaged \(\d+ bytes on disk.*Copy, download or write it again"):
        Volume.load(path)


def test_damaged_in_the_middle(write):
    path = write(GOOD)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        Volume.load(path)


@pytest.mark.parametrize(
    ("is_", "named"), [("a.nii.gz", "b.nii"), ("a.nii", "b.nii.gz"), ("a.mgz", "b.mgh"), ("a.mgh", "b.mgz")]
)
def test_mislabelled(write, tmp_path, is_, named):
    shutil.copy(write(GOOD, name=is_), tmp_path / named)
    ending = is_[1:]
    with pytest.raises(ValueError, match=rf"compressed.*: rename it to end in \{ending}\."):
        Volume.load(tmp_path / named)


@pytest.mark.parametrize("shape", [(20, 30), (4, 5, 6, 1, 3), (4, 5, 6, 2, 2)])
def test_rank_of_the_file(write, shape):
    path = write(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=rf"is {len(shape)}-D with shape .*, a 3-D scan is needed"):
        Volume.load(path)


def test_one_frame_is_a_scan_and_several_are_not(write):
    spec = {"shape": GOOD.shape, "affine": np.diag([2.0, 2, 2, 1])}
    single = prepare(Volume.load(write(GOOD[..., None])), **spec)
    np.testing.assert_array_equal(single, prepare(Volume.load(write(GOOD)), **spec))
    series = Volume.load(write(np.stack([GOOD] * 5, -1)))
    for check in (check_scan, lambda v: prepare(v, **spec), lambda v: check_space(v, "native")):
        with pytest.raises(ValueError, match=r"has 5 frames .* one 3-D scan is needed: take one with Volume\.frame"):
            check(series)
    np.testing.assert_array_equal(prepare(series.frame(3), **spec), single)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(write, value):
    array = GOOD.copy()
    array[2:4, 5, 6:9] = value
    path = write(array)
    with pytest.raises(ValueError, match=rf"{path} holds 6 NaN or infinite voxels of {GOOD.size}: repair it"):
        Volume.load(path)
    with pytest.raises(ValueError, match="6 NaN or infinite"):
        check_scan(Volume(array, np.eye(4)))


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant(write, value):
    volume = Volume.load(write(np.full((12, 12, 12), value, np.float32)))
    with pytest.raises(ValueError, match=rf"is {value:g} in every voxel, there is nothing to see in it: check"):
        prepare(volume, (12, 12, 12), volume.affine)


SINGULAR = np.diag([2.0, 2.0, 0.0, 1.0])
PARALLEL = np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [SINGULAR, PARALLEL, np.zeros((4, 4))], ids=["flat", "parallel", "zero"])
def test_affine_that_cannot_be_inverted(tmp_path, affine):
    with pytest.raises(ValueError, match=r"cannot be inverted .* or copy the header of a scan"):
        Volume(GOOD, affine)
    rewrite_header(tmp_path / "a.nii", **{name: affine[i] for i, name in enumerate(SROWS)}, sform_code=1)
    with pytest.raises(ValueError, match=r"a\.nii has the affine .*cannot be inverted"):
        Volume.load(tmp_path / "a.nii")


def test_affine_with_nan(tmp_path):
    affine = np.diag([2.0, np.nan, 2.0, 1.0])
    with pytest.raises(ValueError, match=r"4 x 4 finite numbers are needed: its header is damaged"):
        Volume(GOOD, affine)
    rewrite_header(tmp_path / "a.nii", sform_code=1, srow_y=np.nan)
    with pytest.raises(ValueError, match=r"a\.nii has the affine .*finite numbers are needed"):
        Volume.load(tmp_path / "a.nii")
    with pytest.raises(ValueError, match="4 x 4"):
        Volume(GOOD, np.eye(3))


@pytest.mark.parametrize("size", [0.002, 35.0])
def test_absurd_voxel_sizes(write, size):
    volume = Volume.load(write(GOOD, np.diag([size, 1, 1, 1])))
    with pytest.raises(ValueError, match=rf"has voxels of {size:.3g} x 1 x 1 mm, between 0\.1 and 20 mm are expected"):
        check_scan(volume)


def test_no_orientation(write):
    volume = Volume.load(write(GOOD, np.diag([6.0, 6, 6, 1]), sform=0, qform=0))
    with pytest.raises(
        ValueError, match=r"no orientation.*codes are both 0.*left and right.*fslorient -setsformcode 4"
    ):
        check_space(volume, "MNI152")
    assert check_space(volume, "native").dice is None


def test_complex_numbers(write):
    with pytest.raises(
        ValueError, match=r"holds complex numbers \(complex64\), real ones are needed: save the magnitude"
    ):
        Volume.load(write(GOOD.astype(np.complex64)))
    with pytest.raises(TypeError, match="real numbers are needed"):
        Volume(GOOD.astype(np.complex64), np.eye(4))
    with pytest.raises(TypeError, match="real numbers are needed"):
        Volume(np.full((2, 2, 2), "a"), np.eye(4))


def test_colour(write):
    colour = np.zeros(GOOD.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ValueError, match=r"is a colour image \(R, G, B in each voxel\), one number"):
        Volume.load(write(colour))


def test_arrays_of_another_grid_or_rank():
    volume = Volume(GOOD, np.eye(4))
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) does not lie on the grid \(12, 13, 14\).*on_grid_of"):
        volume.like(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match=r"\[x, y, z\] or \[x, y, z, t\] is needed"):
        Volume(GOOD[0], np.eye(4))
    with pytest.raises(ValueError, match="three positive numbers"):
        volume.resample((3, 3), np.eye(4))
    with pytest.raises(ValueError, match="cannot be inverted"):
        volume.resample((3, 3, 3), SINGULAR)


def test_network_of_another_kind():
    volume = Volume(GOOD, np.eye(4))
    with pytest.raises(ValueError, match=r"images of shape \(64, 64\) without a place in space"):
        prepare(volume, (64, 64), None)
    with pytest.raises(ValueError, match=r"expects 3 channels, .* gives 1"):
        prepare(volume, GOOD.shape, np.eye(4), channels=3)


def test_outside_the_field_of_view():
    far = np.eye(4)
    far[0, 3] = 300
    with pytest.raises(ValueError, match=r"Nothing of .* lies in the network's field of view.*x 300 to 311"):
        prepare(Volume(GOOD, far), GOOD.shape, np.eye(4))


def test_one_slice_is_not_a_scan():
    with pytest.raises(ValueError, match=r"field of view of 12 x 13 x 1 mm .* give the whole 3-D scan"):
        check_space(Volume(GOOD[..., :1], np.eye(4)), "native")
    with pytest.raises(ValueError, match="MNI152 or native"):
        check_space(Volume(GOOD, np.eye(4)), "Talairach")


def test_doubtful_headers_are_read_without_noise(tmp_path, capfd, caplog):
    """Nibabel would log to the terminal; the image is fine."""
    rewrite_header(tmp_path / "a.nii", pixdim=(5, -1, 1, 0, 1, 1, 1, 1), bitpix=7)
    with caplog.at_level(logging.DEBUG):
        np.testing.assert_array_equal(Volume.load(tmp_path / "a.nii").array, GOOD)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
