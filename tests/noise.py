"""Other people's validators and readers, and what they say that is no fault of an object.

The list of noise stands here and nowhere else. A line that complains and is not on it fails a test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tools import run

COMPLAINT = re.compile(r"^(Error|Warning|Abort|[EWF]: )|warning:|not known", re.IGNORECASE)
"""How dicom3tools, DCMTK and dcmqi begin, or mark, a line that complains."""


@dataclass(frozen=True)
class Noise:
    """A line that is no fault of the object.

    Parameters
    ----------
    program : str
    words : str
        Regular expression that finds the line.
    reason : str
    """

    program: str
    words: str
    reason: str


_NO_UTF8 = "Its checker of value representations knows no UTF-8; it prints the texts right."
NOISE = (
    Noise(
        "dciodvfy",
        r"Unrecognized defined term = <99\w+>",
        "Private coding schemes, ours and of sites, which each object identifies.",
    ),
    Noise(
        "dciodvfy",
        r"ContributingEquipmentSequence\(0018,a001\)\[\d\]/DeviceUID\(0018,1002\)> - "
        r"Attribute is not present in standard DICOM IOD",
        "IHE AIR 6.5.3.1 wants it; it was added to the macro later than this program's tables.",
    ),
    Noise(
        "dciodvfy",
        r"Laterality\(0020,0060\)> - is only permitted to be empty when actually unknown;",
        "It is: the images name no body part that tells whether it is paired.",
    ),
    Noise(
        "dciodvfy",
        r"PatientName\(0010,0010\)\[1\]> - Value dubious for this VR .* Retired Person Name form$",
        "Copied from the images as it came: an archive matches by it.",
    ),
    Noise("dciodvfy", r"needed to build DICOMDIR", "We write no media."),
    Noise(
        "dciodvfy",
        r"SegmentNumber not monotonically increasing from one .* with SegmentNumber of 0$",
        "A label map has a background of number 0 (PS3.3 C.8.20.2); this program is of 2022.",
    ),
    Noise(
        "dciodvfy",
        r"^Error - Information Object Not found$",
        "It does not know Label Map Segmentation; dcmqi and highdicom read those.",
    ),
    Noise(
        "dcentvfy",
        r"Different information entities for attribute - Element=<AccessionNumber> IE <S",
        "Always between images and documents: its tables put the attribute into two entities.",
    ),
    Noise(
        "dcentvfy",
        r"Unrecognized SOP Class - 1\.2\.840\.10008\.5\.1\.4\.1\.1\.66\.7 - |"
        r"Different information entities for attribute - .* versus <Unknown> for file",
        "It does not know Label Map Segmentation; values it compares all the same.",
    ),
    Noise("dsrdump", r"VR checker does not support .* ISO_IR 192$", _NO_UTF8),
    Noise(
        "dsrdump",
        r"^W: Check for template constraints not yet supported$",
        "Said of every Key Object Selection.",
    ),
    Noise("tid1500reader", r"VR checker does not support .* ISO_IR 192$", _NO_UTF8),
    Noise(
        "tid1500reader",
        r"(Measurement Method|FindingSite) modifier is interpreted only at the MeasurementGroup",
        "TID 300 has both with a measurement, too.",
    ),
    Noise(
        "tid1500reader",
        r'concept that is not known, .*\((121106,DCM,"Comment"|121077,DCM,"Conclusion"|'
        r'122405,DCM,"Algorithm Manufacturer"|\w+,99SCORENODE)',
        "It takes what it does not know for qualitative: texts, TID 4019, private codes.",
    ),
)


def complaints(program: str, text: str) -> list[str]:
    """Lines of what a program said that complain and are not on the list."""
    known = [re.compile(one.words) for one in NOISE if one.program == program]
    return [
        line
        for line in text.splitlines()
        if COMPLAINT.search(line) and not any(words.search(line) for words in known)
    ]


def dciodvfy(path: Path) -> Sequence[str]:
    """Complaints about one object."""
    return complaints("dciodvfy", run("dciodvfy", "-new", path).stderr)


def dcentvfy(paths: Sequence[Path]) -> Sequence[str]:
    """Complaints about objects of one study, images among them, that do not fit each other."""
    return complaints("dcentvfy", run("dcentvfy", *paths).stderr)


def dsrdump(path: Path) -> Sequence[str]:
    """Complaints about a document."""
    return _asked("dsrdump", "+U8", path)


def tid1500reader(path: Path, out: Path) -> Sequence[str]:
    """Complaints about a measurement report, which goes into a file as JSON."""
    return _asked("tid1500reader", "--inputDICOM", path, "--outputMetadata", out)


def segimage2itkimage(path: Path, folder: Path) -> Sequence[str]:
    """Complaints about a segmentation, which goes into a folder: NIfTI and ``meta.json``."""
    return _asked(
        "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder,
        "--outputType", "nii",
    )  # fmt: skip


def _asked(program: str, *arguments: str | Path) -> Sequence[str]:
    said = run(program, *arguments)
    found = complaints(program, f"{said.stderr}\n{said.stdout if program != 'dsrdump' else ''}")
    return found if said.returncode == 0 else [*found, f"{program} ended with {said.returncode}"]
