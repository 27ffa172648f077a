"""Functions with values filled in, equal when function and values are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core


class Applied(NamedTuple):
    """A function whose first arguments are given.

    Equal by value, unlike a closure: two solvers built alike are one static argument of ``jax.jit`` and compile
    once. With a traced value it still works, it only has no hash.

    Attributes:
        fn: a function of a module.
        given: its first arguments.

    Example:
        >>> Applied(max, (1, 2))(3), Applied(max, (1,)) == Applied(max, (1,))
        (3, True)
    """

    fn: Callable[..., Any]
    given: tuple[Any, ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it with the remaining arguments."""
        return self.fn(*self.given, *args, **kwargs)


def concrete(value: Any) -> Any:
    """A number as Python's own, so that it has a hash; a traced one as it is."""
    return value if isinstance(value, jax.core.Tracer) or not hasattr(value, "item") else value.item()
