"""What every key of the configuration file means, with an example: for the reference and editors.

A test compares these with the schema: no key may lack a meaning, and none may be left over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """One key.

    Parameters
    ----------
    meaning : str
    example : str
        As it is written in the file, behind the key.
    """

    meaning: str
    example: str


def _meanings(**keys: tuple[str, str]) -> Mapping[str, Meaning]:
    return {key.rstrip("_"): Meaning(*words) for key, words in keys.items()}


SECTIONS: Mapping[str, Meaning] = {
    "schema": Meaning("Version of the file format.", "1"),
    "node": Meaning("What this Application Entity is.", "{ ae_title: SCORENODE }"),
    "peers": Meaning("Other Application Entities, each under a name.", "{ PACS: { ... } }"),
    "completion": Meaning("When a series counts as complete.", "{ quiet: 45s }"),
    "models": Meaning("Where model packages lie.", "{ folders: [packages] }"),
    "tables": Meaning("Tables that rules read, each under a name.", "{ scores: { ... } }"),
    "rules": Meaning("What is scored, from top to bottom.", "[ { name: head-ct, ... } ]"),
    "unmatched": Meaning("What becomes of series that no rule wanted.", "{ keep: 3d }"),
    "retention": Meaning("How long things are kept.", "{ inputs: 7d }"),
    "alerts": Meaning("Who is told of what.", "{ send_when: [failed] }"),
}

MEANINGS: Mapping[str, Mapping[str, Meaning]] = {
    "NodeSection": _meanings(
        ae_title=("AE title of this node, at most 16 characters.", "SCORENODE"),
        station=("Stable id of this node in results; the host name where left out.", "ct-node-1"),
        listen=("Where associations are accepted; off where only TLS is.", "{ port: 11112 }"),
        tls=(
            "Where associations over TLS are accepted.",
            "{ port: 2762, certificate: node.crt, key: node.key, authorities: ca.crt }",
        ),
        data=(
            "Folder for objects, rows and work; beside the file where left out.",
            "/var/lib/scorenode",
        ),
        database=(
            "URL of the database; SQLite in the data folder where left out.",
            "postgresql+psycopg://scorenode:${file:/run/secrets/db}@db/scorenode",
        ),
        broker=("What wakes workers: sql (in the database), RabbitMQ or Redis.", "amqp://rabbit"),
        health=("Where health and metrics are shown; or off.", "{ port: 8088 }"),
        uid_root=("Root of the UIDs we make, at most 38 characters.", "1.2.826.0.1.3680043.8.498."),
        accept_from=("Peers that may associate; all with sends_as where left out.", "[PACS, CT1]"),
        store=("How received objects are kept.", "{ kind: arena }"),
        disk=("Marks on the disk of the data folder.", "{ refuse_free: 8% }"),
        workers=("How many worker processes there are.", "{ cpu: 2, infer: 1 }"),
        memory=("How much memory work may take.", "{ step: 8GB }"),
        log_level=("From which level on events are logged.", "info"),
        max_associations=("Most associations at a time.", "64"),
        on_conflict=("What to do with other bytes under a known SOP Instance UID.", "keep_first"),
        storage_commitment=(
            "Whether we vouch for images we hold, until retention deletes them; no archive.",
            "no",
        ),
    ),
    "Listen": _meanings(
        host=("Address to listen on; 0.0.0.0: all.", "10.4.0.7"),
        port=("Port; 0 takes any free one.", "11112"),
    ),
    "TLS": _meanings(
        certificate=("Our certificate and those between it and its authority, PEM.", "node.crt"),
        key=("Its private key, PEM, without passphrase.", "node.key"),
        authorities=("Who signs the certificates of peers, PEM.", "hospital-ca.crt"),
        host=("Address to listen on; 0.0.0.0: all.", "10.4.0.7"),
        port=("Port; 0 takes any free one.", "2762"),
    ),
    "Health": _meanings(host=("Address to listen on.", "127.0.0.1"), port=("Port.", "8088")),
    "Disk": _meanings(
        warn_free=("With less free, an alert is raised.", "20%"),
        refuse_free=("With less free, objects are refused with 0xA700.", "8%"),
        ballast=("Room that is kept for rows and results; or off.", "256MB"),
    ),
    "Store": _meanings(
        kind=("files: one file per object. arena: small objects share files.", "arena"),
        ready=("How much of an arena is prepared.", "256MB"),
    ),
    "Workers": _meanings(
        cpu=("Processes that convert and report.", "2"), infer=("Devices that run models.", "1")
    ),
    "Memory": _meanings(
        step=("Most memory of one step; with more it is ended.", "8GB"),
        receive=(
            "Memory for what is read from the network: 1 MiB for each association that sends; "
            "where it is used up, 256 KiB.",
            "64MiB",
        ),
    ),
    "Peer": _meanings(
        address=(
            "Where it is called; needed to send to it or ask it.",
            "{ host: pacs, port: 104, ae_title: MAINPACS }",
        ),
        dicomweb=(
            "Where results are sent by STOW-RS, in place of address.",
            "{ url: https://pacs.hospital.lan/dicom-web }",
        ),
        folder=("Folder that results are put into as files, in place of address.", "/export/ai"),
        sending=("How results are sent to it.", "{ window: '22:00-06:00' }"),
        sends_as=("Calling AE titles it uses; '*' alone: any.", "[MAINPACS, MAINPACS_OUT1]"),
        from_networks=("Where it calls from; anywhere where left out.", "[10.4.0.0/24]"),
        tls=("Whether it must come over TLS; and the files to call it with.", "required"),
        supports=("Services it offers.", "{ commitment: yes, find: yes }"),
        client_certificate=("Whether it must show a certificate over TLS.", "required"),
        certificate_names=("Names, of which its certificate must have one.", "[ct1.hospital.lan]"),
        fingerprints=("SHA-256 of its certificates; one of them must be shown.", "['5c...']"),
        user=(
            "The user it must name, over TLS only (PS3.7 D.3.3.7); not asked where left out.",
            "{ name: ct1, passcode: '${file:ct1.passcode}' }",
        ),
        max_associations=("Most associations of it at a time.", "32"),
        takes_demonstration=("Whether results of demonstration models may go there.", "yes"),
        timeout=("Of connecting to it, and of each answer.", "30s"),
        completion=("What is different for series that it sends.", "{ quiet: 2m }"),
    ),
    "User": _meanings(
        name=("Username.", "ct1"),
        passcode=("Where its passcode stands.", "'${file:ct1.passcode}'"),
    ),
    "Address": _meanings(
        host=("Host name or address.", "pacs.hospital.lan"),
        port=("Port.", "104"),
        ae_title=("Its AE title when it is called.", "MAINPACS"),
    ),
    "Sending": _meanings(
        ae_title=("Our AE title when we call it; that of the node where left out.", "AI_OUT"),
        associations=("Most associations with it at a time.", "2"),
        window=("Hours in which it is called, local time.", "'22:00-06:00'"),
        connect_timeout=("Of TCP; timeout, but 10s at most, where left out.", "5s"),
        association_timeout=("Of the answer to A-ASSOCIATE-RQ; timeout where left out.", "10s"),
        answer_timeout=("Of each answer to a message; timeout where left out.", "2m"),
        report_within=(
            "Within which it must report on a storage commitment; then it is sent again.",
            "24h",
        ),
    ),
    "DICOMweb": _meanings(
        url=("Root of its DICOMweb services.", "https://pacs.hospital.lan/dicom-web"),
        token=("Bearer token; from a file or the environment.", "${file:pacs-token}"),
        ca=("Who signs its certificate, PEM; the system's where left out.", "pki/hospital-ca.pem"),
    ),
    "PeerTLS": _meanings(
        receive=("Whether it must come over TLS.", "required"),
        ca=("Who signs its certificate; with it, it is called over TLS.", "pki/hospital-ca.pem"),
        cert=("Our certificate when we call it.", "pki/node.pem"),
        key=("Its private key.", "pki/node.key"),
    ),
    "Supports": _meanings(
        commitment=("Storage Commitment Push Model.", "yes"),
        find=("C-FIND, study root.", "yes"),
        move=("C-MOVE, study root.", "yes"),
        get=("C-GET, study root.", "no"),
    ),
    "Completion": _meanings(
        evidence=(
            "What may prove a series complete or not, the most trusted first; or none. mpps: acted "
            "on from a later version.",
            "[header_counts, pacs_count, geometry]",
        ),
        quiet=("Without proof, a series is complete when nothing came for so long.", "45s"),
        max_wait=("At the latest so long after its first instance.", "20m"),
        if_incomplete=("What rules do with a series that is proved incomplete.", "hold"),
        late_instances=(
            "What rules do with images that come after the series was scored.",
            "rerun_if_changed",
        ),
    ),
    "PeerCompletion": _meanings(
        evidence=("What may prove a series complete or not, for this peer.", "[pacs_count]"),
        quiet=("Without proof, a series is complete when nothing came for so long.", "2m"),
        max_wait=("At the latest so long after its first instance.", "30m"),
    ),
    "ModelsSection": _meanings(
        folders=("Folders of model packages, beside our own.", "[packages]"),
        trust=("Packages that may run code of their own.", "{ my-model: code }"),
    ),
    "Unmatched": _meanings(keep=("How long they are kept.", "3d")),
    "Retention": _meanings(
        inputs=("Images, after their job ended.", "7d"),
        results=("Results, after they were delivered.", "30d"),
        failed=("Images of jobs that failed.", "14d"),
        audit=("The record of what happened and who did it: scorenode events.", "7y"),
    ),
    "Alerts": _meanings(
        webhook=("URL that alerts are posted to, as JSON.", "https://hooks.hospital.lan/ai"),
        send_when=("Which alerts.", "[held, failed]"),
        silence=(
            "What must not be silent for long; told like an alert.",
            "{ peer: CT1, longer_than: 2h }",
        ),
    ),
    "Silence": _meanings(
        longer_than=("For how long.", "2h"), peer=("A peer.", "CT1"), rule=("A rule.", "head-ct")
    ),
    "Table": _meanings(
        id=("Column that names the patient (or whatever an input's key holds).", "patient_id"),
        csv=("A text file.", "{ file: scores.csv }"),
        parquet=("A Parquet file; needs the extra parquet.", "{ file: scores.parquet }"),
        sql=("A table of a database.", "{ url: 'sqlite:////data/scores.db', table: scores }"),
        redcap=(
            "A project in REDCap.",
            "{ url: https://redcap.hospital.lan/api/, token: '${file:redcap-token}' }",
        ),
        date=("Column with the date of a row.", "visit_date"),
        birth_date=("Column with the birth date, which must be that of the images.", "dob"),
        fields=(
            "Values that the model gets; all columns where left out.",
            "{ mmse: { column: mmse_total, min: 0, max: 30 } }",
        ),
        timeout=("Of one request.", "20s"),
    ),
    "CSVSource": _meanings(
        file=("The file; UTF-8, with a line of column names.", "scores.csv"),
        separator=("Between values: one character, or tab.", "';'"),
    ),
    "ParquetSource": _meanings(file=("The file.", "scores.parquet")),
    "SQLSource": _meanings(
        url=("URL of the database.", "postgresql+psycopg://reader:${env:PW}@db/research"),
        table=("Table or view, with its schema if need be.", "research.scores"),
    ),
    "REDCapSource": _meanings(
        url=("URL of its API.", "https://redcap.hospital.lan/api/"),
        token=(
            "Token of a user who may export; from a file or the environment.",
            "${file:redcap-token}",
        ),
        form=("Instrument; all fields where left out.", "cognition"),
        event=("Unique event name of a longitudinal project.", "baseline_arm_1"),
        ca=("Who signs its certificate, PEM; the system's where left out.", "pki/hospital-ca.pem"),
        page=("Record ids asked for at a time.", "500"),
    ),
    "TableField": _meanings(
        column=("Column; as the field is called where left out.", "mmse_total"),
        unit=("Unit of the values.", "mg/L"),
        unit_column=("Column with the unit, which must be that one.", "crp_unit"),
        min=("Lowest plausible value.", "0"),
        max=("Highest plausible value.", "30"),
    ),
    "RuleLines": _meanings(
        name=("Unique name.", "head-ct-haemorrhage"),
        mode=(
            "live; shadow: all but delivery; off; or a share of the studies live.",
            "{ canary: 10% }",
        ),
        when=(
            "What a series must be: DICOM keyword to value or operators. All lines must hold.",
            "{ Modality: CT }",
        ),
        run=("What scores it.", "{ pipeline: haemorrhage, model: haemorrhage-demo }"),
        level=(
            "series: each that fits, by itself. study: inputs are chosen once the study has come. "
            "Where left out: study where an input has pick or there are several, else series.",
            "study",
        ),
        priority=("urgent goes first, low last.", "routine"),
        inputs=("Named arguments of the model.", "{ ct: { pick: [most_slices] } }"),
        accept_result=(
            "Plausible results; others are held, and the reader is told.",
            "{ volume_ml: { max: 400 } }",
        ),
        deliver=("Where results go.", "[ { to: PACS } ]"),
        if_not_run=("How a reader hears that nothing was scored.", "{ tell_reader: sr }"),
        completion=("What this rule does differently from completion.", "{ if_incomplete: run }"),
        stop=("When it matches, rules of its level below it are not used.", "no"),
        expires=("Off from that day on.", "2026-12-31"),
        note=("For people.", "ask the stroke team"),
        owner=("Whom to ask.", "radiology-it"),
    ),
    "ModeLine": _meanings(canary=("Live for this share, shadow for the others.", "10%")),
    "Run": _meanings(
        pipeline=("Name of a pipeline.", "haemorrhage"),
        model=("Name of a model package.", "haemorrhage-demo"),
        version=("Version that the package must have, in quotes.", "'1.x'"),
        timeout=("Most time of one step, hard; at most 24h.", "10m"),
        gpu_memory=("How much it needs: a hint.", "6GB"),
        report=("Template of the report; without, what the pipeline makes of it.", "report.yaml"),
    ),
    "RuleCompletion": _meanings(
        if_incomplete=("hold, run or discard a series that is proved incomplete.", "hold"),
        late_instances=("rerun_if_changed, ignore or hold.", "ignore"),
    ),
    "IfNotRun": _meanings(
        tell_reader=("By which objects: sr, capture.", "[sr, capture]"),
        after=("So long after the job was opened a reader hears that it still runs.", "30m"),
    ),
    "ConditionLine": _meanings(
        equals=("This value, whatever its case. A bare value means the same.", "CT"),
        any_of=("One of these values.", "[HEAD, BRAIN]"),
        not_=("None of these values.", "[MR]"),
        matches=("Regular expression that is found in the value.", "'(?i)head|brain'"),
        not_matches=("Regular expression that is not found in it.", "'(?i)angio'"),
        includes=("Values of which all are there, in one instance at least.", "[ORIGINAL]"),
        excludes=("Values of which none is there, in no instance.", "[LOCALIZER]"),
        min=("Lowest number, date or age.", "18y"),
        max=("Highest number, date or age.", "6mm"),
        present=("Whether the attribute is there.", "no"),
        if_missing=("fail: not met; ignore: the line is skipped; hold: an admin decides.", "hold"),
    ),
    "InputLines": _meanings(
        header=("What the series must be, beside when.", "{ SliceThickness: { max: 6mm } }"),
        image=("What its geometry must be.", "{ plane: axial, gap_free: yes }"),
        pick=(
            "How to choose when several fit, the first word first: { nearest: ... }, most_slices, "
            "newest, oldest.",
            "[ { nearest: { SliceThickness: 5 } }, newest ]",
        ),
        if_ambiguous=("When several are left: hold, the best (always the same), or each.", "hold"),
        retrieve_from=("An earlier series, from this peer.", "PACS"),
        like=("The input whose lines it must satisfy.", "t1"),
        older_than=("At least so long before the study.", "90d"),
        newest=("So many studies at most, the newest first.", "1"),
        table=("A row of this table.", "cognitive-scores"),
        key=("Attribute whose value names the row.", "PatientID"),
        newest_within=("The newest row, at most so far from the study's date.", "180d"),
        result_of=("What this rule found in the same study.", "segment-t1"),
        optional=("Whether the model may run without.", "yes"),
        if_missing=(
            "hold: wait until it is there; fail: not scored; ignore: go on without.",
            "hold",
        ),
    ),
    "ImageGate": _meanings(
        plane=("axial, sagittal, coronal or oblique.", "axial"),
        slices=("How many distinct positions.", "{ min: 20, max: 400 }"),
        gap_free=("Whether no step is over 1.5 times the usual one.", "yes"),
        min_coverage=("From the first slice to the last.", "120mm"),
        spacing=("Every step from slice to slice.", "{ max: 6mm }"),
        tilt=("Of the slices against their direction.", "{ max: 30deg }"),
        orientation=("single: all slices lie parallel.", "single"),
        frames=("Frames of all instances together.", "{ max: 2000 }"),
        content=("What the pixels show; the model looks before it runs.", "head-ct"),
        if_missing=("What follows where headers do not say.", "fail"),
    ),
    "Counts": _meanings(min=("Lowest.", "20"), max=("Highest.", "400")),
    "Lengths": _meanings(min=("Shortest.", "0.4mm"), max=("Longest.", "6mm")),
    "Angles": _meanings(min=("Smallest.", "0deg"), max=("Largest.", "30deg")),
    "Destination": _meanings(
        to=("A peer with an address.", "PACS"),
        send=(
            "What is sent: sr seg capture; or labelmap in place of seg, sr3d in place of sr, "
            "outlines, text, pdf, rtstruct. Reports are sent last.",
            "[sr, seg, capture]",
        ),
        only_if=(
            "Only where results are within these limits.",
            "{ volume_ml: { min: 1 } }",
        ),
        series=("Series Number and Description of the results.", "{ number: 9101 }"),
        if_refused=("What is sent in place of what it does not take.", "{ seg: capture }"),
        confirm=("How it is proved that they are there.", "[commitment, find]"),
        retry=("When it is tried again.", "{ after: [30s, 10m], give_up: 3d }"),
    ),
    "Limits": _meanings(min=("Lowest.", "0"), max=("Highest.", "400")),
    "ResultSeries": _meanings(
        number=(
            "Of the sr; the seg takes the next, then capture, labelmap, sr3d, outlines, text, pdf, "
            "rtstruct.",
            "9101",
        ),
        description=("At most 64 characters; the rule's name where left out.", "AI ICH"),
    ),
    "Fallbacks": _meanings(
        seg=("capture or sr.", "capture"),
        labelmap=("capture or sr.", "capture"),
        rtstruct=("capture or sr.", "capture"),
        sr=("text, pdf or capture.", "pdf"),
        sr3d=("sr, text, pdf or capture.", "sr"),
        outlines=("capture or text.", "capture"),
        text=("pdf or capture.", "pdf"),
        capture=("pdf or sr.", "pdf"),
        pdf=("capture.", "capture"),
    ),
    "Retry": _meanings(
        after=("Waits before the next attempts; the last one repeats.", "[30s, 2m, 10m, 1h]"),
        give_up=("After so long it is kept, reported, and tried no more.", "3d"),
    ),
}
