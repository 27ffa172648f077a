"""A tiny network of which it is known where it looks, and scans for it."""

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import pytest
from flax import nnx

import jaxsal
from jaxsal import zoo

SHAPE = (24, 24, 24)
AFFINE = np.array([[4.0, 0, 0, -40], [0, 4.0, 0, -52], [0, 0, 4.0, -44], [0, 0, 0, 1]])
BLOCKS = ((2, 3, 1, True, 2, 2), (2, 3, 1, True, 2, 2))


class Structure(NamedTuple):
    """What one output of the planted network measures: one voxel of its last grid, 4 x 4 x 4 voxels of the scan."""

    output: str
    voxel: tuple[int, int, int]

    @property
    def centre(self) -> np.ndarray:
        """In RAS millimetres."""
        return AFFINE[:3, :3] @ (4 * np.array(self.voxel) + 1.5) + AFFINE[:3, 3]


LEFT = Structure("Left-Structure", (1, 4, 1))
RIGHT = Structure('Right <Structure> & "co"', (4, 2, 3))
NOTHING = "Nothing"


def planted_network() -> zoo.LoadedModel:
    """Two outputs that see one place each, and one that sees nothing."""
    config = {"blocks": BLOCKS, "dense": (4, 2)}
    model = zoo.MorphometryVGG(3, shape=SHAPE, **config, rngs=nnx.Rngs(0))
    model.eval()
    for conv in (model.conv1, model.conv2):
        kernel = np.zeros(conv.kernel.get_value().shape, np.float32)
        kernel[1, 1, 1] = np.eye(*kernel.shape[3:])
        conv.kernel.set_value(nnx.Param(kernel).get_value())
    dense = np.zeros((6, 6, 6, 2, 4), np.float32)
    dense[(*LEFT.voxel, 0, 0)] = 1
    dense[(*RIGHT.voxel, 0, 1)] = 1
    model.dense1.kernel.set_value(dense.reshape(432, 4))
    model.dense2.kernel.set_value(np.eye(4, 2, dtype=np.float32))
    model.output.kernel.set_value(np.array([[1000, 0, 0], [0, 2, 0]], np.float32))
    model.output.bias.set_value(np.array([0, 0, 5], np.float32))
    record = zoo.ModelRecord(
        name="planted",
        architecture="MorphometryVGG",
        config={"blocks": [list(block) for block in BLOCKS], "dense": [4, 2]},
        input=zoo.InputSpec(shape=SHAPE, affine=AFFINE.tolist(), scaling=zoo.Scaling(divide_by="nothing")),
        outputs=(
            zoo.Output(name=LEFT.output, unit="mm^3", sigma=100.0, structure="a place on the left"),
            zoo.Output(name=RIGHT.output, sigma=0.2),
            zoo.Output(name=NOTHING, unit="years", sigma=1.0),
        ),
        layer="relu2",
        description="Made by hand & <b>not</b> trained.\n\nOf no use to anybody.",
        licence="Apache-2.0",
        credits=("Nobody <nobody@example.org>",),
    )
    return zoo.LoadedModel(model, record)


@pytest.fixture(scope="session")
def planted() -> zoo.LoadedModel:
    return planted_network()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, planted: zoo.LoadedModel) -> Path:
    return zoo.save(tmp_path_factory.mktemp("model") / "planted.safetensors", *planted)


def scan_array() -> np.ndarray:
    """Positive texture on the network's grid."""
    return np.random.default_rng(0).uniform(0.8, 1.2, SHAPE).astype(np.float32)


def write_scan(path: Path, order: str = "RAS", array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    """The scan, its axes stored in the given order, by nibabel alone."""
    image = nibabel.Nifti1Image(scan_array() if array is None else array, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(order))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.as_reoriented(turn).to_filename(path)
    return path


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scan(tmp_path_factory.mktemp("Jane Doe") / "sub-01_T1w.nii.gz", "LPS")


@pytest.fixture(scope="session")
def explanation(scan: Path, model_file: Path) -> jaxsal.Explanation:
    return jaxsal.explain(scan, model_file, max_steps=400)
