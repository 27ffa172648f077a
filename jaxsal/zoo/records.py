"""Records of the papers' networks: what each expects and predicts, to be completed by who trains one."""

from collections.abc import Sequence
from typing import Any

from jaxsal.zoo.measures import morphometry_outputs
from jaxsal.zoo.record import InputSpec, ModelRecord, Output, Scaling
from jaxsal.zoo.resnet import KERAS_RESNET50
from jaxsal.zoo.xray import XRAY_NETWORKS

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
    "RegressionResNet50": KERAS_RESNET50,
    "RegressionVGG16": {"pooled": None},
}


def ad_classifier_record() -> ModelRecord:
    """Alzheimer's disease from a grey-matter map of 121 x 145 x 121 voxels (Thibeau-Sutre et al. 2019).

    Example:
        >>> ad_classifier_record().output_names
        ('CN', 'AD')
    """
    return ModelRecord(
        name="ad-classifier",
        architecture="ADClassifier",
        input=InputSpec(
            shape=(121, 145, 121),
            affine=((-1.5, 0.0, 0.0, 90.0), (0.0, 1.5, 0.0, -126.0), (0.0, 0.0, 1.5, -72.0), (0.0, 0.0, 0.0, 1.0)),
            scaling=Scaling(divide_by="nothing", clip=(0.0, 1.0)),
            space="MNI152",
            skull_stripped=True,
        ),
        outputs=(
            Output(name="CN", structure="logit of a cognitively normal control"),
            Output(name="AD", structure="logit of Alzheimer's disease"),
        ),
        layer="leaky3",
        description="Alzheimer's disease against controls, from the probability of grey matter in each voxel.",
        credits=("Thibeau-Sutre et al. 2020, https://doi.org/10.1117/12.2548952",),
        assumed=(
            "Numbers of blocks, channels and dense layers are those of Wen et al. 2020, the paper's own are not told.",
            "The grid is that of SPM's 1.5 mm template, which maps of 121 x 145 x 121 voxels come on.",
        ),
    )


def ad_spectrum_record(*, sigma: float = 1.0) -> ModelRecord:
    """The cognition score from a T1 scan of 182 x 218 x 182 voxels (Qiu et al. 2022).

    Args:
        sigma: standard deviation of the score over a population; 1 is the step from normal to mild impairment.

    Example:
        >>> ad_spectrum_record().output_names
        ('COG',)
    """
    return ModelRecord(
        name="ad-spectrum",
        architecture="ADSpectrumNet",
        config={"heads": {"COG": [100, 1]}},
        input=InputSpec(
            shape=(182, 218, 182),
            affine=((-1.0, 0.0, 0.0, 90.0), (0.0, 1.0, 0.0, -126.0), (0.0, 0.0, 1.0, -72.0), (0.0, 0.0, 0.0, 1.0)),
            scaling=Scaling(divide_by="volume-mean", clip=(0.0, 8.0)),
            space="MNI152",
            skull_stripped=True,
        ),
        outputs=(Output(name="COG", sigma=sigma, structure="0 normal cognition, 1 mild impairment, 2 dementia"),),
        layer="leaky2",
        description=(
            "Cognition from a brain-only T1 scan aligned to MNI152. The score is not calibrated on other scanners' "
            "images, and is no diagnosis."
        ),
        licence="MIT",
        credits=("Qiu et al. 2022, https://doi.org/10.1038/s41467-022-31037-5",),
    )


def ad_spectrum_with_add_record() -> ModelRecord:
    """As :func:`ad_spectrum_record`, with the two logits of ``ADD`` behind the score.

    Example:
        >>> ad_spectrum_with_add_record().output_names
        ('COG', 'other-dementia', 'AD-dementia')
    """
    record = ad_spectrum_record()
    return record.model_copy(
        update={
            "name": "ad-spectrum-add",
            "config": {"heads": {"COG": [100, 1], "ADD": [30, 2]}},
            "outputs": (
                *record.outputs,
                Output(name="other-dementia", structure="logit, among people with dementia: not Alzheimer's disease"),
                Output(name="AD-dementia", structure="logit, among people with dementia: Alzheimer's disease"),
            ),
            "description": f"{record.description} ADD means something among people with dementia only: never show it "
            "as Alzheimer's disease against health.",
        }
    )


