"""The 165 measures of a brain by their FreeSurfer names."""

from jaxsal.zoo.record import Output

_PAIRED = (
    "Lateral-Ventricle", "Inf-Lat-Vent", "Cerebellum-White-Matter", "Cerebellum-Cortex", "Thalamus-Proper", "Caudate",
    "Putamen", "Pallidum", "Hippocampus", "Amygdala", "Accumbens-area", "VentralDC",
)  # fmt: skip
_UNPAIRED = {
    "Brain-Stem": "brain stem",
    "WM-hypointensities": "hypointensities of the white matter",
    "CC_sum": "corpus callosum, its five parts together",
    "TotalGray": "all grey matter",
    "CerebralWhiteMatter": "white matter of the cerebrum",
}
_REGIONS = (
    "bankssts", "caudalanteriorcingulate", "caudalmiddlefrontal", "cuneus", "entorhinal", "fusiform",
    "inferiorparietal", "inferiortemporal", "isthmuscingulate", "lateraloccipital", "lateralorbitofrontal", "lingual",
    "medialorbitofrontal", "middletemporal", "parahippocampal", "paracentral", "parsopercularis", "parsorbitalis",
    "parstriangularis", "pericalcarine", "postcentral", "posteriorcingulate", "precentral", "precuneus",
    "rostralanteriorcingulate", "rostralmiddlefrontal", "superiorfrontal", "superiorparietal", "superiortemporal",
    "supramarginal", "frontalpole", "temporalpole", "transversetemporal", "insula",
)  # fmt: skip


def subcortical_volumes() -> tuple[Output, ...]:
    """The 29 volumes: 12 structures of either side, and 5 others.

    The names are those of FreeSurfer's ``aseg`` but for two: ``CC_sum`` adds up the parts of the corpus callosum, and
    ``CerebralWhiteMatter`` is the white matter within the cerebral surfaces. These 29 are the ones that Rebsamen et al.
    configured their network for; that Konate et al., who tell their number only, mean the same ones is *assumed*.

    Returns:
        Names such as ``Left-Hippocampus``, in mm^3. Deviations are 1 until those of a population replace them.

    Example:
        >>> len(subcortical_volumes()), subcortical_volumes()[8].name
        (29, 'Brain-Stem')
    """
    left, right = ([_volume(f"{side}-{name}") for name in _PAIRED] for side in ("Left", "Right"))
    brain_stem, *others = (_volume(name, words) for name, words in _UNPAIRED.items())
    # where the published list has it: behind the pallidum
    return (*left[:8], brain_stem, *left[8:], *right, *others)


def cortical_measures() -> tuple[Output, ...]:
    """Mean thickness and mean curvature of the 34 regions of Desikan and Killiany in either hemisphere: 136 measures.

    Returns:
        Names such as ``lh-insula-ThickAvg``, in mm, and ``lh-insula-MeanCurv``, in 1/mm; a region's two measures follow
        each other, the left hemisphere comes first. Deviations are 1 until those of a population replace them.

    Example:
        >>> [output.name for output in cortical_measures()[:2]]
        ['lh-bankssts-ThickAvg', 'lh-bankssts-MeanCurv']
    """
    return tuple(
        Output(name=f"{side}-{region}-{measure}", unit=unit, structure=f"{words} of {region}, {hemisphere} hemisphere")
        for side, hemisphere in (("lh", "left"), ("rh", "right"))
        for region in _REGIONS
        for measure, unit, words in (("ThickAvg", "mm", "mean thickness"), ("MeanCurv", "1/mm", "mean curvature"))
    )


def morphometry_outputs() -> tuple[Output, ...]:
    """All 165 measures in the order of the published network: :func:`subcortical_volumes`, then the cortex.

    Reference:
        Rebsamen et al., Brain morphometry estimation: from hours to seconds using deep learning,
        Frontiers in Neurology 2020, https://doi.org/10.3389/fneur.2020.00244

    Example:
        >>> names = [output.name for output in morphometry_outputs()]
        >>> len(names), names[0], names[-1]
        (165, 'Left-Lateral-Ventricle', 'rh-insula-MeanCurv')
    """
    return (*subcortical_volumes(), *cortical_measures())


def _volume(name: str, words: str = "") -> Output:
    return Output(name=name, unit="mm^3", structure=f"volume of {words or name.replace('-', ' ')}")
