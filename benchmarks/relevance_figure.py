"""Eight maps of one output of the shipped network, on the MNI152 brain: ``docs/figures/relevance.png``.

``python -m benchmarks.relevance_figure [FILE]``
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsal
from jaxsal import composites
from jaxsal.data import prepare
from jaxsal.data.template import default_image

OUTPUT = "left_lateral_ventricle"
# millimetres above the anterior commissure
LEVEL = 14.0

METHODS: Mapping[str, Callable[..., jax.Array]] = {
    "gradient": jaxsal.saliency,
    "DeconvNet": jaxsal.deconvnet,
    "guided backprop": jaxsal.guided_backprop,
    "DeepLIFT": jaxsal.deep_lift,
    "LRP epsilon": lambda *args: jaxsal.lrp(*args, composite=composites.epsilon()),
    "LRP epsilon-plus": jaxsal.lrp,
    "LRP epsilon-alpha2-beta1": lambda *args: jaxsal.lrp(*args, composite=composites.epsilon_alpha2_beta1()),
    "excitation backprop": jaxsal.excitation_backprop,
}


def main() -> None:
    """Make the maps and draw them."""
    loaded = jaxsal.load_model("morphometry-2mm")
    record = loaded.record
    spec = record.input
    scaling = spec.scaling
    x = jnp.asarray(prepare(default_image(), spec.shape, spec.affine, spec.channels, scaling.divide_by, scaling.clip))
    target = [output.name for output in record.outputs].index(OUTPUT)
    found = {name: np.asarray(method(loaded.model, x, target))[0, ..., 0] for name, method in METHODS.items()}
    affine = np.asarray(spec.affine)
    (level,) = np.rint((np.linalg.inv(affine) @ [0, 0, LEVEL, 1])[2:3]).astype(int)
    flipped = affine[0, 0] < 0
    draw(np.asarray(x)[0, ..., 0], found, level, flipped, sys.argv[1] if sys.argv[1:] else "docs/figures/relevance.png")


def draw(scan: np.ndarray, maps: Mapping[str, Any], level: int, flipped: bool, file: str) -> None:
    """One axial slice of every map, each on its own scale, white at 0; the scan's outline in grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.2), dpi=110, layout="constrained")
    axes = figure.subplots(2, 4)
    for axis, (name, map) in zip(axes.ravel(), maps.items(), strict=True):
        plane, behind = map[:, :, level].T, scan[:, :, level].T
        plane, behind = (a[:, ::-1] if flipped else a for a in (plane, behind))
        most = np.quantile(np.abs(plane), 0.998) or 1.0
        axis.imshow(plane, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", interpolation="nearest")
        axis.contour(behind, levels=[0.15, 0.75], colors="0.45", linewidths=0.5)
        axis.set_title(f"{name}\nscale {most:.1e}", fontsize=9)
        axis.set_axis_off()
    figure.suptitle(
        f"{OUTPUT.replace('_', ' ')}, MNI152 brain, axial at z = {LEVEL:g} mm, left on the left", fontsize=10
    )
    figure.savefig(file, metadata={"Software": "jaxsal"})


if __name__ == "__main__":
    main()
