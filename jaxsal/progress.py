"""Progress that people see, as plain functions."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol


class Meter(Protocol):
    """Something that is told how far the work is."""

    def __call__(self, done: float, total: float, text: str, /) -> None:
        """Report ``done`` of ``total`` with a few words."""


def silent(done: float, total: float, text: str, /) -> None:
    """Show nothing."""


@contextlib.contextmanager
def bar(description: str) -> Iterator[Meter]:
    """A progress bar on standard error, also in notebooks.

    Args:
        description: what is being done.

    Yields:
        A meter that is valid inside the ``with``.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=not _seen(console)) as progress:
        task = progress.add_task(description, total=None, text="")

        def meter(done: float, total: float, text: str, /) -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield meter


@contextlib.contextmanager
def reporting(progress: Meter | None, description: str, *, patience: float = 2.0) -> Iterator[Meter]:
    """The caller's meter or, where there is none, a bar once the work has taken a while.

    Args:
        progress: what the caller passed.
        description: what is being done.
        patience: seconds before a bar appears.

    Yields:
        A meter that is valid inside the ``with``.

    Example:
        >>> with reporting(None, "counting") as meter:
        ...     for i in range(3):
        ...         meter(i, 3, "numbers")
    """
    if progress is not None:
        yield progress
        return
    start, shown = time.monotonic(), []
    with contextlib.ExitStack() as stack:

        def meter(done: float, total: float, text: str, /) -> None:
            if not shown and time.monotonic() - start >= patience:
                shown.append(stack.enter_context(bar(description)))
            for show in shown:
                show(done, total, text)

        yield meter


def _seen(console: Any) -> bool:
    return console.is_terminal or console.is_jupyter
