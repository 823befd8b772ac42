"""pynetdicom as its documentation shows it: ``python -m benchmarks.plain_pynetdicom PORT FOLDER``.

The fastest handler its documentation has: the bytes are written as they came, nothing is decoded.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt


def main(port: int, folder: Path) -> None:
    """Receive until killed."""
    folder.mkdir(parents=True, exist_ok=True)

    def store(event: evt.Event) -> int:
        with (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").open("wb") as file:  # type: ignore[union-attr]
            file.write(event.encoded_dataset())
        return 0x0000

    ae = AE("ANY")
    ae.maximum_associations = 64
    ae.maximum_pdu_size = 131_072
    ae.supported_contexts = AllStoragePresentationContexts
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
