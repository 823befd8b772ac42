"""``python -m node`` is the command ``scorenode``."""

from node.cli.main import main

main()
