"""The MNI152 brain that nilearn carries: no download, no network connection."""

import functools
from typing import NamedTuple

import numpy as np

from jaxsal.data.volume import Volume


class Template(NamedTuple):
    """An average brain in space.

    Attributes:
        intensity: ``[*space]`` float32, 0 outside the brain.
        inside: ``[*space]`` bool, where the brain is.
        affine: 4 x 4, voxel indices to RAS millimetres.
    """

    intensity: np.ndarray
    inside: np.ndarray
    affine: np.ndarray


def default_image() -> Volume:
    """The MNI152 T1 average brain, without skull, at 1 mm.

    ICBM 152 non-linear symmetric 2009a, as nilearn packs it. The header's sform says MNI152 space, RAS.

    Returns:
        ``[197, 233, 189]`` float32, intensities 0 to 1, 0 outside the brain.

    Reference:
        Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54, 2011,
        doi:10.1016/j.neuroimage.2010.07.033.

    Example:
        >>> brain = default_image()
        >>> brain.shape, brain.axcodes, brain.zooms
        ((197, 233, 189), ('R', 'A', 'S'), (1.0, 1.0, 1.0))
    """
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    brain = np.where(np.asarray(mask.dataobj) > 0, np.asarray(image.dataobj, dtype=np.float32), np.float32(0))
    header = image.header.copy()
    header["sform_code"] = 4  # NIfTI's code for MNI152 coordinates
    return Volume(np.maximum(brain, 0), image.affine, header)


@functools.cache
def brain_template(margin: int = 20) -> Template:
    """The MNI152 brain at 2 mm, within a margin of air.

    Args:
        margin: voxels added on each side, so that what lies outside the template's own box is seen too.

    Returns:
        Template of ``[99, 117, 95]`` voxels and twice the margin.
    """
    from nilearn.datasets import load_mni152_brain_mask

    mask = load_mni152_brain_mask(resolution=2)
    affine = np.array(mask.affine, dtype=float)
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, float(margin))
    inside = np.pad(np.asarray(mask.dataobj) > 0, margin)
    template = Template(default_image().resample(inside.shape, affine).array * inside, inside, affine)
    for array in template:
        array.flags.writeable = False  # it is kept for the next scan
    return template
