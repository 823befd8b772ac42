"""Every reason a check gives: how bad it is, in our objects and in others', and its cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """How a reason is judged.

    `own` is for objects of this node; `others` for everybody else's, None where the Standard
    allows it; `cure` says what to do.
    """

    own: Severity
    others: Severity | None
    cure: str


RULES: Final[dict[str, Rule]] = {
    # The object as a whole.
    "unreadable": Rule("error", "error", "Get the file again from where it was made."),
    "unwritable": Rule(
        "error", "error", "Declare ISO_IR 192 and give every attribute a value that fits its VR."
    ),
    "unfit_source": Rule("error", "warning", "Compare with the complete series as it was sent."),
    "not_ours": Rule("error", None, "Send only objects of the SOP Classes this node makes."),
    "missing": Rule(
        "error", "error", "Write it: Type 1 with a value, Type 2 at least empty (PS3.5 7.4)."
    ),
    "modality": Rule("error", "error", "Write the Modality of the object's SOP Class."),
    # Values and texts.
    "bad_value": Rule("error", "error", "Write a value that its VR allows (PS3.5 6.2)."),
    "bad_value_taken_over": Rule(
        "warning", "warning", "Correct it at the sender; a PACS may match by it, so it is kept."
    ),
    "text_undeclared": Rule("error", "error", "Declare the character set of the text: ISO_IR 192."),
    "text_changed": Rule("error", "error", "Declare ISO_IR 192, which holds every text."),
    "text_substituted": Rule("error", "warning", "Write the text again, declaring ISO_IR 192."),
    "text_twice_encoded": Rule(
        "error", "warning", "Encode the text once; bytes of UTF-8 were taken for Latin-1."
    ),
    "text_of_source": Rule("warning", "warning", "Correct it at the sender of the images."),
    # Where it belongs.
    "differs_from_source": Rule(
        "error", "error", "Take it over from the images, or it lands in another study."
    ),
    "uid_of_source": Rule("error", "error", "Make a new UID for every object and every series."),
    # Codes.
    "code_incomplete": Rule(
        "error", "error", "Write value, scheme and meaning of every code (PS3.3 8.8)."
    ),
    "code_meaning": Rule(
        "error", "warning", "Write the meaning that the table of PS3.16 has for this code."
    ),
    "code_display": Rule("error", None, "Write the meaning that the table has for this code."),
    "code_mixed_up": Rule(
        "error", "error", "Look the code up: value and meaning belong to different concepts."
    ),
    "code_unknown": Rule(
        "error", None, "Use a code of PS3.16, a private one, or have it reviewed for local codes."
    ),
    "code_retired_scheme": Rule("error", "warning", "Use SCT: the scheme is retired (PS3.16 8)."),
    "code_private_undeclared": Rule(
        "error", None, "Identify the scheme in Coding Scheme Identification Sequence."
    ),
    # Segmentations.
    "segment_number": Rule("error", "error", "Number segments from 1 without a gap."),
    "segment_undescribed": Rule(
        "error", "error", "Describe every segment that frames refer to in Segment Sequence."
    ),
    "segment_empty": Rule("error", "warning", "Describe only segments that have voxels."),
    "segment_colour": Rule(
        "error", None, "Write Recommended Display CIELab Value; some viewers fail without it."
    ),
    "segment_tracking": Rule(
        "error", None, "Write Tracking ID and Tracking UID, the same as in the report."
    ),
    "segment_algorithm": Rule("error", "error", "Name the algorithm of an automatic segment."),
    "pixels": Rule("error", "error", "Write as many pixels as frames, rows and columns make."),
    "frames": Rule(
        "error", "error", "Write one item of Per-Frame Functional Groups for each frame."
    ),
    "frame_group": Rule("error", "error", "Write the functional group, shared or for each frame."),
    "frame_index": Rule(
        "error", "error", "Write one Dimension Index Value, from 1, for each dimension."
    ),
    "frame_place": Rule("error", "warning", "Take position, orientation and spacing of the slice."),
    "frame_place_promised": Rule(
        "error", "error", "Put the frame where its source lies, or say that it was moved."
    ),
    "frame_source": Rule("error", "warning", "Name in Derivation Image what a frame was drawn on."),
    "frame_source_foreign": Rule(
        "error", "warning", "Name the image that lies in the frame's place."
    ),
    "reference_unlisted": Rule(
        "error", "error", "List every image that is referred to in Referenced Series Sequence."
    ),
    # Documents.
    "item": Rule(
        "error", "error", "Write the content item as its Value Type wants (PS3.3 C.17.3)."
    ),
    "relationship": Rule(
        "error", "error", "Use a relationship that the document's IOD allows (PS3.3 A.35)."
    ),
    "relationship_template": Rule(
        "error", "error", "Use the relationship that the row of the template has (PS3.16)."
    ),
    "evidence": Rule("error", "error", "List all that is referred to in the evidence sequences."),
    "evidence_foreign": Rule("error", "warning", "List only what the document was made from."),
    "verified": Rule("error", "error", "Name who verified the document, or say UNVERIFIED."),
    "title": Rule("error", "warning", "Give the document a title of CID 7021."),
    "template_row": Rule("error", "error", "Write the row, which TID 1500 wants."),
    "template_row_own": Rule("error", None, "Write the row: ours has it in every report."),
    "air": Rule("error", None, "Write the same in the observer, algorithm and equipment (AIR)."),
    # Report and segmentation together.
    "volume_differs": Rule("error", "warning", "Report the volume of the voxels that are sent."),
    "segment_unreported": Rule("error", None, "Write one Measurement Group for each segment."),
    "segment_absent": Rule("error", "error", "Refer to a segment that the segmentation has."),
    "tracking_differs": Rule("error", "warning", "Use the Tracking UID of the segment."),
    # Structure Sets.
    "region": Rule(
        "error", "error", "Describe each region once, with its name, contours and observation."
    ),
    "contour": Rule("error", "error", "Write contours as points on the image that they name."),
    # Documents in other formats, and selections of objects.
    "document": Rule("error", "error", "Encapsulate the whole document, and say its length."),
    "selection": Rule("error", "error", "Refer to each object, and list it in the evidence."),
    # Secondary captures.
    "burned_in": Rule("error", None, "Say NO, and keep patient data out of the pixels."),
    "photometric": Rule(
        "error", "error", "Let bits, samples and photometric interpretation agree (PS3.3 C.7.6.3)."
    ),
}
