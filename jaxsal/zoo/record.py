"""What a network expects and what its outputs mean, so that no one has to remember it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Output(_Frozen):
    """One number that the network predicts.

    Attributes:
        name: e.g. ``"Left-Hippocampus"``.
        unit: e.g. ``"mm^3"``; ``"1"`` for a pure number.
        sigma: standard deviation over the training population, in ``unit``.
        structure: what is measured, in words.
    """

    name: str
    unit: str = "1"
    sigma: Annotated[float, Field(gt=0)] = 1.0
    structure: str = ""


class Scaling(_Frozen):
    """How intensities are scaled before the network sees them: ``clip(image / divisor)``.

    Attributes:
        divide_by: ``"brain-mean"`` is the mean over voxels above zero, ``"volume-mean"`` the mean over all
            voxels, ``"maximum"`` the largest value, ``"nothing"`` is 1.
        clip: lowest and highest value afterwards.
    """

    divide_by: Literal["brain-mean", "volume-mean", "maximum", "nothing"] = "brain-mean"
    clip: tuple[float, float] | None = None


class InputSpec(_Frozen):
    """The image that a network expects.

    Attributes:
        shape: grid, in voxels.
        affine: 4 x 4, voxel indices to RAS millimetres; None for images without a space (2-D).
        channels: number of them.
        scaling: of the intensities.
        space: ``"MNI152"`` for scans registered to that template, ``"native"`` for scans as acquired.
        skull_stripped: True when only the brain is shown, False when the whole head is, None for either.
    """

    shape: tuple[int, ...]
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    channels: int = 1
    scaling: Scaling = Scaling()
    space: Literal["MNI152", "native"] = "native"
    skull_stripped: bool | None = None


class ModelRecord(_Frozen):
    """A network's identity card, saved with its weights.

    Attributes:
        name: of this trained network.
        architecture: its class in :mod:`jaxsal.zoo`.
        config: keyword arguments of that class.
        input: the expected image.
        outputs: one entry per output, in order.
        layer: where masks are optimised unless another layer is asked for.
        options: of methods of explanation, by the method's name, that suit this network at ``layer``; what a user
            gives wins.
        description: what it was trained on, in a few sentences.
        licence: of the weights.
        credits: data and papers to be named.
        training: how the weights came about: seed, steps, date, versions.
        assumed: what the paper does not tell about the network and is assumed, a sentence each.
    """

    name: str
    architecture: str
    config: dict[str, Any] = {}
    input: InputSpec
    outputs: tuple[Output, ...]
    layer: str
    options: dict[str, dict[str, Any]] = {}
    description: str = ""
    licence: str = ""
    credits: tuple[str, ...] = ()
    training: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "ModelRecord":
        names = [output.name for output in self.outputs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Output names must be unique, repeated: {', '.join(repeated)}.")
        return self

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(output.name for output in self.outputs)

    def output_index(self, name: str) -> int:
        """Position of an output.

        Raises:
            KeyError: if there is none of that name; the message lists those that exist.
        """
        if name not in self.output_names:
            raise KeyError(f"The network {self.name!r} has no output {name!r}. It has: {', '.join(self.output_names)}.")
        return self.output_names.index(name)
