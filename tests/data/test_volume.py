import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from jaxsal.data import Volume, prepare

SHAPE = (18, 22, 20)
AFFINE = np.array([[2.0, 0, 0, -17], [0, 2, 0, -25], [0, 0, 2, -13], [0, 0, 0, 1]])


def stored(array, affine, orientation):
    """The same image in another order and direction of axes."""
    return apply_orientation(array, orientation), affine @ inv_ornt_aff(orientation, array.shape)


def world(affine, index):
    return affine[:3, :3] @ np.asarray(index, float) + affine[:3, 3]


def peak(array):
    return np.unravel_index(int(np.argmax(array)), array.shape)


def test_a_marked_voxel_comes_back_to_its_place_exactly(orientation, write, tmp_path, ramp):
    brain = np.zeros(SHAPE, np.float32)
    brain[4:13, 5:16, 6:16] = ramp + 1
    mark = (5, 13, 8)
    brain[mark] = 5000.0
    path = write(*stored(brain, AFFINE, orientation))
    scan = Volume.load(path)
    marked = peak(scan.array)

    x = prepare(scan, SHAPE, AFFINE, divide_by="nothing")
    assert x.shape == (1, *SHAPE, 1)
    np.testing.assert_array_equal(x[0, ..., 0], brain)

    # a map that is not 0 outside the brain either: every voxel has to find its place
    on_model_grid = Volume(np.random.default_rng(1).random(SHAPE, np.float32) + 10 * x[0, ..., 0], AFFINE)
    written = on_model_grid.on_grid_of(scan).save(tmp_path / "map.nii.gz")
    original, image = nibabel.load(path), nibabel.load(written)
    assert image.shape == original.shape
    np.testing.assert_array_equal(image.affine, original.affine)
    assert nibabel.aff2axcodes(image.affine) == nibabel.aff2axcodes(original.affine)
    assert peak(image.get_fdata()) == marked
    # exact: the values are those of the map, moved and not interpolated
    np.testing.assert_array_equal(image.get_fdata(), stored(on_model_grid.array, AFFINE, orientation)[0])


def two_forms(path, sform, qform, codes=(1, 1)):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random(SHAPE, np.float32), AFFINE)
    image.set_sform(sform, codes[0])
    image.set_qform(qform, codes[1])
    image.to_filename(path)
    return path


def turned_by(degrees, start=AFFINE):
    """About the axis that leads upwards."""
    angle, turn = np.deg2rad(degrees), np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ start


@pytest.mark.parametrize(
    ("qform", "codes"), [(np.diag([-1.0, 1, 1, 1]) @ AFFINE, "LAS, the mirror image"), (turned_by(90), "ALS")]
)
def test_forms_that_contradict_each_other_are_refused(tmp_path, qform, codes):
    path = two_forms(tmp_path / "a.nii.gz", AFFINE, qform)
    message = rf"sform leads the axes to RAS, its qform to ({codes}), so left and right are uncertain.*fslorient -copy"
    with pytest.raises(ValueError, match=message):
        Volume.load(path)
    for valid in ((1, 0), (0, 1)):
        one = Volume.load(two_forms(tmp_path / "b.nii.gz", AFFINE, qform, valid))
        np.testing.assert_allclose(one.affine, AFFINE if valid[0] else qform, atol=1e-4)


@pytest.mark.parametrize("degrees", [0.5, 8])
def test_forms_that_differ_a_little_are_read(tmp_path, degrees):
    """A registration to a template changes the sform alone."""
    scan = Volume.load(two_forms(tmp_path / "a.nii.gz", turned_by(degrees), AFFINE))
    np.testing.assert_allclose(scan.affine, turned_by(degrees), atol=1e-4)


def test_forms_on_both_sides_of_45_degrees_are_read_when_they_agree_within_a_voxel(tmp_path):
    one, other = turned_by(44.8), turned_by(45.2)
    assert nibabel.aff2axcodes(one) != nibabel.aff2axcodes(other)
    np.testing.assert_allclose(Volume.load(two_forms(tmp_path / "a.nii.gz", one, other)).affine, one, atol=1e-4)


def test_a_marked_voxel_comes_back_within_a_voxel_when_resampled(orientation, write, tmp_path):
    turn = np.eye(4)
    angle = np.deg2rad(12)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    native = turn @ np.array([[1.3, 0, 0, -15], [0, 1.1, 0, -17], [0, 0, 1.7, -11], [0, 0, 0, 1]])
    scan_array = np.zeros((24, 34, 20), np.float32)
    mark = np.array([7, 20, 9])
    distance = np.stack(np.meshgrid(*map(np.arange, scan_array.shape), indexing="ij"), -1) - mark
    scan_array[:] = np.exp(-((distance * (1.3, 1.1, 1.7)) ** 2).sum(-1) / (2 * 3.0**2))
    scan = Volume.load(write(*stored(scan_array, native, orientation)))
    marked = peak(scan.array)

    x = prepare(scan, SHAPE, AFFINE, divide_by="nothing")
    there = peak(x[0, ..., 0])
    assert np.abs(world(AFFINE, there) - world(scan.affine, marked)).max() <= 1.0 + 1e-6  # half a voxel of 2 mm
    back = Volume(x[0, ..., 0], AFFINE).on_grid_of(scan)
    written = nibabel.load(back.save(tmp_path / "map.nii"))
    assert written.shape == scan.shape
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    assert np.abs(np.subtract(peak(written.get_fdata()), marked)).max() <= 1
    assert back.lattice_in(Volume(x[0, ..., 0], AFFINE)) is None  # this test is about interpolation


