"""No conversion without proof: both networks on the same images, and the largest difference."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsal.engine.lower import lower
from jaxsal.zoo import InputSpec, ModelRecord, Output, Scaling

# to which float32 rounds 1: less than this says nothing, also of outputs that are all but 0
_ROUNDING = 2.0**-24

# batches [b, *space, c] for a check, or what gives them once the network's record is known
Images = Sequence[Any] | Callable[[ModelRecord], Sequence[Any]]


class Conversion(NamedTuple):
    """A network that came in, and how equal it is to what it was.

    Attributes:
        model: predicts ``[b, *space, c] -> [b, k]``, in evaluation mode.
        record: what it expects and predicts; save both with :func:`jaxsal.zoo.save`.
        max_difference: largest absolute difference between the outputs of the two networks on the images of the check;
            None where the source is weights alone, without a framework to run them in.
        scale: largest absolute output there; likewise None.
        unused: weights of the source that its network never reads, such as counters of BatchNorm.
        not_compared: why the two were not compared, where they were not.
    """

    model: Any
    record: ModelRecord
    max_difference: float | None
    scale: float | None
    unused: tuple[str, ...] = ()
    not_compared: str = ""

    def __repr__(self) -> str:
        proof = "not compared"
        if self.max_difference is not None and self.scale is not None:
            proof = f"max |difference| {self.max_difference:.2g} at outputs up to {self.scale:.3g}"
        return f"Conversion({self.record.name}: {proof})"


class Compared(NamedTuple):
    """How far two networks are apart.

    Attributes:
        max_difference: largest absolute difference of outputs.
        scale: largest absolute output of the source.
    """

    max_difference: float
    scale: float


def compare(
    model: Callable[[jax.Array], jax.Array],
    source: Callable[[np.ndarray], np.ndarray],
    images: Sequence[np.ndarray],
    tolerance: float,
    name: str,
) -> Compared:
    """Run both networks on the same images.

    Args:
        model: in JAX.
        source: where it comes from, ``[b, *space, c] -> y``, channels last.
        images: batches ``[b, *space, c]``.
        tolerance: most that outputs may differ, relative to the largest output of the source; 6e-8, to which float32
            rounds 1, is allowed always.
        name: of the network, for the message.

    Raises:
        ValueError: if they differ by more, or in shape, or are not finite in the same places.
    """
    difference, scale = 0.0, 0.0
    for image in images:
        expected = np.asarray(source(image))
        found = np.asarray(_forward(model, jnp.asarray(image)), expected.dtype)
        if found.shape != expected.shape:
            raise ValueError(
                f"The converted {name} gives outputs of shape {found.shape}, its source {expected.shape}: this is a "
                "defect of the conversion, report it with the network."
            )
        off = np.abs(found - expected)
        if not np.isfinite(off).all():
            raise ValueError(
                f"{name} gives {int((~np.isfinite(expected)).sum())} NaN or infinite values of {expected.size}, "
                f"converted {int((~np.isfinite(found)).sum())}: check its weights, and the images of the check."
            )
        difference, scale = max(difference, float(off.max())), max(scale, float(np.abs(expected).max()))
    if difference > max(tolerance * scale, _ROUNDING):
        raise ValueError(
            f"The converted {name} differs from its source by up to {difference:.3g}, its outputs reach {scale:.3g}; "
            f"{tolerance:.1g} of that is allowed (tolerance). This is a defect of the conversion: report it with the "
            "network."
        )
    return Compared(difference, scale)


@jax.jit
def _forward(model: Any, x: jax.Array) -> jax.Array:
    # for all conversions: networks that differ in their weights alone are compiled once. As the methods of explanation
    # run it, and in whole float32, also on devices that would round factors to fewer bits
    with jax.default_matmul_precision("highest"):
        return lower(lambda model, x: model(x))(model, x)


def pictures(images: Images, record: ModelRecord) -> list[np.ndarray]:
    """The images of a check, as arrays that a network takes.

    Args:
        images: batches ``[b, *space, c]``, or what gives them for a record.
        record: of the network.

    Raises:
        ValueError: if one of them has no batch or channel axis, or another number of channels.
    """
    found = [np.asarray(image, np.float32) for image in (images(record) if callable(images) else images)]
    rank, channels = len(record.input.shape) + 2, record.input.channels
    for image in found:
        if image.ndim != rank or image.shape[-1] != channels:
            raise ValueError(
                f"An image for the check of {record.name} has shape {image.shape}, [b, *space, c] with {rank - 2} axes "
                f"of space and {channels} channels is needed."
            )
    return found


def random_images(shape: Sequence[int], channels: int, count: int = 2, seed: int = 0) -> np.ndarray:
    """Normal noise ``[count, *shape, channels]``, float32."""
    return np.random.default_rng(seed).standard_normal((count, *shape, channels)).astype(np.float32)


def described(
    name: str,
    architecture: str,
    config: dict[str, Any],
    shape: Sequence[int],
    channels: int,
    outputs: Sequence[str | Output] | None,
    count: int,
    layer: str,
    training: dict[str, Any],
) -> ModelRecord:
    """The record of a converted network: what is not known is left empty, for ``record.model_copy(update=...)``.

    Args:
        name: of the network.
        architecture: its class.
        config: of the class.
        shape: grid of the input.
        channels: of the input.
        outputs: names, or their whole description; None names them by number.
        count: how many the network has.
        layer: where masks lie.
        training: where the weights come from.

    Raises:
        ValueError: if there are more or fewer names than outputs.
    """
    named = [f"output {i}" for i in range(count)] if outputs is None else list(outputs)
    if len(named) != count:
        raise ValueError(f"{len(named)} output names were given, {name} has {count} outputs: give one name for each.")
    return ModelRecord(
        name=name,
        architecture=architecture,
        config=config,
        input=InputSpec(shape=tuple(shape), channels=channels, scaling=Scaling(divide_by="nothing")),
        outputs=tuple(each if isinstance(each, Output) else Output(name=each) for each in named),
        layer=layer,
        training=training,
    )
