"""The DICOM conformance statement of a configuration, from what the code and the file say.

Section numbers and headings are those of the template in PS3.2 Annex N without the ``N.``; the
annexes are its N.9 and N.10. Of sections 2, 3, 4 and 8 and of the second annex the order is known,
not the wording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from node.config.file import Config
from node.config.peers import Peer
from node.conformance_entities import ENTITIES, details
from node.conformance_objects import annexes
from node.markdown import Row, table
from node.query import RETRIEVED_CLASSES
from node.receive.storage_scp import TRANSFER_SYNTAXES
from node.receive.tls import SUITES
from pipelines.base import REJECTION_NOTE, SLOTS, SOP_CLASSES
from storage.commitment_requests import (
    CLASS_INSTANCE_CONFLICT,
    KEEP_TRYING,
    NO_SUCH_INSTANCE,
)

LABEL_MAP = "Label Map Segmentation Storage"
"""Not named by pydicom."""
RECEIVED, SENT = "RECEIVED", "SENT"
"""Names of the sets of transfer syntaxes."""
SECTIONS = (
    "1 Overview",
    "2 Table of Contents",
    "3 Introduction",
    "4 Implementation Model",
    "5 Service and Interoperability Description",
    "6 Configuration",
    "7 Network and Media Communication Details",
    "8 Security",
    "A.A Information Object Definitions (IODs)",
    "A.B Codes and Templates",
)
ASKED = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
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
        Names, ports, peers and services come from it, everything else from the code; the tables of
        attributes from objects that are made for them, which takes some seconds.

    References
    ----------
    DICOM PS3.2 Annex N.
    """
    parts = (
        overview(config),
        _contents(),
        _introduction(),
        _implementation_model(config),
        services(config),
        _configuration(config),
        details(config),
        _security(config),
        *annexes(config),
    )
    lines = list(_cover(config))
    for heading, part in zip(SECTIONS, parts, strict=True):
        lines += [f"## {heading}", "", *part]
    return "\n".join(lines) + "\n"


def name_of(uid: str) -> str:
    """Name of a SOP Class."""
    return LABEL_MAP if uid == SOP_CLASSES["labelmap"] else UID(uid).name


def _cover(config: Config) -> Iterator[str]:
    yield f"# DICOM Conformance Statement of {config.node.ae_title}"
    yield ""
    yield (
        f"scorenode {version('scorenode')}. Made by `scorenode conformance` from the configuration "
        f"and the code. Section 1 here is N.1 of the template in PS3.2, and so on."
    )
    yield ""


def overview(config: Config) -> Iterator[str]:
    """Yield the lines of section 1 but for its heading."""
    yield (
        "scorenode receives images, scores them and sends the results; it is no archive and no "
        "viewer."
    )
    yield ""
    yield "### 1.1 Content and Transfer"
    yield ""
    yield (
        "SCP: kept when sent to us. GET: taken within C-GET. Create: made and sent by us (S: "
        "Standard SOP Class)."
    )
    yield ""
    yield from table(
        ("SOP Class", "UID", "Transfer Syntax Set", "SCU", "SCP", "GET", "Create"), _classes()
    )
    rows: list[Row] = [(RECEIVED, syntax.name, syntax) for syntax in TRANSFER_SYNTAXES]
    rows.append((SENT, ExplicitVRLittleEndian.name, ExplicitVRLittleEndian))
    yield "Of several transfer syntaxes in one presentation context, this is the order of choice."
    yield ""
    yield from table(("Transfer Syntax Set", "Transfer Syntax", "UID"), rows)
    yield "### 1.2 Other services"
    yield ""
    yield from table(
        ("Service", "SOP Class", "Role"),
        (
            ("Verification", Verification, "SCU and SCP"),
            (
                "Storage Commitment",
                StorageCommitmentPushModel,
                "SCU and SCP" if _commits(config) else "SCU",
            ),
            *((UID(uid).name, uid, "SCU") for uid in ASKED),
        ),
    )


def _classes() -> Iterator[Row]:
    """Yield all storage classes in the order of their UIDs."""
    kept = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    made = made_classes()
    for uid in sorted(kept | made.keys(), key=lambda uid: [int(part) for part in uid.split(".")]):
        sets = [RECEIVED] * (uid in kept) + [SENT] * (uid in made)
        yield (
            name_of(uid),
            uid,
            ", ".join(sets),
            "yes" if uid in made else "",
            "yes" if uid in kept else "",
            "yes" if uid in RETRIEVED_CLASSES else "",
            "S" if uid in made else "",
        )


def made_classes() -> Mapping[str, list[str]]:
    """SOP Classes of what we make and send, each with the kinds of result that are of it."""
    found: dict[str, list[str]] = {}
    for slot in SLOTS:
        found.setdefault(SOP_CLASSES[slot], []).append(slot)
    found.setdefault(REJECTION_NOTE, []).append("rejection note")
    return found


