"""An Application Entity: sockets, YAML, command line and processes."""
