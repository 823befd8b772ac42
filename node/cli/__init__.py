"""The command line: what an admin types."""
