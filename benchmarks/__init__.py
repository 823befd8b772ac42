"""Side-by-side measurements with other programs of the same kind, on the machine at hand."""
