"""What every room stands on: random streams, files, processes, the wording of errors."""
