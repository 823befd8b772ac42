"""The process that `models.importer` starts: shuts itself in, then reads a foreign file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from models.importer import MOST_BYTES, SECONDS


def main(source: Path, out: int, memory_bytes: int) -> None:
    """Convert one file; the only line of output is JSON, and says how it went."""
    import torch  # before the doors close: it opens files and starts threads
    from safetensors.torch import save

    from models.foreign_weights import UnreadableWeights, read_weights
    from models.memory import is_out_of_memory
    from models.sandbox import NoSandbox, shut_in

    torch.set_num_threads(1)
    save({"warm": torch.zeros(1)})
    try:
        shut_in(memory_bytes, SECONDS, MOST_BYTES)
        tensors, facts = read_weights(source)
        data = memoryview(save(tensors))
        while data:
            data = data[os.write(out, data) :]
        answer: dict[str, Any] = {"facts": facts}
    except UnreadableWeights as error:
        answer = {"error": str(error)}
    except NoSandbox as error:
        answer = {"error": f"{error}. Convert it elsewhere and bring safetensors."}
    except OSError as error:
        answer = {"error": f"the temporary folder does not take what came out: {error.strerror}."}
    except Exception as error:  # noqa: BLE001 - the rim: every error is an answer
        answer = {"error": f"it could not be read ({type(error).__name__})."}
        if is_out_of_memory(error):
            answer = {
                "error": f"it takes more than the {memory_bytes / (1 << 30):.1f} GiB of memory "
                "that it may take here. Convert it on a larger machine and bring safetensors."
            }
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
