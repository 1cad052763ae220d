"""Shared basics: random streams, files, processes, error messages."""
