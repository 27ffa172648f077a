"""How much relevance there is at every layer, and where some is lost."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.attribution import composites
from jaxsal.attribution.fitting import Bounds, fitted, parted
from jaxsal.attribution.pulling import Choice, Start, Target, choose, score, seeds
from jaxsal.engine.rewire import observe, survey
from jaxsal.engine.sites import Composite, Site
from jaxsal.model import Model, as_pytree


class Conservation(NamedTuple):
    """Relevance at every site on its way from the output to the image. Printed, it is a table.

    Attributes:
        sites: from the image to the output.
        relevance: what came to the output of each site, shaped like it.
        map: what came to the image, shaped like it.
        total: ``[sites + 1, b]``, sums of these, the image's first.
        score: ``[b]``, what was explained.
    """

    sites: tuple[Site, ...]
    relevance: tuple[jax.Array, ...]
    map: jax.Array
    total: jax.Array
    score: jax.Array

    def __repr__(self) -> str:
        rows = [("", "image", "", self.total[0])]
        rows += [(str(s.index), s.kind, s.name, total) for s, total in zip(self.sites, self.total[1:], strict=True)]
        lines = [f"{'site':>5}  {'kind':<12}{'layer':<24}relevance of each image"]
        for index, kind, name, total in rows:
            lines.append(f"{index:>5}  {kind:<12}{name:<24}" + " ".join(f"{v:>10.4g}" for v in np.asarray(total)))
        lines.append(f"{'':>5}  {'score':<36}" + " ".join(f"{v:>10.4g}" for v in np.asarray(self.score)))
        return "\n".join(lines)


def conservation(
    model: Model,
    x: jax.Array,
    target: Target = None,
    *,
    composite: Composite | None = None,
    start: Start = "value",
) -> Conservation:
    """The relevance of every layer, and what it sums to.

    Where a sum changes from one site to the next, relevance was taken by a bias, lost to a stabiliser, or blown up
    where a residual sum nearly cancels. Where the network branches, each branch has its part: their sums add up.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, floating point.
        target: one output for all images, one for each, a function ``y[b, k] -> s[b]``, or None where there is one.
        composite: ``site -> rule``; None is :func:`jaxsal.composites.epsilon_plus`.
        start: ``"value"``, or ``"one"``.

    Raises:
        TypeError: if the model, the image or the target is of a wrong kind.
        ValueError: if the image or the network cannot be explained, or an output does not exist.
        NotImplementedError: if an operation of the network has no rule.

    Example:
        >>> def model(x):
        ...     return jax.nn.relu(x.reshape(len(x), -1) @ jnp.array([[2.0], [1.0]]) - 1.0)
        >>> report = conservation(model, jnp.array([[[3.0], [4.0]]]), composite=composites.epsilon(0.0))
        >>> [f"{total:.2f}" for total in report.total[:, 0]]  # the bias has taken -1
        ['10.00', '9.00', '9.00']
    """
    choice = choose(model, x, target)
    found = _conservation(as_pytree(model), x, choice, *parted(composite or composites.epsilon_plus(), x.dtype), start)
    return found._replace(sites=found.sites.value)  # type: ignore[attr-defined]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Told:
    """What is known when a program is compiled, among its results."""

    value: Any


@functools.partial(jax.jit, static_argnames=("composite", "start"))
def _conservation(
    model: Model, x: jax.Array, choice: Choice, composite: Any, bounds: Bounds | None, start: Start
) -> Conservation:
    composite = fitted(composite, bounds, model, x)
    found = survey(model, composite, x)
    # a statistic is no stage of the way, and may have no axis of images
    stages = tuple(site for site, _ in found.sites if site.kind != "statistic")
    offsets = {site.index: jnp.zeros_like(found.values[site.index]) for site in stages}
    y, back = jax.vjp(lambda x, offsets: observe(model, composite, x, offsets).output, x, offsets)
    image, at_sites = back(seeds(y, choice, start=start))
    relevance = tuple(at_sites[index] for index in sorted(at_sites))
    total = jnp.stack([r.reshape(len(x), -1).sum(1) for r in (image, *relevance)])
    told: Any = _Told(stages)
    return Conservation(told, relevance, image, total, score(y, choice))
