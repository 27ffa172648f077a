r"""Rules for integrals over [0, 1]: ``\int_0^1 h(t) dt ~ \sum_i w_i h(t_i)``, with weights that sum to 1.

A rule is any function ``steps -> Nodes`` in NumPy; ``steps`` is how often the gradient is taken. All rules here are
exact for a constant, so that every path integral is complete on a linear network.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Nodes(NamedTuple):
    """Where an integrand is taken, and how much it counts.

    Attributes:
        at: positions in [0, 1], ``[n]``.
        weights: ``[n]``, with sum 1.
    """

    at: np.ndarray
    weights: np.ndarray


Rule = Callable[[int], Nodes]


def gauss_legendre(steps: int) -> Nodes:
    """Gauss-Legendre: exact for polynomials of degree ``2 steps - 1``, the default.

    Example:
        >>> at, weights = gauss_legendre(2)
        >>> at.round(4).tolist(), weights.round(4).tolist()
        ([0.2113, 0.7887], [0.5, 0.5])
        >>> bool(np.isclose(weights @ at**3, 1 / 4))
        True
    """
    at, weights = np.polynomial.legendre.leggauss(steps)
    return Nodes((at + 1) / 2, weights / 2)


def midpoint(steps: int) -> Nodes:
    """Middles of equal intervals: exact for straight lines, and no point lies at an end.

    Example:
        >>> [part.tolist() for part in midpoint(2)]
        [[0.25, 0.75], [0.5, 0.5]]
    """
    return Nodes((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps))


def trapezoid(steps: int) -> Nodes:
    """Equally spaced from end to end, where the ends count half: exact for straight lines.

    Raises:
        ValueError: if there is only one step.

    Example:
        >>> [part.tolist() for part in trapezoid(3)]
        [[0.0, 0.5, 1.0], [0.25, 0.5, 0.25]]
    """
    if steps < 2:
        raise ValueError(f"The trapezoid rule got {steps} steps, at least 2 are needed: both ends.")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return Nodes(np.linspace(0, 1, steps), weights)


def left(steps: int) -> Nodes:
    """Left ends of equal intervals; the error falls with ``1 / steps`` only.

    Example:
        >>> [part.tolist() for part in left(2)]
        [[0.0, 0.5], [0.5, 0.5]]
    """
    return Nodes(np.arange(steps) / steps, np.full(steps, 1 / steps))


def right(steps: int) -> Nodes:
    """Right ends of equal intervals; the error falls with ``1 / steps`` only.

    Example:
        >>> [part.tolist() for part in right(2)]
        [[0.5, 1.0], [0.5, 0.5]]
    """
    return Nodes((np.arange(steps) + 1) / steps, np.full(steps, 1 / steps))


def checked_nodes(rule: Rule, steps: int) -> Nodes:
    """The nodes of a rule, as arrays in double precision.

    Raises:
        ValueError: if they are not positions in [0, 1] with as many weights that sum to 1.
    """
    at, weights = (np.asarray(part, np.float64) for part in rule(steps))
    if at.ndim != 1 or at.shape != weights.shape or not at.size:
        raise ValueError(
            f"The quadrature gives positions {at.shape} and weights {weights.shape}: [n] and [n] are needed."
        )
    if not (np.isfinite(weights).all() and ((at >= 0) & (at <= 1)).all()):
        raise ValueError("The quadrature gives positions outside of [0, 1] or weights that are not finite.")
    if abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"The weights of the quadrature sum to {weights.sum():.6g}: divide by that, or no map would be complete."
        )
    return Nodes(at, weights)
