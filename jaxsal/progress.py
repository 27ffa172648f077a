"""Progress that people see, as plain functions."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol


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
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task(description, total=None, text="")

        def meter(done: float, total: float, text: str, /) -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield meter