def test_left_stays_left(orientation, write, tmp_path):
    array = np.zeros(SHAPE, np.float32)
    array[3, 11, 10] = 1.0  # x = -11 mm, the left
    array[2:16, 4:18, 4:16] += 0.1
    scan = Volume.load(write(*stored(array, AFFINE, orientation)))
    assert scan.axcodes == nibabel.aff2axcodes(scan.affine)
    x = prepare(scan, SHAPE, AFFINE, divide_by="maximum")
    assert world(AFFINE, peak(x[0, ..., 0]))[0] == -11
    model_map = np.zeros(SHAPE, np.float32)
    model_map[3, 11, 10] = 1.0
    image = nibabel.load(Volume(model_map, AFFINE).on_grid_of(scan).save(tmp_path / "left.nii.gz"))
    voxel = peak(image.get_fdata())
    assert world(image.affine, voxel)[0] == -11
    axis = next(i for i, code in enumerate(nibabel.aff2axcodes(image.affine)) if code in "LR")
    towards_right = nibabel.aff2axcodes(image.affine)[axis] == "R"
    assert (voxel[axis] < image.shape[axis] / 2) == towards_right
    assert scan.canonical().axcodes == ("R", "A", "S")
    assert peak(scan.canonical().array) == (3, 11, 10)


def test_canonical_moves_voxels_and_affine_together(orientation, ramp):
    oblique = np.eye(4)
    oblique[:3, :3] = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(3).random((3, 3)))[0] * 1.5
    oblique[:3, :3] *= np.sign(np.diag(oblique[:3, :3]))
    volume = Volume(*stored(ramp, oblique, orientation))
    canonical = volume.canonical()
    assert canonical.axcodes == ("R", "A", "S")
    np.testing.assert_array_equal(canonical.array, ramp)
    np.testing.assert_allclose(canonical.affine, oblique, atol=1e-9)


def test_cropping_and_padding_is_exact(ramp):
    volume = Volume(ramp, AFFINE)
    other = AFFINE.copy()
    other[:3, 3] += (4.0, -6.0, 8.0)
    moved = volume.resample((6, 20, 7), other)
    expected = np.zeros((6, 20, 7), np.float32)
    expected[:6, 3:14, :6] = ramp[2:8, :, 4:10]
    np.testing.assert_array_equal(moved.array, expected)
    far = AFFINE.copy()
    far[:3, 3] += 500
    assert not volume.resample(SHAPE, far).array.any()


def test_affines_in_single_precision_still_share_their_points(ramp):
    volume = Volume(ramp, AFFINE)
    rounded = AFFINE.copy()
    rounded[:3] += 1e-6
    np.testing.assert_array_equal(volume.resample(ramp.shape, rounded).array, ramp)
    half = AFFINE.copy()
    half[0, 3] += 1.0
    assert not np.array_equal(volume.resample(ramp.shape, half).array, ramp)