def _commits(config: Config) -> bool:
    return bool(config.node.storage_commitment)


def _contents() -> Iterator[str]:
    yield from (f"- {heading}" for heading in SECTIONS)
    yield ""


def _introduction() -> Iterator[str]:
    yield (
        "For those who connect this node with other equipment. A statement is no proof that two "
        "systems work together: `scorenode peers check` sees what a peer offers, and deliveries "
        "may be proved one by one (`confirm`). Terms are those of the Standard."
    )
    yield ""


def _implementation_model(config: Config) -> Iterator[str]:
    yield "Each Application Entity is a part of one program, and all have the same AE title."
    yield ""
    rows = ((one.name, config.node.ae_title, one.does, one.activity) for one in ENTITIES)
    yield from table(("Application Entity", "AE title", "Does", "Remote activity"), rows)


def services(config: Config) -> Iterator[str]:
    """Yield the lines of section 5 but for its heading."""
    yield "### 5.2 DIMSE Services"
    yield ""
    yield "#### Verification Service"
    yield ""
    two = f"{ImplicitVRLittleEndian.name} and {ExplicitVRLittleEndian.name}"
    yield f"SCP and SCU of {Verification.name} ({Verification}) in {two}."
    yield ""
    yield "#### Query/Retrieve Service"
    yield ""
    yield (
        "SCU of the Study Root models of 1.2. Matching keys: at level STUDY Patient ID, Patient's "
        "Name, Study Date, Modalities in Study, Study Instance UID; at level SERIES Study Instance "
        "UID; at level IMAGE the UIDs. C-MOVE names our AE title as destination."
    )
    yield ""
    yield "#### 5.2.5 Storage Service"
    yield ""
    yield f"SCU: every class that 1.1 says is created, in {ExplicitVRLittleEndian.name}."
    yield ""
    rows = ((", ".join(slots), name_of(uid), uid) for uid, slots in made_classes().items())
    yield from table(("Result", "SOP Class", "UID"), rows)
    yield "SCP:"
    yield ""
    yield from table(
        ("Levels of conformance", "Value"),
        (
            ("Level", "2, full: every attribute is kept, private ones too"),
            ("Digital signatures", "1: kept as they came, not verified"),
            ("Coercion", "none"),
        ),
    )
    yield "#### 5.2.6 Storage Commitment Service"
    yield ""
    yield from _commitment(config)


def _commitment(config: Config) -> Iterator[str]:
    yield (
        "SCU: for results of rules that say `confirm: [commitment]`. N-EVENT-REPORT is taken in "
        "the association of the request and in one that the peer opens with the SCP role "
        "proposed. What a report does not hold is sent again."
    )
    yield ""
    if not _commits(config):
        yield "SCP: not in this configuration (`node.storage_commitment`)."
        yield ""
        return
    yield (
        "SCP: for peers with an address. The N-EVENT-REPORT goes out in an association of its own "
        f"and is tried for {KEEP_TRYING.total_seconds() / 3600:g} hours. What is committed is no "
        "archive: an instance is held durably now and kept as `retention` says."
    )
    yield ""
    yield from table(
        ("Failure Reason", "When"),
        (
            (f"{NO_SUCH_INSTANCE:04X}", "Not held: never sent, refused, or deleted since"),
            (f"{CLASS_INSTANCE_CONFLICT:04X}", "Held under another SOP Class UID"),
        ),
    )


def _configuration(config: Config) -> Iterator[str]:
    yield "One YAML file: `scorenode config check` checks it, `scorenode config reload` uses it."
    yield ""
    yield "### 6.1 General Configuration Parameters"
    yield ""
    yield from table(("Parameter", "Configurable", "Value here", "Key"), _parameters(config))
    yield "### 6.2 Configuration of DIMSE Services"
    yield ""
    peers: Iterable[Row] = (_peer(peer) for peer in config.peers.values())
    yield from table(("Peer", "Called as", "Calls as", "From", "TLS"), peers)


def _parameters(config: Config) -> Iterator[Row]:
    node = config.node
    yield "AE title", "yes", node.ae_title, "node.ae_title"
    if node.listen:
        yield "Port", "yes", f"{node.listen.host}:{node.listen.port}", "node.listen"
    if node.tls:
        yield "TLS-secured port", "yes", f"{node.tls.host}:{node.tls.port}", "node.tls"
    yield "Associations accepted at once", "yes", node.max_associations, "node.max_associations"
    yield "Root of our UIDs", "yes", node.uid_root, "node.uid_root"
    yield "Device Serial Number", "yes", node.station, "node.station"
    yield "Specific Character Set of results", "no", "ISO_IR 192", ""


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
    if config.node.tls is None:
        yield "This configuration does not listen for TLS."
    else:
        yield "TLS 1.2 and 1.3 (PS3.15 B.9, B.10); suites of TLS 1.2:"
        yield ""
        yield from (f"- {suite}" for suite in SUITES.split(":"))
    yield ""
