"""Command line of the shipped network's training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Train and evaluate the shipped network.")

CohortFolder = Annotated[Path, typer.Option(help="Folder of the cohort.")]
Out = Annotated[Path, typer.Option(help="Folder of checkpoints, log and model.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Size = Annotated[int, typer.Option(help="Members of the whole cohort.")]


@app.command()
def cohort(out: CohortFolder, size: Size = 4224, seed: Seed = 0) -> None:
    """Make the synthetic cohort (0.7 MB per member); an interrupted run goes on where it stopped."""
    from rich.progress import Progress

    from jaxsal.training.pool import write_pool

    with Progress() as progress:
        task = progress.add_task("cohort", total=size)
        write_pool(out, size, seed, lambda made, total: progress.update(task, completed=made, total=total))


@app.command()
def train(
    cohort: CohortFolder,
    out: Out,
    seed: Seed = 0,
    members: Annotated[int, typer.Option(help="Members to learn from; the rest is held out.")] = 4000,
    places: Annotated[int, typer.Option(help="Updates of the convolutions by where structures are.")] = 1500,
    sizes: Annotated[int, typer.Option(help="Further updates of them by how large structures are.")] = 4000,
    whole: Annotated[int, typer.Option(help="Updates of the whole network on whole brains.")] = 200,
) -> None:
    """Train on a cohort; an interrupted run goes on where it stopped."""
    from jaxsal.training.stages import Plan
    from jaxsal.training.stages import train as run

    typer.echo(run(cohort, out, Plan(seed=seed, members=members, places=places, sizes=sizes, whole=whole)))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="The network's .safetensors file.")],
    oasis: Annotated[Path | None, typer.Option(help="Folder of the labelled real scans.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="An unseen cohort (made with another seed).")] = None,
    out: Annotated[Path, typer.Option(help="Metrics file to write.")] = Path("metrics.json"),
    card: Annotated[Path | None, typer.Option(help="Model card whose tables are to be renewed.")] = None,
) -> None:
    """Measure a network on unseen synthetic brains and on real scans, beside the baselines."""
    import json

    from jaxsal.training import card as cards
    from jaxsal.training.evaluate import evaluate as measure

    found = measure(model, oasis=oasis, cohort=cohort)
    if card is None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    else:
        cards.write(card, out, found)
    typer.echo(cards.tables(found))