BRAINCHOP_CLASSES = (
    "Unknown", "Cerebral-White-Matter", "Cerebral-Cortex", "Lateral-Ventricle", "Inferior-Lateral-Ventricle",
    "Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus", "Caudate", "Putamen", "Pallidum", "3rd-Ventricle",
    "4th-Ventricle", "Brain-Stem", "Hippocampus", "Amygdala", "Accumbens-area", "VentralDC",
)  # fmt: skip
"""The classes of the brainchop models of 18 classes; both sides of the brain are one class."""


def meshnet_record(*, width: int = 21) -> ModelRecord:
    """The logits of 18 classes in every voxel of a T1 scan, by a brainchop model (Masoud et al. 2023).

    Args:
        width: 21 or 30 channels, as its weights have.

    Example:
        >>> meshnet_record().output_names[14]
        'Hippocampus'
    """
    return ModelRecord(
        name="meshnet",
        architecture="MeshNet",
        config={"width": width},
        input=InputSpec(shape=(256, 256, 256), affine=_LIA_256, scaling=Scaling(divide_by="maximum", clip=(0.0, 1.0))),
        outputs=tuple(Output(name=name, structure="logit in every voxel") for name in BRAINCHOP_CLASSES),
        layer="elu5",
        description="18 classes in every voxel of a T1 scan of 1 mm, orientation LIA, with intensities from 0 to 1.",
        licence="MIT",
        credits=("Masoud et al. 2023, https://doi.org/10.21105/joss.05098",),
    )


def meshnet_volumes_record(
    structures: Sequence[str] = BRAINCHOP_CLASSES[1:], *, width: int = 21, sigma: Sequence[float] | None = None
) -> ModelRecord:
    """The volumes of structures, both sides together, as the brainchop model sees them.

    Args:
        structures: names among :data:`BRAINCHOP_CLASSES`.
        width: 21 or 30 channels, as its weights have.
        sigma: standard deviation of each volume over a population, in mm^3; None for 1.

    Raises:
        ValueError: if there is no such structure.

    Example:
        >>> record = meshnet_volumes_record(["Hippocampus", "Putamen"], sigma=[800.0, 900.0])
        >>> record.config["classes"], record.outputs[0].unit
        ([14, 9], 'mm^3')
    """
    unknown = sorted(set(structures) - set(BRAINCHOP_CLASSES))
    if unknown:
        raise ValueError(f"The network does not label {', '.join(unknown)}; it labels {', '.join(BRAINCHOP_CLASSES)}.")
    sigmas = [1.0] * len(structures) if sigma is None else sigma
    record = meshnet_record(width=width)
    return record.model_copy(
        update={
            "name": "meshnet-volumes",
            "architecture": "MeshNetVolumes",
            "config": {"width": width, "classes": [BRAINCHOP_CLASSES.index(name) for name in structures]},
            "outputs": tuple(
                Output(name=name, unit="mm^3", sigma=deviation, structure=f"{name}, both sides together")
                for name, deviation in zip(structures, sigmas, strict=True)
            ),
            "description": "Sums of the probabilities of a class over the voxels of a T1 scan of 1 mm, orientation LIA,"
            " with intensities from 0 to 1: volumes whose relevant voxels are known.",
        }
    )


# from left, from below, from the front: the conformed scans of FreeSurfer
_LIA_256 = ((-1.0, 0.0, 0.0, 128.0), (0.0, 0.0, 1.0, -128.0), (0.0, -1.0, 0.0, 128.0), (0.0, 0.0, 0.0, 1.0))


