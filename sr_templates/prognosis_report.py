"""A prognosis as a measurement report, TID 1500."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from highdicom.sr import (
    ComprehensiveSR,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementProperties,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NormalRangeProperties,
    NumContentItem,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from models.base import CasePrognosis, Code, Findings, UsedFeature
from sr_templates import codes, stamp
from sr_templates import prognosis_codes as own_codes
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.report import (
    DocumentClass,
    algorithm,
    identifiers,
    observation_context,
    procedure_of,
    segment_groups,
)

USUAL = "Central 95 % of the people of the training cohort who stayed stable"
Group = MeasurementsAndQualitativeEvaluations


def prognosis_report(
    findings: Findings,
    sources: Sequence[Dataset],
    seg: Dataset | None,
    identity: ObjectIdentity,
    maker: Maker,
    comments: Sequence[str] = (),
    document: DocumentClass = ComprehensiveSR,
) -> Dataset:
    """Write a prognosis as an SR document of TID 1500.

    Groups (TID 1501): the score with class, probability and what speaks against it; the scores
    of tables with their dates; what was measured in the images as the model used it; grey matter
    by region; the intracranial volume; then one for each segment of `seg` (TID 1411). PARTIAL
    where a value was filled from the reference cohort.

    Parameters
    ----------
    findings : Findings
        With a `prognosis`.
    sources : sequence of Dataset
        As `normalised` returns them; all of them are evidence.
    seg : Dataset or None
        What `segmentation` made of the same findings.
    identity : ObjectIdentity
    maker : Maker
    comments : sequence of str
        Sentences for the reader.

    Returns
    -------
    Dataset

    References
    ----------
    DICOM PS3.16 TID 1500, 1501, 1411, 300, 310, 312, 4019; PS3.3 A.35.3.
    """
    case = findings.prognosis
    if case is None:
        raise ValueError("the findings hold no prognosis")
    content = MeasurementReport(
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            codes.concept(codes.BRITISH_ENGLISH)
        ),
        observation_context=observation_context(maker),
        procedure_reported=procedure_of((), sources[0]),
        imaging_measurements=[
            *_Groups(case, identity, maker).all(comments),
            *segment_groups(findings, seg, identity, maker),
        ],
    )
    evidence = stamp.anonymous(sources)
    if seg is not None:
        evidence.append(identifiers(seg))
    result = document(
        evidence=evidence,
        content=content,
        is_complete=case.is_complete,
        content_qualification=stamp.content_qualification(maker),
        specific_character_set="ISO_IR 192",
        coding_schemes=[codes.private_scheme()],
        **stamp.general(sources[0], identity, maker),
    )
    stamp.stamp(result, sources[0], maker)
    return result


class _Groups:
    """Builds the Measurement Groups of one case."""

    def __init__(self, case: CasePrognosis, identity: ObjectIdentity, maker: Maker) -> None:
        self.case, self.identity, self.maker = case, identity, maker

    def all(self, comments: Sequence[str]) -> Iterator[Group]:
        """Every group, in the order a reader wants them."""
        yield self._prognosis(comments)
        yield self._clinical()
        measured = [one for one in self.case.features if one.source == "image"]
        if measured:
            yield self._group(
                "image-inputs", own_codes.IMAGE_INPUTS, [_measured(one) for one in measured]
            )
        yield self._volumes()
        cranium = _volume(self.case.volumes_ml["icv"])
        yield self._group(
            "cranial-cavity", codes.CRANIAL_CAVITY, [cranium], sites=[_site(codes.INTRACRANIAL)]
        )

    def _prognosis(self, comments: Sequence[str]) -> Group:
        case = self.case
        reasons = [own_codes.CAUTIONS[reason.code] for reason in case.reasons]
        return self._group(
            "prognosis",
            self.maker.model.finding,
            [
                _with_interval(own_codes.PROJECTION, case.projection, case.projection_interval, 3),
                _with_interval(codes.PROBABILITY, case.probability, case.probability_interval, 4),
            ],
            evaluations=[
                (own_codes.CLASS, own_codes.CLASSES[case.outcome]),
                *((own_codes.CAUTION, reason) for reason in reasons),
            ],
            notes=(
                stamp.caution(self.maker),
                *sentences(case),
                *(reason.sentence for reason in case.reasons),
                *comments,
            ),
            sites=[_site(codes.BRAIN)],
        )

    def _clinical(self) -> Group:
        age = Measurement(
            codes.concept(codes.SUBJECT_AGE),
            round(self.case.age_years, 1),
            codes.concept(codes.YEAR),
        )
        scores = [one for one in self.case.features if one.source not in ("image", "imputed")]
        filled = [one for one in self.case.features if one.source == "imputed"]
        return self._group(
            "clinical-inputs",
            own_codes.CLINICAL_INPUTS,
            [age, *(_scored(one) for one in scores)],
            notes=(
                *(f"{one.label}: {origin(one)}." for one in scores),
                *(f"{one.label}: not available, filled as {one.value:.4g}." for one in filled),
            ),
        )

    def _volumes(self) -> Group:
        volumes = self.case.volumes_ml
        regions = {name: ml for name, ml in volumes.items() if name.rpartition("_")[0]}
        return self._group(
            "regional-volumes",
            codes.GREY_MATTER,
            [
                _volume(volumes["gm"]),
                *(_volume(ml, [own_codes.site(name)]) for name, ml in regions.items()),
            ],
            sites=[_site(codes.BRAIN)],
        )

    def _group(
        self,
        name: str,
        finding: Code,
        measurements: Sequence[Measurement],
        *,
        evaluations: Iterable[tuple[Code, Code]] = (),
        notes: Iterable[str] = (),
        sites: list[FindingSite] | None = None,
    ) -> Group:
        identifier = f"{self.maker.model.family} {name.replace('-', ' ')}"[: stamp.LONG_STRING]
        group = Group(
            tracking_identifier=TrackingIdentifier(
                uid=self.identity.uid(f"tracking-{name}"), identifier=identifier
            ),
            finding_type=codes.concept(finding),
            finding_sites=sites,
            algorithm_id=algorithm(self.maker),
            measurements=list(measurements),
            qualitative_evaluations=[
                QualitativeEvaluation(codes.concept(what), codes.concept(value))
                for what, value in evaluations
            ]
            or None,
        )
        for text in filter(None, notes):
            item = TextContentItem(
                codes.concept(codes.COMMENT), text, RelationshipTypeValues.CONTAINS
            )
            group[0].ContentSequence.append(item)
        return group


def sentences(case: CasePrognosis) -> list[str]:
    """Say in words what the numbers mean, what they are made of, and of whom they were learned."""
    low, high = case.projection_interval
    shares = ", ".join(f"{one.label} {one.contribution:+.2f}" for one in case.features)
    found = [
        f"Scalar projection {case.projection:.2f}, 95 % interval {low:.2f} to {high:.2f}: 0 is the "
        f"prototype of {case.stable}, 1 that of {case.declining}; above {case.threshold:g} a case "
        f"is called {case.declining}.",
        f"Contributions, which add up to the projection: {shares}.",
    ]
    if case.population:
        found.append(f"Training population: {case.population}")
    return found


def origin(feature: UsedFeature) -> str:
    """Where a score is from: table and date."""
    parts = [f"table {feature.source}"]
    if feature.date:
        parts.append(f"of {feature.date}")
    days = feature.days_before
    if days is not None:
        parts.append(f"{abs(days)} days {'before' if days >= 0 else 'after'} the study")
    return ", ".join(parts)


def _site(code: Code) -> FindingSite:
    return FindingSite(codes.concept(code))


def _with_interval(
    name: Code, value: float, interval: tuple[float, float], digits: int
) -> Measurement:
    """Give a number without unit and how far its 95 % interval reaches up and down."""
    low, high = interval
    return Measurement(
        codes.concept(name),
        round(value, digits),
        codes.concept(codes.NO_UNITS),
        properties=MeasurementProperties(
            upper_measurement_uncertainty=round(max(high - value, 0.0), digits),
            lower_measurement_uncertainty=round(max(value - low, 0.0), digits),
        ),
    )


def _volume(ml: float, sites: list[FindingSite] | None = None) -> Measurement:
    return Measurement(
        codes.concept(codes.VOLUME),
        round(ml, codes.DIGITS["volume"]),
        codes.concept(codes.MILLILITER),
        method=codes.concept(own_codes.TISSUE_FRACTIONS),
        finding_sites=sites,
    )


def _scored(feature: UsedFeature) -> Measurement:
    item = Measurement(
        codes.concept(own_codes.name_of(feature)),
        round(feature.value, 4),
        own_codes.unit_of(feature),
        properties=_usual(feature),
    )
    if feature.date:
        item[0].ObservationDateTime = feature.date.replace("-", "")
    return item


def _measured(feature: UsedFeature) -> Measurement:
    return Measurement(
        codes.concept(feature.code or own_codes.PART_OF_CRANIUM),
        round(feature.value, 4),
        own_codes.unit_of(feature),
        finding_sites=[own_codes.site(region) for region in feature.regions],
        properties=_usual(feature),
    )


def _usual(feature: UsedFeature) -> MeasurementProperties | None:
    if feature.usual is None:
        return None
    unit = own_codes.unit_of(feature)
    limits = [
        NumContentItem(
            codes.concept(name), round(value, 4), unit,
            relationship_type=RelationshipTypeValues.HAS_PROPERTIES,
        )
        for name, value in zip((codes.LOWER_LIMIT, codes.UPPER_LIMIT), feature.usual, strict=True)
    ]  # fmt: skip
    return MeasurementProperties(normal_range_properties=NormalRangeProperties(limits, USUAL))
