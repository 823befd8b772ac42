"""The configuration file that `scorenode init` writes."""

from __future__ import annotations

from pathlib import Path

_TEXT = """\
# scorenode: what this node is, whom it talks to, and what it scores.
# Check it after every change:   scorenode config check scorenode.yaml
schema: 1

node:
  ae_title: SCORENODE
  listen: {{ host: 0.0.0.0, port: {port} }}
  # tls: {{ port: 2762, certificate: node.crt, key: node.key, authorities: hospital-ca.crt }}
  #                               # then also possible: listen: off
  data: {data}
  # station: ct-node-1            # stable id of this node in results; default: the host name
  # database: postgresql+psycopg://scorenode:${{file:/run/secrets/db}}@db.hospital.lan/scorenode
  #                               # default: SQLite in the data folder
  # broker: sql                   # sql (in the database), amqp://... (RabbitMQ) or redis://...
  # health: {{ host: 127.0.0.1, port: 8088 }}       # or: health: off
  # uid_root: 1.2.826.0.1.3680043.8.498.          # root of our UIDs; your own one is better:
  #                               # free at https://www.medicalconnections.co.uk/FreeUID
  # accept_from: [LOCAL]          # peers that may associate; default: all peers with sends_as
  # store: {{ kind: arena, ready: 256MB }}  # small objects share large files: several times faster
  #                               # on a local disk; default: files, one for each object
  disk: {{ refuse_free: 5% }}       # with less free, objects are refused and the sender keeps them
  #                               # ballast: 256MB is kept for rows and results; ballast: off
  workers: {{ cpu: 1, infer: 1 }}
  memory: {{ step: 8GB }}           # a step that takes more is ended

peers:
  # This machine, under any AE title: for a first try.
  LOCAL:
    sends_as: ['*']
    from_networks: [127.0.0.0/8, '::1/128']
  # Your PACS or scanner. `address` is where results go; `sends_as` are the calling AE titles it
  # uses when it sends to us.
  # PACS:
  #   address: {{ host: pacs.hospital.lan, port: 104, ae_title: MAINPACS }}
  #   sends_as: [MAINPACS]
  #   from_networks: [10.4.0.0/24]
  #   tls: required               # and, if wanted: certificate_names, fingerprints
  #   takes_demonstration: no     # yes: results of demonstration models may go there

completion:
  evidence: [header_counts, geometry] # what proves a series complete or not; or none
  quiet: 45s                      # without: it is complete when nothing came for so long,
  max_wait: 20m                   # and at the latest so long after its first instance

rules:
  - name: head-ct-haemorrhage
    mode: shadow                  # live | shadow (all but delivery) | off
    priority: urgent
    when:
      Modality: CT
      ImageType: {{ includes: [ORIGINAL, PRIMARY], excludes: [LOCALIZER] }}
      BodyPartExamined: {{ any_of: [HEAD, BRAIN], if_missing: ignore }}
      StudyDescription: {{ not_matches: '(?i)angio|cta|perf', if_missing: ignore }}
      PatientAge: {{ min: 18y, if_missing: ignore }}
      SliceThickness: {{ min: 0.4mm, max: 10mm, if_missing: ignore }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo, timeout: 10m }}
    # deliver:
    #   - to: PACS
    #     send: [sr, seg, capture]
    #     series: {{ number: 9101, description: 'AI ICH - not for diagnosis' }}

unmatched: {{ keep: 3d }}
retention: {{ inputs: 7d, results: 30d }}
"""


def default_config(data_folder: Path, port: int = 11112) -> str:
    """Return the text of a first ``scorenode.yaml``, with comments; it passes the check.

    Parameters
    ----------
    data_folder : Path
        Relative paths count from the file's own folder.
    port : int
        Where the node listens.
    """
    quoted = "'" + str(data_folder).replace("'", "''") + "'"
    return _TEXT.format(data=quoted, port=port)
