from collections import Counter

from flax import nnx

from jaxsal import zoo


def test_there_are_165_measures_of_three_kinds():
    outputs = zoo.morphometry_outputs()
    assert Counter(output.unit for output in outputs) == {"mm^3": 29, "mm": 68, "1/mm": 68}
    assert len({output.name for output in outputs}) == 165


def test_volumes_have_two_sides_where_there_are_two():
    names = {output.name for output in zoo.subcortical_volumes()}
    left = {name.removeprefix("Left-") for name in names if name.startswith("Left-")}
    right = {name.removeprefix("Right-") for name in names if name.startswith("Right-")}
    assert left == right
    assert len(left) == 12
    assert names - {f"{side}-{name}" for side in ("Left", "Right") for name in left} == {
        "Brain-Stem", "WM-hypointensities", "CC_sum", "TotalGray", "CerebralWhiteMatter",
    }  # fmt: skip


def test_every_region_of_either_hemisphere_has_both_measures():
    found = Counter(output.name.rsplit("-", 1)[0] for output in zoo.cortical_measures())
    assert set(found.values()) == {2}
    assert len(found) == 68
    assert {name.removeprefix("lh-") for name in found if name.startswith("lh-")} == {
        name.removeprefix("rh-") for name in found if name.startswith("rh-")
    }
    thickness = next(output for output in zoo.cortical_measures() if output.name == "rh-insula-ThickAvg")
    assert (thickness.unit, thickness.structure) == ("mm", "mean thickness of insula, right hemisphere")


def test_the_record_builds_the_published_network():
    record = zoo.morphometry_record()
    built = nnx.eval_shape(lambda: zoo.build(record.architecture, record.config, len(record.outputs), record.input))
    assert built.output.out_features == 165
    assert record.layer in built.names
    assert any("29 subcortical volumes" in sentence for sentence in record.assumed)
