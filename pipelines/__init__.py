"""The order of work: steps, actors, broker and runner."""
