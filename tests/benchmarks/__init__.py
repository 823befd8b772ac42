"""The benchmarks run; what they print is measured elsewhere."""
