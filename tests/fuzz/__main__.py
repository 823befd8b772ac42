"""Fuzz: ``python -m tests.fuzz [--pdus N] [--conversations N] [--data-sets N] [--series N]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.node import rate, running_child
from tests.fuzz.conversion import fuzz_series
from tests.fuzz.drivers import fuzz_conversations, fuzz_data_sets, fuzz_pdus


def main(arguments: list[str]) -> int:
    """Run all three and say how many were tried."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--pdus", type=int, default=1_000_000)
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--data-sets", type=int, default=1_000_000)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    print("series", fuzz_series(chosen.series, chosen.seed), f"{time.monotonic() - began:.0f} s")
    print("PDUs", fuzz_pdus(chosen.pdus, chosen.seed), f"{time.monotonic() - began:.0f} s")
    print("data sets", fuzz_data_sets(chosen.data_sets, chosen.seed))
    with tempfile.TemporaryDirectory() as folder, running_child(Path(folder)) as child:
        rate(child, 2.0)
        base = child.usage()
        print("conversations", fuzz_conversations(child, chosen.conversations, chosen.seed))
        assert rate(child, 2.0) > 0
        print("before", base, "after", child.usage())
    print(f"{time.monotonic() - began:.0f} s, seed {chosen.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
