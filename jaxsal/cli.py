"""The command line: reads arguments, shows progress, prints results and errors. The work is done elsewhere."""

# nothing but typer is imported here: `jaxsal --help` answers at once, and a mistyped option too
import contextlib
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from jaxsal.data import Volume
    from jaxsal.explanation import Explanation, Plan

app = typer.Typer(
    name="jaxsal",
    help="Which voxels does this number depend on? Explain a trained network on a scan.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130
# what checks raise: a message is enough. Anything else is a defect, and says so.
_EXPECTED = (ValueError, KeyError, TypeError, OSError)

Directory = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", metavar="N", help="Most steps for each output.")]
OneFile = Annotated[bool, typer.Option("--one-file", help="One 4-D map instead of one 3-D map for each output.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what another scan, network or setting left under the same name.")
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a shipped network, or a path.")]


def main() -> None:
    """Entry point of the command ``jaxsal``."""
    app()


@app.callback()
def _app(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=lambda on: _version(on), is_eager=True),
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Scans: .nii, .nii.gz, .mgz, .mgh.")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Name of a shipped network, or a path.")],
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="How to explain.")] = "smocam",
    outputs: Annotated[
        str, typer.Option("--outputs", metavar="NAME,...|all", help="Outputs of the network to explain.")
    ] = "all",
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="Where the mask lies [default: the network's own].")
    ] = None,
    directory: Directory = Path("jaxsal-results"),
    solver: Annotated[
        str | None, typer.Option("--solver", metavar="recommended|paper|nonnegative", help="How the mask moves.")
    ] = None,
    max_steps: MaxSteps = None,
    lam: Annotated[
        float | None,
        typer.Option("--lam", metavar="X", help="Weight of the mask's budget, its norm."),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="X", help="Weight of the mask's smoothness.")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option("--percentile", metavar="P", help="How much of the map is set to zero.")
    ] = None,
    one_file: OneFile = False,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Show which voxels of each IMAGE the network used for its outputs.

    Options of the method that are not given are the network's own, else the published ones.
    """
    with _errors(debug):
        from jaxsal.explanation import describe_dataset, places, plan

        asked = {"solver": solver, "max_steps": max_steps, "lam": lam, "gamma": gamma, "percentile": percentile}
        options = {key: value for key, value in asked.items() if value is not None}
        names: str | list[str] = outputs if outputs == "all" else _names(outputs)
        prepared = plan(model, method, names, layer, **options)
        describe_dataset(directory)  # what cannot be written should be known before the work
        failed: list[tuple[Path, str]] = []
        for done, (image, where) in enumerate(zip(images, places(images), strict=True)):
            try:
                files = {"where": where, "one_file": one_file, "inputs": images, "overwrite": overwrite}
                _explain_one(prepared, image, image.name, directory, files, _command(image, model, prepared, one_file))
            except KeyboardInterrupt:
                _say(f"Interrupted: {done - len(failed)} of {len(images)} images are finished, in {directory}.")
                raise typer.Exit(_INTERRUPTED) from None
            except Exception as error:
                if debug or isinstance(error, BrokenPipeError):
                    raise
                failed.append((image, _message(error)))
                if len(images) > 1:
                    _say(f"{image} failed, going on.")
        if failed:
            if len(images) > 1:
                _say(f"{len(failed)} of {len(images)} images failed:")
            for _, message in failed:
                _say(f"Error: {message}")
            raise typer.Exit(1)


@app.command()
def demo(directory: Directory = Path("jaxsal-demo"), overwrite: Overwrite = False, debug: Debug = False) -> None:
    """Explain the shipped network on the MNI152 brain that nilearn carries."""
    with _errors(debug):
        from jaxsal.data import default_image
        from jaxsal.explanation import describe_dataset, place, plan
        from jaxsal.models import default_model

        prepared = plan(default_model())
        describe_dataset(directory)
        files = {"where": place("MNI152_T1"), "overwrite": overwrite}
        _explain_one(prepared, default_image(), "MNI152_T1", directory, files, "jaxsal demo")


@app.command()
def layers(model: ModelArgument, debug: Debug = False) -> None:
    """List the layers of MODEL, and at which of them a mask can lie."""
    with _errors(debug):
        import jax
        import numpy as np

        from jaxsal.models import load_model
        from jaxsal.splitting import layers as table

        network, record = load_model(model)
        example = jax.ShapeDtypeStruct((1, *record.input.shape, record.input.channels), np.float32)
        typer.echo(table(network, example))
        typer.echo(f"\nMasks lie at {record.layer!r} unless --layer names another one.")


@app.command()
def models(debug: Debug = False) -> None:
    """List the networks that come with jaxsal."""
    with _errors(debug):
        from jaxsal.models import load_model, shipped

        for name in shipped():
            record = load_model(name).record
            grid = " x ".join(map(str, record.input.shape))
            skull = {True: ", without skull", False: ", with skull", None: ""}[record.input.skull_stripped]
            typer.echo(f"{name}\n  input: {grid} voxels, {record.input.space} space{skull}; layer: {record.layer}")
            for method, options in record.options.items():
                typer.echo(f"  {method}: " + ", ".join(f"{name} {value}" for name, value in options.items()))
            typer.echo("  outputs: " + ", ".join(f"{output.name} ({output.unit})" for output in record.outputs))
            typer.echo(f"  {' '.join(record.description.split())}")
        if not shipped():
            typer.echo("None in this installation. Give --model the path of a network saved by jaxsal.zoo.save.")


def _explain_one(
    plan: "Plan",
    image: "Path | Volume",
    name: str,
    directory: Path,
    files: dict[str, Any],
    command: str,
) -> None:
    """Explain a scan and show what was found; ``files`` are options of :func:`jaxsal.explanation.write`."""
    from rich.markup import escape

    from jaxsal.explanation import check_place, run, write
    from jaxsal.progress import bar

    if not isinstance(image, Path) or image.is_file():  # one that is no file is refused, with advice, when it is read
        check_place(plan, image, directory, name=name, **files)
    with bar(escape(name)) as meter, warnings.catch_warnings():
        # what the method warns of stands in the notes below and in the report, output by output
        warnings.filterwarnings("ignore", message=".*of their energy on negative values", category=UserWarning)
        explanation = run(plan, image, name=name, progress=meter)
        written = write(explanation, directory, command=command, progress=meter, **files)
    _show(explanation, written)


def _show(explanation: "Explanation", files: Sequence[Path]) -> None:
    """The short table, the remarks, and where the files are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from jaxsal.explanation.notes import grouped, notes, quantity, share

    title = Text(f"{explanation.name} by {explanation.record.name}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column in ("output", "prediction", "unit", "recovered", "steps", "status", "seconds"):
        left = column in ("output", "unit", "status")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "output", overflow="fold")
    for row in explanation.table.to_dict("records"):
        numbers = (quantity(row["prediction"]), row["unit"], share(row["recovered"]), str(row["steps"]))
        cells = (row["output"], *numbers, row["status"], f"{row['seconds']:.1f}")
        table.add_row(*map(Text, cells))
    Console().print(table)
    typer.echo(explanation.resampled)
    for outputs, text in grouped(notes(explanation)):
        typer.echo(f"{', '.join(outputs)}: {text}")
    typer.echo("\nWritten:")
    for file in files:
        typer.echo(f"  {file}")


