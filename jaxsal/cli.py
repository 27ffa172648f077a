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

from jaxsal.commanding import OptionsOfMethod, options_of_method

if TYPE_CHECKING:
    from jaxsal.data import Volume
    from jaxsal.explanation import Explanation, Plan
    from jaxsal.methods import Method

app = typer.Typer(
    name="jaxsal",
    help="Which voxels does this number depend on? Explain a trained network on a scan.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130
_USAGE = 2
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


@app.command(cls=OptionsOfMethod)
def explain(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Scans: .nii, .nii.gz, .mgz, .mgh.")],
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="Name of a shipped network, or a path.")],
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="How to explain; `jaxsal methods` lists them.")
    ] = "smocam",
    outputs: Annotated[
        str, typer.Option("--outputs", metavar="NAME,...|all", help="Outputs of the network to explain.")
    ] = "all",
    layer: Annotated[
        str | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="Where the mask lies, for methods with a layer [default: the network's own].",
        ),
    ] = None,
    references: Annotated[
        list[Path] | None,
        typer.Option("--reference", metavar="FILE", help="A scan to compare with, for methods that do; repeatable."),
    ] = None,
    directory: Directory = Path("jaxsal-results"),
    solver: Annotated[
        str | None,
        typer.Option("--solver", metavar="recommended|paper|nonnegative", help="SMOCAM: how the mask moves."),
    ] = None,
    max_steps: MaxSteps = None,
    lam: Annotated[
        float | None,
        typer.Option("--lam", metavar="X", help="SMOCAM: weight of the mask's budget, its norm."),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="X", help="SMOCAM: weight of the mask's smoothness.")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option("--percentile", metavar="P", help="SMOCAM: how much of the map is set to zero.")
    ] = None,
    one_file: OneFile = False,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Show which voxels of each IMAGE the network used for its outputs.

    Any option that `jaxsal methods NAME` lists can be given, such as --preset kan. Those that are not are the
    network's own, else the published ones.
    """
    with _errors(debug):
        from jaxsal.methods import check_options, find_method

        asked = {"solver": solver, "max_steps": max_steps, "lam": lam, "gamma": gamma, "percentile": percentile}
        chosen, own = find_method(method), options_of_method(context)
        if unknown := set(own) - set(chosen.options.model_fields):
            _say(f"Error: {_no_such_option(sorted(unknown), chosen)}")
            raise typer.Exit(_USAGE)
        options = {key: value for key, value in asked.items() if value is not None} | own
        check_options(chosen, options)  # at once, before anything heavy is loaded

        from jaxsal.explanation import describe_dataset, places, plan

        names: str | list[str] = outputs if outputs == "all" else _names(outputs)
        prepared = plan(model, method, names, layer, references=references or (), **options)
        describe_dataset(directory)  # what cannot be written should be known before the work
        failed: list[tuple[Path, str]] = []
        for done, (image, where) in enumerate(zip(images, places(images), strict=True)):
            try:
                inputs = [*images, *(references or ())]
                files = {"where": where, "one_file": one_file, "inputs": inputs, "overwrite": overwrite}
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


@app.command()
def methods(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Methods to tell more of.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as it stands in docs/methods.md.")] = False,
    debug: Debug = False,
) -> None:
    """List the methods of explanation, or tell the options of NAME and how its maps are read."""
    with _errors(debug):
        from rich.console import Console

        from jaxsal.methods import find_method
        from jaxsal.methods.listing import described, markdown_table, table

        if markdown:
            typer.echo(markdown_table())
            return
        shown = [described(find_method(name)) for name in names] if names else [table()]
        console = Console()
        for part in shown:
            console.print(part)


@app.command()
def cite(
    used: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|RESULTS]...", help="Methods, or folders or run.json files that jaxsal wrote."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print BibTeX of jaxsal and of the papers behind methods, or behind results."""
    with _errors(debug):
        from jaxsal import __version__
        from jaxsal.methods.citing import cited

        typer.echo(cited(used or (), __version__))


