"""Images in space: reading, writing, grids, intensities, and whether a scan lies where it should."""

from jaxsal.data.files import bids_stem, unique_stems, write_atomic, write_text_atomic
from jaxsal.data.prepare import check_scan, prepare, scale_intensities
from jaxsal.data.space import SpaceCheck, SpaceError, check_space
from jaxsal.data.template import default_image
from jaxsal.data.volume import Volume

__all__ = [
    "SpaceCheck",
    "SpaceError",
    "Volume",
    "bids_stem",
    "check_scan",
    "check_space",
    "default_image",
    "prepare",
    "scale_intensities",
    "unique_stems",
    "write_atomic",
    "write_text_atomic",
]
