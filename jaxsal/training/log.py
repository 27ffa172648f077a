"""Progress of a training run: a rich bar on the screen, one line per hundred updates in ``train.csv``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def logger(out: Path, steps: int, every: int = 50) -> Iterator[Callable[[int, float], None]]:
    """A ``report`` for :func:`jaxsal.training.fit.fit`.

    Args:
        out: folder of ``train.csv`` (step, mean loss since the last line, seconds since the start).
        steps: number of updates in all.
        every: updates per line.

    Yields:
        The function to call with step number and loss.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start, losses = time.monotonic(), []
    with Progress(*columns) as progress, (out / "train.csv").open("a") as file:
        task = progress.add_task("training", total=steps)

        def report(step: int, loss: float) -> None:
            losses.append(loss)
            progress.update(task, completed=step)
            if step % every == 0 or step == steps:
                mean = sum(losses) / len(losses)
                losses.clear()
                progress.update(task, description=f"training, loss {mean:.4f}")
                file.write(f"{step},{mean:.6f},{time.monotonic() - start:.1f}\n")
                file.flush()

        yield report
