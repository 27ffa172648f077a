"""Records of the papers' networks: what each expects and predicts, to be completed by who trains one."""

from typing import Any

from jaxsal.zoo.record import InputSpec, ModelRecord, Output, Scaling

_HEAD_NETWORKS = {"RegressionResNet50": "layer2_3", "RegressionVGG16": "relu3_3"}


def head_circumference_record(architecture: str, *, sigma: float = 65.0, channels: int = 3) -> ModelRecord:
    """The fetal head circumference from an ultrasound image of 128 x 128 pixels (Zhang et al. 2020).

    Args:
        architecture: ``"RegressionResNet50"`` or ``"RegressionVGG16"``.
        sigma: standard deviation of the circumference over the training population, in mm; 65 is that of HC18.
        channels: of the image; the authors repeat the grey image in 3.

    Raises:
        ValueError: if the architecture is another.

    Example:
        >>> head_circumference_record("RegressionVGG16").output_names
        ('head-circumference',)
    """
    if architecture not in _HEAD_NETWORKS:
        raise ValueError(
            f"{architecture!r} does not predict head circumferences: RegressionResNet50 or RegressionVGG16."
        )
    return ModelRecord(
        name="head-circumference",
        architecture=architecture,
        config=_HEAD_CONFIG[architecture],
        input=InputSpec(shape=(128, 128), channels=channels, scaling=Scaling(divide_by="nothing")),
        outputs=(Output(name="head-circumference", unit="mm", sigma=sigma, structure="fetal head"),),
        layer=_HEAD_NETWORKS[architecture],
        description=(
            "Fetal head circumference in an ultrasound image. The image is given standardised: less its mean, over its "
            "standard deviation."
        ),
        credits=("Zhang et al. 2020, https://doi.org/10.1007/978-3-030-61166-8_8",),
        assumed=(
            "Only the last layer of the classifier is replaced; what lies between features and output is not told.",
        ),
    )


_HEAD_CONFIG: dict[str, dict[str, Any]] = {
    "RegressionResNet50": {"strided": 1, "bias": True, "epsilon": 1.001e-5},
    "RegressionVGG16": {"pooled": None},
}
