"""What a mask puts where it deletes: a constant, noise, or less and less focus.

Every fill keeps the image where the mask is 1 and deletes it where the mask is 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from jaxsal.masks.separable import along_axes, gaussian
from jaxsal.optim.applied import Applied


def _as_it_is(x: Any) -> Any:
    return x


class Fill(NamedTuple):
    """A way to delete parts of an image.

    Attributes:
        prepare: ``x[b, *space, c] -> state``, a pytree of arrays that lead with ``b``; done once, and held for all
            images together.
        apply: ``(state, mask[*space], key) -> [*space, c]`` for one image, its expanded state and one mask in [0, 1];
            differentiable in the mask, and the image itself where the mask is 1.
        random: whether ``apply`` uses its key.
        expand: ``state -> state`` of one image, compiled; held only for the images that are worked on.
    """

    prepare: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array, jax.Array], jax.Array]
    random: bool = False
    expand: Callable[[Any], Any] = _as_it_is


def constant(value: Any = 0.0) -> Fill:
    """Cross-fade to a constant or to an image of one's own, ``m x + (1 - m) mu``.

    Args:
        value: mu: a number, one per channel, or an image ``[*space, c]``, such as the mean of a control group.

    Example:
        >>> fill = constant(2.0)
        >>> state = fill.prepare(jnp.ones((1, 3, 1)))
        >>> fill.apply(jax.tree.map(lambda a: a[0], state), jnp.array([0.0, 0.5, 1.0]), None).tolist()
        [[2.0], [1.5], [1.0]]
    """
    return Fill(Applied(_with_constant, (value,)), _crossfade)


def noise(mean: Any = 0.0, std: float = 1.0) -> Fill:
    """Cross-fade to Gaussian noise, ``m x + (1 - m) eta``, drawn anew at every step.

    New noise at every step keeps the mask from fitting one draw of it.

    Args:
        mean: of the noise, a number or one per channel, in the image's units.
        std: its standard deviation.

    Raises:
        ValueError: if ``std`` is negative or not finite.
    """
    _nonnegative("noise", std=std)
    return Fill(Applied(_with_constant, (mean,)), Applied(_noise, (float(std),)), random=True)


def blur(sigma: float = 10.0, levels: int = 16) -> Fill:
    r"""Blur that grows as the mask falls, ``int g_{sigma (1 - m(u))}(v - u) x(v) dv``.

    The image is blurred once with each of ``levels`` widths from 0 to ``sigma``. Blurring is diffusion, which is smooth
    in the variance: between two widths the voxels are interpolated linearly in it. The slope is therefore 0 at
    ``m = 1``, as that of the formula: start such masks below 1.

    Args:
        sigma: standard deviation where ``m = 0``, in voxels.
        levels: how many widths; each costs one copy of every image that is worked on.

    Raises:
        ValueError: if ``sigma`` is not positive or there are fewer than two levels.

    Reference:
        Fong and Vedaldi, ICCV 2017, https://doi.org/10.1109/ICCV.2017.371, with the mask's direction turned so that
        1 keeps in all fills.
    """
    return _levels(sigma, levels, 2, "nearest")


def pyramid(sigma: float = 20.0, levels: int = 8) -> Fill:
    """Blur as in extremal perturbations: widths ``sigma (1 - l / (levels - 1))``, interpolated linearly in the mask.

    Beyond the image there are zeros. Unlike that of :func:`blur`, its slope at ``m = 1`` is not 0.

    Raises:
        ValueError: if ``sigma`` is not positive or there are fewer than two levels.

    Reference:
        Fong, Patrick and Vedaldi, ICCV 2019, https://doi.org/10.1109/ICCV.2019.00304
    """
    return _levels(sigma, levels, 1, "constant")


def crossfade(sigma: float = 10.0, *, radius: int | None = None) -> Fill:
    """Cross-fade to one blurred image, ``m x + (1 - m) g_sigma * x``, as in Fong's code.

    Args:
        sigma: standard deviation of the blur in voxels.
        radius: where its kernel is cut, in voxels; None is four standard deviations.

    Raises:
        ValueError: if ``sigma`` is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"crossfade got sigma={sigma}, a number of voxels above 0 is needed.")
    return Fill(Applied(_with_blurred, (float(sigma), radius)), _crossfade)


