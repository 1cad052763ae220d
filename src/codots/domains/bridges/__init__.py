"""Bridges that wrap benchmarks of other packages as domains."""
