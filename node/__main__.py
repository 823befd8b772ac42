"""``python -m node`` is the command ``scorenode``."""

from node.cli import main

main()
