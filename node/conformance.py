"""The DICOM conformance statement of a configuration, from what the code and the file say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from node import statuses
from node.config.file import Config
from node.config.peers import Peer
from node.query import RETRIEVED_CLASSES
from node.receive.connection import GuardSettings
from node.receive.receiver import ReceiverSettings
from node.receive.storage_scp import TRANSFER_SYNTAXES
from node.receive.tls import SUITES
from pipelines.base import REJECTION_NOTE, SLOTS, SOP_CLASSES
from sr_templates import code_tables
from sr_templates.base import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
)

Row = Sequence[object]
LABEL_MAP = "Label Map Segmentation Storage"
"""Not named by pydicom."""
MADE_OF = {
    "sr": "TID 1500, 1501, 1411, 1419, 4019",
    "seg": "BINARY",
    "capture": "one RGB image",
    "labelmap": "LABELMAP",
    "sr3d": "as sr",
    "outlines": "TID 1500, 1410",
    "text": "TID 2000",
    "pdf": "application/pdf",
    "rtstruct": "CLOSED_PLANAR contours",
}
STATUSES = (
    (statuses.SUCCESS, "Success", "Kept, durably; also what is there with the same bytes"),
    (statuses.DUPLICATE_SOP_INSTANCE, "Duplicate SOP Instance", "With on_conflict: refuse only"),
    (statuses.SOP_CLASS_NOT_SUPPORTED, "SOP Class not supported", "Another than its context's"),
    (statuses.OUT_OF_RESOURCES, "Out of resources", "Disk or database; nothing is kept"),
    (
        statuses.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
        "Data Set does not match SOP Class",
        "A UID is missing, malformed, or another than in the request",
    ),
    (statuses.CANNOT_UNDERSTAND, "Cannot understand", "Not readable; Error Comment says where"),
)


def accepted_contexts() -> Iterator[tuple[str, str]]:
    """Yield every abstract syntax and transfer syntax that intake accepts, as SCP of C-STORE."""
    for context in AllStoragePresentationContexts:
        for syntax in TRANSFER_SYNTAXES:
            yield str(context.abstract_syntax), str(syntax)


def statement(config: Config) -> str:
    """Write the statement in Markdown, in the order of PS3.2 Annex N.

    Parameters
    ----------
    config : Config
        Names, ports, peers and services come from it, everything else from the code.

    References
    ----------
    DICOM PS3.2 Annex N.
    """
    sections = (
        _overview(config),
        _implementation_model(config),
        _services(config),
        _configuration(config),
        _security(config),
        _objects(config),
        _codes(),
    )
    return "\n".join(line for section in sections for line in section) + "\n"


def _table(head: Row, rows: Iterable[Row]) -> Iterator[str]:
    yield f"| {' | '.join(map(str, head))} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def _name(uid: str) -> str:
    return LABEL_MAP if uid == SOP_CLASSES["labelmap"] else UID(uid).name


def _overview(config: Config) -> Iterator[str]:
    yield f"# DICOM Conformance Statement of {config.node.ae_title}"
    yield ""
    yield (
        "Implementation: scorenode. It receives images, scores them and sends the results; it is "
        "no archive and no viewer. Made by `scorenode conformance`."
    )
    yield ""
    yield "## N.1 Overview"
    yield ""
    yield "### N.1.1 Content and transfer"
    yield ""
    yield from _table(
        ("Service", "Role"),
        (
            ("Verification", "SCU and SCP"),
            ("Storage, all classes of N.5.2", "SCP"),
            ("Storage, classes of N.5.3", "SCU"),
            ("Storage Commitment Push Model", "SCU and SCP" if _commits(config) else "SCU"),
            ("Query/Retrieve, Study Root: FIND, MOVE, GET", "SCU"),
        ),
    )


def _commits(config: Config) -> bool:
    return bool(config.node.storage_commitment)


def _implementation_model(config: Config) -> Iterator[str]:
    yield "## N.4 Implementation model"
    yield ""
    yield from _table(
        ("Application Entity", "AE title", "Does"),
        (
            ("Intake", config.node.ae_title, "waits for associations; keeps what is sent"),
            ("Query", config.node.ae_title, "asks peers for earlier studies"),
            ("Delivery", config.node.ae_title, "sends results to the destinations of a rule"),
        ),
    )


def _services(config: Config) -> Iterator[str]:
    yield "## N.5 Service and interoperability description"
    yield ""
    yield "### N.5.1 Association policies"
    yield ""
    settings = ReceiverSettings(config.node.ae_title, (), "127.0.0.1", 0)
    guard = GuardSettings(is_listed=lambda address: True)
    yield from _table(
        ("Policy", "Value"),
        (
            ("Application context", "1.2.840.10008.3.1.1.1"),
            ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
            ("Longest PDU", f"{settings.max_pdu_bytes} bytes"),
            ("Associations at once", config.node.max_associations),
            ("Asynchronous operations", "not supported: 1 and 1"),
            ("A-ASSOCIATE-RQ within", f"{guard.request_seconds:g} s"),
            ("Silence on an association", f"{settings.idle_seconds:g} s"),
        ),
    )
    yield from _receiving()
    yield from _sending()
    yield from _asking()


def _receiving() -> Iterator[str]:
    yield "### N.5.2 Storage as SCP"
    yield ""
    yield (
        "Level 2, full: every attribute is kept, nothing is coerced. Transfer syntaxes, in the "
        "order in which one is chosen:"
    )
    yield ""
    yield from _table(("Transfer syntax", "UID"), ((s.name, s) for s in TRANSFER_SYNTAXES))
    yield "SOP Classes, each in all of these transfer syntaxes:"
    yield ""
    classes = (str(context.abstract_syntax) for context in AllStoragePresentationContexts)
    yield from _table(("SOP Class", "UID"), ((_name(uid), uid) for uid in classes))
    two = f"{ImplicitVRLittleEndian.name} and {ExplicitVRLittleEndian.name}"
    yield f"{Verification.name} ({Verification}) in {two}."
    yield ""
    yield "Answers to C-STORE:"
    yield ""
    yield from _table(("Status", "Name", "When"), ((f"{c:04X}", n, w) for c, n, w in STATUSES))


def _sending() -> Iterator[str]:
    yield "### N.5.3 Storage as SCU"
    yield ""
    yield f"In {ExplicitVRLittleEndian.name} ({ExplicitVRLittleEndian})."
    yield ""
    made: list[Row] = [(slot, _name(SOP_CLASSES[slot]), SOP_CLASSES[slot]) for slot in SLOTS]
    made.append(("rejection note", _name(REJECTION_NOTE), REJECTION_NOTE))
    yield from _table(("Result", "SOP Class", "UID"), made)


def _asking() -> Iterator[str]:
    yield "### N.5.4 Query/Retrieve and Storage Commitment as SCU"
    yield ""
    asked = (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelMove,
        StudyRootQueryRetrieveInformationModelGet,
        StorageCommitmentPushModel,
    )
    yield from _table(("SOP Class", "UID"), ((UID(uid).name, uid) for uid in asked))
    yield "Storage classes as SCP within C-GET:"
    yield ""
    yield from _table(("SOP Class", "UID"), ((_name(uid), uid) for uid in RETRIEVED_CLASSES))


def _configuration(config: Config) -> Iterator[str]:
    yield "## N.6 Network configuration"
    yield ""
    listen, tls = config.node.listen, config.node.tls
    ports = [("plain", listen.host, listen.port)] if listen else []
    if tls:
        ports.append(("TLS", tls.host, tls.port))
    yield from _table(("Port", "Address", "Number"), ports)
    yield from _table(
        ("Peer", "Called as", "Calls as", "From", "TLS"),
        (_peer(peer) for peer in config.peers.values()),
    )


def _peer(peer: Peer) -> Row:
    there = peer.address
    return (
        peer.name,
        f"{there.ae_title} at {there.host}:{there.port}" if there else "-",
        ", ".join(peer.sends_as) or "-",
        ", ".join(map(str, peer.from_networks)) or ("anywhere" if peer.sends_as else "-"),
        f"received: {peer.tls.receive}; called: {'yes' if peer.tls.authorities else 'no'}",
    )


def _security(config: Config) -> Iterator[str]:
    yield "## N.8 Security"
    yield ""
    if config.node.tls is None:
        yield "This configuration does not listen for TLS."
    else:
        yield "TLS 1.2 and 1.3 (PS3.15 B.9, B.10); suites of TLS 1.2:"
        yield ""
        yield from (f"- {suite}" for suite in SUITES.split(":"))
    yield ""


def _objects(config: Config) -> Iterator[str]:
    yield "## Annex A: Created SOP Instances"
    yield ""
    yield (
        f"Manufacturer {MANUFACTURER}, Manufacturer's Model Name {MANUFACTURER_MODEL_NAME}, "
        f"Device Serial Number {config.node.station}, Specific Character Set ISO_IR 192, UIDs "
        f"under {config.node.uid_root}. Patient and study attributes come from the images."
    )
    yield ""
    rows = [
        (rule.name, slot, label.number, _name(SOP_CLASSES[slot]), MADE_OF[slot])
        for rule in config.rules
        for slot, label in rule.labels().items()
        if slot in SOP_CLASSES
    ]
    yield from _table(("Rule", "Result", "Series Number", "SOP Class", "Content"), rows)


def _codes() -> Iterator[str]:
    yield "## Annex B: Codes outside PS3.16"
    yield ""
    yield from _table(
        ("Scheme", "Value", "Meaning", "Looked up in"),
        ((c.scheme, c.value, c.meaning, c.source) for c in code_tables.LOCAL_CODES),
    )
    yield (
        f"Private scheme {code_tables.PRIVATE}SCORENODE is identified in each object that uses it."
    )
