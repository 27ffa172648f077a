"""Orthogonal cuts through a map on its scan."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsal.data import Volume

# the map's colours are warm and bright at once, so that they differ from a grey scan for everyone; weak values fade
_COLOURS = "autumn"
# of maps that are signed by nature: red and blue, strongest where they are pure; weak values fade to the scan
_SIGNED = "bwr"
# of masks that should have no values below zero, and do
_FLIPPED = "RdBu_r"
_SIZE = (9.0, 3.9)  # inches


def cuts_png(
    scan: Volume,
    saliency: Volume,
    peak: tuple[float, float, float] | None,
    title: str,
    dots_per_inch: int = 110,
    *,
    signed: bool = False,
    brightest: float = 100.0,
) -> bytes:
    """Three orthogonal cuts through a point, with a colour bar and left and right marked.

    Args:
        scan: background.
        saliency: on any grid; its weak values are drawn transparent.
        peak: where to cut, RAS millimetres; None, or a point outside the scan, is the largest value of the map, and
            the middle of the scan for an empty map.
        title: one line above.
        dots_per_inch: of the picture.
        signed: whether colours diverge from zero, symmetric about it, also where no value lies below; a map that has
            values below zero is drawn so in any case.
        brightest: percentile of the sizes of the map's values, zeros apart, that takes the strongest colour; what is
            larger takes it too.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a figure of its own: pyplot's list of figures and its backend stay as they are
    figure = Figure(figsize=_SIZE, dpi=dots_per_inch, facecolor="black")
    FigureCanvasAgg(figure)
    empty = not saliency.array.any()
    if empty:
        title = f"{title} · empty map"
    size = min(12.0, 12.0 * 95 / max(len(title), 1))
    figure.suptitle(title, color="white", fontsize=size, y=0.97)
    point = peak if peak is not None and _inside(scan, peak) else _largest(scan if empty else saliency, middle=empty)
    with warnings.catch_warnings():
        # nilearn has opinions on images that hold few different values; none of them concerns the reader
        warnings.simplefilter("ignore")
        _draw(figure, scan, None if empty else saliency, point, signed, brightest)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="black", metadata={"Software": "jaxsal", "Title": title})
    return buffer.getvalue()


def _draw(
    figure: Any,
    scan: Volume,
    saliency: Volume | None,
    point: tuple[float, float, float],
    signed: bool,
    brightest: float,
) -> None:
    import nibabel
    from nilearn import plotting

    scan = _cropped(scan) if scan.array.any() else scan
    background = nibabel.Nifti1Image(np.asarray(scan.array, np.float32), scan.affine)
    shared = {"cut_coords": point, "figure": figure, "axes": (0.01, 0.02, 0.97, 0.86), "black_bg": True}
    if saliency is None:
        plotting.plot_anat(background, colorbar=False, **shared)
        return
    saliency = _cropped(saliency)
    overlay = nibabel.Nifti1Image(np.asarray(saliency.array, np.float32), saliency.affine)
    strength = nibabel.Nifti1Image(np.abs(overlay.get_fdata(dtype=np.float32)), saliency.affine)
    colours = _SIGNED if signed else _FLIPPED if (saliency.array < 0).any() else _COLOURS
    signed, high = colours != _COLOURS, _strongest(saliency.array, brightest)
    plotting.plot_stat_map(
        overlay,
        bg_img=background,
        cmap=colours,
        vmin=-high if signed else 0.0,
        vmax=high,
        symmetric_cbar=signed,
        threshold=None,
        transparency=strength,
        transparency_range=[0.0, high],
        cbar_tick_format="%.2g",
        **shared,
    )


def _strongest(array: np.ndarray, brightest: float) -> float:
    sizes = np.abs(array)
    return float(sizes.max() if brightest == 100 else np.percentile(sizes[sizes > 0], brightest))


def _cropped(volume: Volume) -> Volume:
    """Without the empty margins, which would make the brain small in the picture and the picture slow."""
    shown = volume.array != 0
    low, box = [], []
    for axis in range(3):
        (found,) = np.nonzero(shown.any(axis=tuple({0, 1, 2} - {axis})))
        low.append(max(int(found[0]) - 1, 0))
        box.append(slice(low[axis], int(found[-1]) + 2))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return Volume(volume.array[tuple(box)], affine)


def _inside(scan: Volume, point: Sequence[float]) -> bool:
    voxel = (np.linalg.inv(scan.affine) @ [*point, 1.0])[:3]
    return bool(((voxel > -0.5) & (voxel < np.array(scan.shape) - 0.5)).all())


def _largest(volume: Volume, middle: bool) -> tuple[float, float, float]:
    array = np.abs(volume.array)
    voxel = [(n - 1) / 2 for n in volume.shape] if middle else np.unravel_index(int(array.argmax()), volume.shape)
    x, y, z = (volume.affine @ [*voxel, 1.0])[:3]
    return float(x), float(y), float(z)