def _command(image: Path, model: str, plan: "Plan", one_file: bool) -> str:
    """The command line for one image, everything spelt out: folders and the other images may name people."""
    options = plan.parameters
    words = ["jaxsal", "explain", image.name, "--model", Path(model).name]
    words += ["--method", options["method"], "--outputs", ",".join(options["outputs"]), "--layer", options["layer"]]
    for key, value in plan.options.model_dump().items():
        words += ["--" + key.replace("_", "-"), str(value)]
    return shlex.join(words + ["--one-file"] * one_file)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _version(on: bool) -> None:
    if on:
        from jaxsal import __version__

        typer.echo(f"jaxsal {__version__}")
        raise typer.Exit


@contextlib.contextmanager
def _errors(debug: bool) -> Iterator[None]:
    """Errors as one message and an exit code, tracebacks only on request."""
    try:
        yield
    except KeyboardInterrupt:
        _say("Interrupted.")
        raise typer.Exit(_INTERRUPTED) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        _say(f"Error: {_message(error)}")
        raise typer.Exit(1) from None


def _message(error: Any) -> str:
    # str() of a KeyError is its argument in quotes
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename} cannot be read or written: {error.strerror}."  # the system's, not one of our checks
    if isinstance(error, _EXPECTED) and text:
        return text
    return f"{type(error).__name__}: {text}\nThis was not expected. Run again with --debug and report what it shows."


def _say(text: str) -> None:
    typer.echo(text, err=True)


if __name__ == "__main__":
    sys.exit(main())
