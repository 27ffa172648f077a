"""Response maps, for files and the command line."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jaxsal import citations
from jaxsal.methods.gradient import Count
from jaxsal.methods.record import Method, Options, Task
from jaxsal.methods.summed import BRIGHTEST, COLUMNS, POSITIVE, SIGNED, SUMMED, maps_by, tell, tell_signs


class ResponseOptions(Options):
    """How responses are projected back to the image.

    Attributes:
        gate: at activations: ``"none"``, ``"deconv"`` as in DeconvNet, or ``"guided"`` as in guided backprop.
        unpool: put values back where a max-pool found them, by ``"switches"``, or ``"repeat"`` them in its window.
        batch_size: projections at once, which bounds memory; None takes one on a CPU, elsewhere all.
    """

    gate: Literal["none", "deconv", "guided"] = "none"
    unpool: Literal["switches", "repeat"] = "switches"
    batch_size: Count | None = 5


class AttentiveOptions(ResponseOptions):
    """Options of attentive response maps, see :func:`jaxsal.attribution.attentive_response`.

    Attributes:
        n: feature maps.
        rank: them by their ``"maximum"`` or by the ``"sum"`` of their activations.
        peak: project only the place where a feature map is strongest.
    """

    n: Annotated[int, Field(ge=1)] = 25
    rank: Literal["maximum", "sum"] = "maximum"
    peak: bool = False


def _way(options: ResponseOptions) -> dict[str, Any]:
    from jaxsal.attribution import rules

    gates = {"none": rules.handed_on, "deconv": rules.rectified, "guided": rules.guided}
    unpools = {"switches": rules.winner, "repeat": rules.repeated}
    return {
        "gate": gates[options.gate],
        "unpool": unpools[options.unpool],
        "batch_size": options.batch_size,
    }


def _attentive(task: Task) -> Any:
    import jax.numpy as jnp

    from jaxsal import attribution

    options = task.options
    assert task.split is not None
    found = attribution.attentive_response(
        task.split, task.x, n=options.n, rank=options.rank, peak=options.peak, **_way(options)
    )
    return jnp.broadcast_to(found.dominant[None], (len(task.outputs), *found.dominant.shape))


def _clear(task: Task) -> Any:
    from jaxsal import attribution

    return attribution.clear(task.model, task.x, outputs=task.outputs, **_way(task.options)).maps


def responses() -> tuple[Method, ...]:
    """Records of the family."""
    return (
        Method(
            name="attentive-response",
            title="Attentive response map",
            family="response",
            citations=(citations.KUMAR_2018,),
            needs=("layer",),
            cost="1 gradient of the layers before per feature map, for all outputs together",
            reading=(
                "For each voxel the largest response of the most active feature maps of a layer, projected back to the "
                "image. The map is the same for every output: it shows what the layer sees, not what an output makes "
                "of it.",
            ),
            options=AttentiveOptions,
            run=maps_by(_attentive),
            tell=tell_signs,
            columns=(POSITIVE,),
            caption=SIGNED,
            brightest=BRIGHTEST,
        ),
        Method(
            name="clear",
            title="CLEAR",
            family="response",
            citations=(citations.KUMAR_2017,),
            cost="1 gradient per output",
            reading=(
                "The response of each output, projected back to the image by the network's filters: red where the "
                "image fits them. Of several classes, the one with the largest response at a voxel dominates there.",
            ),
            options=ResponseOptions,
            run=maps_by(_clear),
            tell=tell,
            columns=COLUMNS,
            caption=SUMMED,
            brightest=BRIGHTEST,
        ),
    )
