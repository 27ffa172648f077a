"""Gradients integrated along a path to the image, for files and the command line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from jaxsal import citations
from jaxsal.citations import Citation
from jaxsal.methods.gradient import Count, attributed
from jaxsal.methods.record import Method, Need, Options, Task
from jaxsal.methods.summed import BRIGHTEST, COLUMNS, COMPLETE_COLUMNS, SUMMED, from_baseline, maps_by, predicted, tell

if TYPE_CHECKING:
    import jax

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Rule = Literal["gauss-legendre", "midpoint", "trapezoid", "left", "right"]


class IntegratedOptions(Options):
    """Options of integrated gradients, see :func:`jaxsal.attribution.integrated_gradients`.

    Attributes:
        steps: gradients that are taken.
        baseline: image of nothing at which the path starts: an intensity as the network sees it.
        rule: of the integral.
        batch_size: gradients at once, which bounds memory; None takes one step at a time.
    """

    steps: Annotated[int, Field(ge=2)] = 50
    baseline: Finite = 0.0
    rule: Rule = "gauss-legendre"
    batch_size: Count | None = None


class BlurOptions(Options):
    """Options of blur integrated gradients, see :func:`jaxsal.attribution.blur_integrated_gradients`.

    Attributes:
        steps: gradients that are taken.
        sigma: standard deviation of the blur at which the path starts, in voxels of the network's grid.
        rule: of the integral.
        batch_size: gradients at once, which bounds memory; None takes one step at a time.
    """

    steps: Annotated[int, Field(ge=2)] = 50
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0
    rule: Rule = "gauss-legendre"
    batch_size: Count | None = None


class GuidedOptions(Options):
    """Options of guided integrated gradients, see :func:`jaxsal.attribution.guided_integrated_gradients`.

    Attributes:
        steps: gradients that are taken, one after the other.
        baseline: image of nothing at which the path starts: an intensity as the network sees it.
        fraction: of the voxels that are moved at a time; 1 is the straight line.
        max_dist: how far a voxel may be from the straight line, as a share of its way; 0 is the straight line.
        batch_size: outputs at once, which bounds memory; None takes one.
    """

    steps: Count = 200
    baseline: Finite = 0.0
    fraction: Share = 0.25
    max_dist: Share = 0.02
    batch_size: Count | None = None


class ExpectedOptions(Options):
    """Options of expected gradients, see :func:`jaxsal.attribution.expected_gradients`.

    Attributes:
        samples: draws of a reference scan and of a place on the way from it.
        batch_size: gradients at once, which bounds memory; None takes one sample at a time.
        seed: of the draws.
    """

    samples: Count = 100
    batch_size: Count | None = None
    seed: int = 0


def _ruled(function: str) -> Callable[[Task], Any]:
    """Like :func:`attributed`, with the rule by its name."""

    def maps(task: Task) -> Any:
        from jaxsal import attribution

        options = task.options.model_dump()
        options["rule"] = getattr(attribution.quadrature, options["rule"].replace("-", "_"))
        return getattr(attribution, function)(task.model, task.x, outputs=task.outputs, **options)

    return maps


def _from_blurred(task: Task, prediction: "jax.Array") -> "jax.Array":
    from jaxsal.attribution import blurred

    return prediction - predicted(task, blurred(task.x, task.options.sigma))


def _from_references(task: Task, prediction: "jax.Array") -> "jax.Array":
    assert task.references is not None
    return prediction - predicted(task, task.references).mean(1, keepdims=True)


def _expected(task: Task) -> Any:
    import jax

    from jaxsal import attribution

    return attribution.expected_gradients(
        task.model,
        task.x,
        background=task.references,
        outputs=task.outputs,
        samples=task.options.samples,
        key=jax.random.key(task.options.seed),
        batch_size=task.options.batch_size,
    )


def _path(
    name: str,
    title: str,
    paper: Citation,
    cost: str,
    reading: str,
    options: type[Options],
    maps: Callable[[Task], Any],
    total: Callable[[Task, "jax.Array"], "jax.Array"] | None,
    needs: tuple[Need, ...] = (),
) -> Method:
    complete = (_COMPLETE,) if total else ()
    return Method(
        name=name,
        title=title,
        family="path",
        citations=(paper,),
        needs=needs,
        cost=cost,
        reading=(reading, *complete, _BASELINE),
        options=options,
        run=maps_by(maps, total),
        tell=tell,
        columns=COMPLETE_COLUMNS if total else COLUMNS,
        headline=("completeness_error",) if total else (),
        caption=SUMMED,
        brightest=BRIGHTEST,
    )


_COMPLETE = (
    "On the network's grid the map adds up to the difference between the prediction and that for the image of nothing. "
    "'Missed' says by how much it fails to: more steps or samples bring it down."
)
_BASELINE = "The map depends on what is taken as an image of nothing: compare more than one."
_NO_SHARE = " A voxel that is as dark as the image of nothing gets no share."


def paths() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        _path(
            "integrated-gradients",
            "Integrated gradients",
            citations.SUNDARARAJAN_2017,
            "50 gradients per output",
            "Each voxel's share of the prediction, in its unit: red adds to it, blue takes away. Gradients are summed "
            f"over images between one of nothing and this one.{_NO_SHARE}",
            IntegratedOptions,
            _ruled("integrated_gradients"),
            from_baseline,
        ),
        _path(
            "interior-gradients",
            "Interior gradients",
            citations.SUNDARARAJAN_2016,
            "50 gradients per output",
            "The mean gradient over images between one of nothing and this one: red where a brighter voxel raises the "
            "output, blue where it lowers it, also where the network is saturated at the image itself.",
            IntegratedOptions,
            _ruled("interior_gradients"),
            None,
        ),
        _path(
            "guided-integrated-gradients",
            "Guided integrated gradients",
            citations.KAPISHNIKOV_2021,
            "200 gradients per output, one after the other",
            "Each voxel's share of the prediction, in its unit: red adds to it, blue takes away. The path moves the "
            f"voxels first that the network reacts to least, which leaves less noise behind.{_NO_SHARE}",
            GuidedOptions,
            attributed("guided_integrated_gradients"),
            from_baseline,
        ),
        _path(
            "blur-integrated-gradients",
            "Blur integrated gradients",
            citations.XU_2020,
            "50 gradients per output",
            "Each voxel's share of the prediction, in its unit, as the image comes into focus: red adds to it, blue "
            "takes away. The image of nothing is the blurred one.",
            BlurOptions,
            _ruled("blur_integrated_gradients"),
            _from_blurred,
        ),
        _path(
            "expected-gradients",
            "Expected gradients",
            citations.ERION_2021,
            "100 gradients per output",
            "Each voxel's share of what tells this scan's prediction from the mean of the reference scans', in its "
            "unit: red adds to it, blue takes away.",
            ExpectedOptions,
            _expected,
            _from_references,
            ("references", "key"),
        ),
    )
