"""Gradients of an output by the image, for files and the command line."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field

from jaxsal import citations
from jaxsal.citations import Citation
from jaxsal.methods.record import Method, Need, Options, Task
from jaxsal.methods.summed import BRIGHTEST, COLUMNS, SUMMED, maps_by, tell

Count = Annotated[int, Field(ge=1)]
Nonnegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class GradientOptions(Options):
    """Options of gradients.

    Attributes:
        batch_size: outputs at once, which bounds memory; None takes one on a CPU, elsewhere all.
        start: ``"one"`` for the gradient of the output, ``"value"`` for that times the output.
    """

    batch_size: Count | None = None
    start: Literal["one", "value"] = "one"


class NoiseOptions(Options):
    """Options of gradients over noise, see :func:`jaxsal.attribution.smooth_grad`.

    Attributes:
        samples: noisy images.
        noise: standard deviation of the noise, as a share of the range of the image's intensities.
        clip: whether noisy images are kept within that range.
        batch_size: gradients at once, which bounds memory; None takes one sample at a time.
        seed: of the noise.
    """

    samples: Annotated[int, Field(ge=2)] = 25
    noise: Nonnegative = 0.15
    clip: bool = False
    batch_size: Count | None = None
    seed: int = 0


def attributed(function: str) -> Callable[[Task], Any]:
    """``task -> maps`` by a function of :mod:`jaxsal.attribution` whose arguments are the options of its record."""

    def maps(task: Task) -> Any:
        import jax

        from jaxsal import attribution

        options = task.options.model_dump()
        if "seed" in options:
            options["key"] = jax.random.key(options.pop("seed"))
        return getattr(attribution, function)(task.model, task.x, outputs=task.outputs, **options)

    return maps


def _gradient(
    name: str, title: str, paper: Citation, cost: str, *reading: str, signed: bool = True, noisy: bool = False
) -> Method:
    needs: tuple[Need, ...] = ("key",) if noisy else ()
    return Method(
        name=name,
        title=title,
        family="gradient",
        citations=(paper,),
        needs=needs,
        cost=cost,
        reading=(*reading, _NOT_IMPORTANCE),
        options=NoiseOptions if noisy else GradientOptions,
        run=maps_by(attributed(name.replace("-", "_"))),
        tell=tell,
        columns=COLUMNS,
        caption=SUMMED,
        signed=signed,
        brightest=BRIGHTEST,
    )


_NOT_IMPORTANCE = (
    "A gradient tells what a small change of this image would do, not what made the prediction. Single voxels are "
    "noisy: look at where many of them lie, and compare with the map of a network whose weights are random."
)
_SAMPLES = "25 gradients per output"


def gradients() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        _gradient(
            "saliency",
            "Saliency",
            citations.SIMONYAN_2013,
            "1 gradient per output",
            "For each voxel, how much the output rises when the voxel becomes a little brighter: red where it rises, "
            "blue where it falls, in the output's unit per unit of intensity as the network sees it.",
        ),
        _gradient(
            "input-x-gradient",
            "Input x gradient",
            citations.SHRIKUMAR_2016,
            "1 gradient per output",
            "For each voxel its brightness times the output's gradient there: red where the voxel, by this linear "
            "estimate, adds to the output, blue where it takes away. Dark voxels are always near zero.",
        ),
        _gradient(
            "smooth-grad",
            "SmoothGrad",
            citations.SMILKOV_2017,
            _SAMPLES,
            "The mean gradient over noisy copies of the image: red where a brighter voxel raises the output, blue "
            "where it lowers it.",
            noisy=True,
        ),
        _gradient(
            "smooth-grad-squared",
            "SmoothGrad squared",
            citations.HOOKER_2019,
            _SAMPLES,
            "The mean squared gradient over noisy copies of the image: bright where the output is sensitive, whatever "
            "the direction.",
            noisy=True,
            signed=False,
        ),
        _gradient(
            "var-grad",
            "VarGrad",
            citations.ADEBAYO_2018,
            _SAMPLES,
            "The variance of the gradient over noisy copies of the image: bright where the network's sensitivity "
            "itself changes. A linear network has none.",
            noisy=True,
            signed=False,
        ),
    )
