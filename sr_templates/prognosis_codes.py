"""Codes of a prognosis: those of PS3.16 where there are any, else our own."""

from __future__ import annotations

import re
from typing import Final

from highdicom.sr import CodedConcept, FindingSite

from models.base import Code, UsedFeature
from sr_templates import codes
from sr_templates.code_tables import meanings_of
from sr_templates.codes import private

PROJECTION: Final = private("GMLVQSP", "GMLVQ scalar projection")
CLASS: Final = private("GMLVQCLS", "GMLVQ class")
CLASSES: Final[dict[str, Code]] = {
    "stable": private("STABLE", "Stable"),
    "declining": private("PROGRESSIVE", "Progressive"),
    "undetermined": codes.UNDETERMINED,
}
CAUTION: Final = private("CAUTION", "Reason for caution")
CAUTIONS: Final[dict[str, Code]] = {
    "indeterminate": private("INDETERMINATE", "No class is probable enough"),
    "outside_training_range": private("OUTSIDE_COHORT", "Far from the training cohort"),
    "feature_out_of_range": private("FEATURE_RANGE", "A value is beyond those of training"),
    "missing_feature": private("FEATURE_MISSING", "A value is missing"),
    "imputed": private("IMPUTED", "A value was filled from the reference cohort"),
}
CLINICAL_INPUTS: Final = private("CLINPUT", "Clinical inputs")
IMAGE_INPUTS: Final = private("IMGINPUT", "Inputs measured in the images")
PART_OF_CRANIUM: Final = private("GM_OF_ICV", "Grey matter by intracranial volume, at mean age")
TISSUE_FRACTIONS: Final = private("SUM_FRACTIONS", "Sum of tissue fractions")
SITES: Final[dict[str, Code]] = {
    "hippocampus": ("SCT", "5366008", "Hippocampus"),
    "amygdala": ("SCT", "4958002", "Amygdala"),
    "parahippocampal": private("PARAHIPPOCAMPAL", "Parahippocampal gyrus"),
    "deep_grey": private("DEEP_GREY", "Deep grey matter"),
    "frontal": ("SCT", "83251001", "Frontal lobe"),
    "temporal": ("SCT", "78277001", "Temporal lobe"),
    "parietal": ("SCT", "16630005", "Parietal lobe"),
    "occipital": ("SCT", "31065004", "Occipital lobe"),
    "cerebellum": ("SCT", "113305005", "Cerebellum"),
}
"""Regions of `models.atlas`, without their side."""
SIDES: Final[dict[str, Code]] = {"left": codes.LEFT, "right": codes.RIGHT}


def site(region: str) -> FindingSite:
    """Give the Finding Site of a region of the atlas, such as ``hippocampus_left``."""
    structure, _, side = region.rpartition("_")
    return FindingSite(codes.concept(SITES[structure]), codes.concept(SIDES[side]))


def name_of(feature: UsedFeature) -> Code:
    """Name a value of a table: by the model's code, else by one made of its name."""
    if feature.code is not None:
        return feature.code
    value = re.sub(r"[^A-Z0-9]+", "_", feature.name.upper()).strip("_")
    return private(f"F_{value}"[:16], feature.label[:64])


def unit_of(feature: UsedFeature) -> CodedConcept:
    """UCUM unit of a feature, with the meaning that the tables give it."""
    if feature.unit == "%":
        return codes.concept(codes.PERCENT)
    known = sorted(meanings_of("UCUM", feature.unit))
    return codes.concept(("UCUM", feature.unit, known[0] if known else feature.unit))


def brought(features: tuple[UsedFeature, ...]) -> frozenset[Code]:
    """Codes and units that no table has and the model's maker answers for."""
    named = [feature.code for feature in features if feature.code is not None]
    units: list[Code] = [("UCUM", feature.unit, feature.unit) for feature in features]
    return frozenset(code for code in (*named, *units) if not meanings_of(code[0], code[1]))
