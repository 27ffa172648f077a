"""Numbers as people read them."""

import math


def quantity(value: float, unit: str = "1") -> str:
    """A number with four significant digits and its unit, for people.

    Example:
        >>> quantity(25613.2, "mm^3"), quantity(0.0123456), quantity(float("nan"))
        ('25613 mm³', '0.01235', 'n/a')
    """
    if not math.isfinite(value):
        return "n/a"
    # large numbers keep all their digits: 25613, not 2.561e+04
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
    return text if unit == "1" else f"{text} {unit.replace('^3', '³').replace('^2', '²')}"


def share(value: float) -> str:
    """A share as a percentage, for people; what is not finite is 'n/a'.

    Example:
        >>> share(0.983), share(-0.001), share(float("nan"))
        ('98 %', '0 %', 'n/a')
    """
    return f"{round(100 * value)} %" if math.isfinite(value) else "n/a"