@app.command()
def convert(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Weights: .pth, .pt, .safetensors, .h5, .keras, model.json, a folder."),
    ],
    arch: Annotated[
        str, typer.Option("--arch", metavar="NAME", help="Network that they are of; `jaxsal architectures` lists them.")
    ],
    directory: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the network.")] = Path(),
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of the network [default: that of the file].")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="N,N[,N]", help="Grid of the images, where the file leaves it open."),
    ] = None,
    outputs: Annotated[
        str | None, typer.Option("--outputs", metavar="NAME,...", help="Names of the outputs, where none are known.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            metavar="PATH",
            help="Compare on these too: scans, arrays in .npy ([b, *space, c]), or a folder of them; repeatable.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Bring in a network trained elsewhere: FILE's weights as DIR/NAME.safetensors, compared with what they were."""
    with _errors(debug):
        from jaxsal.converters import checked_on  # pyright: ignore[reportMissingImports] - lies beside
        from jaxsal.converters import convert as converted  # pyright: ignore[reportMissingImports]
        from jaxsal.progress import bar
        from jaxsal.zoo import save, weights

        asked = {
            "name": name,
            "shape": None if shape is None else _grid(shape),
            "outputs": None if outputs is None else _names(outputs),
            "images": None if not images else checked_on(images),
        }
        with bar(file.name) as meter:
            meter(0, 2, "converting")
            found = converted(file, arch, **{key: value for key, value in asked.items() if value is not None})
            meter(1, 2, "writing")
            written = save(directory / f"{found.record.name}.safetensors", found.model, found.record)
        record = found.record
        grid = " x ".join(map(str, record.input.shape))
        count = sum(value.size for value in weights(found.model).values())
        typer.echo(
            f"{record.name}: {record.architecture}, {count:,} weights, {len(record.outputs)} outputs, {grid} voxels, "
            f"{record.input.channels} channels."
        )
        if found.max_difference is None or found.scale is None:
            typer.echo(f"Not compared with its source: {found.not_compared}.")
        else:
            seen = f"on noise and {len(asked['images'].files)} images" if images else "on noise"
            typer.echo(
                f"max |difference| from its source {seen}: {found.max_difference:.2g}, at outputs up to "
                f"{found.scale:.3g}"
            )
        typer.echo(f"\nWritten:\n  {written}")


@app.command()
def architectures(debug: Debug = False) -> None:
    """List the networks whose weights `jaxsal convert` knows."""
    with _errors(debug):
        from jaxsal.converters import architectures as known  # pyright: ignore[reportMissingImports] - lies beside

        listed = known()
        for name, architecture in listed.items():
            typer.echo(f"{name:<{max(map(len, listed))}}  {architecture.about}")
        typer.echo("\nAny module of PyTorch is converted in Python: jaxsal.converters.from_torch(module, example).")


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

    from jaxsal.explanation.notes import grouped, notes
    from jaxsal.explanation.showing import shown
    from jaxsal.methods.wording import quantity

    title = Text(f"{explanation.name} by {explanation.record.name}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    brief = [column for column in explanation.plan.method.columns if column.brief]
    words = ("output", "unit", *(column.name for column in brief if column.shown == "word"))
    for name in ("output", "prediction", "unit", *(column.name for column in brief), "seconds"):
        heading = name.replace("_", " ")
        table.add_column(
            heading, justify="left" if name in words else "right", no_wrap=name != "output", overflow="fold"
        )
    for row in explanation.table.to_dict("records"):
        # a word stands as it is in the files, so that it can be searched for
        told = [str(row[c.name]) if c.shown == "word" else shown(c, row[c.name], row["unit"]) for c in brief]
        table.add_row(
            *map(Text, (row["output"], quantity(row["prediction"]), row["unit"], *told, f"{row['seconds']:.1f}"))
        )
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
    words += ["--method", options["method"], "--outputs", ",".join(options["outputs"])]
    words += [] if plan.layer is None else ["--layer", plan.layer]
    for reference in plan.references:
        words += ["--reference", reference.source["file"]]
    for key, value in plan.options.model_dump().items():
        if value not in (None, ()):
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += ["--" + key.replace("_", "-"), text]
    return shlex.join(words + ["--one-file"] * one_file)


def _no_such_option(unknown: Sequence[str], method: "Method") -> str:
    given = ", ".join("--" + name.replace("_", "-") for name in unknown)
    own = ", ".join("--" + name.replace("_", "-") for name in method.options.model_fields) or "none"
    return (
        f"There is no option {given}. Those of {method.name} are: {own} (`jaxsal methods {method.name}`); those of the "
        "command are listed by `jaxsal explain --help`."
    )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _grid(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in _names(text.replace("x", ",")))
    except ValueError:
        raise ValueError(f"--shape is {text!r}, numbers of voxels are needed, such as 224,224.") from None


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
