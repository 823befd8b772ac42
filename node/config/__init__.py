"""The configuration file: YAML in, frozen values out, every mistake at once."""
