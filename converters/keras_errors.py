"""What can be wrong with a Keras model's file, told in one way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


class KerasError(ValueError):
    """A file, or a part of one, that is no Keras model; the message says what is and how to mend it."""


@contextmanager
def told(where: str | os.PathLike) -> Iterator[None]:
    """Every way in which a damaged file can fail, as one error that names it.

    What is told already, layers without a rule and packages that are not installed go through as they are.

    Args:
        where: the file, or the part of it, that is read.

    Raises:
        KerasError: for any other error, which it quotes.

    Example:
        >>> try:
        ...     with told("a.keras"):
        ...         {}["config"]
        ... except ValueError as error:
        ...     print(error)
        a.keras cannot be read as a Keras model (KeyError: 'config'). It is damaged, cut off ...
    """
    try:
        yield
    except (KerasError, NotImplementedError, ImportError):
        raise
    except Exception as error:  # bytes at random can fail anywhere, in zipfile, HDF5, JSON or NumPy
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise KerasError(
            f"{where} cannot be read as a Keras model ({what}). It is damaged, cut off or something else: save the "
            "whole model again, model.save('model.keras') or tensorflowjs_converter, and copy all of it."
        ) from error