def morphometry_record() -> ModelRecord:
    """165 measures of a T1 scan of 164 x 172 x 202 voxels (Rebsamen et al. 2020, Konate et al. 2021).

    Example:
        >>> len(morphometry_record().outputs)
        165
    """
    return ModelRecord(
        name="morphometry",
        architecture="MorphometryVGG",
        input=InputSpec(shape=(164, 172, 202), scaling=Scaling(divide_by="maximum"), skull_stripped=True),
        outputs=morphometry_outputs(),
        layer="relu2",
        description=(
            "Volumes, cortical thickness and curvature from a brain-only T1 scan that is not registered. Deviations of "
            "the outputs are to be replaced by those of the training population."
        ),
        credits=(
            "Rebsamen et al. 2020, https://doi.org/10.3389/fneur.2020.00244",
            "Konate et al. 2021, https://doi.org/10.1109/ISBI48211.2021.9433790",
        ),
        assumed=(
            "Which 29 subcortical volumes: those of Rebsamen et al.; Konate et al. tell their number only.",
            "Intensities are divided by the largest; Rebsamen et al. bring that to 4095, and voxels are of any size.",
        ),
    )


def kan_record() -> ModelRecord:
    """The sex of a person from a T1 scan of 58 x 70 x 58 voxels (Kan et al. 2020).

    Example:
        >>> kan_record().output_names
        ('man', 'woman')
    """
    return ModelRecord(
        name="kan-sex",
        architecture="KanCNN3D",
        input=InputSpec(shape=(58, 70, 58), scaling=Scaling(divide_by="maximum", clip=(0.0, 1.0))),
        outputs=(Output(name="man", structure="logit"), Output(name="woman", structure="logit")),
        layer="relu3",
        description="Men and women by their T1 scans.",
        credits=("Kan et al. 2020, https://doi.org/10.48550/arXiv.2006.15969",),
        assumed=("Size and place of the voxels, scaling of intensities and order of the classes are not told.",),
    )


def kan_autoencoder_record() -> ModelRecord:
    """A T1 scan of 58 x 70 x 58 voxels from its features (Kan et al. 2020).

    Example:
        >>> kan_autoencoder_record().output_names
        ('intensity',)
    """
    record = kan_record()
    return record.model_copy(
        update={
            "name": "kan-autoencoder",
            "architecture": "KanAutoencoder",
            "outputs": (Output(name="intensity", structure="in every voxel"),),
            "description": "T1 scans from their features, to learn a classifier's convolutions.",
            "assumed": (*record.assumed, "The decoder mirrors the encoder; the paper does not tell it."),
        }
    )


def xray_record(network: str, classes: Sequence[str] = ()) -> ModelRecord:
    """The part of the body in a radiograph of 224 x 224 pixels (Kumar et al. 2017).

    Args:
        network: ``"shallow"``, ``"deeper"`` or ``"deeper-augmented"``.
        classes: names of the classes; the paper's 24, of which it names a few, are numbered without them.

    Raises:
        ValueError: if there is no such network.

    Example:
        >>> record = xray_record("shallow")
        >>> len(record.outputs), record.config["dense"]
        (24, [128])
    """
    layouts = {layout.name: layout for layout in XRAY_NETWORKS}
    if network not in layouts:
        raise ValueError(f"There is no X-ray network {network!r}; there are: {', '.join(layouts)}.")
    layout = layouts[network]
    names = classes or [f"class-{index}" for index in range(24)]
    return ModelRecord(
        name=f"xray-{network}",
        architecture="XRayCNN",
        config={"blocks": [list(block) for block in layout.blocks], "dense": list(layout.dense)},
        input=InputSpec(shape=(224, 224), scaling=Scaling(divide_by="maximum", clip=(0.0, 1.0))),
        outputs=tuple(Output(name=name, structure="logit") for name in names),
        layer=f"relu{len(layout.blocks)}",
        description="24 parts of the body in radiographs of ImageCLEF 2009.",
        credits=("Kumar et al. 2017, https://doi.org/10.48550/arXiv.1611.06284",),
        assumed=(
            "Numbers and kinds of layers: the paper shows them in a figure only.",
            "The scaling of intensities and one grey channel are not told.",
        ),
    )
