"""Methods of explanation by name, each with its options, for files and the command line."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxsal import masks, optim
from jaxsal.masks import MaskResult
from jaxsal.progress import Meter
from jaxsal.splitting import Split

SOLVERS: Mapping[str, Callable[[], optax.GradientTransformation]] = {
    "recommended": lambda: optim.nonnegative(optim.prox_linear()),
    "paper": lambda: optim.armijo_once(),
    "nonnegative": lambda: optim.nonnegative(optim.armijo_once()),
}


class SmocamOptions(BaseModel):
    """Options of SMOCAM, see :func:`jaxsal.smocam`.

    Attributes:
        solver: ``"recommended"`` solves the mask problem with the network linearised, at or above zero; ``"paper"``
            takes the published step; ``"nonnegative"`` takes it and keeps the mask at or above zero.
        max_steps: most updates for each output.
        lam: weight of the norm term.
        gamma: weight of the smoothness term.
        percentile: 0 to 100; how much of the map is set to zero.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    solver: Literal["recommended", "paper", "nonnegative"] = "recommended"
    max_steps: Annotated[int, Field(ge=1)] = 2000
    lam: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    percentile: Annotated[float, Field(ge=0, le=100)] = 95.0


class Method(NamedTuple):
    """A way to explain a network.

    Attributes:
        name: on the command line and in file names; letters and digits.
        title: for people.
        citation: of the paper.
        reading: how its maps are to be read.
        options: a frozen pydantic model.
        run: ``(split, x, outputs, sigma, options, progress) -> MaskResult``.
    """

    name: str
    title: str
    citation: str
    reading: str
    options: type[BaseModel]
    run: Callable[[Split, jax.Array, tuple[int, ...], np.ndarray, Any, Meter], MaskResult]


def method_names() -> tuple[str, ...]:
    """The methods that there are."""
    return tuple(_METHODS)


def find_method(name: str) -> Method:
    """A method by its name.

    Raises:
        ValueError: if there is none of that name; those that exist are listed.
    """
    if name not in _METHODS:
        raise ValueError(f"Unknown method {name!r}. There is: {', '.join(_METHODS)}.")
    return _METHODS[name]


def check_options(method: Method, given: Mapping[str, Any]) -> BaseModel:
    """A method's options with its defaults filled in.

    Raises:
        ValueError: if one is unknown or out of its range; every one is named.

    Example:
        >>> check_options(find_method("smocam"), {"max_steps": 5}).max_steps
        5
    """
    try:
        return method.options(**given)
    except ValidationError as error:
        problems = [_problem(method, item) for item in error.errors()]
        raise ValueError(f"Options of {method.name}: {'; '.join(problems)}.") from None


def _problem(method: Method, item: Any) -> str:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"there is no option {name!r}, there are: {', '.join(method.options.model_fields)}"
    text = item["msg"]
    return f"{name} got {item['input']!r}; {text[:1].lower()}{text[1:]}"


def _run_smocam(
    split: Split, x: jax.Array, outputs: tuple[int, ...], sigma: np.ndarray, options: SmocamOptions, progress: Meter
) -> MaskResult:
    return masks.smocam(
        split,
        x,
        outputs,
        sigma=sigma,
        lam=options.lam,
        gamma=options.gamma,
        solver=SOLVERS[options.solver](),
        max_steps=options.max_steps,
        percentile=options.percentile,
        progress=progress,
    )


_METHODS: Mapping[str, Method] = {
    "smocam": Method(
        name="smocam",
        title="SMOCAM",
        citation=(
            "Konate et al., SMOCAM: smooth conditional attention mask for 3D-regression models, ISBI 2021, "
            "https://doi.org/10.1109/ISBI48211.2021.9433790"
        ),
        reading=(
            "For each output, SMOCAM looks for a smooth mask on the network's features that keeps the prediction where "
            "it is; a mask larger than a norm of 1 counts against it, by the weight lam. What the mask keeps is bright "
            "in the picture: the prediction can be made from there. The lower values of the map are cut off. The map "
            "is smooth because it is as coarse as the features are; its edges are not edges of anatomy."
        ),
        options=SmocamOptions,
        run=_run_smocam,
    )
}