def test_linear_interpolation_follows_the_affine():
    i = np.arange(30, dtype=np.float32)
    volume = Volume(np.broadcast_to(i[:, None, None], (30, 12, 12)).copy(), np.eye(4))
    fine = volume.resample((20, 12, 12), np.array([[0.5, 0, 0, 10.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_allclose(fine.array[:, 6, 6], 10.25 + 0.5 * np.arange(20), rtol=1e-5)


def test_nearest_keeps_labels(ramp):
    labels = Volume((ramp.astype(int) % 3 * 41).astype(np.float32), AFFINE)
    other = AFFINE @ np.diag([0.7, 0.8, 0.9, 1])
    assert set(np.unique(labels.resample((12, 12, 10), other, "nearest").array)) <= {0.0, 41.0, 82.0}


def test_a_map_of_zeros_and_ones_is_interpolated_without_a_warning():
    mask = np.zeros((10, 10, 10), np.float32)
    mask[3:7, 3:7, 3:7] = 1
    soft = Volume(mask, np.eye(4)).resample((20, 20, 20), np.diag([0.5, 0.5, 0.5, 1]))
    assert 0 < soft.array[5, 10, 10] < 1


def test_several_frames_keep_their_order(ramp):
    frames = np.stack([ramp, ramp[::-1], -ramp], -1)
    flip = AFFINE @ inv_ornt_aff(np.array([[0, -1], [1, 1], [2, 1]]), ramp.shape)
    moved = Volume(frames, AFFINE).resample(ramp.shape, flip)
    np.testing.assert_array_equal(moved.array, frames[::-1])
    np.testing.assert_array_equal(moved.frame(2).array, -ramp[::-1])
    finer = Volume(frames, AFFINE).resample((12, 12, 12), AFFINE @ np.diag([0.8, 0.8, 0.8, 1]))
    assert finer.array.shape == (12, 12, 12, 3)
    np.testing.assert_allclose(finer.array[..., 2], -finer.array[..., 0], rtol=1e-5)
    with pytest.raises(IndexError, match="3 frames"):
        moved.frame(3)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mgz", "scan.mgh", "SCAN.NII.GZ"])
def test_formats_that_are_read(name, write, ramp, tmp_path):
    if name.isupper():
        path = write(ramp, AFFINE).rename(tmp_path / name)
    else:
        path = write(ramp, AFFINE, name)
    volume = Volume.load(path)
    np.testing.assert_array_equal(volume.array, ramp)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.array.dtype == np.float32
    assert volume.oriented
    assert volume.name == str(path)
    image = nibabel.load(volume.like(ramp * 2).save(tmp_path / "out.nii.gz"))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(image.get_fdata(), ramp * 2)
    assert int(image.header["sform_code"]) > 0


def test_slope_and_intercept_are_applied(tmp_path, ramp):
    image = nibabel.Nifti1Image(ramp.astype(np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 10)
    image.to_filename(tmp_path / "scaled.nii")
    np.testing.assert_allclose(
        Volume.load(tmp_path / "scaled.nii").array, nibabel.load(tmp_path / "scaled.nii").get_fdata()
    )


def test_header_of_the_map(tmp_path, ramp):
    """Sform and qform differ, as after registration: both, with their codes, are the original's."""
    image = nibabel.Nifti1Image(ramp, None)
    sform, qform = AFFINE.copy(), np.diag([2.0, 2.0, 2.0, 1.0])
    sform[0, 1] = 0.3
    qform[:3, 3] = (5, 6, 7)
    image.set_sform(sform, 4)
    image.set_qform(qform, 1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = "Name of a person"
    image.to_filename(tmp_path / "scan.nii.gz")
    scan = Volume.load(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(scan.affine, sform, atol=1e-6)
    path = scan.like(ramp / 7).save(tmp_path / "out" / "deep" / "map.nii.gz", "Left-Lateral-Ventricle")
    header = nibabel.load(path).header
    assert header.get_data_dtype() == np.float32
    assert header.get_intent() == ("estimate", (), "Left-Lateral-Ven")
    assert int(header["intent_code"]) == 1001
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    np.testing.assert_allclose(header.get_sform(), sform, atol=1e-6)
    np.testing.assert_allclose(header.get_qform(), qform, atol=1e-6)
    assert header["descrip"].item() == b"Left-Lateral-Ventricle"
    np.testing.assert_allclose(nibabel.load(path).get_fdata(), ramp / 7, rtol=1e-6)


def test_both_forms_follow_a_change_of_grid(tmp_path, write, ramp):
    scan = Volume.load(write(ramp, AFFINE, sform=2, qform=1))
    turned = Volume.load(scan.resample((11, 9, 10), AFFINE[:, [1, 0, 2, 3]]).save(tmp_path / "turned.nii"))
    np.testing.assert_array_equal(turned.array, ramp.transpose(1, 0, 2))
    np.testing.assert_allclose(turned.header.get_sform(), AFFINE[:, [1, 0, 2, 3]], atol=1e-5)
    np.testing.assert_allclose(turned.header.get_qform(), AFFINE[:, [1, 0, 2, 3]], atol=1e-5)
    assert (int(turned.header["sform_code"]), int(turned.header["qform_code"])) == (2, 1)


def test_codes_of_zero_stay_zero(tmp_path, write, ramp):
    """A map must not claim an orientation that its scan does not have."""
    scan = Volume.load(write(ramp, AFFINE, sform=0, qform=0))
    assert not scan.oriented
    again = Volume.load(scan.like(ramp).save(tmp_path / "map.nii.gz"))
    assert not again.oriented
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-5)


def test_an_image_made_in_memory_is_written_with_its_affine(tmp_path, ramp):
    again = Volume.load(Volume(ramp, AFFINE).save(tmp_path / "a.nii"))
    np.testing.assert_array_equal(again.affine, AFFINE)
    np.testing.assert_array_equal(again.array, ramp)
    assert again.oriented


def test_saving_twice_gives_the_same_bytes(tmp_path, ramp):
    a, b = (Volume(ramp, AFFINE).save(tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert a == b
