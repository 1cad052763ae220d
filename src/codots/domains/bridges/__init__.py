"""Bridges: benchmarks of other packages as domains."""
