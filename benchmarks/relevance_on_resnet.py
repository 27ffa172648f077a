"""What residual sums that nearly cancel do to relevance: a ResNet-50, rule by rule, stage by stage.

``python -m benchmarks.relevance_on_resnet``. Random weights, BatchNorm statistics those of noise, smooth random images
of 64 x 64, the largest output of each explained, single precision. Where the absolute relevance of a layer is many
times the output's value, most of it is noise of opposite signs.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal import composites, conservation, rules
from tests.attribution.real_networks import resnet50, smooth_noise

SUMS = {
    "in_proportion()": rules.in_proportion(),
    "in_proportion(1.0)": rules.in_proportion(1.0),
    "by_magnitude()": rules.by_magnitude(),
}
COMPOSITES = {
    "epsilon()": composites.epsilon(),
    "epsilon(bias=False)": composites.epsilon(bias=False),
    "gamma()": composites.gamma(),
    "epsilon_plus()": composites.epsilon_plus(),
    "z_plus(bias=False)": composites.z_plus(bias=False),
}
STAGES = ("layer1_2", "layer2_3", "layer3_5", "layer4_2")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64, help="channels of the first convolution")
    parser.add_argument("--images", type=int, default=4)
    asked = parser.parse_args()
    model = resnet50(width=asked.width)
    x = smooth_noise(0, asked.images)
    target = jax.jit(model)(x).argmax(1)
    print("| composite | residual sums | " + " | ".join(STAGES) + " | image | sum of the map / output |")
    print("|---|---|" + "---:|" * (len(STAGES) + 2))
    for name, composite in COMPOSITES.items():
        for way, rule in SUMS.items():
            report = conservation(model, x, target, composite=dataclasses.replace(composite, sum=rule))
            size = np.abs(np.asarray(report.score))
            sums = [i for i, site in enumerate(report.sites) if site.kind == "sum"]
            # the last sum of each stage is the value that the next one starts from
            ends = [sums[i] for i in np.cumsum([3, 4, 6, 3]) - 1]
            layers = [np.asarray(report.relevance[i]) for i in ends] + [np.asarray(report.map)]
            ratios = [np.median(np.abs(r).reshape(len(x), -1).sum(1) / size) for r in layers]
            kept = np.median(np.asarray(report.total[0]) / np.asarray(report.score))
            cells = " | ".join(_short(v) for v in (*ratios, kept))
            print(f"| `{name}` | `{way}` | {cells} |", flush=True)
            jax.clear_caches()


def _short(value: float) -> str:
    return f"{value:.3g}" if jnp.isfinite(value) else "overflow"


if __name__ == "__main__":
    main()
