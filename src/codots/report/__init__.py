"""Runs as one page to read, on disk or served."""
