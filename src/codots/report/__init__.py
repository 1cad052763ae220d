"""Report pages of runs, written to disk or served to a browser."""