def median(size: int = 11) -> Fill:
    """Cross-fade to the median of ``size`` voxels along every axis; in 3-D it takes its time.

    Raises:
        ValueError: if ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"median got {size} voxels, at least 1 is needed.")
    return Fill(Applied(_with_median, (size,)), _crossfade)


def named_fill(fill: str | Fill) -> Fill:
    """A fill by its name, ``"blur"``, ``"noise"`` or ``"constant"``, or the fill itself.

    Raises:
        ValueError: if there is none of that name.
    """
    if isinstance(fill, Fill):
        return fill
    named = {"blur": blur, "noise": noise, "constant": constant}
    if fill not in named:
        raise ValueError(f"fill got {fill!r}: give one of {', '.join(named)}, or a Fill such as fills.blur(sigma=5).")
    return named[fill]()


def _with_constant(value: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    shape, image = np.shape(value), x.shape[1:]
    if len(shape) > len(image) or any(n not in (1, m) for n, m in zip(shape[::-1], image[::-1], strict=False)):
        raise ValueError(
            f"The fill has shape {shape}: give a number, one per channel ({x.shape[-1]}), or an image of shape "
            f"{x.shape[1:]}."
        )
    if not np.isfinite(np.asarray(value, np.float64)).all():
        raise ValueError("The fill holds NaN or infinite values: repair it first.")
    # a number stays a number: only an image is as large as one
    mu = jnp.asarray(value, x.dtype).reshape((1,) * (x.ndim - len(shape)) + shape)
    return x, jnp.broadcast_to(mu, (len(x), *mu.shape[1:]))


def _with_blurred(sigma: float, radius: int | None, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x, jax.lax.map(lambda image: _blurred(image, sigma, radius=radius), x)


def _with_median(size: int, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    window = (1, *(size,) * (x.ndim - 2), 1)
    return x, jnp.asarray(ndimage.median_filter(np.asarray(x), window, mode="nearest"))


def _crossfade(state: tuple[jax.Array, jax.Array], mask: jax.Array, key: jax.Array) -> jax.Array:
    x, other = state
    mask = mask[..., None]
    return mask * x + (1 - mask) * other


def _noise(std: float, state: tuple[jax.Array, jax.Array], mask: jax.Array, key: jax.Array) -> jax.Array:
    x, mean = state
    drawn = jax.random.normal(key, x.shape, x.dtype)
    return _crossfade((x, mean + jnp.asarray(std, x.dtype) * drawn), mask, key)


def _levels(sigma: float, levels: int, power: int, mode: str) -> Fill:
    if not (np.isfinite(sigma) and sigma > 0) or levels < 2:
        raise ValueError(f"A blur got sigma={sigma} and {levels} levels; a width above 0 and two levels are needed.")
    expand = Applied(_levels_of, (float(sigma), levels, mode))
    return Fill(_as_it_is, Applied(_between_levels, (power,)), expand=expand)


def _levels_of(sigma: float, levels: int, mode: str, image: jax.Array) -> jax.Array:
    """One image at widths from 0 to sigma, ``[levels, *space, c]``."""
    widths = sigma * np.linspace(0, 1, levels)
    return jnp.stack([_blurred(image, width, mode=mode) for width in widths])


def _between_levels(power: int, state: jax.Array, mask: jax.Array, key: jax.Array) -> jax.Array:
    """Linear interpolation in (width / sigma) ** power."""
    at = (np.linspace(0, 1, len(state)) ** power).tolist()  # plain numbers keep the image's dtype
    position = (1 - mask) ** power

    # a sum over all levels with hat functions as weights: no gather, so that its gradient is no scatter
    out = jnp.zeros_like(state[0])
    for level, here in enumerate(at):
        below = (position - at[level - 1]) / (here - at[level - 1]) if level else jnp.ones_like(position)
        above = (at[level + 1] - position) / (at[level + 1] - here) if level + 1 < len(at) else jnp.ones_like(position)
        weight = jnp.clip(jnp.minimum(below, above), 0, 1)
        out = out + weight[..., None] * state[level]
    return out


def _blurred(image: jax.Array, sigma: float, *, radius: int | None = None, mode: str = "nearest") -> jax.Array:
    return along_axes(image, [gaussian(size, sigma, radius=radius, mode=mode) for size in image.shape[:-1]])


def _nonnegative(name: str, **values: float) -> None:
    for argument, value in values.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} got {argument}={value}, a finite number of at least 0 is needed.")
